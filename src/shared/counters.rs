//! What is counted of a process, and of all that ended.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use crate::reasons::{Ends, Fallbacks, Refusals, TlsSessions, Why};

/// What a relay counts, one for each process.
#[repr(C)]
#[derive(Debug, Default)]
pub struct Counters {
    /// Tunnels open now (a gauge).
    pub open: AtomicU64,
    /// Tunnels taken in.
    pub adopted: AtomicU64,
    /// Tunnels given back, to live on elsewhere.
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
        Self {
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

    /// A relay thread has ended. Its process may have given its slot back by then, and the gauge with it:
    /// that stays at 0, as the next process finds it.
    pub fn thread_ended(&self) {
        let left = |threads: u64| threads.checked_sub(1);
        // An error is a gauge that is 0 already.
        let _ = self.threads.fetch_update(Relaxed, Relaxed, left);
    }

    /// A tunnel was taken in.
    pub fn count_adopted(&self) {
        self.open.fetch_add(1, Relaxed);
        self.adopted.fetch_add(1, Relaxed);
    }

    /// Takes back [`count_adopted`](Self::count_adopted) for a tunnel no thread would have.
    pub fn count_refused(&self) {
        self.open.fetch_sub(1, Relaxed);
        self.adopted.fetch_sub(1, Relaxed);
    }

    /// A tunnel was given back.
    pub fn count_returned(&self) {
        self.open.fetch_sub(1, Relaxed);
        self.returned.fetch_add(1, Relaxed);
    }

    /// A tunnel that was to be adopted and was lost on the way. A fault of the program.
    pub fn count_lost(&self) {
        self.adopted.fetch_add(1, Relaxed);
        self.ended.fetch_add(1, Relaxed);
        self.ended_by.of(&Why::ThreadDied).fetch_add(1, Relaxed);
    }

    /// A tunnel ended.
    pub fn count_ended(&self, why: &Why) {
        self.open.fetch_sub(1, Relaxed);
        self.ended.fetch_add(1, Relaxed);
        self.ended_by.of(why).fetch_add(1, Relaxed);
    }
}

/// All that is counted of a process.
#[repr(C)]
#[derive(Debug, Default)]
pub struct Counts {
    /// The relay's own.
    pub relay: Counters,
    /// Tunnels handed over.
    pub handed_over: AtomicU64,
    /// Tunnels that stayed in their thread, by reason.
    pub fallen_back: Fallbacks,
    /// TLS sessions handed over, by what became of them.
    pub tls_sessions: TlsSessions,
    /// Upgrade requests refused, by reason.
    pub refused: Refusals,
    /// Lines that the error log did not take in time.
    pub lines_lost: AtomicU64,
    /// Lines of tunnels that access logs did not take.
    pub access_lines_lost: AtomicU64,
}

impl Counts {
    /// All zero.
    pub const fn new() -> Self {
        Self {
            relay: Counters::new(),
            handed_over: AtomicU64::new(0),
            fallen_back: Fallbacks::new(),
            tls_sessions: TlsSessions::new(),
            refused: Refusals::new(),
            lines_lost: AtomicU64::new(0),
            access_lines_lost: AtomicU64::new(0),
        }
    }

    /// Moves the counts of a process that ended into the totals. Gauges go with it.
    pub(crate) fn absorb(&self, from: &Self) {
        for (to, from) in self.totals().zip(from.totals()) {
            to.fetch_add(from.swap(0, Relaxed), Relaxed);
        }
        from.relay.open.store(0, Relaxed);
        from.relay.threads.store(0, Relaxed);
    }

    /// Those that outlive their process.
    fn totals(&self) -> impl Iterator<Item = &AtomicU64> {
        // Each field is named: a new one is either here or a gauge.
        let Self {
            relay,
            handed_over,
            fallen_back,
            tls_sessions,
            refused,
            lines_lost,
            access_lines_lost,
        } = self;
        let Counters {
            open: _,
            adopted,
            returned,
            ended,
            bytes_up,
            bytes_down,
            threads: _,
            ended_by,
        } = relay;
        [adopted, returned, ended, bytes_up, bytes_down, handed_over, lines_lost, access_lines_lost]
            .into_iter()
            .chain(ended_by.all())
            .chain(fallen_back.all())
            .chain(tls_sessions.all())
            .chain(refused.all())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_that_ends_late_is_not_missing_for_the_next_process() {
        let counts = Counts::new();
        counts.relay.threads.store(2, Relaxed);
        counts.relay.thread_ended();
        assert_eq!(counts.relay.threads.load(Relaxed), 1);
        Counts::new().absorb(&counts);
        counts.relay.thread_ended();
        assert_eq!(counts.relay.threads.load(Relaxed), 0);
    }

    #[test]
    fn every_tunnel_is_open_or_has_left_once() {
        let counters = Counters::new();
        let all = || {
            let Counters { open, adopted, returned, ended, .. } = &counters;
            [open, adopted, returned, ended].map(|count| count.load(Relaxed))
        };
        for _ in 0..4 {
            counters.count_adopted();
        }
        assert_eq!(all(), [4, 4, 0, 0]);
        counters.count_refused();
        assert_eq!(all(), [3, 3, 0, 0]);
        counters.count_returned();
        assert_eq!(all(), [2, 3, 1, 0]);
        counters.count_ended(&Why::Reset);
        assert_eq!(all(), [1, 3, 1, 1]);
        counters.count_lost();
        assert_eq!(all(), [1, 4, 1, 2]);
        let of = |why| counters.ended_by.of(&why).load(Relaxed);
        assert_eq!((of(Why::Reset), of(Why::ThreadDied), of(Why::Closed)), (1, 1, 0));
    }
}
