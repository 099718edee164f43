//! What a signal handler may use. So may a process that was just forked from one with threads: all
//! of this is atomics and system calls, which take no lock and no memory.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicU32, Ordering::SeqCst};
use std::time::{Duration, Instant};

use rustix::event::{EventfdFlags, eventfd};

use crate::poll;

/// A flag that processes and threads can wait for (eventfd(2)).
#[derive(Debug)]
pub struct EventFd(OwnedFd);

impl EventFd {
    /// One that is not set.
    ///
    /// # Errors
    /// Descriptors cannot be had.
    pub fn new() -> io::Result<Self> {
        Ok(Self(eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?))
    }

    /// Sets it. Whoever polls its descriptor finds it readable.
    pub fn signal(&self) {
        // It fails only where it is set already, very many times.
        let _ = rustix::io::write(&self.0, &1_u64.to_ne_bytes());
    }

    /// Unsets it.
    pub fn clear(&self) {
        // It fails only where it is not set.
        let _ =
            rustix::io::read(&self.0, &mut [0_u8; size_of::<u64>()]).inspect_err(poll::rest_after);
    }

    /// Waits until it is set, for at most so long, and says whether it is. Signals that come meanwhile
    /// do not end it.
    pub fn wait(&self, timeout: Duration) -> bool {
        let since = Instant::now();
        loop {
            let left = timeout.saturating_sub(since.elapsed());
            if poll::wait([Some(self.as_fd())], Some(left)) == [true] {
                return true;
            }
            if left.is_zero() {
                return false;
            }
        }
    }
}

impl AsFd for EventFd {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl From<EventFd> for OwnedFd {
    fn from(event: EventFd) -> Self {
        event.0
    }
}

/// Bits by which signal handlers, and others, tell a thread of their process what to do.
#[derive(Debug)]
pub struct Orders {
    /// A process that is forked from this one shares the descriptor, and has no such thread.
    owner: u32,
    /// Those that were not taken yet.
    waiting: AtomicU32,
    /// All that were ever given.
    given: AtomicU32,
    wake: EventFd,
}

impl Orders {
    /// None yet. They are for a thread of this process.
    ///
    /// # Errors
    /// Descriptors cannot be had.
    pub fn new() -> io::Result<Self> {
        Ok(Self {
            owner: std::process::id(),
            waiting: AtomicU32::new(0),
            given: AtomicU32::new(0),
            wake: EventFd::new()?,
        })
    }

    /// Gives the orders of these bits. Nothing happens in another process.
    pub fn give(&self, bits: u32) {
        if std::process::id() == self.owner {
            self.given.fetch_or(bits, SeqCst);
            self.waiting.fetch_or(bits, SeqCst);
            self.wake.signal();
        }
    }

    /// Whether all of these bits were given, at any time.
    pub fn were_given(&self, bits: u32) -> bool {
        self.given.load(SeqCst) & bits == bits
    }

    /// Waits for orders, for at most so long, `None` is for ever; and takes all that there are.
    pub fn take(&self, timeout: Option<Duration>) -> u32 {
        if poll::wait([Some(self.wake.as_fd())], timeout) == [true] {
            self.wake.clear();
        }
        self.waiting.swap(0, SeqCst)
    }
}

/// Ends the process here: no exit handlers, no destructors.
pub fn exit_now() -> ! {
    // SAFETY: does not return.
    unsafe { libc::_exit(0) }
}
