//! How the bytes that a target is given are taken apart. Nothing is refused: whatever is missing
//! is empty or 0, so that each byte that the fuzzer changes changes what is tried.

/// The next byte.
pub(crate) fn byte(data: &mut &[u8]) -> u8 {
    let Some((first, rest)) = data.split_first() else { return 0 };
    *data = rest;
    *first
}

/// The next bytes, as many of `count` as there are.
pub(crate) fn bytes<'a>(data: &mut &'a [u8], count: usize) -> &'a [u8] {
    let (taken, rest) = data.split_at(count.min(data.len()));
    *data = rest;
    taken
}

/// What comes before the next NUL, or all that is left.
pub(crate) fn text<'a>(data: &mut &'a [u8]) -> &'a [u8] {
    let end = data.iter().position(|byte| *byte == 0);
    let taken = &data[..end.unwrap_or(data.len())];
    *data = &data[end.map_or(data.len(), |at| at + 1)..];
    taken
}
