//! How a relay is set up.

use std::os::fd::RawFd;
use std::time::Duration;

#[cfg(doc)]
use crate::end::Record;
use crate::watch::Patience;

/// How a relay is set up.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Relay threads, at least 1.
    pub threads: usize,
    /// The buffer each thread reads into, in bytes, at least 4096; also the bound of what is
    /// kept per direction of a tunnel.
    pub buffer_size: usize,
    /// How long a tunnel ended by its idle timeout waits for its peers to end too.
    pub linger: Duration,
    /// How long a tunnel must be carried to be one that lasts, see [`Record::lasts`].
    pub lasting: Duration,
    /// How long a peer may acknowledge nothing of what it is sent; none for as long as the kernel
    /// has patience.
    pub patience: Option<Patience>,
    /// Descriptors that the relay makes for itself are not below this, if there is room above.
    pub lowest_descriptor: RawFd,
}

impl Default for Settings {
    fn default() -> Self {
        Settings {
            threads: 1,
            buffer_size: 256 * 1024,
            linger: Duration::from_secs(2),
            lasting: Duration::from_secs(3),
            patience: None,
            lowest_descriptor: 0,
        }
    }
}
