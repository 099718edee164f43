//! Texts that a page has for its form: good for one use, by whoever the page was for.
//!
//! Such a text is a number, the time, and a hash of both and of the user with a key that nobody
//! knows. Numbers that were used are kept by a few words: of the numbers that share a word, none is
//! used after a later one.

use std::sync::atomic::Ordering::{AcqRel, Relaxed};

use siphasher::sip::SipHasher24;

use crate::bits::index;
use crate::sync::AtomicU64;

const WORDS: usize = if cfg!(loom) { 1 } else { 1024 };
/// So long it is good.
const SECONDS: u32 = 3600;
/// Makes the key another one than that of other hashes.
const PURPOSE: u64 = 0x6e6f_6e63_6520_6b65;

/// The numbers.
#[repr(C)]
pub(crate) struct Nonces {
    /// The last that was given out.
    last: AtomicU64,
    /// The last of those that share a word that was used.
    used: [AtomicU64; WORDS],
}

impl Nonces {
    #[cfg(loom)]
    pub fn new() -> Self {
        Self { last: AtomicU64::new(0), used: std::array::from_fn(|_| AtomicU64::new(0)) }
    }

    /// A text for the form on a page of this user.
    pub fn make(&self, key: [u64; 2], seconds: u32, user: &[u8]) -> String {
        let number = self.last.fetch_add(1, Relaxed).wrapping_add(1);
        format!("{number:016x}{seconds:08x}{:016x}", hash(key, number, seconds, user))
    }

    /// Whether a text was made for this user, in the last hour, and was not used before. It is used
    /// then.
    pub fn use_up(&self, key: [u64; 2], now: u32, text: &str, user: &[u8]) -> bool {
        let Some((number, seconds, of)) = parts(text) else { return false };
        let is_first = |word: &AtomicU64| word.fetch_max(number, AcqRel) < number;
        of == hash(key, number, seconds, user)
            && now.wrapping_sub(seconds) <= SECONDS
            && self.used.get(index(number) % WORDS).is_some_and(is_first)
    }
}

fn hash([one, two]: [u64; 2], number: u64, seconds: u32, user: &[u8]) -> u64 {
    let said = [&number.to_le_bytes()[..], &seconds.to_le_bytes(), user].concat();
    SipHasher24::new_with_keys(one ^ PURPOSE, two).hash(&said)
}

/// The three parts of a text.
fn parts(text: &str) -> Option<(u64, u32, u64)> {
    if text.len() != 40 || !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return None;
    }
    let (number, text) = text.split_at_checked(16)?;
    let (seconds, hash) = text.split_at_checked(8)?;
    let part = |text| u64::from_str_radix(text, 16).ok();
    Some((part(number)?, u32::try_from(part(seconds)?).ok()?, part(hash)?))
}
