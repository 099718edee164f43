//! Texts that are counted under, each with a number: of virtual hosts and of back ends.
//!
//! A text has a place that follows from its hash, or one of the next. Who needs it first writes the
//! hash there, by a single exchange: from then on the place is its own, for ever. Whoever finds the
//! hash and no text writes the text. So nobody waits, and nobody's death leaves anything behind.

use std::sync::atomic::Ordering::{AcqRel, Acquire, Relaxed, Release};

use siphasher::sip::SipHasher13;

use crate::bits::index;
use crate::sync::{AtomicU32, AtomicU64};
use crate::text;

/// Places of virtual hosts, each of which has series of its own in Prometheus, and of back ends, of which
/// there may be one for each user. Half of them are taken, so that a text is found near where it should be.
pub(crate) const VHOST_PLACES: usize = if cfg!(loom) { 2 } else { 2 * 1024 };
pub(crate) const BACKEND_PLACES: usize = if cfg!(loom) { 2 } else { 2 * 8192 };
/// How far from there it may be.
const TRIES: usize = 64;
/// A place is 256 bytes.
const WORDS: usize = if cfg!(loom) { 1 } else { 30 };

/// The number of a text: a virtual host's or a back end's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Name(u16);

impl Name {
    /// All those that there was no room for.
    pub const OTHER: Self = Self(0);
    /// What stands for the text of [`Self::OTHER`].
    pub const OTHER_TEXT: &'static str = "other";

    pub(crate) const BITS: u32 = 16;

    /// As a number.
    pub const fn number(self) -> u16 {
        self.0
    }

    /// What has this number.
    pub const fn from_number(number: u16) -> Self {
        Self(number)
    }
}

/// One text.
#[repr(C)]
struct Place {
    /// 0 if it is free.
    hash: AtomicU64,
    /// Of the text, plus 1. 0 if it is not written yet.
    length: AtomicU64,
    text: [AtomicU64; WORDS],
}

/// Texts of one kind.
#[repr(C)]
pub(crate) struct Names<const PLACES: usize> {
    /// How many places are taken, or a few more.
    taken: AtomicU32,
    _pad: AtomicU32,
    places: [Place; PLACES],
}

impl<const PLACES: usize> Names<PLACES> {
    /// More texts than this are not told apart.
    const MOST: usize = {
        assert!(PLACES < 1 << Name::BITS);
        if cfg!(loom) { PLACES } else { PLACES / 2 }
    };
    #[cfg(loom)]
    pub fn new() -> Self {
        let place = |_| Place {
            hash: AtomicU64::new(0),
            length: AtomicU64::new(0),
            text: std::array::from_fn(|_| AtomicU64::new(0)),
        };
        Self {
            taken: AtomicU32::new(0),
            _pad: AtomicU32::new(0),
            places: std::array::from_fn(place),
        }
    }

    /// The name of a text, which is cut at 240 bytes. `key` is the same each time.
    pub fn name(&self, key: [u64; 2], text: &[u8]) -> Name {
        let text = text::cut(text, size_of::<u64>() * WORDS);
        let hash = SipHasher13::new_with_keys(key[0], key[1]).hash(text).max(1);
        (0..TRIES.min(PLACES))
            .find_map(|nth| {
                let at = index(hash).wrapping_add(nth) % PLACES;
                let place = self.places.get(at)?;
                let found = self.take(place, hash)?;
                if found == hash {
                    place.write(text);
                    return Some(Name(u16::try_from(at).ok()? + 1));
                }
                // One that is free, when no more are to be taken.
                Some(Name::OTHER)
            })
            .unwrap_or(Name::OTHER)
    }

    /// The hash that the place has now, which is 0 only if no more places are to be taken. `None`
    /// if it is another text's.
    fn take(&self, place: &Place, hash: u64) -> Option<u64> {
        let found = match place.hash.load(Acquire) {
            0 if index(self.taken.load(Relaxed).into()) >= Self::MOST => 0,
            0 => match place.hash.compare_exchange(0, hash, AcqRel, Acquire) {
                Ok(_) => {
                    self.taken.fetch_add(1, Relaxed);
                    hash
                }
                Err(found) => found,
            },
            found => found,
        };
        (found == hash || found == 0).then_some(found)
    }

    /// The text of a name. Nobody's is empty.
    pub fn text(&self, name: Name) -> Vec<u8> {
        let place = usize::from(name.0).checked_sub(1).and_then(|at| self.places.get(at));
        place.map_or_else(|| Name::OTHER_TEXT.into(), Place::text)
    }
}

impl Place {
    fn write(&self, text: &[u8]) {
        if self.length.load(Acquire) == 0 {
            text::store(&self.text, text);
            self.length.store(text.len() as u64 + 1, Release);
        }
    }

    fn text(&self) -> Vec<u8> {
        let length = usize::try_from(self.length.load(Acquire)).unwrap_or(0).saturating_sub(1);
        let mut text = vec![0; length.min(size_of::<u64>() * WORDS)];
        text::load(&self.text, &mut text);
        text
    }
}
