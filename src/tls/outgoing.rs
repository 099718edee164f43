//! The socket of a native session, and the ciphertext that it does not take at once.

use std::io;
use std::os::fd::{BorrowedFd, RawFd};

use relay::socket::{receive, send};

/// The socket and what is kept for it.
#[derive(Debug)]
pub(crate) struct Outgoing {
    fd: RawFd,
    kept: Vec<u8>,
    sent: usize,
    /// More follows at once, be it a FIN: the kernel may send all of it together.
    more: bool,
    /// The socket's error.
    errno: Option<i32>,
}

impl Outgoing {
    pub(crate) fn new(fd: RawFd) -> Self {
        Self::with_kept(fd, Vec::new())
    }

    /// One that has something to send.
    pub(crate) fn with_kept(fd: RawFd, kept: Vec<u8>) -> Self {
        Outgoing { fd, kept, sent: 0, more: false, errno: None }
    }

    fn fd(&self) -> BorrowedFd<'_> {
        // SAFETY: open for as long as the session lives, by who had it taken over or thawed.
        unsafe { BorrowedFd::borrow_raw(self.fd) }
    }

    /// Receives. `Ok(0)` is the end.
    pub(crate) fn receive(&self, buffer: &mut [u8]) -> io::Result<usize> {
        receive(self.fd(), buffer)
    }

    /// The error that sending came upon.
    pub(crate) fn check(&self) -> io::Result<()> {
        self.errno.map_or(Ok(()), |errno| Err(io::Error::from_raw_os_error(errno)))
    }

    /// Bytes kept.
    pub(crate) fn kept(&self) -> usize {
        self.kept.len() - self.sent
    }

    /// What is kept.
    pub(crate) fn kept_bytes(&self) -> &[u8] {
        &self.kept[self.sent..]
    }

    /// Sends, and keeps what the socket does not take: what was sealed must go, or the numbers of
    /// what follows are wrong.
    pub(crate) fn send(&mut self, mut bytes: &[u8], more: bool) -> io::Result<()> {
        self.check()?;
        self.more = more;
        while self.kept() == 0 && !bytes.is_empty() {
            match send(self.fd(), bytes, more) {
                Ok(0) => break,
                Ok(n) => bytes = bytes.get(n..).unwrap_or_default(),
                Err(error) => return Err(self.fail(error)),
            }
        }
        if bytes.is_empty() {
            return Ok(());
        }
        if self.sent >= self.kept() {
            self.kept.drain(..self.sent);
            self.sent = 0;
        }
        self.kept.extend_from_slice(bytes);
        Ok(())
    }

    /// Sends what is kept; `WouldBlock` while some remains.
    pub(crate) fn flush(&mut self) -> io::Result<()> {
        while self.kept() > 0 {
            match send(self.fd(), &self.kept[self.sent..], self.more) {
                Ok(0) => return Err(io::ErrorKind::WouldBlock.into()),
                Ok(n) => self.sent += n,
                Err(error) => return Err(self.fail(error)),
            }
        }
        // The capacity goes too: an idle session keeps nothing.
        self.kept = Vec::new();
        self.sent = 0;
        Ok(())
    }

    fn fail(&mut self, error: io::Error) -> io::Error {
        self.errno = error.raw_os_error();
        error
    }
}
