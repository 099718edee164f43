//! Pipes through which bytes go from socket to socket without being copied (splice(2)).

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use libc::{c_int, c_uint, c_void};

use crate::socket::returned;

/// The most pipes that the tunnels of one thread have at a time. Where none is left, bytes are
/// copied.
const MAX_PIPES: usize = 32;
/// The most empty pipes that a thread keeps for the next tunnels that need one.
const MAX_SPARE_PIPES: usize = 4;

/// The most descriptors that the pipes of one thread take.
pub const DESCRIPTORS_OF_PIPES: usize = 2 * MAX_PIPES;

/// The size asked of the kernel for a pipe. All pipes of a user without privileges together get
/// 64 MiB.
const PIPE_BYTES: c_int = 1 << 18;
/// A smaller pipe is not worth its system calls: a user who has many gets small ones (pipe(7)).
const MIN_PIPE_BYTES: c_int = 1 << 16;

/// A pipe and how much is in it.
#[derive(Debug)]
pub(crate) struct Pipe {
    out: OwnedFd,
    into: OwnedFd,
    length: usize,
    made: Arc<AtomicUsize>,
}

impl Drop for Pipe {
    fn drop(&mut self) {
        self.made.fetch_sub(1, Relaxed);
    }
}

impl Pipe {
    /// Its descriptors are not below `lowest`, if there is room above.
    fn new(made: &Arc<AtomicUsize>, lowest: RawFd) -> io::Result<Self> {
        let mut fds: [c_int; 2] = [-1; 2];
        // SAFETY: room for two descriptors.
        if unsafe { libc::pipe2(fds.as_mut_ptr(), libc::O_CLOEXEC | libc::O_NONBLOCK) } != 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: just made, and nobody else's.
        let [out, into] = fds.map(|fd| raised(unsafe { OwnedFd::from_raw_fd(fd) }, lowest));
        // SAFETY: an open descriptor and a number.
        let size = unsafe {
            libc::fcntl(into.as_raw_fd(), libc::F_SETPIPE_SZ, PIPE_BYTES);
            libc::fcntl(into.as_raw_fd(), libc::F_GETPIPE_SZ)
        };
        if size < MIN_PIPE_BYTES {
            return Err(io::ErrorKind::QuotaExceeded.into());
        }
        made.fetch_add(1, Relaxed);
        Ok(Pipe { out, into, length: 0, made: Arc::clone(made) })
    }

    /// Whether nothing is in it.
    pub(crate) fn is_empty(&self) -> bool {
        self.length == 0
    }

    /// Puts a frame header into the empty pipe, before its payload.
    ///
    /// # Errors
    /// The kernel's: nothing is in it then.
    pub(crate) fn put(&mut self, header: &[u8]) -> io::Result<()> {
        loop {
            // SAFETY: the kernel reads at most header.len() bytes from header, borrowed for the call.
            let n = unsafe {
                libc::write(self.into.as_raw_fd(), header.as_ptr().cast::<c_void>(), header.len())
            };
            // All of it or nothing: it is shorter than PIPE_BUF (pipe(7)).
            if let Some(result) = returned(n) {
                self.length += result?;
                return Ok(());
            }
        }
    }

    /// Moves at most `most` bytes from a socket into the pipe, in which there is no more than a frame
    /// header. `Ok(0)` is the socket's end, or an urgent byte behind which there is one.
    ///
    /// # Errors
    /// `WouldBlock` if the socket has nothing, or an urgent byte is next: such a pipe has room.
    pub(crate) fn fill(&mut self, from: BorrowedFd<'_>, most: usize) -> io::Result<usize> {
        let n = splice(from, self.into.as_fd(), most)?;
        self.length += n;
        Ok(n)
    }

    /// Moves what the socket takes. `Ok(0)` if it takes nothing now.
    pub(crate) fn drain(&mut self, to: BorrowedFd<'_>) -> io::Result<usize> {
        match splice(self.out.as_fd(), to, self.length) {
            Ok(n) => {
                self.length -= n.min(self.length);
                Ok(n)
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(0),
            Err(error) => Err(error),
        }
    }

    /// Takes all that is in it.
    pub(crate) fn take(mut self) -> io::Result<Vec<u8>> {
        let mut bytes = vec![0; self.length];
        let mut done = 0;
        while done < bytes.len() {
            let rest = &mut bytes[done..];
            // SAFETY: the kernel writes at most rest.len() bytes into rest, borrowed for the call.
            let n = unsafe {
                libc::read(self.out.as_raw_fd(), rest.as_mut_ptr().cast::<c_void>(), rest.len())
            };
            match returned(n) {
                Some(Ok(0)) => return Err(io::Error::from_raw_os_error(libc::EIO)),
                Some(Ok(n)) => done += n,
                Some(Err(error)) => return Err(error),
                None => {}
            }
        }
        self.length = 0;
        Ok(bytes)
    }
}

/// The same descriptor by a higher number, if one can be had.
fn raised(fd: OwnedFd, lowest: RawFd) -> OwnedFd {
    // SAFETY: an open descriptor and a number.
    let copy = unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_DUPFD_CLOEXEC, lowest) };
    // SAFETY: just made, and nobody else's.
    if copy < 0 { fd } else { unsafe { OwnedFd::from_raw_fd(copy) } }
}

fn splice(from: BorrowedFd<'_>, to: BorrowedFd<'_>, most: usize) -> io::Result<usize> {
    let flags: c_uint = libc::SPLICE_F_NONBLOCK | libc::SPLICE_F_MOVE;
    let (no_offset, none) = (std::ptr::null_mut(), std::ptr::null_mut());
    loop {
        // SAFETY: open descriptors, without offsets; no memory of ours is involved.
        let n =
            unsafe { libc::splice(from.as_raw_fd(), no_offset, to.as_raw_fd(), none, most, flags) };
        if let Some(result) = returned(n) {
            return result;
        }
    }
}

/// The pipes of one thread.
#[derive(Debug)]
pub(crate) struct Pipes {
    spare: Vec<Pipe>,
    made: Arc<AtomicUsize>,
    lowest: RawFd,
}

impl Pipes {
    /// None yet. Their descriptors will not be below `lowest`.
    pub(crate) fn new(lowest: RawFd) -> Self {
        Pipes { spare: Vec::new(), made: Arc::default(), lowest }
    }

    /// An empty pipe, if one can be had.
    pub(crate) fn take(&mut self) -> Option<Pipe> {
        if let Some(pipe) = self.spare.pop() {
            return Some(pipe);
        }
        if self.made.load(Relaxed) >= MAX_PIPES {
            return None;
        }
        Pipe::new(&self.made, self.lowest).ok()
    }

    /// Keeps a pipe for the next who needs one, unless something is left in it.
    pub(crate) fn give_back(&mut self, pipe: Pipe) {
        if pipe.is_empty() && self.spare.len() < MAX_SPARE_PIPES {
            self.spare.push(pipe);
        }
    }

    /// Keeps none.
    pub(crate) fn close_spare(&mut self) {
        self.spare = Vec::new();
    }
}
