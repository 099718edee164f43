//! Words that hold several numbers.

/// A part of a word.
#[derive(Clone, Copy)]
pub(crate) struct Bits {
    pub from: u32,
    pub count: u32,
}

impl Bits {
    pub const fn above(below: Self, count: u32) -> Self {
        Self { from: below.from + below.count, count }
    }

    pub const fn most(self) -> u64 {
        (1 << self.count) - 1
    }

    pub const fn get(self, word: u64) -> u64 {
        word >> self.from & self.most()
    }

    pub const fn set(self, word: u64, value: u64) -> u64 {
        word & !(self.most() << self.from) | (value & self.most()) << self.from
    }
}
