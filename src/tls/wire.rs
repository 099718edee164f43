//! The socket below a session: one that takes everything it is given.
//!
//! What the socket does not take is kept, so that `SSL_write` always completes. An unfinished
//! write would be in the way of whatever a read has to answer (OpenSSL fails with "bad length"
//! on a KeyUpdate then). Errors and the end never pass through OpenSSL, which would make them
//! its own and forbid the other direction: they are noted here, and OpenSSL is told to retry.

use std::io;
use std::os::fd::{BorrowedFd, RawFd};

use relay::socket::{receive, send};

/// The most ciphertext that reading may add to what is kept, in bytes: a peer that asks for
/// answers (KeyUpdate) without reading them gets no further.
pub(crate) const ANSWERS: usize = 256 * 1024;

/// The most records that OpenSSL gets for one read: it goes through all those without data that it
/// can get before it comes back, and new keys (KeyUpdate) take some 20 us each.
pub(crate) const RECORDS: usize = 8;

/// The most reads of the wire that bring bytes for one read of OpenSSL's, while it is not known where
/// records begin. A record takes two, its header and the rest. Odd, so that OpenSSL does not stand
/// within a record after each share of them.
const UNFOLLOWED_READS: usize = 2 * RECORDS - 1;

/// The socket and what is kept for it.
#[derive(Debug)]
pub(crate) struct Wire {
    fd: RawFd,
    /// What was read of the socket and not yet passed on.
    ahead: Vec<u8>,
    /// Where records begin; none if that is not known.
    records: Option<Records>,
    /// Meanwhile: how many reads have brought bytes since OpenSSL was last allowed some.
    reads: usize,
    kept: Vec<u8>,
    sent: usize,
    /// The most that may be kept.
    limit: usize,
    /// The socket was found empty and not asked again since.
    pub empty: bool,
    /// The last read was told to come again for want of bytes.
    pub starved: bool,
    /// The socket came to its end.
    pub ended: bool,
    /// More than `limit` would have been kept.
    pub overflowed: bool,
    /// Nothing more may be written: it is dropped silently.
    pub finished: bool,
    /// More follows at once, be it a FIN: the kernel may send all of it together.
    pub more: bool,
    /// The socket's error.
    pub errno: Option<i32>,
}

/// Follows the records that OpenSSL is given, by their headers (RFC 8446 5.1).
#[derive(Debug, Default)]
struct Records {
    /// Bytes of the present record still to come.
    left: usize,
    head: [u8; 5],
    have: usize,
    /// How many OpenSSL was given since it was last allowed some.
    begun: usize,
}

impl Records {
    /// Follows `bytes` up to where one record too many would begin, and returns how many that are.
    #[inline]
    fn follow(&mut self, bytes: &[u8]) -> usize {
        let mut at = 0;
        loop {
            let rest = self.left.min(bytes.len() - at);
            self.left -= rest;
            at += rest;
            if at == bytes.len() || (self.begun == RECORDS && self.have == 0) {
                return at;
            }
            if self.have == 0 {
                self.begun += 1;
            }
            let part = (self.head.len() - self.have).min(bytes.len() - at);
            self.head[self.have..self.have + part].copy_from_slice(&bytes[at..at + part]);
            self.have += part;
            at += part;
            if self.have == self.head.len() {
                let [_, _, _, high, low] = self.head;
                self.left = u16::from_be_bytes([high, low]).into();
                self.have = 0;
            }
        }
    }
}

impl Wire {
    /// Of a socket, of which `ahead` was read before.
    pub(crate) fn new(fd: RawFd, ahead: Vec<u8>) -> Self {
        Self {
            fd,
            ahead,
            records: None,
            reads: 0,
            kept: Vec::new(),
            sent: 0,
            limit: ANSWERS,
            empty: false,
            starved: false,
            ended: false,
            overflowed: false,
            finished: false,
            more: false,
            errno: None,
        }
    }

    fn fd(&self) -> BorrowedFd<'_> {
        // SAFETY: open for as long as the session lives, by who had it take the socket over
        // (`Session::take_over`), and the wire is used by nobody else.
        unsafe { BorrowedFd::borrow_raw(self.fd) }
    }

    /// What comes next is the beginning of a record.
    pub(crate) fn follow_records(&mut self) {
        self.records = Some(Records::default());
    }

    /// Whether it is known where records begin.
    pub(crate) fn follows_records(&self) -> bool {
        self.records.is_some()
    }

    /// How many records OpenSSL was given since this was asked last, or as many as may be, if that is
    /// not known. It may have as many as [`RECORDS`] again.
    pub(crate) fn take_begun(&mut self) -> usize {
        match &mut self.records {
            Some(records) => std::mem::take(&mut records.begun),
            None => std::mem::take(&mut self.reads).div_ceil(2),
        }
    }

    /// Whether OpenSSL has the first part of a record, as far as that is known.
    pub(crate) fn is_within_record(&self) -> bool {
        self.records.as_ref().is_some_and(|records| records.left > 0 || records.have > 0)
    }

    /// Whether something was read of the socket and not yet passed on.
    pub(crate) fn has_ahead(&self) -> bool {
        !self.ahead.is_empty()
    }

    /// Takes that away.
    pub(crate) fn take_ahead(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.ahead)
    }

    /// How much of `bytes` is to be passed on.
    fn follow(&mut self, bytes: &[u8]) -> usize {
        if let Some(records) = &mut self.records {
            return records.follow(bytes);
        }
        if self.reads == UNFOLLOWED_READS {
            return 0;
        }
        self.reads += 1;
        bytes.len()
    }

    pub(crate) fn kept(&self) -> usize {
        self.kept.len() - self.sent
    }

    /// Whatever is written now comes from us and is kept, be it much.
    pub(crate) fn lift_limit(&mut self) {
        self.limit = usize::MAX;
    }

    /// What is written from now on answers the peer.
    pub(crate) fn set_limit(&mut self) {
        self.limit = self.kept().saturating_add(ANSWERS);
    }

    /// Sends what is kept; `WouldBlock` while some remains.
    pub(crate) fn flush(&mut self) -> io::Result<()> {
        while self.kept() > 0 {
            match send(self.fd(), &self.kept[self.sent..], self.more)? {
                0 => return Err(io::ErrorKind::WouldBlock.into()),
                n => self.sent += n,
            }
        }
        // The capacity goes too: an idle session keeps nothing.
        self.kept = Vec::new();
        self.sent = 0;
        self.set_limit();
        Ok(())
    }

    /// Sends, and keeps what the socket does not take. Never fails: see `errno`, `overflowed`.
    pub(crate) fn write(&mut self, mut bytes: &[u8]) {
        if self.finished || self.errno.is_some() {
            return;
        }
        while self.kept() == 0 && !bytes.is_empty() {
            match send(self.fd(), bytes, self.more) {
                Ok(0) => break,
                Ok(n) => bytes = bytes.get(n..).unwrap_or_default(),
                Err(error) => {
                    self.errno = error.raw_os_error();
                    return;
                }
            }
        }
        if self.kept().saturating_add(bytes.len()) > self.limit {
            self.overflowed = true;
            return;
        }
        if self.sent >= self.kept() {
            self.kept.drain(..self.sent);
            self.sent = 0;
        }
        self.kept.extend_from_slice(bytes);
    }

    /// Receives. `None` when OpenSSL is to come again, for the reason noted.
    pub(crate) fn read(&mut self, buffer: &mut [u8]) -> Option<usize> {
        if !self.ahead.is_empty() {
            let n = buffer.len().min(self.ahead.len());
            buffer[..n].copy_from_slice(&self.ahead[..n]);
            let n = self.follow(&buffer[..n]);
            self.ahead.drain(..n);
            if self.ahead.is_empty() {
                self.ahead = Vec::new();
            }
            // None when it has had its share.
            return (n > 0).then_some(n);
        }
        if self.empty {
            self.starved = true;
            return None;
        }
        match receive(self.fd(), buffer) {
            Ok(0) => {
                self.ended = true;
                None
            }
            Ok(n) => {
                // Readiness is told by its edges: a short read has emptied the socket. Where an urgent
                // byte stopped it, who reads asks again (relay's Stream).
                self.empty = n < buffer.len();
                let passed = self.follow(&buffer[..n]);
                self.ahead = buffer[passed..n].to_vec();
                (passed > 0).then_some(passed)
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                self.empty = true;
                self.starved = true;
                None
            }
            Err(error) => {
                self.errno = error.raw_os_error();
                None
            }
        }
    }
}

#[cfg(test)]
mod tests;
