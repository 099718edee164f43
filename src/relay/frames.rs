//! Where WebSocket frames begin and end (RFC 6455 5.2), without looking into them.

use crate::bytes::{Reader, put_u64};

const OP_TEXT: u8 = 0x1;
const OP_BINARY: u8 = 0x2;
const OP_CLOSE: u8 = 0x8;
const OP_PING: u8 = 0x9;
/// The most payload bytes of a control frame (RFC 6455 5.5).
const MAX_CONTROL_BYTES: usize = 125;
const FIN: u8 = 0x80;
const MASK: u8 = 0x80;
/// The most bytes of a Ping without a payload.
pub(crate) const PING_BYTES: usize = 6;

/// The longest frame header (RFC 6455 5.2).
pub(crate) const HEADER_BYTES: usize = 14;

/// The most messages of a kind that a frozen tunnel may have carried.
const MAX_MESSAGES: u64 = u64::MAX / 4;

/// RFC 6455 7.1.5: what a Close frame without a status code stands for.
const NO_STATUS: u16 = 1005;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mode {
    /// Not WebSocket, or not what RFC 6455 allows: nothing is known.
    Opaque,
    /// From a client: every frame is masked (5.1).
    Masked,
    /// From a server: no frame is.
    Unmasked,
}

/// Follows the frames of one direction by their headers. The payload is skipped, so that the
/// cost is per frame, not per byte. A header that RFC 6455 does not allow ends the tracking.
#[derive(Clone, Debug)]
pub struct Tracker {
    /// Bytes of the present frame still to come, the masking key among them.
    left: u64,
    /// The present frame's header as far as it came; of a Close frame also what follows up to
    /// the status code.
    head: [u8; 10],
    have: u8,
    mode: Mode,
    /// The status code of the Close frame that went by; 0 before.
    code: u16,
    /// Messages of which the first frame began: of text, of binary data.
    messages: [u64; 2],
}

impl Tracker {
    /// For what a client sends, from its first frame on.
    pub fn client_to_backend() -> Self {
        Self::new(Mode::Masked)
    }

    /// For what a back end sends, from its first frame on.
    pub fn backend_to_client() -> Self {
        Self::new(Mode::Unmasked)
    }

    /// For a direction that is not WebSocket, or whose beginning was not seen.
    pub fn opaque() -> Self {
        Self::new(Mode::Opaque)
    }

    fn new(mode: Mode) -> Self {
        Tracker { left: 0, head: [0; 10], have: 0, mode, code: 0, messages: [0; 2] }
    }

    /// How many bytes [`freeze`](Self::freeze) appends.
    pub(crate) const FROZEN_BYTES: usize = 1 + 8 + 1 + 10 + 2 + 2 * 8;

    /// Its state as bytes.
    pub(crate) fn freeze(&self, out: &mut Vec<u8>) {
        out.push(match self.mode {
            Mode::Opaque => 0,
            Mode::Masked => 1,
            Mode::Unmasked => 2,
        });
        put_u64(out, self.left);
        out.push(self.have);
        out.extend_from_slice(&self.head);
        out.extend_from_slice(&self.code.to_le_bytes());
        self.messages.iter().for_each(|messages| put_u64(out, *messages));
    }

    /// The tracker that [`freeze`](Self::freeze) was called on.
    pub(crate) fn thaw(from: &mut Reader<'_>) -> Option<Self> {
        let mode = match from.u8()? {
            0 => Mode::Opaque,
            1 => Mode::Masked,
            2 => Mode::Unmasked,
            _ => return None,
        };
        let left = from.u64()?;
        let have = from.u8()?;
        // As with bytes: more would overflow what still comes.
        let count = |from: &mut Reader<'_>| from.u64().filter(|count| *count <= MAX_MESSAGES);
        let tracker = Tracker {
            left,
            head: from.array()?,
            have,
            mode,
            code: from.array().map(u16::from_le_bytes)?,
            messages: [count(from)?, count(from)?],
        };
        tracker.is_possible().then_some(tracker)
    }

    /// Whether there are bytes that lead to this state: it is within a payload, within a header or
    /// between two frames. What became opaque keeps the header that made it so.
    fn is_possible(&self) -> bool {
        let have = usize::from(self.have);
        match (self.mode, have) {
            (Mode::Opaque, 0) if self.is_foreign() => {
                (self.left, self.code, self.messages) == (0, 0, [0; 2])
            }
            (Mode::Opaque, 0 | 2) => self.left == 0,
            (Mode::Opaque, _) => false,
            (_, 0) => true,
            // A header of which more came than it has would be read past its end.
            _ => self.left == 0 && have < self.needed() && (have < 2 || self.is_valid_start()),
        }
    }

    /// Whether the direction is none of WebSocket, as far as it was followed.
    pub(crate) fn is_opaque(&self) -> bool {
        self.mode == Mode::Opaque
    }

    /// Whether the direction never was one of WebSocket.
    pub(crate) fn is_foreign(&self) -> bool {
        self.mode == Mode::Opaque && self.have == 0 && self.head == [0; 10]
    }

    /// Whether a frame may follow here: between two frames, and no Close frame went by
    /// (RFC 6455 5.5.1: nothing follows it).
    pub fn at_boundary(&self) -> bool {
        self.mode != Mode::Opaque && self.left == 0 && self.have == 0 && self.code == 0
    }

    /// The status code of the Close frame that went by; 1005 if it had none.
    pub fn close_code(&self) -> Option<u16> {
        (self.code != 0).then_some(self.code)
    }

    /// How many messages went by (RFC 6455 5.4: of text or binary data, in one frame or more), the
    /// last one perhaps not yet whole. `None` if this is not WebSocket.
    pub fn messages(&self) -> Option<u64> {
        self.messages_by_kind().map(|messages| messages.iter().sum())
    }

    /// The same of text, and of binary data.
    pub fn messages_by_kind(&self) -> Option<[u64; 2]> {
        (self.mode != Mode::Opaque).then_some(self.messages)
    }

    /// Whether a whole Close frame went by, after which nothing may come (RFC 6455 5.5.1).
    pub fn has_closed(&self) -> bool {
        self.mode != Mode::Opaque && self.left == 0 && self.have == 0 && self.code != 0
    }

    /// How many of the bytes that come next need not be looked at.
    pub(crate) fn skippable(&self) -> u64 {
        match self.mode {
            Mode::Opaque => u64::MAX,
            _ if self.have > 0 => 0,
            _ => self.left,
        }
    }

    /// The payload length of the frame whose header went by last, in bytes; 0 within a header.
    pub(crate) fn last_length(&self) -> u64 {
        let [_, length, eight @ ..] = self.head;
        match length & !MASK {
            _ if self.have > 0 => 0,
            127 => u64::from_be_bytes(eight),
            126 => u64::from(u16::from_be_bytes([eight[0], eight[1]])),
            length => u64::from(length),
        }
    }

    /// Takes note of bytes that went by unseen, no more than [`skippable`](Self::skippable).
    pub(crate) fn skip(&mut self, count: u64) {
        self.left = self.left.saturating_sub(count);
    }

    /// Takes note of `bytes`, the next of the direction.
    #[inline]
    pub fn feed(&mut self, mut bytes: &[u8]) {
        while self.mode != Mode::Opaque {
            let skipped = payload_bytes(self.left, bytes.len());
            self.left -= skipped as u64;
            bytes = &bytes[skipped..];
            if bytes.is_empty() {
                return;
            }
            bytes = self.collect(bytes);
        }
    }

    /// Collects header bytes and acts when the header is whole. Returns the rest.
    fn collect<'a>(&mut self, bytes: &'a [u8]) -> &'a [u8] {
        let have = usize::from(self.have);
        let taken = (self.needed() - have).min(bytes.len());
        self.head[have..have + taken].copy_from_slice(&bytes[..taken]);
        #[expect(clippy::cast_possible_truncation, reason = "a header has at most 14 bytes")]
        let count = taken as u8;
        self.have += count;
        if self.have == 2 && !self.is_valid_start() {
            self.mode = Mode::Opaque;
        } else if usize::from(self.have) == self.needed() {
            self.begin_payload();
        }
        &bytes[taken..]
    }

    /// How many bytes of the header to collect, as far as that is known.
    fn needed(&self) -> usize {
        if self.have < 2 {
            return 2;
        }
        match self.head[1] & !MASK {
            127 => 10,
            126 => 4,
            // Up to the status code.
            2.. if self.opcode() == OP_CLOSE => 2 + self.key_length() + 2,
            _ => 2,
        }
    }

    fn opcode(&self) -> u8 {
        self.head[0] & 0x0f
    }

    fn key_length(&self) -> usize {
        if self.mode == Mode::Masked { 4 } else { 0 }
    }

    /// RFC 6455 5.1, 5.2 and 5.5. Reserved bits may be an extension's.
    fn is_valid_start(&self) -> bool {
        let [first, second, ..] = self.head;
        let length = second & !MASK;
        let masked_rightly = (second & MASK != 0) == (self.mode == Mode::Masked);
        masked_rightly
            && match self.opcode() {
                0x0..=0x2 => true,
                // A Close payload of one byte has no room for a status code (5.5.1).
                OP_CLOSE => first & FIN != 0 && length <= 125 && length != 1,
                0x9 | 0xa => first & FIN != 0 && length <= 125,
                _ => false,
            }
    }

    fn begin_payload(&mut self) {
        let key = self.key_length() as u64;
        let head = self.head;
        self.have = 0;
        let length = match head[1] & !MASK {
            127 => {
                let length = self.last_length();
                // The most significant bit must be 0, the encoding the shortest (5.2).
                if !(0x1_0000..=i64::MAX as u64).contains(&length) {
                    self.mode = Mode::Opaque;
                    return;
                }
                length
            }
            126 => {
                let length = self.last_length();
                if length < 126 {
                    self.mode = Mode::Opaque;
                    return;
                }
                length
            }
            length => u64::from(length),
        };
        self.left = length + key;
        match head[0] & 0x0f {
            OP_TEXT => self.messages[0] += 1,
            OP_BINARY => self.messages[1] += 1,
            _ => {}
        }
        if head[0] & 0x0f == OP_CLOSE {
            let mut code = 0;
            if length >= 2 {
                code = if self.mode == Mode::Masked {
                    u16::from_be_bytes([head[6] ^ head[2], head[7] ^ head[3]])
                } else {
                    u16::from_be_bytes([head[2], head[3]])
                };
                self.left -= key + 2;
            }
            // The first one counts: nothing may follow it (RFC 6455 5.5.1).
            if self.code == 0 {
                // 0 stands for "none yet"; a peer that sends it sent no code worth the name.
                self.code = if code == 0 { NO_STATUS } else { code };
            }
        }
    }

    /// A Ping for this direction, as for [`close_frame`](Self::close_frame), and its length.
    pub(crate) fn ping_frame(&self) -> ([u8; PING_BYTES], usize) {
        if self.mode == Mode::Masked {
            let [a, b, c, d] = crate::socket::random();
            ([FIN | OP_PING, MASK, a, b, c, d], 6)
        } else {
            ([FIN | OP_PING, 0, 0, 0, 0, 0], 2)
        }
    }

    /// A Close frame with this status code and reason, of which it has room for 123 bytes, for this
    /// direction: masked towards a back end, unmasked towards a client. Empty if the direction is
    /// opaque.
    pub fn close_frame(&self, code: u16, reason: &str) -> Vec<u8> {
        let payload = code.to_be_bytes().into_iter().chain(reason.bytes()).take(MAX_CONTROL_BYTES);
        #[expect(clippy::cast_possible_truncation, reason = "at most 125")]
        let length = (2 + reason.len()).min(MAX_CONTROL_BYTES) as u8;
        match self.mode {
            Mode::Opaque => Vec::new(),
            Mode::Unmasked => [FIN | OP_CLOSE, length].into_iter().chain(payload).collect(),
            Mode::Masked => {
                let key = crate::socket::random();
                let masked = payload.zip(key.into_iter().cycle()).map(|(byte, key)| byte ^ key);
                let head = [FIN | OP_CLOSE, MASK | length];
                head.into_iter().chain(key).chain(masked).collect()
            }
        }
    }
}

/// How many of the next bytes are of a payload, of which `left` bytes are still to come.
pub(crate) fn payload_bytes(left: u64, next: usize) -> usize {
    usize::try_from(left).map_or(next, |left| left.min(next))
}

#[cfg(test)]
mod tests {
    use super::*;

    const OPAQUE: u8 = 0;
    const MASKED: u8 = 1;
    const UNMASKED: u8 = 2;

    /// A state, as bytes that another process has sent.
    fn thaw(mode: u8, left: u64, head: &[u8], have: u8, code: u16, messages: u64) -> bool {
        let mut bytes = vec![mode];
        put_u64(&mut bytes, left);
        bytes.push(have);
        let mut whole = [0; 10];
        whole[..head.len()].copy_from_slice(head);
        bytes.extend(whole);
        bytes.extend(code.to_le_bytes());
        [0, messages].iter().for_each(|messages| put_u64(&mut bytes, *messages));
        let tracker = Tracker::thaw(&mut Reader(&bytes));
        // What comes of it is what was sent, and whatever follows does no harm.
        if let Some(mut tracker) = tracker.clone() {
            let mut frozen = Vec::new();
            tracker.freeze(&mut frozen);
            assert_eq!((frozen.len(), &frozen), (Tracker::FROZEN_BYTES, &bytes));
            (0..=u8::MAX).for_each(|byte| tracker.feed(&[byte; 3]));
        }
        tracker.is_some()
    }

    #[test]
    fn states_that_no_bytes_lead_to_are_refused() {
        for mode in [MASKED, UNMASKED] {
            let mask = if mode == MASKED { MASK } else { 0 };
            let whole_close = if mode == MASKED { 8 } else { 4 };
            // Between two frames, in a payload, or within a header, with any code of before.
            assert!(
                thaw(mode, 0, &[], 0, 0, 0) && thaw(mode, u64::MAX, &[], 0, 1000, MAX_MESSAGES)
            );
            assert!(!thaw(mode, 0, &[], 0, 0, MAX_MESSAGES + 1));
            for (head, needed) in [
                (&[0x81, mask | 5][..], 2),
                (&[0x88, mask], 2),
                (&[0x88, mask | 2], whole_close),
                (&[0x82, mask | 126, 1], 4),
                (&[0x82, mask | 127, 0, 0, 1], 10),
            ] {
                for have in 1..12 {
                    let is_within = have < needed;
                    assert_eq!(thaw(mode, 0, head, have, 0, 0), is_within, "{head:?} {have}");
                    assert!(!thaw(mode, 1, head, have, 0, 0), "{head:?} {have}");
                }
            }
            // With one byte nothing is wrong yet; with two it is.
            assert!(thaw(mode, 0, &[0x83], 1, 0, 0));
            assert!(!thaw(mode, 0, &[0x83, mask | 126], 2, 0, 0));
            assert!(!thaw(mode, 0, &[0x82, (mask ^ MASK) | 126], 3, 0, 0));
        }
        // What never was WebSocket has nothing; what is none any more keeps the header.
        assert!(thaw(OPAQUE, 0, &[], 0, 0, 0));
        assert!(!thaw(OPAQUE, 1, &[], 0, 0, 0) && !thaw(OPAQUE, 0, &[], 0, 1000, 0));
        assert!(!thaw(OPAQUE, 0, &[], 0, 0, 1));
        for have in [0, 2] {
            assert!(thaw(OPAQUE, 0, &[0x8f, 1], have, 1000, 7));
            assert!(!thaw(OPAQUE, 1, &[0x8f, 1], have, 1000, 7));
        }
        assert!(!thaw(OPAQUE, 0, &[0x8f, 1], 1, 0, 0) && !thaw(OPAQUE, 0, &[0x8f, 1], 3, 0, 0));
        assert!(!thaw(3, 0, &[], 0, 0, 0));
    }

    #[test]
    fn it_is_told_whether_it_ever_was_websocket() {
        let foreign = Tracker::opaque();
        assert!(foreign.is_opaque() && foreign.is_foreign());
        let mut lost = Tracker::client_to_backend();
        assert!(!lost.is_opaque() && !lost.is_foreign());
        lost.feed(&[0x81, 0]);
        assert!(lost.is_opaque() && !lost.is_foreign());
        // So was one whose wrong header is a long one of text.
        let mut lost = Tracker::client_to_backend();
        lost.feed(&[0x81, 0xfe, 0, 1]);
        assert!(lost.is_opaque() && !lost.is_foreign());
    }

    #[test]
    fn what_can_be_skipped_is_payload() {
        assert_eq!(Tracker::opaque().skippable(), u64::MAX);
        let mut tracker = Tracker::backend_to_client();
        tracker.feed(&[0x82, 100, 0]);
        assert_eq!(tracker.skippable(), 99);
        tracker.skip(98);
        assert!(tracker.skippable() == 1 && !tracker.at_boundary());
        tracker.skip(1);
        assert!(tracker.skippable() == 0 && tracker.at_boundary());
        // Nothing of a header that has begun.
        tracker.feed(&[0x82]);
        assert_eq!(tracker.skippable(), 0);
        tracker.feed(&[126]);
        assert_eq!(tracker.skippable(), 0);
    }

    #[test]
    fn frames_of_ours_are_those_of_the_direction() {
        for (make, masked) in [
            (Tracker::client_to_backend as fn() -> Tracker, true),
            (Tracker::backend_to_client, false),
        ] {
            let (frame, length) = make().ping_frame();
            let mut tracker = make();
            tracker.feed(&frame[..length]);
            assert!(tracker.at_boundary());
            assert_eq!((frame[0], length), (0x89, if masked { 6 } else { 2 }));
            for reason in ["", "maintenance", &"x".repeat(123), &"x".repeat(200)] {
                let frame = make().close_frame(1012, reason);
                let mut tracker = make();
                tracker.feed(&frame);
                assert!(tracker.has_closed());
                assert_eq!(tracker.close_code(), Some(1012));
                let expected = reason.len().min(123) + 2;
                assert_eq!(usize::from(frame[1] & !MASK), expected);
                let payload: Vec<u8> = if masked {
                    let key = frame[2..6].iter().cycle();
                    frame[6..].iter().zip(key).map(|(byte, key)| byte ^ key).collect()
                } else {
                    frame[2..].to_vec()
                };
                assert_eq!(
                    payload,
                    [&1012_u16.to_be_bytes(), &reason.as_bytes()[..expected - 2]].concat()
                );
            }
        }
        assert!(Tracker::opaque().close_frame(1001, "why").is_empty());
        // Nobody can tell the key beforehand.
        let keys: Vec<_> = (0..8).map(|_| Tracker::client_to_backend().ping_frame().0).collect();
        assert!(keys.iter().any(|key| *key != keys[0]));
    }
}
