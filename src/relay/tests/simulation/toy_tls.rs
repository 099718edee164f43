//! A TLS that hides nothing, so that the simulation can cut its records anywhere: each has two
//! bytes of length and a body. A length of 0xffff is close_notify.

use std::collections::VecDeque;
use std::ffi::c_void;
use std::io::{self, Read};
use std::os::fd::{AsRawFd, BorrowedFd, RawFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use relay::{Budget, Tls};

/// The longest body of a record.
pub(crate) const MOST: usize = 4000;
const CLOSE: u16 = 0xffff;
/// What a record costs, see [`Budget`].
const COST: usize = 500;

/// Appends one record.
pub(crate) fn seal(out: &mut VecDeque<u8>, body: &[u8]) {
    out.extend((body.len() as u16).to_be_bytes());
    out.extend(body);
}

/// Appends close_notify.
pub(crate) fn seal_close(out: &mut VecDeque<u8>) {
    out.extend(CLOSE.to_be_bytes());
}

/// What comes of a record.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Record {
    Body(Vec<u8>),
    Close,
    Bad,
}

/// Takes one record, if it is whole.
pub(crate) fn open(from: &mut VecDeque<u8>) -> Option<Record> {
    let length = u16::from_be_bytes([*from.front()?, *from.get(1)?]);
    if length == CLOSE {
        from.drain(..2);
        return Some(Record::Close);
    }
    let length = usize::from(length);
    if length > MOST {
        return Some(Record::Bad);
    }
    if from.len() < 2 + length {
        return None;
    }
    from.drain(..2);
    let mut body = vec![0; length];
    from.read_exact(&mut body).ok()?;
    Some(Record::Body(body))
}

/// The session that was frozen, on a copy of its descriptor.
pub(crate) fn thaw(frozen: &mut &[u8], fd: BorrowedFd<'_>) -> Option<Box<dyn Tls>> {
    let (bytes, rest) = frozen.split_first_chunk()?;
    *frozen = rest;
    // SAFETY: what `freeze` left there, which each test thaws once.
    let mut toy = unsafe {
        Box::from_raw(std::ptr::with_exposed_provenance_mut::<Toy>(usize::from_le_bytes(*bytes)))
    };
    toy.fd = fd.as_raw_fd();
    Some(toy)
}

/// A session of the relay's.
pub(crate) struct Toy {
    fd: RawFd,
    inbound: VecDeque<u8>,
    /// Opened, and not yet read.
    plain: VecDeque<u8>,
    kept: VecDeque<u8>,
    is_clean: bool,
    is_over: bool,
    is_closed: bool,
    /// It failed, and may not be asked again.
    has_failed: bool,
    /// Bytes that were sealed.
    written: Arc<AtomicU64>,
}

impl Toy {
    pub(crate) fn new(fd: RawFd, written: Arc<AtomicU64>) -> Self {
        Toy {
            fd,
            inbound: VecDeque::new(),
            plain: VecDeque::new(),
            kept: VecDeque::new(),
            is_clean: false,
            is_over: false,
            is_closed: false,
            has_failed: false,
            written,
        }
    }

    fn send(&mut self) -> io::Result<()> {
        while !self.kept.is_empty() {
            let bytes = self.kept.make_contiguous();
            let flags = libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL;
            let data = bytes.as_ptr().cast::<c_void>();
            // SAFETY: bytes of ours; the tunnel has the descriptor for as long as its session.
            let n = unsafe { libc::send(self.fd, data, bytes.len(), flags) };
            match usize::try_from(n) {
                Ok(n) => drop(self.kept.drain(..n)),
                Err(_) => match io::Error::last_os_error() {
                    error if error.kind() == io::ErrorKind::Interrupted => {}
                    error => return Err(error),
                },
            }
        }
        self.kept = VecDeque::new();
        Ok(())
    }

    /// What cannot be sent now is kept.
    fn try_send(&mut self) -> io::Result<()> {
        match self.send() {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(()),
            result => result,
        }
    }

    fn receive(&mut self) -> io::Result<usize> {
        let mut bytes = [0; 2000];
        loop {
            let room = bytes.as_mut_ptr().cast::<c_void>();
            // SAFETY: room of ours; as in `send`.
            let n = unsafe { libc::recv(self.fd, room, bytes.len(), libc::MSG_DONTWAIT) };
            match usize::try_from(n) {
                Ok(n) => {
                    self.inbound.extend(&bytes[..n]);
                    return Ok(n);
                }
                Err(_) => match io::Error::last_os_error() {
                    error if error.kind() == io::ErrorKind::Interrupted => {}
                    error => return Err(error),
                },
            }
        }
    }
}

impl Tls for Toy {
    fn read(&mut self, buffer: &mut [u8], budget: &mut Budget) -> io::Result<usize> {
        assert!(!self.has_failed, "read after a failure");
        loop {
            if !self.plain.is_empty() {
                return self.plain.read(buffer);
            }
            if self.is_over {
                return Ok(0);
            }
            if budget.is_spent() {
                return Err(io::ErrorKind::Interrupted.into());
            }
            match open(&mut self.inbound) {
                Some(Record::Body(body)) => {
                    budget.charge(COST);
                    self.plain.extend(body);
                }
                Some(Record::Close) => (self.is_clean, self.is_over) = (true, true),
                Some(Record::Bad) => {
                    self.has_failed = true;
                    return Err(io::Error::other("a bad record"));
                }
                None => self.is_over = self.receive()? == 0,
            }
        }
    }

    fn closed_cleanly(&self) -> bool {
        self.is_clean
    }

    fn write(&mut self, bytes: &[u8], _: bool) -> io::Result<()> {
        assert!(!self.has_failed, "written after a failure");
        bytes.chunks(MOST).for_each(|body| seal(&mut self.kept, body));
        self.try_send()?;
        self.written.fetch_add(bytes.len() as u64, Relaxed);
        Ok(())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.send()
    }

    fn kept(&self) -> usize {
        self.kept.len()
    }

    fn frozen_bytes(&self) -> Option<usize> {
        Some(size_of::<usize>())
    }

    /// The test's process stays the same: the bytes say where it is.
    fn freeze(self: Box<Self>, out: &mut Vec<u8>) {
        out.extend(Box::into_raw(self).expose_provenance().to_le_bytes());
    }

    fn close(&mut self) -> io::Result<()> {
        assert!(!self.is_closed && !self.has_failed, "it is closed once, and not after a failure");
        self.is_closed = true;
        seal_close(&mut self.kept);
        self.try_send()
    }
}
