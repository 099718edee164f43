//! Counters of one process's relay.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use shared::{Ends, Why};

/// What a relay counts. Made of nothing but atomics, laid out as C would, and valid when all
/// zero, so that it can live in memory shared by processes: one per process.
#[repr(C)]
#[derive(Debug)]
pub struct Counters {
    /// Tunnels open now (a gauge).
    pub open: AtomicU64,
    /// Tunnels taken in by [`Relay::adopt`](crate::Relay::adopt).
    pub adopted: AtomicU64,
    /// Tunnels given back by [`Relay::stop`](crate::Relay::stop), to live on elsewhere.
    pub returned: AtomicU64,
    /// Tunnels ended: `adopted - returned - open`.
    pub ended: AtomicU64,
    /// Bytes delivered from clients to back ends.
    pub bytes_up: AtomicU64,
    /// Bytes delivered from back ends to clients.
    pub bytes_down: AtomicU64,
    /// Relay threads alive now (a gauge).
    pub threads: AtomicU64,
    /// `ended` by reason.
    pub ended_by: Ends,
}

impl Counters {
    /// All zero.
    pub const fn new() -> Self {
        Counters {
            open: AtomicU64::new(0),
            adopted: AtomicU64::new(0),
            returned: AtomicU64::new(0),
            ended: AtomicU64::new(0),
            bytes_up: AtomicU64::new(0),
            bytes_down: AtomicU64::new(0),
            threads: AtomicU64::new(0),
            ended_by: Ends::new(),
        }
    }

    pub(crate) fn count_adopted(&self) {
        self.open.fetch_add(1, Relaxed);
        self.adopted.fetch_add(1, Relaxed);
    }

    /// Takes back [`count_adopted`](Self::count_adopted) for a tunnel no thread would have.
    pub(crate) fn count_refused(&self) {
        self.open.fetch_sub(1, Relaxed);
        self.adopted.fetch_sub(1, Relaxed);
    }

    pub(crate) fn count_returned(&self) {
        self.open.fetch_sub(1, Relaxed);
        self.returned.fetch_add(1, Relaxed);
    }

    /// A tunnel that was to be adopted and was lost on the way. A fault of the program.
    pub fn count_lost(&self) {
        self.adopted.fetch_add(1, Relaxed);
        self.ended.fetch_add(1, Relaxed);
        self.ended_by.of(&Why::ThreadDied).fetch_add(1, Relaxed);
    }

    pub(crate) fn count_ended(&self, why: &Why) {
        self.open.fetch_sub(1, Relaxed);
        self.ended.fetch_add(1, Relaxed);
        self.ended_by.of(why).fetch_add(1, Relaxed);
    }
}

impl Default for Counters {
    fn default() -> Self {
        Counters::new()
    }
}
