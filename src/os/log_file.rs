//! Files and pipes that other processes write lines to as well.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

use rustix::fs::{FileType, Mode, OFlags, fcntl_getfl, fstat, open};

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

/// The same for who must not wait: a pipe takes as much as it has room for. `false` if something is
/// left. Whatever flags other processes set on the descriptor.
pub fn write_now(fd: BorrowedFd<'_>, line: &[u8]) -> bool {
    match fstat(fd).map(|stat| FileType::from_raw_mode(stat.st_mode)) {
        Ok(FileType::RegularFile) => write(fd, line).is_ok(),
        Ok(FileType::Fifo) => {
            let path = format!("/proc/self/fd/{}", fd.as_raw_fd());
            let flags = OFlags::WRONLY | OFlags::NONBLOCK | OFlags::CLOEXEC;
            open(path, flags, Mode::empty()).is_ok_and(|own| write(own.as_fd(), line).is_ok())
        }
        _ => false,
    }
}
