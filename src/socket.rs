//! TCP keepalive of both sockets of a tunnel.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::time::Duration;

use relay::Patience;

/// TCP keepalive of both sockets of a tunnel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KeepAlive {
    /// Seconds of silence before the first probe.
    pub idle: u32,
    /// Seconds between probes.
    pub interval: u32,
    /// Probes without an answer before the peer counts as gone.
    pub count: u32,
}

impl KeepAlive {
    /// The same for the relay, where something waits to be acknowledged: TCP sends no probes then.
    pub fn patience(self) -> Patience {
        let Self { idle, interval, count } = self;
        let most = interval.saturating_mul(count).saturating_add(idle);
        Patience {
            interval: Duration::from_secs(interval.into()),
            most: Duration::from_secs(most.into()),
        }
    }
}

/// Has the kernel find out when the peer of a tunnel is gone, while nothing is under way to it. Not
/// for unix sockets, whose peers cannot go unnoticed.
pub fn keep_alive(fd: BorrowedFd<'_>, keep_alive: KeepAlive) -> io::Result<()> {
    let KeepAlive { idle, interval, count } = keep_alive;
    if option(fd, libc::IPPROTO_TCP, libc::TCP_KEEPIDLE, idle).is_err() {
        return Ok(());
    }
    option(fd, libc::SOL_SOCKET, libc::SO_KEEPALIVE, 1)?;
    option(fd, libc::IPPROTO_TCP, libc::TCP_KEEPINTVL, interval)?;
    // No TCP_USER_TIMEOUT: it would end the tunnel of a peer that is there and does not read.
    option(fd, libc::IPPROTO_TCP, libc::TCP_KEEPCNT, count)
}

fn option(fd: BorrowedFd<'_>, level: i32, name: i32, value: u32) -> io::Result<()> {
    let value = libc::c_int::try_from(value).unwrap_or(libc::c_int::MAX);
    let length = libc::socklen_t::try_from(size_of_val(&value)).unwrap_or_default();
    // SAFETY: the descriptor is open, the value readable for its length.
    check(unsafe {
        libc::setsockopt(fd.as_raw_fd(), level, name, (&raw const value).cast(), length)
    })
    .map(drop)
}

fn check(result: libc::c_int) -> io::Result<libc::c_int> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}
