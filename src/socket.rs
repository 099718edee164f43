//! The descriptors that the relay gets.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::sync::atomic::{AtomicI32, Ordering};
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

/// Where the descriptors end that select() knows, and modules that use it.
pub const SELECTABLE: RawFd = 1024;

/// The lowest number that a descriptor of the relay should have: lower ones stay for
/// httpd and those modules.
static LOWEST: AtomicI32 = AtomicI32::new(SELECTABLE);

/// The lowest number that a descriptor of the relay should have.
pub fn lowest() -> RawFd {
    LOWEST.load(Ordering::Relaxed)
}

/// Raises the soft limit of descriptors to the hard one, in a child process, and
/// returns the limit. What httpd had to itself before stays its own.
pub fn raise_limit() -> io::Result<u64> {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: the structure is ours.
    check(unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit) })?;
    let before = limit.rlim_cur;
    if before < limit.rlim_max {
        limit.rlim_cur = limit.rlim_max;
        // SAFETY: the structure is ours.
        check(unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit) })?;
        let lowest = RawFd::try_from(before).unwrap_or(RawFd::MAX).max(SELECTABLE);
        LOWEST.store(lowest, Ordering::Relaxed);
    }
    Ok(limit.rlim_cur)
}

/// Has the kernel make room for as many descriptors as `tunnels` need, up to a bound. To be called
/// while the process has one thread: with more the kernel must wait for all of them each time that
/// its table grows, some 20 ms.
pub fn make_room(tunnels: u64) {
    /// Eight bytes each.
    const MOST: u64 = 16 * 1024;
    let room = RawFd::try_from((2 * tunnels).clamp(1, MOST)).unwrap_or(1);
    // SAFETY: standard error is open in a child; the copy is closed at once.
    unsafe {
        let copy = libc::fcntl(libc::STDERR_FILENO, libc::F_DUPFD_CLOEXEC, lowest() + room - 1);
        if copy >= 0 {
            libc::close(copy);
        }
    }
}

/// A duplicate above the descriptors that httpd uses; as far below as it must be, if
/// there is no room above.
pub fn duplicate(fd: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    let none_there =
        |error: &io::Error| matches!(error.raw_os_error(), Some(libc::EINVAL | libc::EMFILE));
    let mut result = duplicate_from(fd, lowest());
    for lower in [SELECTABLE, 3] {
        if result.as_ref().is_err_and(none_there) {
            result = duplicate_from(fd, lower);
        }
    }
    result
}

fn duplicate_from(fd: BorrowedFd<'_>, lowest: RawFd) -> io::Result<OwnedFd> {
    // SAFETY: the descriptor is open for the length of the borrow.
    let copy = check(unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_DUPFD_CLOEXEC, lowest) })?;
    // SAFETY: just made, and nobody else's.
    Ok(unsafe { OwnedFd::from_raw_fd(copy) })
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

/// Whether a read would give something, an end included.
pub fn is_readable(fd: BorrowedFd<'_>) -> bool {
    let mut polled = libc::pollfd { fd: fd.as_raw_fd(), events: libc::POLLIN, revents: 0 };
    // SAFETY: one entry, and no waiting.
    unsafe { libc::poll(&raw mut polled, 1, 0) > 0 }
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
