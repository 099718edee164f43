//! Figures that have names, such as the tunnels opened of one virtual host. They never go back, and
//! outlive processes.
//!
//! Each has a place that follows from its key, or one of the next. It is taken by a single exchange,
//! for ever. When most are taken, a virtual host that comes is counted with all others; when all are,
//! not at all.

use std::sync::atomic::Ordering::{AcqRel, Acquire, Relaxed};

use crate::bits::{Bits, low_u32};
use crate::labels::{By, Direction, Handshake, Opcode, Reason, Timed};
use crate::names::Name;
use crate::sync::{AtomicU32, AtomicU64};

#[cfg(not(loom))]
const PLACES: u32 = 1 << 15;
#[cfg(loom)]
const PLACES: u32 = 4;
/// So many may be taken by virtual hosts. What is left is more than all others need: some stay free,
/// so that a key is found near where it should be.
const MOST_NAMED: u32 = PLACES * 3 / 4;
/// How far from there it may be.
const TRIES: u32 = if cfg!(loom) { PLACES } else { 128 };

/// One figure.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Metric {
    /// Tunnels opened.
    Opened {
        /// Of this virtual host.
        vhost: Name,
        /// To this back end.
        backend: Name,
    },
    /// Tunnels closed.
    Closed {
        /// Of this virtual host.
        vhost: Name,
        /// By whom.
        by: By,
        /// Why.
        reason: Reason,
        /// The code of the Close frame: 1000 to 1015, or 0, which all others become.
        code: u16,
    },
    /// Upgrade requests.
    Handshakes {
        /// Of this virtual host.
        vhost: Name,
        /// How they ended.
        result: Handshake,
    },
    /// Bytes of tunnels that have ended.
    Bytes {
        /// Of this virtual host.
        vhost: Name,
        /// Which way they went.
        direction: Direction,
    },
    /// Messages of tunnels that have ended.
    Messages {
        /// Of this virtual host.
        vhost: Name,
        /// Which way they went.
        direction: Direction,
        /// What they were made of.
        opcode: Opcode,
    },
    /// How many took so long.
    Durations {
        /// What did.
        of: Timed,
        /// Up to this one of [`Timed::bounds_micros`], and longer than the one before.
        bucket: u8,
    },
    /// How long all of them took, in microseconds.
    Micros {
        /// What did.
        of: Timed,
    },
}

/// A metric as a word, never 0.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Key(u64);

impl Key {
    const KIND: Bits = Bits { from: 0, count: 8 };
    const VHOST: Bits = Bits::above(Self::KIND, Name::BITS);
    const ONE: Bits = Bits::above(Self::VHOST, 16);
    const TWO: Bits = Bits::above(Self::ONE, 8);
    const THREE: Bits = Bits::above(Self::TWO, 8);

    fn new(metric: Metric) -> Self {
        let (kind, vhost, one, two, three) = match metric {
            Metric::Opened { vhost, backend } => (1, vhost, backend.number(), 0, 0),
            Metric::Closed { vhost, by, reason, code } => {
                let code = if matches!(code, 1000..=1015) { code } else { 0 };
                (2, vhost, code, by.number(), reason.number())
            }
            Metric::Handshakes { vhost, result } => (3, vhost, 0, result.number(), 0),
            Metric::Bytes { vhost, direction } => (4, vhost, 0, direction.number(), 0),
            Metric::Messages { vhost, direction, opcode } => {
                (5, vhost, 0, direction.number(), opcode.number())
            }
            Metric::Durations { of, bucket } => (6, Name::OTHER, 0, of.number(), u64::from(bucket)),
            Metric::Micros { of } => (7, Name::OTHER, 0, of.number(), 0),
        };
        Self(Self::KIND.set(0, kind))
            .with_vhost(vhost)
            .with(Self::ONE, u64::from(one))
            .with(Self::TWO, two)
            .with(Self::THREE, three)
    }

    const fn with(self, bits: Bits, value: u64) -> Self {
        Self(bits.set(self.0, value))
    }

    const fn with_vhost(self, vhost: Name) -> Self {
        self.with(Self::VHOST, vhost.number() as u64)
    }

    const fn vhost(self) -> Name {
        Name::from_number(Self::VHOST.get_u16(self.0))
    }

    /// Nobody can choose keys: what is in them are numbers of the module's own, of texts that are hashed
    /// by others.
    const fn hash(self, [one, two]: [u64; 2]) -> u64 {
        // The end of SplitMix64.
        let mixed = (self.0 ^ one).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ mixed >> 27 ^ two).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ mixed >> 31
    }

    /// `None` if nobody of this build wrote it.
    fn metric(self) -> Option<Metric> {
        let (vhost, one) = (self.vhost(), Self::ONE.get_u16(self.0));
        let (two, three) = (Self::TWO.get(self.0), Self::THREE.get(self.0));
        let metric = match Self::KIND.get(self.0) {
            1 => Metric::Opened { vhost, backend: Name::from_number(one) },
            2 => {
                let (by, reason) = (By::from_number(two)?, Reason::from_number(three));
                Metric::Closed { vhost, by, reason, code: one }
            }
            3 => Metric::Handshakes { vhost, result: Handshake::from_number(two)? },
            4 => Metric::Bytes { vhost, direction: Direction::from_number(two)? },
            5 => {
                let direction = Direction::from_number(two)?;
                Metric::Messages { vhost, direction, opcode: Opcode::from_number(three)? }
            }
            6 => Metric::Durations {
                of: Timed::from_number(two)?,
                bucket: Self::THREE.get_u8(self.0),
            },
            7 => Metric::Micros { of: Timed::from_number(two)? },
            _ => return None,
        };
        (Self::new(metric) == self).then_some(metric)
    }
}

/// A figure.
#[repr(C)]
struct Place {
    /// A [`Key`]. 0 if it is free.
    key: AtomicU64,
    value: AtomicU64,
    /// The most that was shown of it.
    shown: AtomicU64,
    _pad: AtomicU64,
}

/// All figures.
#[repr(C)]
pub(crate) struct Series {
    /// How many places are taken, or a few more.
    taken: AtomicU32,
    _pad: AtomicU32,
    places: [Place; PLACES as usize],
}

impl Series {
    #[cfg(loom)]
    pub fn new() -> Self {
        let zero = || AtomicU64::new(0);
        let place = |_| Place { key: zero(), value: zero(), shown: zero(), _pad: zero() };
        Self {
            taken: AtomicU32::new(0),
            _pad: AtomicU32::new(0),
            places: std::array::from_fn(place),
        }
    }

    fn place(&self, hash_key: [u64; 2], key: Key) -> Option<&Place> {
        let others = || self.find(hash_key, key.with_vhost(Name::OTHER));
        self.find(hash_key, key).or_else(others)
    }

    fn find(&self, hash_key: [u64; 2], key: Key) -> Option<&Place> {
        let hash = key.hash(hash_key);
        let most = if key.vhost() == Name::OTHER { PLACES } else { MOST_NAMED };
        let mut places = (0..TRIES)
            .filter_map(|nth| self.places.get((low_u32(hash).wrapping_add(nth) % PLACES) as usize));
        places.find_map(|place| match self.take(place, key, most) {
            0 => Some(None),
            found if found == key.0 => Some(Some(place)),
            _ => None,
        })?
    }

    /// The key that the place has now, which is 0 only if no more places are to be taken.
    fn take(&self, place: &Place, key: Key, most: u32) -> u64 {
        match place.key.load(Acquire) {
            0 if self.taken.load(Relaxed) >= most => 0,
            0 => match place.key.compare_exchange(0, key.0, AcqRel, Acquire) {
                Ok(_) => {
                    self.taken.fetch_add(1, Relaxed);
                    key.0
                }
                Err(found) => found,
            },
            found => found,
        }
    }

    pub fn count(&self, hash_key: [u64; 2], metric: Metric, by: u64) {
        if let Some(place) = self.place(hash_key, Key::new(metric)) {
            place.value.fetch_add(by, Relaxed);
        }
    }

    /// All that was counted.
    pub fn all(&self) -> impl Iterator<Item = (Metric, u64)> {
        self.places.iter().filter_map(|place| {
            let metric = Key(place.key.load(Acquire)).metric()?;
            Some((metric, place.value.load(Relaxed)))
        })
    }

    /// The most that was shown of a figure, this included.
    pub fn never_less(&self, hash_key: [u64; 2], metric: Metric, value: u64) -> u64 {
        // Of what has no place of its own nothing is kept.
        let place = self.find(hash_key, Key::new(metric));
        place.map_or(value, |place| place.shown.fetch_max(value, AcqRel).max(value))
    }
}
