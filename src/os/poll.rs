//! Waiting for descriptors. Signal handlers may do it too: see [`signal_safe`](crate::signal_safe).

use std::os::fd::BorrowedFd;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};

/// Waits until one of the descriptors is readable, for at most so long; `None` is for ever. Says
/// which are. An end and an error can be read too.
///
/// A signal may end it early: then none is, and the caller asks again.
pub fn wait<const N: usize>(
    fds: [Option<BorrowedFd<'_>>; N],
    timeout: Option<Duration>,
) -> [bool; N] {
    let mut present = fds.iter().flatten();
    let Some(first) = present.next() else {
        sleep(timeout);
        return [false; N];
    };
    let count = fds.iter().flatten().count();
    // What is there comes first; the rest of the array is not looked at.
    let mut next = Some(first);
    let mut polled = [(); N].map(|()| {
        let fd = next.take().or_else(|| present.next()).unwrap_or(first);
        PollFd::from_borrowed_fd(*fd, PollFlags::IN)
    });
    let ready = poll(&mut polled[..count], timespec(timeout).as_ref()).unwrap_or(0);
    let mut polled = polled[..count].iter();
    fds.map(|fd| {
        fd.is_some() && polled.next().is_some_and(|one| !one.revents().is_empty()) && ready > 0
    })
}

/// Whether a read would give something, an end included.
pub fn is_readable(fd: BorrowedFd<'_>) -> bool {
    wait([Some(fd)], Some(Duration::ZERO)) == [true]
}

/// Waits until the descriptor takes bytes, for at most so long.
pub fn wait_for_room(fd: BorrowedFd<'_>, timeout: Duration) {
    let mut polled = [PollFd::from_borrowed_fd(fd, PollFlags::OUT)];
    // Whether there is room shows when the caller writes.
    let _ = poll(&mut polled, timespec(Some(timeout)).as_ref());
}

/// Whether the descriptor takes bytes now: at least a page of them, if it is a pipe.
pub fn has_room(fd: BorrowedFd<'_>) -> bool {
    let mut polled = [PollFd::from_borrowed_fd(fd, PollFlags::OUT)];
    poll(&mut polled, timespec(Some(Duration::ZERO)).as_ref()).is_ok_and(|ready| ready > 0)
}

fn sleep(timeout: Option<Duration>) {
    let _ = poll(&mut [], timespec(timeout).as_ref());
}

/// As the kernel takes it. What is too long for that is for ever.
fn timespec(timeout: Option<Duration>) -> Option<Timespec> {
    timeout.and_then(|timeout| timeout.try_into().ok())
}
