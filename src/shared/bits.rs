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

    /// Of a part that has at most eight bits.
    pub const fn get_u8(self, word: u64) -> u8 {
        low_u8(self.get(word))
    }

    /// Of a part that has at most sixteen bits.
    pub const fn get_u16(self, word: u64) -> u16 {
        low_u16(self.get(word))
    }

    /// Of a part that has at most 32 bits.
    pub const fn get_u32(self, word: u64) -> u32 {
        low_u32(self.get(word))
    }

    /// Of a part that has at most 32 bits.
    pub const fn get_index(self, word: u64) -> usize {
        index(self.get(word))
    }
}

/// The lower half of two words.
pub(crate) const fn low_u64(words: u128) -> u64 {
    (words & 0xffff_ffff_ffff_ffff) as u64
}

/// The lower half of a word.
pub(crate) const fn low_u32(word: u64) -> u32 {
    (word & 0xffff_ffff) as u32
}

/// The lowest eighth of a word.
pub(crate) const fn low_u8(word: u64) -> u8 {
    (word & 0xff) as u8
}

/// The lowest quarter of a word.
pub(crate) const fn low_u16(word: u64) -> u16 {
    (word & 0xffff) as u16
}

/// The lower half of a word, as that of a place. No table here has as many.
pub(crate) const fn index(word: u64) -> usize {
    (word & 0xffff_ffff) as usize
}
