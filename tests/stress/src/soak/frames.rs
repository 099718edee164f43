//! WebSocket frames (RFC 6455 5.2): whole messages in, whole messages out.

use std::{io, mem};

use crate::bytes::Dice;

const CONTINUATION: u8 = 0x0;
const BINARY: u8 = 0x2;
pub(crate) const CLOSE: u8 = 0x8;
const PING: u8 = 0x9;
pub(crate) const PONG: u8 = 0xa;

const FIN: u8 = 0x80;
const MASK: u8 = 0x80;
/// No frame of a soak is longer, in bytes.
const LONGEST: u64 = 1 << 24;
/// A frame of a message has at most so many bytes of it.
const PIECE: usize = 48 * 1024;

/// What came.
pub(crate) enum Came {
    Message(Vec<u8>),
    Ping(Vec<u8>),
    Pong,
    /// With its code, if it has one.
    Close(Option<u16>),
}

/// Frames out of a stream of bytes.
#[derive(Default)]
pub(crate) struct Reader {
    bytes: Vec<u8>,
    message: Vec<u8>,
    is_within: bool,
}

struct Header {
    first: u8,
    key: Option<[u8; 4]>,
    begin: usize,
    size: u64,
}

fn number(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0, |sum, byte| sum << 8 | u64::from(*byte))
}

impl Reader {
    /// More bytes.
    pub(crate) fn push(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    /// The next, `None` while it is not complete.
    pub(crate) fn take(&mut self) -> io::Result<Option<Came>> {
        while let Some((first, payload)) = self.frame()? {
            match first & 0x0f {
                kind @ (CONTINUATION | BINARY) => {
                    if (kind == CONTINUATION) != self.is_within {
                        return Err(io::Error::other("wrong: a frame out of turn"));
                    }
                    self.is_within = first & FIN == 0;
                    self.message.extend_from_slice(&payload);
                    if !self.is_within {
                        return Ok(Some(Came::Message(mem::take(&mut self.message))));
                    }
                }
                CLOSE => {
                    let code = payload.get(..2).map(|two| u16::from_be_bytes([two[0], two[1]]));
                    return Ok(Some(Came::Close(code)));
                }
                PING => return Ok(Some(Came::Ping(payload))),
                PONG => return Ok(Some(Came::Pong)),
                kind => return Err(io::Error::other(format!("wrong: opcode {kind}"))),
            }
        }
        Ok(None)
    }

    fn header(&self) -> Option<Header> {
        let bytes = &self.bytes[..];
        let [first, second, ..] = *bytes else { return None };
        let (size, at) = match second & !MASK {
            126 => (number(bytes.get(2..4)?), 4),
            127 => (number(bytes.get(2..10)?), 10),
            short => (u64::from(short), 2),
        };
        if second & MASK == 0 {
            return Some(Header { first, key: None, begin: at, size });
        }
        let key = bytes.get(at..at + 4)?;
        Some(Header { first, key: Some([key[0], key[1], key[2], key[3]]), begin: at + 4, size })
    }

    fn frame(&mut self) -> io::Result<Option<(u8, Vec<u8>)>> {
        let Some(header) = self.header() else { return Ok(None) };
        if header.size > LONGEST {
            return Err(io::Error::other("wrong: a frame that is too long"));
        }
        let end = header.begin + header.size as usize;
        let Some(payload) = self.bytes.get(header.begin..end) else { return Ok(None) };
        let mut payload = payload.to_vec();
        if let Some(key) = header.key {
            mask(&mut payload, key);
        }
        self.bytes.drain(..end);
        if self.bytes.is_empty() {
            // Most connections are quiet most of the time.
            self.bytes = Vec::new();
        }
        Ok(Some((header.first, payload)))
    }
}

fn mask(payload: &mut [u8], key: [u8; 4]) {
    for (at, byte) in payload.iter_mut().enumerate() {
        *byte ^= key[at % 4];
    }
}

/// Appends a frame; a client's is masked.
fn put(to: &mut Vec<u8>, first: u8, payload: &[u8], dice: Option<&mut Dice>) {
    to.push(first);
    let bit = if dice.is_some() { MASK } else { 0 };
    match payload.len() {
        size @ 0..126 => to.push(bit | size as u8),
        size @ 126..0x1_0000 => {
            to.push(bit | 126);
            to.extend_from_slice(&(size as u16).to_be_bytes());
        }
        size => {
            to.push(bit | 127);
            to.extend_from_slice(&(size as u64).to_be_bytes());
        }
    }
    let key = dice.map(|dice| (dice.below(1 << 32) as u32).to_be_bytes());
    to.extend_from_slice(&key.unwrap_or_default()[..if key.is_some() { 4 } else { 0 }]);
    let begin = to.len();
    to.extend_from_slice(payload);
    if let Some(key) = key {
        mask(&mut to[begin..], key);
    }
}

/// A message, in several frames if it is long. `dice` for a client's.
pub(crate) fn message(payload: &[u8], mut dice: Option<&mut Dice>) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(payload.len() + 64);
    let pieces = payload.len().div_ceil(PIECE).max(1);
    for (number, piece) in payload.chunks(PIECE).enumerate() {
        let opcode = if number == 0 { BINARY } else { CONTINUATION };
        let fin = if number + 1 == pieces { FIN } else { 0 };
        put(&mut bytes, opcode | fin, piece, dice.as_deref_mut());
    }
    bytes
}

/// A Ping, Pong or Close.
pub(crate) fn control(opcode: u8, payload: &[u8], dice: Option<&mut Dice>) -> Vec<u8> {
    let mut bytes = Vec::new();
    put(&mut bytes, opcode | FIN, payload, dice);
    bytes
}
