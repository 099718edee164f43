//! Has the tunnels of this process look at what an administrator orders them. Others store the order
//! in the tunnel's entry, and raise a number in this process's slot.

use std::collections::HashSet;
use std::io;
use std::sync::atomic::Ordering::Acquire;
use std::time::Duration;

use os::futex;
use relay::Relay;
use shared::{Slot, TunnelEntry};

use crate::processes::alarm;
use crate::processes::memory::shared;

/// A call that wakes is not lost; this only bounds what a bug could do.
const LOOK_AROUND: Duration = Duration::from_secs(3600);

/// Starts a thread that acts whenever there may be an order, and lives as long as the process.
///
/// # Errors
/// It cannot be started.
pub(super) fn watch(slot: &'static Slot, mut act: impl FnMut() + Send + 'static) -> io::Result<()> {
    relay::spawn_lasting("wsf-orders", move || {
        let word = slot.orders();
        loop {
            let seen = word.load(Acquire);
            act();
            while word.load(Acquire) == seen {
                futex::wait(word, seen, LOOK_AROUND);
            }
        }
    })
    .map(drop)
}

/// The tunnels that have been told to look and are not over yet.
#[derive(Debug, Default)]
pub(super) struct Told(HashSet<TunnelEntry>);

impl Told {
    /// Has all look that have an order. Each is told once: one that is on its way, to a relay or from
    /// another process, looks when it has arrived.
    pub(super) fn look(&mut self, slot: &Slot, relay: Option<&Relay>) {
        let Some(shared) = shared() else { return };
        let (mut seats, mut in_threads) = (Vec::new(), HashSet::new());
        let mut all = HashSet::new();
        for ordered in shared.ordered(slot) {
            all.insert(ordered.tunnel);
            if self.0.contains(&ordered.tunnel) {
                continue;
            }
            if ordered.is_relayed {
                seats.push(ordered.seat);
            } else {
                in_threads.insert(ordered.tunnel);
            }
        }
        self.0 = all;
        if !in_threads.is_empty() {
            alarm::ring(&in_threads);
        }
        if let Some(relay) = relay {
            relay.look_at_orders(seats.into_iter());
        }
    }
}
