//! How many tunnels are open under each of many keys, found in constant time: one of these counts
//! by client, another by back end.
//!
//! An entry for each tunnel says what it counts under: a key, and the process that has it. It is
//! the truth. Beside the entries is an index: a count for each key, in one of a few places that
//! follow from it. A tunnel joins in three steps, each a single exchange of one word:
//!
//! 1. an entry is taken: *joining*
//! 2. the key's count is raised, and names the entry as the last that changed it
//! 3. the entry is *in*
//!
//! and leaves likewise (*leaving*, the count is lowered, the entry is free). Its process may die
//! between any two. Whoever finds it dead looks at its entries: one that is *joining* or *leaving*
//! has changed its count if the count still names it. It cannot have been overwritten: whoever is
//! about to change a count first does the third step of the entry that it names, in its place.
//!
//! A word has a few bits that differ from life to life of what it stands for, so that who was held
//! up between looking and exchanging does not take a later life for the one that it saw.

use std::num::NonZeroU64;
use std::sync::atomic::Ordering::{AcqRel, Acquire, Relaxed};

use siphasher::sip::SipHasher13;

use crate::bits::index;
use crate::slot_number::SlotNumber;
use crate::sync::{AtomicU32, AtomicU64, somewhere};
use crate::tally_words::{ENTRIES, Entry, LINE, LINES, PLACES, Phase, TallyKey, Total};

/// An exchange fails only if another process made progress. So often it does only if one means harm.
const TRIES: usize = 1000;

/// Entries and counts.
#[repr(C)]
pub(crate) struct Tally {
    /// What names are hashed with, so that nobody can choose some that collide: random, made once.
    key: [AtomicU64; 2],
    /// No entry at or above this index was ever used.
    used: AtomicU32,
    _pad: AtomicU32,
    entries: [AtomicU64; ENTRIES],
    totals: [AtomicU64; LINES * LINE],
}

/// There are as many tunnels under a key as there may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Full;

/// Where one tunnel is counted, and as what.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TallyEntry {
    index: u32,
    word: NonZeroU64,
}

impl TallyEntry {
    /// As bytes, for [`Self::thaw`]. Of none: all zero.
    pub(crate) fn freeze(entry: Option<Self>) -> [u8; 12] {
        let mut bytes = [0; 12];
        if let Some(Self { index, word }) = entry {
            bytes[..4].copy_from_slice(&index.to_le_bytes());
            bytes[4..].copy_from_slice(&word.get().to_le_bytes());
        }
        bytes
    }

    /// What became these bytes.
    pub(crate) fn thaw(bytes: [u8; 12]) -> Option<Self> {
        let (index, word) = bytes.split_first_chunk()?;
        let word = NonZeroU64::new(u64::from_le_bytes(word.try_into().ok()?))?;
        Some(Self { index: u32::from_le_bytes(*index), word })
    }

    fn new(index: usize, entry: Entry) -> Option<Self> {
        Some(Self { index: u32::try_from(index).ok()?, word: NonZeroU64::new(entry.0)? })
    }
}

impl Tally {
    #[cfg(loom)]
    pub fn new() -> Self {
        Self {
            key: std::array::from_fn(|_| AtomicU64::new(0)),
            used: AtomicU32::new(0),
            _pad: AtomicU32::new(0),
            entries: std::array::from_fn(|_| AtomicU64::new(0)),
            totals: std::array::from_fn(|_| AtomicU64::new(0)),
        }
    }

    pub fn set_key_once<E>(&self, random: impl FnOnce() -> Result<[u64; 2], E>) -> Result<(), E> {
        if self.key.iter().all(|part| part.load(Relaxed) == 0) {
            for (part, value) in self.key.iter().zip(random()?) {
                part.store(value, Relaxed);
            }
        }
        Ok(())
    }

    pub fn key(&self, name: &[u8]) -> TallyKey {
        let [one, two] = &self.key;
        let hasher = SipHasher13::new_with_keys(one.load(Relaxed), two.load(Relaxed));
        TallyKey(hasher.hash(name) >> (u64::BITS - TallyKey::BITS))
    }

    /// How many tunnels are open under a key.
    pub fn count(&self, key: TallyKey) -> usize {
        self.sum(key, 0..PLACES)
    }

    /// The same in some of its places.
    fn sum(&self, key: TallyKey, places: impl Iterator<Item = usize>) -> usize {
        places
            .map(|place| self.total(key.index(place)))
            .filter(|total| total.is_of(key))
            .map(|total| index(total.count()))
            .sum()
    }

    /// Counts a tunnel under a key, for a process: its entry, and how many there are with it. `None`
    /// if there is no room.
    ///
    /// Of several that join at a time each sees another number, so that just as many as may are
    /// within a limit. A key has one count, unless that was full or was begun twice at once: then
    /// the others are added as they are at that moment.
    pub fn join(&self, key: TallyKey, slot: SlotNumber) -> Option<(TallyEntry, usize)> {
        let (at, joining) = self.take_entry(key, slot)?;
        for _ in 0..TRIES {
            let Some((place, seen)) = self.place_for(key) else { break };
            let count = seen.count() + 1;
            if self.change(key.index(place), seen, seen.changed(key, count, at, true)) {
                let entered = joining.entered(place);
                self.replace(at, joining, entered);
                let others = (0..PLACES).filter(|other| *other != place);
                return Some((TallyEntry::new(at, entered)?, self.sum(key, others) + index(count)));
            }
        }
        self.replace(at, joining, joining.freed());
        None
    }

    /// Counts a tunnel as [`Self::join`] does, if there are not `most` already. `None` if there is no room.
    ///
    /// # Errors
    /// There are.
    pub fn join_within(
        &self,
        key: TallyKey,
        slot: SlotNumber,
        most: usize,
    ) -> Result<Option<TallyEntry>, Full> {
        match self.join(key, slot) {
            Some((entry, tunnels)) if tunnels > most => {
                self.leave(entry);
                Err(Full)
            }
            None if self.count(key) >= most => Err(Full),
            joined => Ok(joined.map(|(entry, _)| entry)),
        }
    }

    /// The tunnel of an entry is another process's, which counts it anew if it was not counted any
    /// more.
    pub fn pass(&self, entry: TallyEntry, to: SlotNumber) -> Option<TallyEntry> {
        let (index, from) = (entry.index as usize, Entry(entry.word.get()));
        let moved = from.with(Entry::SLOT, to.mark());
        if from.phase() == Phase::In && self.replace(index, from, moved) {
            TallyEntry::new(index, moved)
        } else {
            self.join(from.key(), to).map(|(entry, _)| entry)
        }
    }

    /// A tunnel ended.
    pub fn leave(&self, entry: TallyEntry) {
        let (index, entry) = (entry.index as usize, Entry(entry.word.get()));
        if entry.phase() == Phase::In {
            self.begin_to_leave(index, entry);
        }
    }

    /// The process of a slot is gone: its tunnels are not counted any more. One process at a time
    /// does this for a slot, again and again until one gets to the end.
    pub fn forget_all(&self, slot: SlotNumber) {
        for index in 0..self.used() {
            // It is changed under our eyes at most by one who does its third step.
            for _ in 0..4 {
                let Some(entry) = self.entry(index).filter(|entry| entry.is_of(slot)) else {
                    break;
                };
                match entry.phase() {
                    Phase::Free => break,
                    Phase::Joining => self.settle_joining(index, entry),
                    Phase::In => self.begin_to_leave(index, entry),
                    Phase::Leaving => self.go_on_leaving(index, entry),
                }
            }
        }
    }

    /// Of a process that is gone: whether its count was raised.
    fn settle_joining(&self, index: usize, entry: Entry) {
        let key = entry.key();
        let place = (0..PLACES).find(|place| {
            let total = self.total(key.index(*place));
            total.is_of(key) && total.is_by(index, true)
        });
        // If the count names another by now, somebody has done the third step before, and this
        // fails.
        self.replace(index, entry, place.map_or(entry.freed(), |place| entry.entered(place)));
    }

    fn begin_to_leave(&self, index: usize, entry: Entry) {
        let leaving = entry.in_phase(Phase::Leaving);
        if self.replace(index, entry, leaving) {
            self.go_on_leaving(index, leaving);
        }
    }

    fn go_on_leaving(&self, index: usize, leaving: Entry) {
        let (key, at) = (leaving.key(), leaving.index());
        let is_lowered = (0..TRIES).any(|_| {
            let seen = self.total(at);
            if seen.is_by(index, false) || !seen.is_of(key) {
                return true;
            }
            // Somebody may have seen that the count was lowered, and done the third step.
            self.entry(index) != Some(leaving)
                || self.change(at, seen, seen.changed(key, seen.count() - 1, index, false))
        });
        if is_lowered {
            self.replace(index, leaving, leaving.freed());
        }
    }

    /// Replaces what was seen, if it is still there. The entry that it names is done with before.
    fn change(&self, at: usize, seen: Total, by: Total) -> bool {
        self.settle_last(at, seen);
        let exchange = |total: &AtomicU64| total.compare_exchange(seen.0, by.0, AcqRel, Acquire);
        self.totals.get(at).is_some_and(|total| exchange(total).is_ok())
    }

    fn settle_last(&self, at: usize, seen: Total) {
        let index = seen.last();
        let Some(entry) = self.entry(index) else { return };
        let next = match (seen.has_joined(), entry.phase()) {
            (true, Phase::Joining) => {
                let key = entry.key();
                let Some(place) = (0..PLACES).find(|place| key.index(*place) == at) else { return };
                entry.entered(place)
            }
            (false, Phase::Leaving) if entry.index() == at => entry.freed(),
            _ => return,
        };
        // Else it may be another life of the entry, which has nothing to do with this count.
        if self.total(at) == seen {
            self.replace(index, entry, next);
        }
    }

    /// Where a key is counted, or can be: the place, and what is there.
    fn place_for(&self, key: TallyKey) -> Option<(usize, Total)> {
        let mut free = None;
        for place in 0..PLACES {
            let total = self.total(key.index(place));
            if total.is_of(key) && total.count() < Total::COUNT.most() {
                return Some((place, total));
            }
            if total.count() == 0 && free.is_none() {
                free = Some((place, total));
            }
        }
        free
    }

    /// An entry for a tunnel that joins.
    fn take_entry(&self, key: TallyKey, slot: SlotNumber) -> Option<(usize, Entry)> {
        /// Among those that were used before.
        const FIRST: usize = 8;
        /// Once all were.
        const THEN: usize = 512;
        let take = |index: usize| {
            let free = self.entry(index).filter(|entry| entry.phase() == Phase::Free)?;
            // Whoever looks for the entries of a dead process looks no further than this.
            if self.used() <= index {
                self.used.fetch_max(u32::try_from(index).ok()? + 1, AcqRel);
            }
            let joining = free.joining(key, slot);
            self.replace(index, free, joining).then_some((index, joining))
        };
        let within = |end: usize, nth| index(somewhere(nth)) % end.max(1);
        let used = self.used();
        (0..FIRST.min(used))
            .find_map(|nth| take(within(used, nth)))
            .or_else(|| (0..FIRST).find_map(|_| take(self.used())))
            .or_else(|| (0..THEN.min(ENTRIES)).find_map(|nth| take(within(ENTRIES, nth))))
    }

    /// No entry at or above this index was ever used.
    fn used(&self) -> usize {
        (self.used.load(Acquire) as usize).min(ENTRIES)
    }

    fn entry(&self, index: usize) -> Option<Entry> {
        self.entries.get(index).map(|entry| Entry(entry.load(Acquire)))
    }

    fn total(&self, at: usize) -> Total {
        Total(self.totals.get(at).map_or(0, |total| total.load(Acquire)))
    }

    fn replace(&self, index: usize, seen: Entry, by: Entry) -> bool {
        let exchange = |entry: &AtomicU64| entry.compare_exchange(seen.0, by.0, AcqRel, Acquire);
        self.entries.get(index).is_some_and(|entry| exchange(entry).is_ok())
    }
}
