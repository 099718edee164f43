//! What is said in a tunnel: the first byte of a message says of what kind it is.

use std::io;

use crate::bytes::{Dice, Stream};

/// Comes back as it is.
pub(crate) const ECHO: u8 = b'E';
/// A line of a chat, with its number.
pub(crate) const CHAT: u8 = b'C';
/// Many bytes, which are answered by many others.
pub(crate) const BULK: u8 = b'B';

/// Bytes of a bulk message before those that are many: its kind, its seed, how many come back.
const BULK_HEAD: usize = 1 + 8 + 4;

/// Any bytes, to be sent back.
pub(crate) fn echo(dice: &mut Dice, longest: u64) -> Vec<u8> {
    let mut message = vec![ECHO; 1 + dice.size(longest) as usize];
    Stream::new(dice.below(u64::MAX)).fill(&mut message[1..]);
    message
}

/// The line of that number.
pub(crate) fn chat(number: u32, dice: &mut Dice) -> Vec<u8> {
    let mut message = vec![CHAT; 5 + dice.below(200) as usize];
    message[1..5].copy_from_slice(&number.to_be_bytes());
    message
}

/// The number of a line.
pub(crate) fn chat_number(message: &[u8]) -> io::Result<u32> {
    match message {
        [CHAT, a, b, c, d, ..] => Ok(u32::from_be_bytes([*a, *b, *c, *d])),
        _ => Err(io::Error::other("wrong: no line of a chat")),
    }
}

/// The bytes of a seed; `wants` are to come back, those of the next seed.
pub(crate) fn bulk(seed: u64, size: usize, wants: u32) -> Vec<u8> {
    let mut message = vec![BULK; BULK_HEAD + size];
    message[1..9].copy_from_slice(&seed.to_be_bytes());
    message[9..13].copy_from_slice(&wants.to_be_bytes());
    Stream::new(seed).fill(&mut message[BULK_HEAD..]);
    message
}

/// Checks it, and returns its seed, its size, and how many bytes are to come back.
pub(crate) fn bulk_parts(message: &[u8]) -> io::Result<(u64, usize, u32)> {
    let Some((head, bytes)) = message.split_at_checked(BULK_HEAD) else {
        return Err(io::Error::other("wrong: a short bulk message"));
    };
    let number = |part: &[u8]| part.iter().fold(0, |sum, byte| sum << 8 | u64::from(*byte));
    let (seed, wants) = (number(&head[1..9]), number(&head[9..13]) as u32);
    Stream::new(seed).check(bytes).map_err(|at| io::Error::other(format!("wrong: byte {at}")))?;
    Ok((seed, bytes.len(), wants))
}
