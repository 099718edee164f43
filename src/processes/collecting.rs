//! How a drain process takes in the tunnels of other children, see [`collector`].

use std::os::fd::BorrowedFd;
use std::time::{Duration, Instant};

use messages::OthersTunnelLost;
use relay::{Relay, Tunnel};
use shared::Slot;

use crate::processes::collector::{self, Claim, Received};
use crate::processes::line_kind::Kind;
use crate::processes::lines;

/// Tunnels are collected during the first of so many parts of WSForwardDrainTimeout.
const COLLECTING_SHARE: u32 = 8;

/// Gives a tunnel to the relay of a drain process.
pub(super) fn adopt(relay: &Relay, tunnel: Tunnel) {
    if let Err(tunnel) = relay.adopt(tunnel) {
        tunnel.end(relay::By::Us, relay::Why::ThreadDied);
    }
}

/// A drain process that takes in the tunnels of other children.
pub(super) struct Collecting {
    /// The role, and where tunnels come from.
    pub claim: Claim,
    /// No longer than this: all its tunnels end at the same time, so the last must not be too new.
    pub until: Option<Instant>,
    /// No more tunnels than this.
    max_tunnels: usize,
}

impl Collecting {
    /// The role is this process's.
    pub(super) fn start(claim: Claim, timeout: Option<Duration>) -> Self {
        let until = timeout.map(|timeout| Instant::now() + timeout / COLLECTING_SHARE);
        Self { claim, until, max_tunnels: collector::most() }
    }

    /// Takes what came, and says how many tunnels. `None` if the time for it is over.
    pub(super) fn go_on(self, relay: &Relay, slot: &Slot) -> (Option<Self>, usize) {
        if !self.claim.is_held() {
            // The queue of who has the role now may be another: of a build with other messages.
            return (None, take_in(self.claim.queue, relay, slot));
        }
        if relay.open() >= self.max_tunnels
            || self.until.is_some_and(|until| until <= Instant::now())
        {
            return (None, self.end(relay, slot));
        }
        let came = take_in(self.claim.queue, relay, slot);
        (Some(self), came)
    }

    /// Takes what is left, and says how many tunnels.
    pub(super) fn end(self, relay: &Relay, slot: &Slot) -> usize {
        let queue = self.claim.give_up();
        failpoint::step!("collector.leave");
        take_in(queue, relay, slot)
    }
}

fn take_in(queue: BorrowedFd<'_>, relay: &Relay, slot: &Slot) -> usize {
    arrived(queue, slot).map(|tunnel| adopt(relay, tunnel)).count()
}

/// The tunnels that came through the queue. Those that are lost are said to be.
pub(super) fn arrived(queue: BorrowedFd<'_>, slot: &Slot) -> impl Iterator<Item = Tunnel> {
    collector::received(queue, slot).filter_map(|one| match one {
        Received::Tunnel(tunnel) => Some(tunnel),
        Received::KnownLost(record, why) => {
            collector::lost(record, &why);
            None
        }
        Received::Lost(why) => {
            lines::say(Kind::Lost, &OthersTunnelLost { why: &why });
            None
        }
    })
}
