//! The kinds of lines about tunnels, and how they go through the pipe from drain processes.

use messages::{
    AccessLinesLost, AccessLogFailed, AccessLogGone, Level, LinesLost, Message, MessageId,
    NoProcess, OfRelay, ProcessGone, TunnelEnded, TunnelLost,
};

/// What kind of line it is, by its first byte in the pipe from drain processes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Kind {
    /// A tunnel ended,
    Ended = b'i',
    /// by a bug of this module.
    Bug = b'b',
    /// A tunnel was lost.
    Lost = b'l',
    /// Tunnels end because a process cannot carry them.
    NoProcess = b'n',
    /// A process is gone that did not end its tunnels.
    Gone = b'x',
    /// What the relay itself has to say.
    Relay = b'r',
    /// So many lines were lost.
    LinesLost = b'm',
    /// The same of access logs.
    AccessLinesLost = b'a',
    /// An access log is gone.
    AccessLogGone = b'g',
    /// An access log cannot be written to.
    AccessLogFailed = b'f',
}

impl Kind {
    const ALL: [Self; 9] = [
        Self::Ended,
        Self::Bug,
        Self::Lost,
        Self::NoProcess,
        Self::Relay,
        Self::LinesLost,
        Self::AccessLinesLost,
        Self::AccessLogGone,
        Self::AccessLogFailed,
    ];

    /// The level and the number of such lines.
    pub(crate) fn form(self) -> (Level, MessageId) {
        fn of<M: Message>() -> (Level, MessageId) {
            (M::LEVEL, M::ID)
        }
        match self {
            Self::Ended => of::<TunnelEnded<'_>>(),
            Self::Bug => (Level::Error, TunnelEnded::ID),
            Self::Lost => of::<TunnelLost<'_>>(),
            Self::NoProcess => of::<NoProcess<'_>>(),
            Self::Gone => of::<ProcessGone<'_>>(),
            Self::Relay => of::<OfRelay<'_>>(),
            Self::LinesLost => of::<LinesLost<'_>>(),
            Self::AccessLinesLost => of::<AccessLinesLost<'_>>(),
            Self::AccessLogGone => of::<AccessLogGone<'_>>(),
            Self::AccessLogFailed => of::<AccessLogFailed<'_>>(),
        }
    }
}

/// What drain processes have said, line by line.
pub(crate) fn read_lines(bytes: &[u8], mut each: impl FnMut(Level, MessageId, &str)) {
    for line in String::from_utf8_lossy(bytes).lines() {
        let Some((first, text)) = line.split_at_checked(1) else { continue };
        let kind = Kind::ALL.into_iter().find(|kind| first.as_bytes() == [*kind as u8]);
        let Some(kind) = kind else { continue };
        let (level, id) = kind.form();
        each(level, id, text);
    }
}
