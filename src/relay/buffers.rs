//! What the tunnels of a thread use by turns.

use std::time::Instant;

use crate::pipe::Pipes;

/// What a thread lends to the tunnel that is being polled.
pub(crate) struct ThreadBuffers {
    /// What every read goes into.
    pub buffer: Box<[u8]>,
    pub pipes: Pipes,
    pub clock: Clock,
}

/// The time of a poll: it is asked for once in it, at most.
#[derive(Debug, Default)]
pub(crate) struct Clock(Option<Instant>);

impl Clock {
    /// The time.
    #[inline]
    pub(crate) fn now(&mut self) -> Instant {
        *self.0.get_or_insert_with(Instant::now)
    }

    /// Another poll begins.
    #[inline]
    pub(crate) fn begin(&mut self) {
        self.0 = None;
    }
}
