//! How many descriptors this process may have, and which numbers the relay's get.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, IntoRawFd, OwnedFd, RawFd};
use std::sync::atomic::{AtomicI32, Ordering};

use rustix::io::{Errno, fcntl_dupfd_cloexec};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Where the descriptors end that select() knows, and modules that use it.
pub const SELECTABLE: RawFd = 1024;

/// The lowest number that a descriptor of the relay should have: lower ones stay for
/// httpd and those modules.
static LOWEST: AtomicI32 = AtomicI32::new(SELECTABLE);

/// The lowest number that a descriptor of the relay should have.
pub fn lowest() -> RawFd {
    LOWEST.load(Ordering::Relaxed)
}

/// How many descriptors this process may have open.
pub fn limit() -> u64 {
    getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX)
}

/// Raises the soft limit of descriptors to the hard one, in a child process, if the kernel lets it;
/// returns the limit. What httpd had to itself before stays its own.
pub fn raise_limit() -> u64 {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    let (before, most) = (current.unwrap_or(u64::MAX), maximum.unwrap_or(u64::MAX));
    if before < most {
        if setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum }).is_err() {
            return before;
        }
        let lowest = RawFd::try_from(before).unwrap_or(RawFd::MAX).max(SELECTABLE);
        LOWEST.store(lowest, Ordering::Relaxed);
    }
    before.max(most)
}

/// Has the kernel make room for as many descriptors as `tunnels` need, up to a bound. To be called
/// while the process has one thread: with more the kernel must wait for all of them each time that
/// its table grows, some 20 ms.
pub fn make_room(tunnels: u64) {
    /// Eight bytes each.
    const MOST: u64 = 16 * 1024;
    let room = RawFd::try_from((2 * tunnels).clamp(1, MOST)).unwrap_or(1);
    // The copy is closed at once.
    drop(fcntl_dupfd_cloexec(io::stderr().as_fd(), lowest() + room - 1));
}

/// A duplicate above the descriptors that httpd uses; as far below as it must be, if
/// there is no room above.
///
/// # Errors
/// There is no room at all.
pub fn duplicate(fd: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    let mut result = fcntl_dupfd_cloexec(fd, lowest());
    for lower in [SELECTABLE, 3] {
        if matches!(result, Err(Errno::INVAL | Errno::MFILE)) {
            result = fcntl_dupfd_cloexec(fd, lower);
        }
    }
    Ok(result?)
}

/// A descriptor that this process keeps open for good, so that everybody may borrow it.
pub fn keep_open(fd: OwnedFd) -> BorrowedFd<'static> {
    // SAFETY: nobody owns it any more, and so nobody closes it.
    unsafe { BorrowedFd::borrow_raw(fd.into_raw_fd()) }
}

/// A place for such a descriptor. Another one may take it later.
pub struct Place(AtomicI32);

/// No descriptor.
const NONE: RawFd = -1;

impl Place {
    /// An empty one.
    #[expect(clippy::new_without_default, reason = "for statics")]
    pub const fn new() -> Self {
        Self(AtomicI32::new(NONE))
    }

    /// Puts one there.
    pub fn set(&self, fd: BorrowedFd<'static>) {
        self.0.store(fd.as_raw_fd(), Ordering::Relaxed);
    }

    /// What is there.
    pub fn get(&self) -> Option<BorrowedFd<'static>> {
        match self.0.load(Ordering::Relaxed) {
            NONE => None,
            // SAFETY: `set` was given it for as long as the process lives.
            fd => Some(unsafe { BorrowedFd::borrow_raw(fd) }),
        }
    }
}
