//! What was counted since the server started.

use std::collections::HashMap;

use report::view::{self, Counter, Histogram, Sample};
use shared::{Direction, Metric, Name, Opcode, Shared, Timed};

use crate::status::snapshot::Snapshot;

/// What [`of`] finds.
pub(super) struct Totals {
    /// With labels.
    pub samples: Vec<Sample>,
    /// Of tunnels that ended.
    pub tunnel_durations: Histogram,
    /// Of handshakes.
    pub handshake_durations: Histogram,
}

/// Totals, those of open tunnels included. None goes back: a tunnel that ends is in between for a
/// moment, neither open nor counted.
pub(super) fn of(shared: Shared<'_>, snapshot: &Snapshot) -> Totals {
    let mut values: HashMap<Metric, u64> = shared.series().collect();
    for (metric, value) in snapshot.under_way() {
        let total = values.entry(metric).or_insert(0);
        *total = total.saturating_add(value);
    }
    let mut totals = Totals {
        samples: Vec::with_capacity(values.len()),
        tunnel_durations: empty(Timed::Tunnel),
        handshake_durations: empty(Timed::Handshake),
    };
    for (metric, value) in values {
        let value = shared.never_less(metric, value);
        if let Some((vhost, counter)) = counter(shared, metric) {
            totals.samples.push(Sample { vhost: shared.text_of_vhost(vhost), counter, value });
        } else {
            totals.add_duration(metric, value);
        }
    }
    totals
}

fn empty(of: Timed) -> Histogram {
    let bounds_micros = of.bounds_micros();
    Histogram { bounds_micros, counts: vec![0; bounds_micros.len() + 1], sum_micros: 0 }
}

impl Totals {
    fn histogram(&mut self, of: Timed) -> &mut Histogram {
        match of {
            Timed::Tunnel => &mut self.tunnel_durations,
            Timed::Handshake => &mut self.handshake_durations,
        }
    }

    fn add_duration(&mut self, metric: Metric, value: u64) {
        match metric {
            Metric::Durations { of, bucket } => {
                if let Some(count) = self.histogram(of).counts.get_mut(usize::from(bucket)) {
                    *count = value;
                }
            }
            Metric::Micros { of } => self.histogram(of).sum_micros = value,
            _ => {}
        }
    }
}

/// A metric that has a virtual host, as it is shown.
fn counter(shared: Shared<'_>, metric: Metric) -> Option<(Name, Counter)> {
    let way = |direction| match direction {
        Direction::Up => view::Direction::Up,
        Direction::Down => view::Direction::Down,
    };
    Some(match metric {
        Metric::Opened { vhost, backend } => {
            (vhost, Counter::Opened { backend: shared.text_of_backend(backend) })
        }
        Metric::Closed { vhost, by, reason, code } => {
            (vhost, Counter::Closed { by: by.name(), reason: reason.name(), code })
        }
        Metric::Handshakes { vhost, result } => {
            (vhost, Counter::Handshakes { result: result.name() })
        }
        Metric::Bytes { vhost, direction } => (vhost, Counter::Bytes(way(direction))),
        Metric::Messages { vhost, direction, opcode } => {
            let opcode = match opcode {
                Opcode::Text => view::Opcode::Text,
                Opcode::Binary => view::Opcode::Binary,
            };
            (vhost, Counter::Messages(way(direction), opcode))
        }
        Metric::Durations { .. } | Metric::Micros { .. } => return None,
    })
}
