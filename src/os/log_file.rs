//! Files and pipes that other processes write lines to as well.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::time::Duration;

use rustix::fs::{FileType, Mode, OFlags, fcntl_getfl, fstat, open};
use rustix::io::ioctl_fionread;
use rustix::param::page_size;
use rustix::pipe::fcntl_getpipe_size;

/// Whether a descriptor is what lines can be written to: of a program's standard input if
/// `is_piped`, else of a file that is only added to.
pub fn is_one(fd: BorrowedFd<'_>, is_piped: bool) -> bool {
    let (Ok(stat), Ok(flags)) = (fstat(fd), fcntl_getfl(fd)) else { return false };
    let is_pipe =
        matches!(FileType::from_raw_mode(stat.st_mode), FileType::Fifo | FileType::Socket);
    let is_writable = flags.intersects(OFlags::WRONLY | OFlags::RDWR);
    is_writable && if is_piped { is_pipe } else { is_pipe || flags.contains(OFlags::APPEND) }
}

/// Writes a line in one go. Waits for as long as a pipe takes nothing.
///
/// # Errors
/// The kernel's. Part of the line may be there then.
pub fn write(fd: BorrowedFd<'_>, line: &[u8]) -> io::Result<()> {
    wait_for_room(fd, line.len());
    write_all(fd, line)
}

/// Before a long line waits until a pipe has room for all of it: so none is cut where a program has
/// stopped reading, and the process ends. Where the pipe is full but moves, it waits no longer than a
/// second: others would take each room there is.
fn wait_for_room(fd: BorrowedFd<'_>, bytes: usize) {
    /// The kernel says when there is room for a page, and no more. A program that waits for lines has
    /// taken what is there in less than a millisecond; one that does not is looked at ever more seldom.
    const FIRST_LOOK: Duration = Duration::from_micros(100);
    const LAST_LOOKS: Duration = Duration::from_millis(20);
    const MOST_MOVING: Duration = Duration::from_secs(1);
    if bytes <= libc::PIPE_BUF || !fits(fd, 0, bytes) {
        return;
    }
    let (mut look, mut moving, mut before) = (FIRST_LOOK, Duration::ZERO, None);
    while let Ok(there) = ioctl_fionread(fd)
        && !fits(fd, there, bytes)
        && moving < MOST_MOVING
    {
        std::thread::sleep(look);
        if before.is_some_and(|before| before != there) {
            moving += look;
        }
        before = Some(there);
        look = (look * 2).min(LAST_LOOKS);
    }
}

fn write_all(fd: BorrowedFd<'_>, line: &[u8]) -> io::Result<()> {
    let mut rest = line;
    while !rest.is_empty() {
        match rustix::io::write(fd, rest) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(written) => rest = &rest[written.min(rest.len())..],
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

/// The same for who must not wait: a pipe gets the whole line if it has room for it, else nothing.
/// `false` if the line is not there. Whatever flags other processes set on the descriptor.
pub fn write_now(fd: BorrowedFd<'_>, line: &[u8]) -> bool {
    match fstat(fd).map(|stat| FileType::from_raw_mode(stat.st_mode)) {
        Ok(FileType::RegularFile) => write_all(fd, line).is_ok(),
        Ok(FileType::Fifo) if has_room(fd, line.len()) => {
            let path = format!("/proc/self/fd/{}", fd.as_raw_fd());
            let flags = OFlags::WRONLY | OFlags::NONBLOCK | OFlags::CLOEXEC;
            open(path, flags, Mode::empty()).is_ok_and(|own| write_all(own.as_fd(), line).is_ok())
        }
        _ => false,
    }
}

/// Whether so many bytes go into a pipe without waiting, if nobody else writes to it.
fn has_room(pipe: BorrowedFd<'_>, bytes: usize) -> bool {
    // So many the kernel takes all of, or nothing.
    bytes <= libc::PIPE_BUF || ioctl_fionread(pipe).is_ok_and(|there| fits(pipe, there, bytes))
}

/// Whether this is a pipe that has room for so many bytes beside those that are there.
fn fits(pipe: BorrowedFd<'_>, there: u64, bytes: usize) -> bool {
    // Fails for what is no pipe.
    let Ok(size) = fcntl_getpipe_size(pipe) else { return false };
    let pages = |bytes: usize| bytes.div_ceil(page_size());
    // A pipe is so many pages. Two that were filled one after the other have more than one page's
    // worth, the first one may be read in part, and what comes may begin in a page of its own.
    let there = usize::try_from(there).unwrap_or(usize::MAX).saturating_mul(2);
    pages(there) + 1 + pages(bytes) < pages(size)
}
