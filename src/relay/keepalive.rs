//! Finding out that a peer is gone while nothing is sent to it.

use std::io;
use std::os::fd::BorrowedFd;
use std::time::Duration;

use socket2::{SockRef, TcpKeepalive};

use crate::watch::Patience;

/// TCP keepalive of both sockets of a tunnel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeepAlive {
    /// Seconds of silence before the first probe.
    pub idle_seconds: u32,
    /// Seconds between probes.
    pub interval_seconds: u32,
    /// Probes without an answer before the peer counts as gone.
    pub probes: u32,
}

impl KeepAlive {
    /// Turns it on for a socket. A unix socket does without: its peer cannot go unnoticed.
    ///
    /// # Errors
    /// The kernel's, for a socket that is not TCP above all.
    pub fn turn_on(self, socket: BorrowedFd<'_>) -> io::Result<()> {
        // No TCP_USER_TIMEOUT: it would end the tunnel of a peer that is there and does not read.
        let options = TcpKeepalive::new()
            .with_time(self.idle())
            .with_interval(self.interval())
            .with_retries(self.probes);
        SockRef::from(&socket).set_tcp_keepalive(&options)
    }

    /// How long a peer may acknowledge nothing of what it was sent: as long as it may leave probes
    /// unanswered, of which TCP sends none then.
    pub(crate) fn patience(self) -> Patience {
        Patience { interval: self.interval(), limit: self.idle() + self.interval() * self.probes }
    }

    fn idle(self) -> Duration {
        Duration::from_secs(self.idle_seconds.into())
    }

    fn interval(self) -> Duration {
        Duration::from_secs(self.interval_seconds.into())
    }
}
