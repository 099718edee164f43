//! A TLS session without OpenSSL's `SSL`.

use std::io;
use std::os::fd::RawFd;

use relay::{Budget, Tls};

use crate::context::Context;

/// A TLS session whose records are protected here, with I/O on a non-blocking descriptor of the
/// relay's.
#[derive(Debug)]
pub struct Native {
    _private: (),
}

impl Native {
    /// Appends its state, secrets included: it is gone here. For [`thaw`](Self::thaw) in a process that gets a
    /// copy of the descriptor. Whoever has the bytes wipes them ([`records::wipe`](crate::wipe)).
    pub fn freeze(self, _out: &mut Vec<u8>) {}

    /// The session that [`freeze`](Self::freeze) consumed, of the front of `frozen`, which is what
    /// remains. `None` if these are not its bytes, or sessions of this context cannot be native.
    ///
    /// # Safety
    /// `fd` is a copy of its descriptor, and open for as long as the session lives.
    pub unsafe fn thaw(
        _context: &'static Context,
        _frozen: &mut &[u8],
        _fd: RawFd,
    ) -> Option<Self> {
        None
    }
}

impl Tls for Native {
    fn read(&mut self, _: &mut [u8], _: &mut Budget) -> io::Result<usize> {
        Ok(0)
    }

    fn closed_cleanly(&self) -> bool {
        false
    }

    fn write(&mut self, _: &[u8], _: bool) -> io::Result<()> {
        Ok(())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }

    fn kept(&self) -> usize {
        0
    }

    fn close(&mut self) -> io::Result<()> {
        Ok(())
    }
}
