//! A pipe of lines that several processes write to and several read: each line stays whole.

use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};

use rustix::buffer::spare_capacity;
use rustix::pipe::{PipeFlags, SpliceFlags, fcntl_setpipe_size, pipe_with, splice};

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
        let _ = rustix::io::read(pipe, spare_capacity(buffer)).inspect_err(poll::rest_after);
    }
    buffer
}

/// Reads a pipe without relying on anything that other processes can change: that a read of it does
/// not wait is a flag that belongs to all who have the pipe.
pub struct Reader<'p> {
    pipe: BorrowedFd<'p>,
    /// A pipe of this process alone, to which the lines are moved: that does not wait because it is
    /// asked not to.
    own: [OwnedFd; 2],
    buffer: Vec<u8>,
}

impl<'p> Reader<'p> {
    /// # Errors
    /// Descriptors cannot be had.
    pub fn new(pipe: BorrowedFd<'p>) -> io::Result<Self> {
        Ok(Self { pipe, own: make()?, buffer: Vec::new() })
    }

    /// Reads all lines that are there, each whole.
    pub fn receive(&mut self) -> &[u8] {
        let Self { pipe, own: [read, write], buffer } = self;
        buffer.clear();
        // What moves are the pipe's pages, and no line is in two of them.
        let moved = splice(*pipe, None, write, None, LINE_PIPE_BYTES, SpliceFlags::NONBLOCK);
        if moved.inspect_err(poll::rest_after).is_ok() {
            buffer.reserve_exact(LINE_PIPE_BYTES);
            let _ = rustix::io::read(read, spare_capacity(buffer));
        }
        buffer
    }
}
