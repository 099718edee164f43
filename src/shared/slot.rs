//! What stands in shared memory of one process.

use std::sync::atomic::AtomicU32 as Word;
use std::sync::atomic::AtomicU64 as Count;
use std::sync::atomic::Ordering::{AcqRel, Acquire, Relaxed, Release};

use crate::counters::Counts;
use crate::processes::Processes;
use crate::sync::AtomicU32;

/// One process.
#[repr(C)]
pub struct Slot {
    /// An [`Owner`].
    owner: AtomicU32,
    /// Raised when some of its tunnels have got orders, and woken (a futex). The lowest bits are
    /// [`Deaf`].
    orders: Word,
    /// Upgrade requests admitted that are no tunnels yet (a gauge).
    pub reserved: Count,
    /// Tunnels that its limit of descriptors allows (a gauge).
    pub capacity: Count,
    /// What outlives the process in the totals.
    pub counts: Counts,
}

/// Whose a slot is, as it stands there. 0 is free.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Owner(u32);

impl Owner {
    pub(crate) const NOBODY: Self = Self(0);
    /// Process ids are below (PID_MAX_LIMIT, 2^22).
    const CLEARING: u32 = 1 << 31;

    pub(crate) const fn of(pid: u32) -> Self {
        Self(pid)
    }

    /// A process that clears the slot.
    pub(crate) const fn clearing(pid: u32) -> Self {
        Self(pid | Self::CLEARING)
    }

    pub(crate) const fn is_clearing(self) -> bool {
        self.0 & Self::CLEARING != 0
    }

    pub(crate) const fn pid(self) -> u32 {
        self.0 & !Self::CLEARING
    }
}

/// The tunnels of a process that nobody tells of orders, as bits.
struct Deaf;

impl Deaf {
    const RELAYED: u32 = 1;
    const IN_THREADS: u32 = 2;
    const ALL: u32 = Self::RELAYED | Self::IN_THREADS;

    const fn of(is_relayed: bool) -> u32 {
        if is_relayed { Self::RELAYED } else { Self::IN_THREADS }
    }
}

#[cfg(not(loom))]
impl Default for Slot {
    fn default() -> Self {
        Self::new()
    }
}

impl Slot {
    /// A slot of no shared memory.
    #[cfg(not(loom))]
    pub const fn new() -> Self {
        Self {
            owner: AtomicU32::new(0),
            orders: Word::new(0),
            reserved: Count::new(0),
            capacity: Count::new(0),
            counts: Counts::new(),
        }
    }

    #[cfg(loom)]
    pub(crate) fn new() -> Self {
        Self {
            owner: AtomicU32::new(0),
            orders: Word::new(0),
            reserved: Count::new(0),
            capacity: Count::new(0),
            counts: Counts::new(),
        }
    }

    pub(crate) fn owner(&self) -> Owner {
        Owner(self.owner.load(Acquire))
    }

    /// Unless the slot is another's.
    pub(crate) fn replace(&self, of: Owner, by: Owner) -> bool {
        self.owner.compare_exchange(of.0, by.0, AcqRel, Relaxed).is_ok()
    }

    /// What it counted has gone into the totals: it is free for another process, which sees what was
    /// cleared before.
    pub(crate) fn free(&self) {
        self.clear_gauges();
        self.owner.store(Owner::NOBODY.0, Release);
    }

    fn clear_gauges(&self) {
        for gauge in [&self.reserved, &self.capacity] {
            gauge.store(0, Relaxed);
        }
        self.orders.fetch_and(!Deaf::ALL, Relaxed);
    }

    /// The slot of the child `from` becomes that of the drain process `to` forked from it. Both
    /// call this, of which either may end at any time: nobody finds the slot without a living
    /// process.
    pub fn become_drain(&self, from: u32, to: u32) {
        if self.replace(Owner::of(from), Owner::of(to)) {
            self.clear_gauges();
        }
    }

    /// Its process id, unless it is being cleared, or free.
    pub(crate) fn living_pid(&self) -> Option<u32> {
        let owner = self.owner();
        (owner != Owner::NOBODY && !owner.is_clearing()).then_some(owner.pid())
    }

    pub(crate) fn raise_orders(&self, processes: &dyn Processes) {
        self.orders.fetch_add(Deaf::ALL + 1, Release);
        processes.wake(&self.orders);
    }

    /// Nobody tells tunnels of this process what they are ordered: those of its relay, or those in
    /// threads. They are not ordered anything then.
    pub fn make_deaf(&self, is_relayed: bool) {
        self.orders.fetch_or(Deaf::of(is_relayed), Release);
    }

    pub(crate) fn hears(&self, is_relayed: bool) -> bool {
        self.orders.load(Acquire) & Deaf::of(is_relayed) == 0
    }

    /// What is raised for each order to one of its tunnels, and woken: a futex.
    pub const fn orders(&self) -> &Word {
        &self.orders
    }

    /// Whether it is in shared memory.
    pub fn is_shared(&self) -> bool {
        self.owner() != Owner::NOBODY
    }

    /// Whether its process has a relay that takes tunnels.
    pub fn takes_tunnels(&self) -> bool {
        self.capacity.load(Relaxed) > 0
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.owner().0
    }
}
