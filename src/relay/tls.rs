//! What the relay asks of a TLS session.

use std::io;

use crate::budget::Budget;

/// One side's TLS session, which does its own I/O on that side's non-blocking descriptor.
///
/// Errors with an errno are the descriptor's, all others TLS's own (their text goes into the
/// tunnel's record). After an error only `flush` and `Drop` follow.
pub trait Tls: Send {
    /// Reads decrypted bytes. `Ok(0)` is the end, see [`closed_cleanly`](Self::closed_cleanly).
    /// What its records cost beyond those bytes is charged to `budget`, and no further record is
    /// looked at once that is spent.
    ///
    /// # Errors
    /// `WouldBlock`: nothing is to be had until the descriptor is readable again, and nothing
    /// that came is left inside except the first part of a record. `Interrupted`: the budget was
    /// spent without a byte to show for it; call again soon.
    fn read(&mut self, buffer: &mut [u8], budget: &mut Budget) -> io::Result<usize>;

    /// The descriptor may have become readable since the last `read`: the next one must ask it.
    /// A session that remembers having emptied its descriptor forgets that here.
    fn recheck(&mut self) {}

    /// Whether the end that `read` reported came with close_notify (RFC 8446 6.1).
    fn closed_cleanly(&self) -> bool;

    /// Whether the peer has sent the first part of a message of TLS's own (RFC 8446 4), for the rest of which
    /// room is held.
    fn is_within_message(&self) -> bool {
        false
    }

    /// Encrypts all of `bytes`. Ciphertext that the descriptor does not take is kept inside. If
    /// `more` follows at once the kernel may wait for it (MSG_MORE of send(2)).
    ///
    /// # Errors
    /// Never `WouldBlock`.
    fn write(&mut self, bytes: &[u8], more: bool) -> io::Result<()>;

    /// Sends kept ciphertext.
    ///
    /// # Errors
    /// `WouldBlock` while some remains.
    fn flush(&mut self) -> io::Result<()>;

    /// Bytes of ciphertext kept.
    fn kept(&self) -> usize;

    /// How many bytes [`freeze`](Self::freeze) appends. `None` for a session that cannot go to another
    /// process so.
    fn frozen_bytes(&self) -> Option<usize> {
        None
    }

    /// Appends its state, secrets included, for a process that gets a copy of the descriptor: it is gone
    /// here. Called only if [`frozen_bytes`](Self::frozen_bytes) says how many bytes that are, with room for them.
    fn freeze(self: Box<Self>, out: &mut Vec<u8>) {
        let _ = out;
    }

    /// Writes close_notify, once; nothing can be written afterwards, and a FIN follows at once.
    ///
    /// # Errors
    /// As `write`.
    fn close(&mut self) -> io::Result<()>;
}
