//! Every open tunnel: whose it is, what it is, and what it does.
//!
//! A tunnel has an entry, which belongs to the slot of its process. One word of it, the *owner*, says
//! whose it is, how far it is, and which life of the entry this is. All changes are exchanges of
//! that word:
//!
//! 1. a free entry is taken, and a new life begins: *filling*
//! 2. it is written, and shown: *in a thread*
//! 3. it is *relayed*, and may go to other slots
//! 4. it is *ending*, and free again
//!
//! Its process may die between any two stores. Whoever clears the slot frees what belongs to it.
//! Whoever reads an entry looks at the owner before and afterwards: if it is the same, so was all the
//! rest.

use std::sync::atomic::Ordering::{AcqRel, Acquire, Relaxed, SeqCst};

use crate::activity::{Activity, Order, OrderWord};
use crate::bits::index;
use crate::entry::{About, Entry, Listed, Ordered, Owner, Phase};
use crate::labels::{self, By, Direction, Opcode, Reason};
use crate::mapping::Shareable;
use crate::names::{BACKEND_PLACES, Names, VHOST_PLACES};
use crate::nonces::Nonces;
use crate::orders::OrderTexts;
use crate::series::{Metric, Series};
use crate::slot_number::SlotNumber;
use crate::sync::{AtomicU32, AtomicU64, fence, somewhere};
use crate::tunnel_entry::TunnelEntry;

/// More tunnels than this are not listed, whatever the configuration says.
const ENTRIES: usize = if cfg!(loom) { 2 } else { 1 << 18 };

/// Owners that are in one line of the processor's cache.
const LINE: usize = if cfg!(loom) { 1 } else { 8 };

/// All of the memory: tunnels, and what is counted by name.
#[repr(C)]
pub struct Register {
    /// What is hashed with, so that nobody can choose texts that collide: random, made once.
    key: [AtomicU64; 2],
    /// How many entries may be taken.
    size: AtomicU32,
    /// No entry at or above this index was ever used.
    used: AtomicU32,
    pub(crate) vhosts: Names<VHOST_PLACES>,
    pub(crate) backends: Names<BACKEND_PLACES>,
    pub(crate) order_texts: OrderTexts,
    pub(crate) nonces: Nonces,
    pub(crate) series: Series,
    /// An [`Owner`] for each entry: together, so that whoever looks for one finds many at once.
    owners: [AtomicU64; ENTRIES],
    entries: [Entry; ENTRIES],
}

// SAFETY: atomics only, repr(C) throughout, any bytes are valid.
unsafe impl Shareable for Register {
    const LAYOUT: u64 = labels::LAYOUT ^ (5 << 32 | size_of::<Self>() as u64);
}

const _: () = assert!(size_of::<Register>() as u64 >> 32 == 0);

impl Register {
    /// More entries than this there cannot be.
    pub const MAX_SIZE: usize = ENTRIES;

    /// All free, where no mapping is at hand.
    #[cfg(loom)]
    pub(crate) fn new() -> Self {
        Self {
            key: std::array::from_fn(|_| AtomicU64::new(0)),
            size: AtomicU32::new(ENTRIES as u32),
            used: AtomicU32::new(0),
            vhosts: Names::new(),
            backends: Names::new(),
            order_texts: OrderTexts::new(),
            nonces: Nonces::new(),
            series: Series::new(),
            owners: std::array::from_fn(|_| AtomicU64::new(0)),
            entries: std::array::from_fn(|_| Entry::new()),
        }
    }

    /// A new configuration begins, which lists so many tunnels. In the parent, before children are
    /// made. `random` makes what is hashed with, the first time.
    ///
    /// # Errors
    /// Those of `random`.
    pub fn begin<E>(
        &self,
        size: usize,
        random: impl FnOnce() -> Result<[u64; 2], E>,
    ) -> Result<(), E> {
        if self.key() == [0; 2] {
            for (part, value) in self.key.iter().zip(random()?) {
                part.store(value, Relaxed);
            }
        }
        self.size.store(u32::try_from(size.min(ENTRIES)).unwrap_or(0), Relaxed);
        Ok(())
    }

    pub(crate) fn key(&self) -> [u64; 2] {
        self.key.each_ref().map(|part| part.load(Relaxed))
    }

    /// An entry for a new tunnel. It costs the same however many there are: where some in a hundred
    /// are free, one is found; of the last ones maybe not.
    fn take(&self, slot: SlotNumber) -> Option<(usize, Owner)> {
        /// Lines of owners that are looked at, among those that were used before.
        const FIRST: usize = 2;
        /// As many as this behind them.
        const BEHIND: usize = 8;
        /// Once all were: so many lines anywhere, which are all of a small register.
        const THEN: usize = 512;
        let size = (self.size.load(Relaxed) as usize).min(ENTRIES);
        let take = |index: usize| {
            let free = self.owner(index).filter(|owner| owner.phase() == Phase::Free)?;
            // Whoever looks for the entries of a dead process looks no further than this.
            if self.used() <= index {
                self.used.fetch_max(u32::try_from(index).ok()? + 1, AcqRel);
            }
            let filling = free.filling(slot);
            self.replace(index, free, filling).then_some((index, filling))
        };
        // Of one line of those below `end`: the nth that is looked at.
        let take_of_line = |nth: usize, end: usize| {
            let lines = end.div_ceil(LINE).max(1);
            let anywhere = || index(somewhere(nth)) % lines;
            let from = LINE * if lines <= THEN { nth % lines } else { anywhere() };
            (from..end.min(from + LINE)).find_map(take)
        };
        let take_behind = || Some(self.used()).filter(|index| *index < size).and_then(take);
        let used = self.used().min(size);
        (0..FIRST)
            .find_map(|nth| take_of_line(nth, used))
            .or_else(|| (0..BEHIND).find_map(|_| take_behind()))
            .or_else(|| (0..THEN).find_map(|nth| take_of_line(nth, size)))
    }

    /// No entry at or above this index was ever used.
    pub(crate) fn used(&self) -> usize {
        (self.used.load(Acquire) as usize).min(ENTRIES)
    }

    fn owner(&self, index: usize) -> Option<Owner> {
        self.owners.get(index).map(|owner| Owner(owner.load(Acquire)))
    }

    fn replace(&self, index: usize, seen: Owner, by: Owner) -> bool {
        let exchange = |owner: &AtomicU64| owner.compare_exchange(seen.0, by.0, AcqRel, Acquire);
        self.owners.get(index).is_some_and(|owner| exchange(owner).is_ok())
    }

    /// A tunnel's entry, and whose it is now. `None` once it is not registered any more.
    fn find(&self, tunnel: TunnelEntry) -> Option<(&Entry, Owner)> {
        let is_its = |owner: &Owner| owner.life() == tunnel.life() && owner.is_open();
        let owner = self.owner(tunnel.index()).filter(is_its)?;
        Some((self.entries.get(tunnel.index())?, owner))
    }

    /// Replaces the owner of a tunnel, and says by what.
    fn change(&self, tunnel: TunnelEntry, by: impl Fn(Owner) -> Owner) -> Option<Owner> {
        /// Nobody changes it that often unless one means harm.
        const TRIES: usize = 16;
        (0..TRIES)
            .map_while(|_| self.find(tunnel).map(|(_, seen)| (seen, by(seen))))
            .find(|(seen, by)| self.replace(tunnel.index(), *seen, *by))
            .map(|(_, by)| by)
    }

    /// A new tunnel, which a thread carries.
    pub(crate) fn add(
        &self,
        about: &About<'_>,
        slot: SlotNumber,
        seconds: u32,
    ) -> Option<TunnelEntry> {
        let (index, filling) = self.take(slot)?;
        self.entries.get(index)?.write(about, seconds);
        failpoint::step!("register.take");
        let is_shown = self.replace(index, filling, filling.in_phase(Phase::Thread));
        TunnelEntry::of(index, filling.life()).filter(|_| is_shown)
    }

    pub(crate) fn activity(&self, tunnel: TunnelEntry) -> Option<&Activity> {
        self.find(tunnel).map(|(entry, _)| &entry.activity)
    }

    pub(crate) fn mark_relayed(&self, tunnel: TunnelEntry) {
        self.change(tunnel, |owner| owner.in_phase(Phase::Relay));
    }

    /// The tunnel is another process's.
    pub(crate) fn pass(&self, tunnel: TunnelEntry, to: SlotNumber) -> Option<TunnelEntry> {
        self.change(tunnel, |owner| owner.of(to))?;
        // Whoever orders its end from now on sees whose it is, or the order is seen.
        fence(SeqCst);
        Some(tunnel)
    }

    /// A tunnel ended.
    pub(crate) fn forget(&self, tunnel: TunnelEntry) {
        if let Some(ending) = self.change(tunnel, |owner| owner.in_phase(Phase::Ending)) {
            self.end(tunnel.index(), ending);
        }
    }

    /// Frees an entry that is ending. What its tunnel did is counted from now on without it.
    fn end(&self, index: usize, ending: Owner) {
        failpoint::step!("register.end");
        if let Some(entry) = self.entries.get(index) {
            let vhost = entry.vhost();
            let (bytes, messages) = entry.activity.take_counts();
            for ((direction, bytes), messages) in
                Direction::ALL.into_iter().zip(bytes).zip(messages)
            {
                self.count_some(Metric::Bytes { vhost, direction }, bytes);
                for (opcode, messages) in Opcode::ALL.into_iter().zip(messages) {
                    self.count_some(Metric::Messages { vhost, direction, opcode }, messages);
                }
            }
        }
        self.replace(index, ending, ending.freed());
    }

    fn count_some(&self, metric: Metric, by: u64) {
        if by > 0 {
            self.count(metric, by);
        }
    }

    /// A tunnel ended with its process, which could not count that.
    fn count_left(&self, index: usize) {
        if let Some(entry) = self.entries.get(index) {
            /// There was no Close frame (RFC 6455 7.1.5).
            const CODE: u16 = 1006;
            let (vhost, reason) = (entry.vhost(), Reason::PROCESS_ENDED);
            self.count(Metric::Closed { vhost, by: By::Us, reason, code: CODE }, 1);
        }
    }

    /// The process of a slot is gone, and so are its tunnels. One process at a time does this for a
    /// slot, again and again until one gets to the end. Says how many of them a relay had.
    pub(crate) fn forget_all(&self, slot: SlotNumber) -> usize {
        let mut relayed = 0;
        for index in 0..self.used() {
            // It is changed under our eyes at most by one that moves it.
            for _ in 0..4 {
                let Some(owner) = self.owner(index).filter(|owner| owner.is_of(slot)) else {
                    break;
                };
                match owner.phase() {
                    Phase::Free => break,
                    Phase::Filling => {
                        self.replace(index, owner, owner.freed());
                    }
                    Phase::Ending => self.end(index, owner),
                    Phase::Thread | Phase::Relay => {
                        let ending = owner.in_phase(Phase::Ending);
                        if self.replace(index, owner, ending) {
                            relayed += usize::from(owner.phase() == Phase::Relay);
                            self.count_left(index);
                            self.end(index, ending);
                        }
                    }
                }
            }
        }
        relayed
    }

    /// What is in an entry, if that is an open tunnel. `pid_of` says which process a slot is of.
    pub(crate) fn listed(
        &self,
        index: usize,
        pid_of: impl Fn(SlotNumber) -> Option<u32>,
    ) -> Option<Listed> {
        /// It is another's meanwhile: seldom, and hardly ever twice.
        const TRIES: usize = 4;
        for _ in 0..TRIES {
            let owner = self.owner(index).filter(|owner| owner.is_open())?;
            let pid = pid_of(owner.slot()?)?;
            let tunnel = TunnelEntry::of(index, owner.life())?;
            let listed = self.entries.get(index)?.read(tunnel, owner, pid);
            if self.owner(index) == Some(owner) {
                return Some(listed);
            }
        }
        None
    }

    /// Orders a tunnel to end, and says whose it is. `None` if it has ended, or has an order.
    /// `hears` says of a slot, and of whether a relay has the tunnel, whether it would look.
    pub(crate) fn order(
        &self,
        tunnel: TunnelEntry,
        order: Order,
        hears: impl Fn(SlotNumber, bool) -> bool,
    ) -> Option<SlotNumber> {
        /// What was found changes only if another order is given, to a later tunnel.
        const TRIES: usize = 16;
        let word = OrderWord::new(tunnel.life(), order);
        for _ in 0..TRIES {
            let at = &self.entries.get(tunnel.index())?.activity.order;
            let seen = at.load(Acquire);
            // Behind that: if it is the same when it is replaced, no later tunnel is ordered.
            let (_, owner) = self.find(tunnel)?;
            let is_heard = hears(owner.slot()?, owner.phase() == Phase::Relay);
            if !is_heard || OrderWord(seen).is_for(tunnel.life()) {
                return None;
            }
            if at.compare_exchange(seen, word.0, AcqRel, Relaxed).is_ok() {
                // Whoever takes the tunnel over from now on sees the order, or is seen here.
                fence(SeqCst);
                return self.find(tunnel)?.1.slot();
            }
        }
        None
    }

    /// The tunnel in an entry and its seat, if it is of this slot and has an order.
    pub(crate) fn ordered(&self, index: usize, slot: SlotNumber) -> Option<Ordered> {
        /// It goes to a relay or another process meanwhile, or ends: seldom, and hardly ever twice.
        const TRIES: usize = 4;
        for _ in 0..TRIES {
            let owner = self.owner(index).filter(|owner| owner.is_open() && owner.is_of(slot))?;
            let activity = &self.entries.get(index)?.activity;
            let is_ordered = OrderWord(activity.order.load(Acquire)).is_for(owner.life());
            let ordered = Ordered {
                tunnel: TunnelEntry::of(index, owner.life()).filter(|_| is_ordered)?,
                is_relayed: owner.phase() == Phase::Relay,
                seat: activity.seat.load(Acquire),
            };
            if self.owner(index) == Some(owner) {
                return Some(ordered);
            }
        }
        None
    }

    pub(crate) fn count(&self, metric: Metric, by: u64) {
        self.series.count(self.key(), metric, by);
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn names_version_and_size_are_told_by_the_layout() {
        let own = Register::LAYOUT ^ labels::LAYOUT;
        assert_eq!(own & u64::from(u32::MAX), size_of::<Register>() as u64);
        assert!(own >> 32 >= 2);
    }
}
