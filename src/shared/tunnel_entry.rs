//! The handle of a tunnel in the register.

use crate::bits::low_u32;
use std::num::NonZeroU32;

/// Where a tunnel is registered, as its owner knows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct TunnelEntry {
    index: u32,
    life: NonZeroU32,
}

impl TunnelEntry {
    /// As bytes, for [`Self::thaw`]. Of none: all zero.
    pub fn freeze(entry: Option<Self>) -> [u8; 8] {
        entry.map_or([0; 8], |Self { index, life }| {
            (u64::from(index) << 32 | u64::from(life.get())).to_le_bytes()
        })
    }

    /// What became these bytes.
    pub fn thaw(bytes: [u8; 8]) -> Option<Self> {
        let word = u64::from_le_bytes(bytes);
        Some(Self { index: low_u32(word >> 32), life: NonZeroU32::new(low_u32(word))? })
    }

    pub(crate) const fn life(self) -> u32 {
        self.life.get()
    }

    pub(crate) const fn index(self) -> usize {
        self.index as usize
    }

    /// The tunnel that has an entry in one of its lives.
    pub(crate) fn of(index: usize, life: u32) -> Option<Self> {
        Some(Self { index: u32::try_from(index).ok()?, life: NonZeroU32::new(life)? })
    }
}
