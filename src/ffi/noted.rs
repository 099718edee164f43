//! What is noted of the last request of a connection, for the lines that it has in access logs.

/// Makes the values of [`AccessLogHooks::NAMES`](super::access_log::AccessLogHooks::NAMES), by their
/// places there, as far as they are known: most logs ask for none.
pub(crate) type Values = Box<dyn Fn(usize) -> Option<String> + Send>;

/// What a request shows in the logs, and what becomes of its lines; see
/// [`Connection::note_tunnel`](super::connection::Connection::note_tunnel).
pub(crate) struct Noted {
    /// The request that becomes a tunnel, or was one. Only compared.
    pub(super) request: usize,
    /// The values of its own.
    pub(super) values: Values,
    /// Its lines are kept for later.
    pub(super) is_kept: bool,
    /// They are written now too.
    pub(super) is_written: bool,
    /// Bytes that were read and are counted again by who has the tunnel later.
    pub(super) read_ahead: u64,
    /// What was kept.
    pub(super) lines: Vec<u8>,
}

impl Noted {
    /// For a request whose lines are written by httpd.
    pub(crate) fn written(values: Values) -> Self {
        Self {
            request: 0,
            values,
            is_kept: false,
            is_written: true,
            read_ahead: 0,
            lines: Vec::new(),
        }
    }

    /// For one whose lines are kept, where that can be: at the end of its connection they go along
    /// with its socket. They are written as well if `is_written`.
    pub(crate) fn kept(values: Values, is_written: bool, read_ahead: u64) -> Self {
        Self { is_kept: true, is_written, read_ahead, ..Self::written(values) }
    }

    /// What was kept.
    pub(super) fn into_lines(self) -> Vec<u8> {
        self.lines
    }
}
