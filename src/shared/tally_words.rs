//! The words of a tally: what one of them says of a tunnel, or of a key's count, bit by bit.

use crate::bits::{Bits, index};
use crate::slot_number::SlotNumber;

/// More tunnels than this are not counted.
#[cfg(not(loom))]
pub(crate) const ENTRIES: usize = 1 << 17;
#[cfg(loom)]
pub(crate) const ENTRIES: usize = 3;

/// Counts that are next to each other, in one line of the processor's cache.
#[cfg(not(loom))]
pub(crate) const LINE: usize = 8;
#[cfg(loom)]
pub(crate) const LINE: usize = 1;
/// Lines in which the count of a key may be.
#[cfg(not(loom))]
pub(crate) const CHOICES: usize = 4;
#[cfg(loom)]
pub(crate) const CHOICES: usize = 2;
/// Lines in all: twice as many counts as can be in use.
pub(crate) const LINES: usize = 2 * ENTRIES / LINE;
/// Places where the count of a key may be.
pub(crate) const PLACES: usize = LINE * CHOICES;

/// What tunnels are counted under: a part of the hash of a name, such as a client's network.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TallyKey(pub(crate) u64);

impl TallyKey {
    pub(crate) const BITS: u32 = 41;
    pub(crate) const TAG: Bits = Bits { from: 0, count: 26 };
    pub(crate) const LINE: Bits = Bits::above(Self::TAG, Self::BITS - Self::TAG.count);

    /// By which its count is known among those of the same lines.
    pub(crate) const fn tag(self) -> u64 {
        Self::TAG.get(self.0)
    }

    /// The index of the count in one of its places.
    pub(crate) const fn index(self, place: usize) -> usize {
        // An odd step: so many different lines.
        let step = index(self.tag() | 1);
        let line = Self::LINE.get_index(self.0).wrapping_add(step.wrapping_mul(place / LINE));
        line % LINES * LINE + place % LINE
    }
}

/// How far a tunnel is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    Free,
    Joining,
    In,
    Leaving,
}

/// A tunnel, as its entry has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Entry(pub(crate) u64);

impl Entry {
    pub(crate) const KEY: Bits = Bits { from: 0, count: TallyKey::BITS };
    pub(crate) const SLOT: Bits = Bits::above(Self::KEY, SlotNumber::BITS);
    /// Where its key's count is, from the third step on.
    pub(crate) const PLACE: Bits = Bits::above(Self::SLOT, 5);
    pub(crate) const PHASE: Bits = Bits::above(Self::PLACE, 2);
    pub(crate) const LIFE: Bits = Bits::above(Self::PHASE, 3);

    pub(crate) const fn with(self, bits: Bits, value: u64) -> Self {
        Self(bits.set(self.0, value))
    }

    pub(crate) const fn key(self) -> TallyKey {
        TallyKey(Self::KEY.get(self.0))
    }

    pub(crate) const fn phase(self) -> Phase {
        match Self::PHASE.get(self.0) {
            0 => Phase::Free,
            1 => Phase::Joining,
            2 => Phase::In,
            _ => Phase::Leaving,
        }
    }

    pub(crate) const fn in_phase(self, phase: Phase) -> Self {
        self.with(Self::PHASE, phase as u64)
    }

    pub(crate) const fn is_of(self, slot: SlotNumber) -> bool {
        Self::SLOT.get(self.0) == slot.mark()
    }

    /// Where its count is.
    pub(crate) const fn index(self) -> usize {
        self.key().index(Self::PLACE.get_index(self.0) % PLACES)
    }

    pub(crate) const fn joining(self, key: TallyKey, slot: SlotNumber) -> Self {
        let life = Self::LIFE.get(self.0).wrapping_add(1);
        Self(0)
            .with(Self::LIFE, life)
            .with(Self::KEY, key.0)
            .with(Self::SLOT, slot.mark())
            .in_phase(Phase::Joining)
    }

    pub(crate) const fn entered(self, place: usize) -> Self {
        self.with(Self::PLACE, place as u64).in_phase(Phase::In)
    }

    pub(crate) const fn freed(self) -> Self {
        Self(0).with(Self::LIFE, Self::LIFE.get(self.0))
    }
}

/// The count of a key. One of nothing is free for another key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Total(pub(crate) u64);

impl Total {
    pub(crate) const TAG: Bits = Bits { from: 0, count: TallyKey::TAG.count };
    pub(crate) const COUNT: Bits = Bits::above(Self::TAG, 17);
    /// The index of the entry that changed it last, and how.
    pub(crate) const LAST: Bits = Bits::above(Self::COUNT, 17);
    pub(crate) const JOINED: Bits = Bits::above(Self::LAST, 1);
    pub(crate) const LIFE: Bits = Bits::above(Self::JOINED, 3);

    pub(crate) const fn count(self) -> u64 {
        Self::COUNT.get(self.0)
    }

    pub(crate) const fn is_of(self, key: TallyKey) -> bool {
        self.count() > 0 && Self::TAG.get(self.0) == key.tag()
    }

    pub(crate) const fn last(self) -> usize {
        Self::LAST.get_index(self.0)
    }

    pub(crate) const fn has_joined(self) -> bool {
        Self::JOINED.get(self.0) == 1
    }

    /// Whether this change was the last.
    pub(crate) const fn is_by(self, entry: usize, joined: bool) -> bool {
        self.last() == entry && self.has_joined() == joined
    }

    pub(crate) const fn changed(
        self,
        key: TallyKey,
        count: u64,
        entry: usize,
        joined: bool,
    ) -> Self {
        let life = Self::LIFE.get(self.0).wrapping_add(1);
        let word = Self::LIFE.set(0, life);
        let word = Self::TAG.set(word, key.tag());
        let word = Self::COUNT.set(word, count);
        Self(Self::JOINED.set(Self::LAST.set(word, entry as u64), joined as u64))
    }
}

const _: () = {
    assert!(
        Entry::LIFE.from + Entry::LIFE.count == 64 && Total::LIFE.from + Total::LIFE.count == 64
    );
    assert!(PLACES as u64 <= Entry::PLACE.most() + 1 && ENTRIES as u64 <= Total::LAST.most() + 1);
    assert!(LINES as u64 <= TallyKey::LINE.most() + 1);
};
