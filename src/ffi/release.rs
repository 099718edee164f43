//! How a connection leaves httpd: the descriptor and the TLS session go to somebody else, and httpd
//! closes what it has left of both without a word to the peer.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};

use tls::Taken;

use super::connection::Connection;
use super::openssl::SslRef;

/// The TLS session of a connection that was handed over, if it has one.
pub(crate) type HandedOverTls = Option<io::Result<Taken>>;

impl Connection<'_> {
    /// Takes the socket, and the TLS session, away from httpd: `fd` is a duplicate of the socket,
    /// `ciphertext` is what httpd has read from it and the session has not yet seen. When httpd has
    /// closed its own socket, `then` is called with the descriptor, the session, and the lines
    /// of access logs that were kept. Until then
    /// nobody may use them. Without [`Self::abort`] httpd would still send close_notify and shut
    /// the socket down.
    pub(crate) fn hand_over(
        &self,
        fd: OwnedFd,
        ciphertext: Vec<u8>,
        then: impl FnOnce(OwnedFd, HandedOverTls, Vec<u8>) + Send + 'static,
    ) {
        // SAFETY: the connection keeps it alive.
        let ssl = self.ssl().and_then(|ssl| unsafe { SslRef::new(ssl) });
        self.at_close(move |lines| {
            // SAFETY: `at_close` runs after mod_ssl's cleanup, so mod_ssl has given up its
            // reference, and while the pool's memory is still valid. The session goes where the
            // descriptor goes, and is dropped before it.
            let session = ssl.map(|ssl| unsafe { ssl.take_over(fd.as_raw_fd(), ciphertext) });
            then(fd, session, lines);
        });
    }

    /// Whether the connection was handed over.
    pub(crate) fn is_handed_over(&self) -> bool {
        self.has_at_close()
    }
}
