//! Samples, added up for those who want fewer labels.

use std::collections::BTreeMap;

use crate::text::lossy;
use crate::view::{Counter, Direction, Opcode, Overview, Place};

/// Figures of a virtual host, or of all of them.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Sums {
    pub open: OpenSums,
    pub opened: u64,
    pub closed: u64,
    pub bytes_up: u64,
    pub bytes_down: u64,
    pub messages_up: u64,
    pub messages_down: u64,
    pub handshakes: BTreeMap<&'static str, u64>,
    /// By reason.
    pub ends: BTreeMap<&'static str, u64>,
}

/// Open tunnels.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(crate) struct OpenSums {
    pub relay: u64,
    pub drain: u64,
    pub thread: u64,
}

/// Figures of a back end.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(crate) struct BackendSums {
    pub open: OpenSums,
    pub opened: u64,
}

impl OpenSums {
    pub(crate) const fn all(self) -> u64 {
        self.relay.saturating_add(self.drain).saturating_add(self.thread)
    }

    fn add(&mut self, place: Place, tunnels: u64) {
        add(
            match place {
                Place::Relay => &mut self.relay,
                Place::Drain => &mut self.drain,
                Place::Thread => &mut self.thread,
            },
            tunnels,
        );
    }
}

impl Sums {
    fn add(&mut self, counter: &Counter, value: u64) {
        add(
            match counter {
                Counter::Opened { .. } => &mut self.opened,
                Counter::Closed { reason, .. } => {
                    add(self.ends.entry(reason).or_default(), value);
                    &mut self.closed
                }
                Counter::Handshakes { result } => self.handshakes.entry(result).or_default(),
                Counter::Bytes(Direction::Up) => &mut self.bytes_up,
                Counter::Bytes(Direction::Down) => &mut self.bytes_down,
                Counter::Messages(Direction::Up, Opcode::Text | Opcode::Binary) => {
                    &mut self.messages_up
                }
                Counter::Messages(Direction::Down, Opcode::Text | Opcode::Binary) => {
                    &mut self.messages_down
                }
            },
            value,
        );
    }
}

/// What stands in shared memory may be anything.
fn add(sum: &mut u64, value: u64) {
    *sum = sum.saturating_add(value);
}

/// All of it.
pub(crate) fn total(overview: &Overview) -> Sums {
    let mut sums = Sums::default();
    for open in &overview.open {
        sums.open.add(open.place, open.tunnels);
    }
    for sample in &overview.samples {
        sums.add(&sample.counter, sample.value);
    }
    sums
}

/// The same by virtual host.
pub(crate) fn by_vhost(overview: &Overview) -> BTreeMap<String, Sums> {
    let mut all: BTreeMap<String, Sums> = BTreeMap::new();
    for open in &overview.open {
        all.entry(lossy(&open.vhost).into()).or_default().open.add(open.place, open.tunnels);
    }
    for sample in &overview.samples {
        all.entry(lossy(&sample.vhost).into()).or_default().add(&sample.counter, sample.value);
    }
    all
}

/// What is known by back end.
pub(crate) fn by_backend(overview: &Overview) -> BTreeMap<String, BackendSums> {
    let mut all: BTreeMap<String, BackendSums> = BTreeMap::new();
    for open in &overview.open {
        all.entry(lossy(&open.backend).into()).or_default().open.add(open.place, open.tunnels);
    }
    for sample in &overview.samples {
        if let Counter::Opened { backend } = &sample.counter {
            add(&mut all.entry(lossy(backend).into()).or_default().opened, sample.value);
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::samples::overview;

    #[test]
    fn figures_are_added_up() {
        let overview = overview();
        let sums = total(&overview);
        assert_eq!(sums.open, OpenSums { relay: 5, drain: 2, thread: 1 });
        assert_eq!(sums.open.all(), 8);
        assert_eq!((sums.opened, sums.closed), (110, 97));
        assert_eq!((sums.bytes_up, sums.bytes_down), (1000, 2_000_000));
        assert_eq!((sums.messages_up, sums.messages_down), (12, 7));
        assert_eq!(sums.handshakes, BTreeMap::from([("101", 110), ("refused_max_tunnels", 3)]));
        assert_eq!(sums.ends, BTreeMap::from([("closed", 90), ("reset", 7)]));

        let vhosts = by_vhost(&overview);
        assert_eq!(vhosts.keys().collect::<Vec<_>>(), ["example.com:443", "quo\"te\u{fffd}<b>:80"]);
        assert_eq!(vhosts.values().map(|sums| sums.opened).sum::<u64>(), sums.opened);
        assert_eq!(vhosts.values().map(|sums| sums.open.all()).sum::<u64>(), sums.open.all());
        let backends = by_backend(&overview);
        assert_eq!(backends["http://127.0.0.1:8080"].opened, 100);
        assert_eq!(backends.values().map(|sums| sums.opened).sum::<u64>(), sums.opened);
    }

    #[test]
    fn no_figure_is_too_large() {
        let mut overview = overview();
        for sample in &mut overview.samples {
            sample.value = u64::MAX;
        }
        for open in &mut overview.open {
            open.tunnels = u64::MAX;
        }
        let sums = total(&overview);
        assert_eq!((sums.closed, sums.open.all(), sums.bytes_up), (u64::MAX, u64::MAX, u64::MAX));
        assert_eq!(by_vhost(&overview).len() + by_backend(&overview).len(), 4);
    }
}
