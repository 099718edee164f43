//! What a rule allows the frames of one direction to be, by their headers (RFC 6455 5.2).
//!
//! The headers of any bytes at all can be followed: where RFC 6455 does not allow one, its length
//! and its mask bit still say where the next begins. So nobody gets past a limit by bad framing.

use shared::Why;

use crate::bytes::{Reader, put_u64};
use crate::end::By;
use crate::rules::{Rules, Strict};

const FIN: u8 = 0x80;
const RESERVED: u8 = 0x70;
/// The reserved bit of RFC 7692.
const RSV1: u8 = 0x40;
const CONTROL: u8 = 0x8;
const CLOSE: u8 = 0x8;
const MASK: u8 = 0x80;
const KEY_BYTES: u64 = 4;
/// The most payload bytes of a control frame (RFC 6455 5.5).
const MAX_CONTROL_BYTES: u64 = 125;

/// Status codes of a Close frame (RFC 6455 7.4.1).
const PROTOCOL_ERROR: u16 = 1002;
const MESSAGE_TOO_BIG: u16 = 1009;

/// What a header broke.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Breach {
    /// The message is longer than allowed.
    TooBig,
    /// It is not RFC 6455.
    Protocol,
}

impl Breach {
    /// The status code of the Close frame for who sent it (RFC 6455 7.4.1).
    pub fn code(self) -> u16 {
        match self {
            Self::TooBig => MESSAGE_TOO_BIG,
            Self::Protocol => PROTOCOL_ERROR,
        }
    }
}

impl From<Breach> for Why {
    fn from(breach: Breach) -> Self {
        match breach {
            Breach::TooBig => Why::MessageTooBig,
            Breach::Protocol => Why::ProtocolError,
        }
    }
}

/// The first bytes of a direction that may go on, and what comes behind them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refused {
    /// How many of the bytes may go on: those before the header.
    pub allowed: usize,
    /// What the header broke.
    pub breach: Breach,
}

/// Follows the headers of one direction. Its cost is per frame, not per byte.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Guard {
    /// The most payload bytes of a message; u64::MAX is no limit.
    limit: u64,
    strict: Strict,
    /// From a client: each frame has to be masked.
    masked: bool,
    /// Bytes of the present frame still to come, the masking key among them.
    left: u64,
    /// Payload bytes of the present message, with all of its frames so far.
    message: u64,
    /// Between two frames of one message.
    in_message: bool,
    /// A Close frame went by: what follows it, nobody looks at.
    has_closed: bool,
    /// The present header as far as it came.
    head: [u8; 10],
    have: u8,
    /// Messages that began since they were last taken out.
    begun: u64,
}

impl Guard {
    /// For what this side sends, from its first frame on; none if no rule looks at it. Not for
    /// what is no WebSocket.
    pub fn new(rules: &Rules, sender: By) -> Option<Self> {
        let most = match sender {
            By::Client => rules.max_message_client,
            By::Backend => rules.max_message_backend,
            By::Us => None,
        };
        let limit = most.filter(|most| *most > 0).unwrap_or(u64::MAX);
        let strict = rules.strict.unwrap_or(Strict::Off);
        let is_counted = sender == By::Client && rules.message_rate.is_some_and(|rate| rate > 0);
        (limit < u64::MAX || strict != Strict::Off || is_counted).then_some(Guard {
            limit,
            strict,
            masked: sender == By::Client,
            left: 0,
            message: 0,
            in_message: false,
            has_closed: false,
            head: [0; 10],
            have: 0,
            begun: 0,
        })
    }

    /// How many messages began since this was last asked.
    pub(crate) fn take_begun(&mut self) -> u64 {
        std::mem::take(&mut self.begun)
    }

    /// How many of the bytes that come next are payload.
    pub(crate) fn skippable(&self) -> u64 {
        if self.have > 0 { 0 } else { self.left }
    }

    /// Takes note of bytes that went by unseen, no more than [`skippable`](Self::skippable).
    pub(crate) fn skip(&mut self, count: u64) {
        self.left = self.left.saturating_sub(count);
    }

    /// Takes note of `bytes`, the next of the direction.
    ///
    /// # Errors
    /// A header that a rule does not allow. Nothing behind it is to be carried.
    pub fn check(&mut self, bytes: &[u8]) -> Result<(), Refused> {
        let mut at = 0;
        loop {
            let skipped = crate::frames::payload_bytes(self.left, bytes.len() - at);
            self.left -= skipped as u64;
            at += skipped;
            let begins_at = at;
            if self.have == 0
                && let Some(head) = bytes[at..].first_chunk()
            {
                match self.judge_whole(head) {
                    Ok(length) => at += length,
                    Err(breach) => return Err(Refused { allowed: begins_at, breach }),
                }
                continue;
            }
            loop {
                let Some(byte) = bytes.get(at) else { return Ok(()) };
                self.head[usize::from(self.have)] = *byte;
                self.have += 1;
                at += 1;
                match self.judge() {
                    Ok(true) => break,
                    Ok(false) => {}
                    // Of one that began before, a part has gone on.
                    Err(breach) => {
                        self.have = 0;
                        return Err(Refused { allowed: begins_at, breach });
                    }
                }
            }
            self.have = 0;
        }
    }

    /// Looks at the byte of a header that has just come. `Ok(true)` if the header is whole.
    fn judge(&mut self) -> Result<bool, Breach> {
        let [first, second, ..] = self.head;
        let is_right = match self.have {
            1 => self.is_right_start(first),
            2 => self.is_right_second(first, second),
            _ => true,
        };
        if self.is_checked() && !is_right {
            return Err(Breach::Protocol);
        }
        let (needed, length) = header(&self.head);
        if self.have < 2 || usize::from(self.have) < needed {
            return Ok(false);
        }
        self.begin(first, second, length)?;
        Ok(true)
    }

    /// Looks at a header of which all bytes have come, and says how many it has.
    #[inline]
    fn judge_whole(&mut self, head: &[u8; 10]) -> Result<usize, Breach> {
        let [first, second, ..] = *head;
        let is_right = self.is_right_start(first) && self.is_right_second(first, second);
        if self.is_checked() && !is_right {
            return Err(Breach::Protocol);
        }
        let (bytes, length) = header(head);
        // As if it had come byte by byte.
        self.head[..bytes].copy_from_slice(&head[..bytes]);
        self.begin(first, second, length)?;
        Ok(bytes)
    }

    /// Whether a header has to be right.
    fn is_checked(&self) -> bool {
        self.strict != Strict::Off && !self.has_closed
    }

    /// Begins the frame that these two bytes begin, with a payload of this length.
    fn begin(&mut self, first: u8, second: u8, length: u64) -> Result<(), Breach> {
        // The shortest encoding, and the most significant bit is 0 (5.2).
        let is_right = match second & !MASK {
            126 => length > 125,
            127 => length > u64::from(u16::MAX) && i64::try_from(length).is_ok(),
            _ => true,
        };
        if self.is_checked() && !is_right {
            return Err(Breach::Protocol);
        }
        self.sum(first, length)?;
        let key = if second & MASK != 0 { KEY_BYTES } else { 0 };
        self.left = length.saturating_add(key);
        self.has_closed |= first & 0xf == CLOSE;
        Ok(())
    }

    /// Whether this may be the second byte of a frame that begins like this (RFC 6455 5.1, 5.5).
    fn is_right_second(&self, first: u8, second: u8) -> bool {
        let (opcode, short) = (first & 0xf, u64::from(second & !MASK));
        // A Close of one byte has no room for a status code (5.5.1).
        let is_too_long = opcode & CONTROL != 0 && short > MAX_CONTROL_BYTES;
        let is_cut = opcode == CLOSE && short == 1;
        (second & MASK != 0) == self.masked && !is_too_long && !is_cut
    }

    /// Whether a frame may begin like this (RFC 6455 5.2, 5.4, 5.5; RFC 7692 6).
    fn is_right_start(&self, first: u8) -> bool {
        let opcode = first & 0xf;
        let may_be_reserved = self.strict == Strict::Extended;
        let reserved = match self.strict {
            Strict::Deflate if matches!(opcode, 1 | 2) => RESERVED & !RSV1,
            Strict::Extended => 0,
            _ => RESERVED,
        };
        first & reserved == 0
            && match opcode {
                0 => self.in_message,
                1 | 2 => !self.in_message,
                8..=10 => first & FIN != 0,
                // A control frame is not fragmented, whatever it is (5.5).
                11.. => may_be_reserved && first & FIN != 0,
                _ => may_be_reserved,
            }
    }

    /// Adds a frame to its message.
    fn sum(&mut self, first: u8, length: u64) -> Result<(), Breach> {
        if first & CONTROL != 0 {
            let is_too_big = length > self.limit && length > MAX_CONTROL_BYTES;
            return if is_too_big { Err(Breach::TooBig) } else { Ok(()) };
        }
        self.message = self.message.saturating_add(length);
        if self.message > self.limit {
            return Err(Breach::TooBig);
        }
        // One within another is none of RFC 6455, but somebody may take it for one.
        self.begun += u64::from(!self.in_message || first & 0xf != 0);
        self.in_message = first & FIN == 0;
        if !self.in_message {
            self.message = 0;
        }
        Ok(())
    }

    /// How many bytes [`freeze`](Self::freeze) appends.
    pub(crate) const FROZEN_BYTES: usize = 8 + 8 + 1 + 1 + 10;

    /// How far it has come, as bytes: what it allows is in the rules.
    pub(crate) fn freeze(guard: Option<&Self>, out: &mut Vec<u8>) {
        let Some(guard) = guard else {
            return out.extend_from_slice(&[0; Self::FROZEN_BYTES]);
        };
        put_u64(out, guard.left);
        put_u64(out, guard.message);
        out.push(u8::from(guard.in_message) | u8::from(guard.has_closed) << 1);
        out.push(guard.have);
        out.extend_from_slice(&guard.head);
    }

    /// The guard that [`freeze`](Self::freeze) was called on; `guard` is what it was at the
    /// beginning, none if no rule looks at frames.
    pub(crate) fn thaw(from: &mut Reader<'_>, guard: Option<Self>) -> Option<Option<Self>> {
        let mut from = Reader(from.bytes(Self::FROZEN_BYTES)?);
        let Some(guard) = guard else {
            // There is nothing that could have come anywhere.
            return from.0.iter().all(|byte| *byte == 0).then_some(None);
        };
        let [left, message] = [from.u64()?, from.u64()?];
        let flags = from.u8().filter(|flags| *flags < 4)?;
        let guard = Guard {
            left,
            message,
            in_message: flags & 1 != 0,
            has_closed: flags & 2 != 0,
            have: from.u8()?,
            head: from.array()?,
            ..guard
        };
        // Within a payload, within a header, or between two frames.
        let is_possible = guard.have == 0 || guard.left == 0 && guard.is_within_header();
        is_possible.then_some(Some(guard))
    }

    /// Whether more of the present header is to come.
    fn is_within_header(&self) -> bool {
        self.have < 2 || usize::from(self.have) < header(&self.head).0
    }
}

/// How many bytes a header has before the masking key, and the length of the payload by it; the bytes
/// may be more than the header.
#[inline]
fn header(head: &[u8; 10]) -> (usize, u64) {
    let [_, second, length @ ..] = *head;
    match second & !MASK {
        126 => (4, u64::from(u16::from_be_bytes([length[0], length[1]]))),
        127 => (10, u64::from_be_bytes(length)),
        short => (2, u64::from(short)),
    }
}
