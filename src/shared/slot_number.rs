//! Which slot an entry of another table belongs to.

/// The number of a slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SlotNumber(pub u16);

impl SlotNumber {
    pub const BITS: u32 = 13;

    /// Never 0.
    pub const fn mark(self) -> u64 {
        self.0 as u64 + 1
    }
}
