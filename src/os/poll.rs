//! Waiting for descriptors. Signal handlers may do it too: see [`signal_safe`](crate::signal_safe).

use std::os::fd::BorrowedFd;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::thread::nanosleep;

/// How long whoever was refused what should have worked leaves the kernel alone.
const REST: Duration = Duration::from_millis(20);

/// Rests after a call failed for which the kernel had said that it is time. Whoever is asked to try
/// again does so at once, and would be busy for as long as the kernel refuses: it may be short of
/// memory, or forbid the call.
pub(crate) fn rest_after(error: &Errno) {
    rest(*error, REST);
}

fn rest(error: Errno, longest: Duration) {
    // That there is nothing, after all, or a signal, is no refusal.
    if !matches!(error, Errno::AGAIN | Errno::INTR)
        && let Some(time) = timespec(Some(REST.min(longest)))
    {
        let _ = nanosleep(&time);
    }
}

/// Asks which of them are ready, and waits for at most so long. Says how many are.
fn ask(fds: &mut [PollFd<'_>], timeout: Option<Duration>) -> usize {
    poll(fds, timespec(timeout).as_ref()).unwrap_or_else(|error| {
        rest(error, timeout.unwrap_or(REST));
        0
    })
}

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
    let ready = ask(&mut polled[..count], timeout);
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
    ask(&mut polled, Some(timeout));
}

/// Whether the descriptor takes bytes now: at least a page of them, if it is a pipe.
pub fn has_room(fd: BorrowedFd<'_>) -> bool {
    let mut polled = [PollFd::from_borrowed_fd(fd, PollFlags::OUT)];
    ask(&mut polled, Some(Duration::ZERO)) > 0
}

fn sleep(timeout: Option<Duration>) {
    ask(&mut [], timeout);
}

/// As the kernel takes it. What is too long for that is for ever.
fn timespec(timeout: Option<Duration>) -> Option<Timespec> {
    timeout.and_then(|timeout| timeout.try_into().ok())
}
