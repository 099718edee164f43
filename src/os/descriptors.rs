//! How many descriptors this process may have, and which numbers the relay's get.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::sync::atomic::{AtomicI32, Ordering};

/// Where the descriptors end that select() knows, and modules that use it.
pub const SELECTABLE: RawFd = 1024;

/// The lowest number that a descriptor of the relay should have: lower ones stay for
/// httpd and those modules.
static LOWEST: AtomicI32 = AtomicI32::new(SELECTABLE);

/// The lowest number that a descriptor of the relay should have.
pub fn lowest() -> RawFd {
    LOWEST.load(Ordering::Relaxed)
}

/// Raises the soft limit of descriptors to the hard one, in a child process, and
/// returns the limit. What httpd had to itself before stays its own.
pub fn raise_limit() -> io::Result<u64> {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: the structure is ours.
    check(unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit) })?;
    let before = limit.rlim_cur;
    if before < limit.rlim_max {
        limit.rlim_cur = limit.rlim_max;
        // SAFETY: the structure is ours.
        check(unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit) })?;
        let lowest = RawFd::try_from(before).unwrap_or(RawFd::MAX).max(SELECTABLE);
        LOWEST.store(lowest, Ordering::Relaxed);
    }
    Ok(limit.rlim_cur)
}

/// Has the kernel make room for as many descriptors as `tunnels` need, up to a bound. To be called
/// while the process has one thread: with more the kernel must wait for all of them each time that
/// its table grows, some 20 ms.
pub fn make_room(tunnels: u64) {
    /// Eight bytes each.
    const MOST: u64 = 16 * 1024;
    let room = RawFd::try_from((2 * tunnels).clamp(1, MOST)).unwrap_or(1);
    // SAFETY: standard error is open in a child; the copy is closed at once.
    unsafe {
        let copy = libc::fcntl(libc::STDERR_FILENO, libc::F_DUPFD_CLOEXEC, lowest() + room - 1);
        if copy >= 0 {
            libc::close(copy);
        }
    }
}

/// A duplicate above the descriptors that httpd uses; as far below as it must be, if
/// there is no room above.
pub fn duplicate(fd: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    let none_there =
        |error: &io::Error| matches!(error.raw_os_error(), Some(libc::EINVAL | libc::EMFILE));
    let mut result = duplicate_from(fd, lowest());
    for lower in [SELECTABLE, 3] {
        if result.as_ref().is_err_and(none_there) {
            result = duplicate_from(fd, lower);
        }
    }
    result
}

fn duplicate_from(fd: BorrowedFd<'_>, lowest: RawFd) -> io::Result<OwnedFd> {
    // SAFETY: the descriptor is open for the length of the borrow.
    let copy = check(unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_DUPFD_CLOEXEC, lowest) })?;
    // SAFETY: just made, and nobody else's.
    Ok(unsafe { OwnedFd::from_raw_fd(copy) })
}

/// Whether a read would give something, an end included.
pub fn is_readable(fd: BorrowedFd<'_>) -> bool {
    let mut polled = libc::pollfd { fd: fd.as_raw_fd(), events: libc::POLLIN, revents: 0 };
    // SAFETY: one entry, and no waiting.
    unsafe { libc::poll(&raw mut polled, 1, 0) > 0 }
}

fn check(result: libc::c_int) -> io::Result<libc::c_int> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}
