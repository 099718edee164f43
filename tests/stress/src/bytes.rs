//! Random bytes that both ends can make again, and random decisions.

/// A stream of bytes known by its seed.
#[derive(Clone)]
pub(crate) struct Stream {
    seed: u64,
    at: u64,
}

fn mix(value: u64) -> u64 {
    // splitmix64
    let mut z = value.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

impl Stream {
    /// The stream of a seed, from its first byte.
    pub(crate) fn new(seed: u64) -> Self {
        Self { seed: mix(seed), at: 0 }
    }

    /// How many bytes were taken of it.
    pub(crate) fn taken(&self) -> u64 {
        self.at
    }

    fn word(&self, index: u64) -> [u8; 8] {
        mix(self.seed ^ index).to_le_bytes()
    }

    /// The next bytes.
    pub(crate) fn fill(&mut self, bytes: &mut [u8]) {
        let mut rest = bytes;
        while !rest.is_empty() {
            let word = self.word(self.at / 8);
            let from = (self.at % 8) as usize;
            let take = rest.len().min(8 - from);
            rest[..take].copy_from_slice(&word[from..from + take]);
            self.at += take as u64;
            rest = &mut rest[take..];
        }
    }

    /// Whether these are the next bytes; the place of the first wrong one if not.
    pub(crate) fn check(&mut self, bytes: &[u8]) -> Result<(), u64> {
        let mut rest = bytes;
        while !rest.is_empty() {
            let word = self.word(self.at / 8);
            let from = (self.at % 8) as usize;
            let take = rest.len().min(8 - from);
            if let Some(wrong) = (0..take).find(|at| rest[*at] != word[from + at]) {
                return Err(self.at + wrong as u64);
            }
            self.at += take as u64;
            rest = &rest[take..];
        }
        Ok(())
    }
}

/// Random decisions.
pub(crate) struct Dice(u64);

impl Dice {
    /// Known by their seed.
    pub(crate) fn new(seed: u64) -> Self {
        Self(mix(seed ^ 0x5eed))
    }

    /// A number in `0..below`.
    pub(crate) fn below(&mut self, below: u64) -> u64 {
        self.0 = mix(self.0);
        self.0 % below.max(1)
    }

    /// True once in so many times.
    pub(crate) fn once_in(&mut self, times: u64) -> bool {
        self.below(times) == 0
    }

    /// A number up to `most`, small ones as likely as large ones.
    pub(crate) fn size(&mut self, most: u64) -> u64 {
        let bits = self.below(u64::from(most.max(1).ilog2()) + 1);
        (self.below(2 << bits)).min(most)
    }
}
