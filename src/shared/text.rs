//! Bytes in words that others may read and write meanwhile.

use std::sync::atomic::Ordering::{Acquire, Relaxed};

use crate::sync::AtomicU64;

const WORD: usize = size_of::<u64>();

/// The beginning of a text, of so many bytes at the most, and of whole characters if it is UTF-8.
pub(crate) fn cut(text: &[u8], most: usize) -> &[u8] {
    /// As many bytes of a character follow its first one.
    const FOLLOW: usize = 3;
    let is_within = |at: usize| text.get(at).is_some_and(|byte| byte & 0xc0 == 0x80);
    let end = (most.saturating_sub(FOLLOW)..=most).rev().find(|end| !is_within(*end));
    text.get(..end.unwrap_or(most)).unwrap_or(text)
}

/// Writes as much of the text as there is room for.
pub(crate) fn store(to: &[AtomicU64], text: &[u8]) {
    for (word, bytes) in to.iter().zip(text.chunks(WORD)) {
        let mut whole = [0; WORD];
        whole.iter_mut().zip(bytes).for_each(|(to, from)| *to = *from);
        word.store(u64::from_ne_bytes(whole), Relaxed);
    }
}

/// Reads as much as there is.
pub(crate) fn load(from: &[AtomicU64], text: &mut [u8]) {
    for (word, bytes) in from.iter().zip(text.chunks_mut(WORD)) {
        let whole = word.load(Acquire).to_ne_bytes();
        bytes.iter_mut().zip(whole).for_each(|(to, from)| *to = from);
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn a_text_is_cut_between_characters() {
        assert_eq!(cut(b"abc", 3), b"abc");
        assert_eq!(cut(b"abcd", 3), b"abc");
        assert_eq!(cut(b"", 3), b"");
        assert_eq!(cut(b"abc", 0), b"");
        assert_eq!(cut("a\u{20ac}b".as_bytes(), 4), "a\u{20ac}".as_bytes());
        assert_eq!(cut("a\u{20ac}b".as_bytes(), 3), b"a");
        assert_eq!(cut("\u{1f600}".as_bytes(), 3), b"");
        // It is no UTF-8.
        assert_eq!(cut(&[0x80; 9], 8), [0x80; 8]);
    }

    #[test]
    fn a_text_is_read_as_it_was_written() {
        let words = [const { AtomicU64::new(u64::MAX) }; 2];
        for text in [&b""[..], b"a", b"12345678", b"123456789", b"0123456789abcdef"] {
            store(&words, text);
            let mut read = vec![0; text.len()];
            load(&words, &mut read);
            assert_eq!(read, text);
        }
        store(&words, &[1; 20]);
        let mut read = [0; 20];
        load(&words, &mut read);
        assert_eq!(read[..16], [1; 16]);
    }
}
