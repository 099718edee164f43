//! One side of a tunnel, as it is handed over.

use std::os::fd::OwnedFd;

use crate::tls::Tls;

/// One side of a new tunnel.
pub struct Side {
    /// Its TLS session, which works on the descriptor, and so is dropped before it.
    pub tls: Option<Box<dyn Tls>>,
    /// Its socket (TCP or unix stream), ours alone. It may become non-blocking. Options such as
    /// TCP_NODELAY are set by whoever made it.
    pub fd: OwnedFd,
    /// Bytes read from this side by its former owner, to be delivered to the other side before
    /// anything else.
    pub read_ahead: Vec<u8>,
}

impl Side {
    /// A side without TLS of which nothing was read.
    pub fn plain(fd: OwnedFd) -> Self {
        Side { tls: None, fd, read_ahead: Vec::new() }
    }
}

/// A side's descriptor and what speaks TLS on it.
pub(crate) struct Socket {
    // Before the descriptor it works on, so that it is dropped first.
    pub tls: Option<Box<dyn Tls>>,
    pub fd: OwnedFd,
    /// Its TLS failed, and is not asked again.
    pub failed: bool,
}
