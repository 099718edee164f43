//! Whether something is there, as the process says that looked last: all of them say the same.

use std::sync::atomic::Ordering::Relaxed;

use crate::sync::AtomicU64;

/// When somebody looked last, and what was seen: in one word, of which the greatest holds. What a
/// process that means harm writes holds for no longer than any other; after a time that is still to
/// come nothing is remembered.
#[repr(transparent)]
pub struct Sighting(AtomicU64);

impl Sighting {
    #[cfg(loom)]
    pub(crate) fn new() -> Self {
        Self(AtomicU64::new(0))
    }

    /// It was looked for at that time, in microseconds of a clock that all processes share.
    pub fn note(&self, at: u64, is_there: bool) {
        self.0.fetch_max(at << 1 | u64::from(is_there), Relaxed);
    }

    /// What was seen, if that was less than so many microseconds ago.
    pub fn recent(&self, now: u64, within: u64) -> Option<bool> {
        let word = self.0.load(Relaxed);
        let age = now.checked_sub(word >> 1)?;
        (word != 0 && age < within).then_some(word & 1 == 1)
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::Sighting;
    use crate::sync::AtomicU64;

    #[test]
    fn the_last_look_holds_for_a_while() {
        let seen = Sighting(AtomicU64::new(0));
        assert_eq!(seen.recent(5, 10), None, "nobody has looked");
        seen.note(10, false);
        assert_eq!((seen.recent(10, 5), seen.recent(14, 5)), (Some(false), Some(false)));
        assert_eq!(seen.recent(15, 5), None, "too long ago");
        seen.note(15, true);
        assert_eq!(seen.recent(16, 5), Some(true));
        // Somebody who looked earlier says so later.
        seen.note(12, false);
        assert_eq!(seen.recent(16, 5), Some(true));
        assert_eq!(seen.recent(14, 5), None, "of a time to come");
    }

    #[test]
    fn what_does_harm_is_not_remembered() {
        let seen = Sighting(AtomicU64::new(u64::MAX));
        seen.note(10, true);
        assert_eq!(seen.recent(11, 5), None);
    }
}
