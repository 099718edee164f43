//! The kinds of lines about tunnels, and how they go through the pipe from drain processes.

use std::os::fd::RawFd;

use os::process;

use crate::ffi::log::{Level, MessageId};
use crate::message::{LINES_LOST, NO_DRAIN, RELAY, TUNNEL_ENDED, TUNNEL_LOST};

/// What kind of line it is, by its first byte in the pipe from drain processes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Kind {
    /// A tunnel ended,
    Ended = b'i',
    /// by a bug of this module.
    Bug = b'b',
    /// A tunnel was lost.
    Lost = b'l',
    /// Tunnels end because a process cannot carry them.
    NoProcess = b'n',
    /// What the relay itself has to say.
    Relay = b'r',
    /// So many lines were lost.
    LinesLost = b'm',
}

impl Kind {
    const ALL: [Self; 6] =
        [Self::Ended, Self::Bug, Self::Lost, Self::NoProcess, Self::Relay, Self::LinesLost];

    /// The level and the number of such lines.
    pub fn form(self) -> (Level, MessageId) {
        match self {
            Self::Ended => (Level::Info, TUNNEL_ENDED),
            Self::Bug => (Level::Error, TUNNEL_ENDED),
            Self::Lost => (Level::Error, TUNNEL_LOST),
            Self::NoProcess => (Level::Error, NO_DRAIN),
            Self::Relay => (Level::Error, RELAY),
            Self::LinesLost => (Level::Warn, LINES_LOST),
        }
    }
}

/// What drain processes have said, line by line.
pub fn read_lines(pipe: RawFd, buffer: &mut Vec<u8>, mut each: impl FnMut(Level, MessageId, &str)) {
    let lines = String::from_utf8_lossy(process::read_lines(pipe, buffer));
    for line in lines.lines() {
        let Some((first, text)) = line.split_at_checked(1) else { continue };
        let kind = Kind::ALL.into_iter().find(|kind| first.as_bytes() == [*kind as u8]);
        let Some(kind) = kind else { continue };
        let (level, number) = kind.form();
        each(level, number, text);
    }
}

/// The text of [`Kind::LinesLost`].
pub fn lost_text(lines: u64) -> String {
    format!("{lines} lines about tunnels were lost: the error log did not take them in time")
}
