//! How a relay is set up.

use std::os::fd::RawFd;
use std::time::Duration;

use crate::keepalive::KeepAlive;

/// How a relay is set up.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Relay threads, at least 1.
    pub threads: usize,
    /// The buffer each thread reads into, in bytes, at least 4096; also the bound of what is
    /// kept per direction of a tunnel.
    pub buffer_size: usize,
    /// How peers are found out that are gone without a word. Without it only the kernel's patience
    /// with what was sent ends their tunnels.
    pub keep_alive: Option<KeepAlive>,
    /// How long a thread must have carried a tunnel before keepalive is turned on for it. Most
    /// short tunnels end before this, and are spared the system calls.
    pub probation: Duration,
    /// For how long a side may leave a message of TLS's own incomplete; see
    /// [`Tls::is_within_message`](crate::Tls::is_within_message).
    pub message_timeout: Duration,
    /// Descriptors that the relay makes for itself are not below this, if there is room above.
    pub lowest_descriptor: RawFd,
}

impl Default for Settings {
    fn default() -> Self {
        Settings {
            threads: 1,
            buffer_size: 256 * 1024,
            keep_alive: None,
            probation: Duration::from_secs(3),
            message_timeout: Duration::from_secs(60),
            lowest_descriptor: 0,
        }
    }
}
