//! WebSocket frames (RFC 6455 5.2) as both ends of a benchmark make and read them.

use std::io;

use openssl::base64::encode_block;
use openssl::sha::sha1;

use crate::arguments::invalid;

/// Opcode of a binary message.
pub(crate) const BINARY: u8 = 0x2;
/// Opcode of a Close frame.
pub(crate) const CLOSE: u8 = 0x8;
/// Opcode of a Ping frame.
pub(crate) const PING: u8 = 0x9;
/// Opcode of a Pong frame.
pub(crate) const PONG: u8 = 0xa;

const FIN: u8 = 0x80;
const MASK: u8 = 0x80;

/// The longest header: two bytes, eight of length, four of key.
pub(crate) const MAX_HEADER: usize = 14;

/// A frame's header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Header {
    /// The opcode, without FIN.
    pub opcode: u8,
    /// The masking key of a client's frame.
    pub key: Option<[u8; 4]>,
    /// Bytes of payload.
    pub payload: u64,
    /// Bytes of the header itself.
    pub length: usize,
}

/// The header at the start of `bytes`, or `None` while it is not complete.
///
/// # Errors
/// It is fragmented or has reserved bits, which nothing here sends.
pub(crate) fn header(bytes: &[u8]) -> io::Result<Option<Header>> {
    let [first, second, ..] = *bytes else { return Ok(None) };
    if first & 0xf0 != FIN {
        return Err(invalid("not a frame of this benchmark"));
    }
    let (payload, at) = match second & !MASK {
        126 => match bytes.get(2..4) {
            Some(two) => (two.iter().fold(0, |sum, byte| sum << 8 | u64::from(*byte)), 4),
            None => return Ok(None),
        },
        127 => match bytes.get(2..10) {
            Some(eight) => (eight.iter().fold(0, |sum, byte| sum << 8 | u64::from(*byte)), 10),
            None => return Ok(None),
        },
        short => (u64::from(short), 2),
    };
    let opcode = first & 0x0f;
    if second & MASK == 0 {
        return Ok(Some(Header { opcode, key: None, payload, length: at }));
    }
    let Some(&[a, b, c, d]) = bytes.get(at..at + 4) else { return Ok(None) };
    Ok(Some(Header { opcode, key: Some([a, b, c, d]), payload, length: at + 4 }))
}

/// Appends a header.
pub(crate) fn put_header(to: &mut Vec<u8>, opcode: u8, payload: u64, key: Option<[u8; 4]>) {
    let mask = if key.is_some() { MASK } else { 0 };
    to.push(FIN | opcode);
    match payload {
        0..126 => to.push(mask | payload as u8),
        126..0x1_0000 => {
            to.push(mask | 126);
            to.extend_from_slice(&(payload as u16).to_be_bytes());
        }
        _ => {
            to.push(mask | 127);
            to.extend_from_slice(&payload.to_be_bytes());
        }
    }
    to.extend_from_slice(&key.unwrap_or_default()[..if key.is_some() { 4 } else { 0 }]);
}

/// Masks or unmasks `bytes`, the first of which is at `offset` of its payload.
pub(crate) fn mask(bytes: &mut [u8], key: [u8; 4], offset: u64) {
    let [a, b, c, d] = [0, 1, 2, 3].map(|at| key[(offset as usize + at) % 4]);
    let wide = u64::from_ne_bytes([a, b, c, d, a, b, c, d]);
    let mut chunks = bytes.chunks_exact_mut(8);
    for chunk in &mut chunks {
        let eight = <[u8; 8]>::try_from(&*chunk).map_or(0, u64::from_ne_bytes);
        chunk.copy_from_slice(&(eight ^ wide).to_ne_bytes());
    }
    for (byte, key) in chunks.into_remainder().iter_mut().zip([a, b, c, d, a, b, c]) {
        *byte ^= key;
    }
}

/// `Sec-WebSocket-Accept` for a key (RFC 6455 4.2.2).
pub(crate) fn accept(key: &str) -> String {
    encode_block(&sha1(format!("{key}258EAFA5-E914-47DA-95CA-C5AB0DC85B11").as_bytes()))
}

/// What bulk transfers consist of: bytes that tell a shift by any amount. Its length is a
/// multiple of four, so that it can be masked once.
pub(crate) fn pattern() -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut bytes = Vec::with_capacity(65_536);
    while bytes.len() < 65_536 {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_ne_bytes());
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_are_read_as_written() {
        for payload in [0, 125, 126, 65_535, 65_536, 1 << 40] {
            for key in [None, Some([1, 2, 3, 4])] {
                let mut bytes = Vec::new();
                put_header(&mut bytes, BINARY, payload, key);
                let length = bytes.len();
                assert!(length <= MAX_HEADER);
                let expected = Header { opcode: BINARY, key, payload, length };
                assert_eq!(header(&bytes).expect("valid"), Some(expected));
                for short in 0..length {
                    assert_eq!(header(&bytes[..short]).expect("valid"), None);
                }
            }
        }
        assert!(header(&[0x02, 0]).is_err());
        assert!(header(&[0xc2, 0]).is_err());
    }

    #[test]
    fn masking_is_per_byte_of_the_payload() {
        let key = [0x11, 0x22, 0x33, 0x44];
        for offset in 0..5 {
            let mut bytes = [0; 21];
            mask(&mut bytes, key, offset);
            for (at, byte) in bytes.iter().enumerate() {
                assert_eq!(*byte, key[(offset as usize + at) % 4]);
            }
        }
    }

    #[test]
    fn the_accept_value_is_that_of_the_rfc() {
        assert_eq!(accept("dGhlIHNhbXBsZSBub25jZQ=="), "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
    }
}
