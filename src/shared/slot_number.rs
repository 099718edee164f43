//! Which slot an entry of another table belongs to.

use crate::bits::low_u16;

/// The number of a slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SlotNumber(pub u16);

impl SlotNumber {
    pub const BITS: u32 = 13;

    /// Never 0.
    pub const fn mark(self) -> u64 {
        self.0 as u64 + 1
    }

    /// The other way round.
    pub const fn of_mark(mark: u64) -> Option<Self> {
        match mark.checked_sub(1) {
            Some(number) => Some(Self(low_u16(number))),
            None => None,
        }
    }
}
