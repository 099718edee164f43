//! A pipe of lines that several processes write to and several read: each line stays whole.

use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};

use rustix::buffer::spare_capacity;
use rustix::pipe::{PipeFlags, fcntl_setpipe_size, pipe_with};

use crate::poll;

/// What it holds, in bytes; the most that one without privileges may ask for (pipe(7)).
const LINE_PIPE_BYTES: usize = 1 << 20;

/// Makes one: its reading and its writing end, neither of which waits.
///
/// # Errors
/// Descriptors cannot be had.
pub fn make() -> io::Result<[OwnedFd; 2]> {
    let (read, write) = pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK)?;
    // A smaller one loses lines sooner.
    let _ = fcntl_setpipe_size(&write, LINE_PIPE_BYTES);
    Ok([read, write])
}

/// Writes one line, whole or not at all. `false` if there is no room now, or no
/// reader left.
pub fn send(pipe: BorrowedFd<'_>, mut line: String) -> bool {
    line.retain(|c| c != '\n');
    // No other write is mixed with one of at most so many bytes.
    let most = (0..libc::PIPE_BUF).rev().find(|at| line.is_char_boundary(*at));
    line.truncate(most.unwrap_or_default());
    line.push('\n');
    rustix::io::write(pipe, line.as_bytes()).is_ok()
}

/// Reads all lines that are there. Of several readers each gets whole lines: the
/// buffer takes what a pipe can hold, and a read takes all of it.
pub fn receive<'b>(pipe: BorrowedFd<'_>, buffer: &'b mut Vec<u8>) -> &'b [u8] {
    buffer.clear();
    // That a read does not wait is a flag that all processes share, and any of them may clear.
    if poll::is_readable(pipe) {
        buffer.reserve_exact(LINE_PIPE_BYTES);
        // Nothing is there if another process was faster.
        let _ = rustix::io::read(pipe, spare_capacity(buffer));
    }
    buffer
}
