//! Has the tunnels of this process look at what an administrator orders them. Others store the order
//! in the tunnel's entry, and raise a number in this process's slot.

use std::io;
use std::sync::atomic::Ordering::Acquire;
use std::time::Duration;

use os::futex;
use relay::Relay;
use shared::Slot;

use crate::processes::alarm;
use crate::processes::memory::shared;

/// A call that wakes is not lost; this only bounds what a bug could do.
const LOOK_AROUND: Duration = Duration::from_secs(3600);

/// Starts a thread that acts whenever there may be an order, and lives as long as the process.
///
/// # Errors
/// It cannot be started.
pub fn watch(slot: &'static Slot, act: impl Fn() + Send + 'static) -> io::Result<()> {
    relay::spawn_without_signals("wsf-orders", move || {
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

/// Has all look that have an order.
pub fn look(slot: &Slot, relay: Option<&Relay>) {
    let Some(shared) = shared() else { return };
    let mut seats = Vec::new();
    for ordered in shared.ordered(slot) {
        if ordered.is_relayed {
            seats.push(ordered.seat);
        } else {
            alarm::ring(ordered.seat);
        }
    }
    if let Some(relay) = relay {
        relay.look_at_orders(seats.into_iter());
    }
}
