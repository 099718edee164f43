//! Records of TLS, and what is no record, in any split. Against a second account of what RFC 8446
//! and RFC 5246 let a peer send after the handshake.

use records::{Alert, Content, Fatal, Receiver, Role, Sender, Suite, Version};

use crate::direction::Direction;
use crate::input;
use crate::toy::Toy;

const ALERT: u8 = 21;
const HANDSHAKE: u8 = 22;
const DATA: u8 = 23;
const MAX_TEXT: usize = 16_384;
/// So much is given byte by byte.
const SHORT: usize = 2000;
const MOST_STEPS: usize = 100;

/// What a record is taken for: the alert that answers it, if it is refused.
#[derive(Clone, Debug, PartialEq)]
enum Seen {
    Data(Vec<u8>),
    Nothing,
    KeyUpdate(bool),
    Renegotiation,
    CloseNotify,
    Refused(Option<u8>),
}

/// A byte of flags, one for the sizes of pieces, then what a peer sends and what we send.
pub fn run(mut data: &[u8]) {
    let flags = input::byte(&mut data);
    let piece = 1 + usize::from(input::byte(&mut data));
    let version = if flags & 1 == 0 { Version::Tls13 } else { Version::Tls12 };
    let role = if flags & 2 == 0 { Role::Server } else { Role::Client };
    let suite = match flags >> 2 & 3 {
        0 => Suite::Aes256Gcm,
        1 => Suite::Chacha20Poly1305,
        _ => Suite::Aes128Gcm,
    };
    let start = Direction::new(version, suite);
    if flags & 16 == 0 {
        let (stream, expected) = Peer::plan(&mut data, start.clone(), role);
        // Byte by byte takes its time.
        let bytes = if stream.len() <= SHORT { 1 } else { piece };
        for piece in [bytes, piece, stream.len().max(1)] {
            let receiver = Receiver::new(start.proved(), role);
            let found = receive(receiver, &stream, piece, flags & 32 != 0);
            assert_eq!(found, expected, "in pieces of {piece}");
        }
    } else {
        send(&mut data, start);
    }
}

/// What a receiver says of a stream.
fn receive(mut receiver: Receiver, stream: &[u8], piece: usize, freezes: bool) -> Vec<Seen> {
    let toy = Toy::default();
    let mut seen = Vec::new();
    let mut ahead = Vec::new();
    for piece in stream.chunks(piece) {
        ahead.extend_from_slice(piece);
        loop {
            let length = match receiver.record_bytes(&ahead) {
                Ok(Some(length)) if length <= ahead.len() => length,
                Ok(_) => break,
                Err(fatal) => {
                    seen.push(refused(fatal));
                    return seen;
                }
            };
            let mut record: Vec<u8> = ahead.drain(..length).collect();
            let found = match receiver.open(&toy, &mut record) {
                Ok(Content::Data(place)) => Seen::Data(record[place].to_vec()),
                Ok(Content::Nothing) => Seen::Nothing,
                Ok(Content::KeyUpdate { answer }) => Seen::KeyUpdate(answer),
                Ok(Content::Renegotiation) => Seen::Renegotiation,
                Ok(Content::CloseNotify) => Seen::CloseNotify,
                Err(fatal) => refused(fatal),
            };
            if freezes {
                let mut frozen = Vec::new();
                receiver.freeze(&mut frozen);
                let mut from = &frozen[..];
                receiver = Receiver::thaw(&mut from).expect("thawed");
                assert!(from.is_empty());
            }
            seen.push(found);
            match seen.last() {
                Some(Seen::Refused(_)) => {
                    let again = receiver.open(&toy, &mut record).expect_err("it has ended");
                    assert_eq!(again.alert, None);
                    return seen;
                }
                Some(Seen::CloseNotify) => {
                    assert_eq!(receiver.open(&toy, &mut record), Ok(Content::CloseNotify));
                    return seen;
                }
                _ => {}
            }
        }
    }
    seen
}

fn refused(fatal: Fatal) -> Seen {
    assert!(fatal.alert != Some(Alert::INTERNAL_ERROR), "{fatal}");
    Seen::Refused(fatal.alert.map(|alert| alert.0))
}

/// The second account: of the peer, and of what each of its records is.
struct Peer {
    direction: Direction,
    role: Role,
    /// Of the handshake message that is not whole.
    message: Vec<u8>,
    empty: usize,
    warnings: usize,
    renegotiations: usize,
}

impl Peer {
    /// What it sends, and what that is taken for up to the end.
    fn plan(data: &mut &[u8], direction: Direction, role: Role) -> (Vec<u8>, Vec<Seen>) {
        let mut peer =
            Peer { direction, role, message: vec![], empty: 0, warnings: 0, renegotiations: 0 };
        let (mut stream, mut expected) = (Vec::new(), Vec::new());
        for _ in 0..MOST_STEPS {
            if data.is_empty() {
                break;
            }
            let step = input::byte(data);
            match step & 7 {
                0 => {
                    let count = usize::from(input::byte(data));
                    let bytes = input::bytes(data, count);
                    expected.extend(peer.see_unsealed(bytes));
                    stream.extend_from_slice(bytes);
                    // All that follows would belong to it.
                    break;
                }
                1 => peer.direction.number += u64::from(step >> 7),
                _ => {}
            }
            let (outer, inner) = peer.take_record(step, data);
            let mut record = peer.direction.seal(outer, &inner);
            let is_lost = step & 7 == 1 && step >> 7 == 1;
            let is_damaged = step & 7 == 2;
            if is_damaged {
                // Behind the header.
                let at = 5 + usize::from(input::byte(data)) % (record.len() - 5);
                record[at] ^= 1 << (step >> 5);
            }
            stream.extend_from_slice(&record);
            let seen = match header_error(peer.direction.version, &record) {
                Some(alert) => Seen::Refused(Some(alert)),
                None if is_lost || is_damaged => Seen::Refused(Some(20)),
                None => peer.see(outer, &inner),
            };
            if matches!(seen, Seen::KeyUpdate(_)) {
                peer.direction.update();
            }
            let is_end = matches!(seen, Seen::Refused(_) | Seen::CloseNotify);
            expected.push(seen);
            if is_end {
                // What is behind it changes nothing.
                stream.extend_from_slice(input::bytes(data, 300));
                break;
            }
        }
        (stream, expected)
    }

    /// Bytes that are not sealed are incomplete, or refused.
    fn see_unsealed(&self, bytes: &[u8]) -> Option<Seen> {
        let alert = match header_error(self.direction.version, bytes) {
            Some(alert) => alert,
            None if bytes.len() < 5 => return None,
            None => {
                let length = 5 + (usize::from(bytes[3]) << 8 | usize::from(bytes[4]));
                // Nobody guesses a tag.
                if length > bytes.len() || length < 21 + 8 {
                    return (length < 21).then_some(Seen::Refused(Some(20)));
                }
                20
            }
        };
        Some(Seen::Refused(Some(alert)))
    }

    /// The outer type of a record, and what is in it.
    fn take_record(&self, step: u8, data: &mut &[u8]) -> (u8, Vec<u8>) {
        let kind = match step >> 3 & 3 {
            0 => DATA,
            1 => HANDSHAKE,
            2 => ALERT,
            _ => input::byte(data),
        };
        let count = usize::from(input::byte(data));
        let mut text = match step & 7 {
            // Just about as long as allowed.
            3 => vec![count as u8; MAX_TEXT - 127 + count],
            4 if kind == HANDSHAKE => messages(data, count),
            5 if kind == HANDSHAKE => vec![24, 0, 0, 1, (count & 1) as u8],
            6 if kind == HANDSHAKE => vec![0; 4],
            _ => input::bytes(data, count).to_vec(),
        };
        if self.direction.version == Version::Tls12 {
            return (kind, text);
        }
        if step & 7 == 7 && step >> 5 == 7 {
            // The outer type is another one, and the text what it is.
            return (kind, text);
        }
        text.push(kind);
        let zeros = usize::from(step >> 5) * 40;
        text.resize(text.len() + zeros, 0);
        (DATA, text)
    }

    fn see(&mut self, outer: u8, inner: &[u8]) -> Seen {
        let is_tls13 = self.direction.version == Version::Tls13;
        let (kind, text) = if is_tls13 {
            if inner.len() > MAX_TEXT + 1 {
                return Seen::Refused(Some(22));
            }
            let length = inner.len() - inner.iter().rev().take_while(|byte| **byte == 0).count();
            let Some((kind, text)) = inner[..length].split_last() else {
                return Seen::Refused(Some(10));
            };
            (*kind, text)
        } else {
            (outer, inner)
        };
        if text.len() > MAX_TEXT {
            return Seen::Refused(Some(22));
        }
        if is_tls13 && !self.message.is_empty() && kind != HANDSHAKE {
            return Seen::Refused(Some(10));
        }
        match kind {
            DATA if text.is_empty() => {
                self.empty += 1;
                if self.empty > 32 { Seen::Refused(Some(10)) } else { Seen::Nothing }
            }
            DATA => {
                (self.empty, self.warnings, self.renegotiations) = (0, 0, 0);
                Seen::Data(text.to_vec())
            }
            ALERT | HANDSHAKE if text.is_empty() => Seen::Refused(Some(10)),
            ALERT => self.see_alert(text, is_tls13),
            HANDSHAKE => {
                self.message.extend_from_slice(text);
                self.see_messages(is_tls13).unwrap_or_else(|alert| Seen::Refused(Some(alert)))
            }
            _ => Seen::Refused(Some(10)),
        }
    }

    fn see_alert(&mut self, text: &[u8], is_tls13: bool) -> Seen {
        match (text, is_tls13) {
            ([], _) => Seen::Refused(Some(10)),
            ([_, 0], true) | ([1, 0], false) => Seen::CloseNotify,
            ([_, 90], true) | ([1, _], false) => {
                self.warnings += 1;
                if self.warnings > 4 { Seen::Refused(Some(10)) } else { Seen::Nothing }
            }
            ([_, _], true) | ([2, _], false) => Seen::Refused(None),
            ([_, _], false) => Seen::Refused(Some(47)),
            _ => Seen::Refused(Some(50)),
        }
    }

    fn see_messages(&mut self, is_tls13: bool) -> Result<Seen, u8> {
        let seen = self.see_each_message(is_tls13)?;
        if seen == Seen::Renegotiation {
            self.renegotiations += 1;
            if self.renegotiations > 4 {
                return Err(10);
            }
        }
        Ok(seen)
    }

    /// The last thing that is asked.
    fn see_each_message(&mut self, is_tls13: bool) -> Result<Seen, u8> {
        let mut seen = Seen::Nothing;
        while let Some(kind) = self.message.first() {
            let (least, most) = match (is_tls13, self.role, kind) {
                (true, _, 24) => (1, 1),
                (true, Role::Client, 4) => (0, 131_337),
                (false, Role::Client, 0) => (0, 0),
                (false, Role::Server, 1) => (0, 131_396),
                _ => return Err(10),
            };
            let [_, a, b, c, rest @ ..] = &self.message[..] else { return Ok(seen) };
            let length = u32::from_be_bytes([0, *a, *b, *c]) as usize;
            if !(least..=most).contains(&length) {
                return Err(50);
            }
            if rest.len() < length {
                return Ok(seen);
            }
            seen = match (kind, rest) {
                (24, [_]) if self.message[4] > 1 => return Err(47),
                (24, [asks]) => Seen::KeyUpdate(*asks == 1),
                (24, _) => return Err(10),
                (0 | 1, _) => Seen::Renegotiation,
                _ => seen,
            };
            self.message.drain(..4 + length);
        }
        Ok(seen)
    }
}

/// Messages of any lengths, with what they say where it fits.
fn messages(data: &mut &[u8], count: usize) -> Vec<u8> {
    let mut text = Vec::new();
    for _ in 0..1 + count % 4 {
        let kind = [4, 24, 1, 0][usize::from(input::byte(data) & 3)];
        let length = usize::from(input::byte(data));
        text.extend_from_slice(&[kind, 0, 0, length as u8]);
        text.extend(std::iter::repeat_n(count as u8 & 1, length));
    }
    text
}

/// RFC 8446 5.1, 5.2; RFC 5246 6.2: what the header alone is refused for.
fn header_error(version: Version, record: &[u8]) -> Option<u8> {
    let is_tls13 = version == Version::Tls13;
    let is_known = |kind| kind == 23 || !is_tls13 && (kind == 21 || kind == 22);
    let most = if is_tls13 { 16_384 + 256 } else { 16_384 + 2048 };
    match *record {
        [kind, ..] if !is_known(kind) => Some(10),
        [_, major, minor, ..] if record.len() >= 5 && !is_tls13 && [major, minor] != [3, 3] => {
            Some(70)
        }
        [_, _, _, high, low, ..] if (usize::from(high) << 8 | usize::from(low)) > most => Some(22),
        _ => None,
    }
}

/// What we send: each byte is a thing that is done.
fn send(data: &mut &[u8], start: Direction) {
    let toy = Toy::default();
    let version = start.version;
    let mut peer = start.clone();
    // Now and then new keys are due.
    peer.number = match input::byte(data) {
        0 => (1 << 24) - 2,
        number => number.into(),
    };
    let mut sender = Sender::new(peer.proved());
    let (mut owes_keys, mut owes_refusal, mut is_closed) = (false, false, false);
    for _ in 0..MOST_STEPS {
        if data.is_empty() {
            break;
        }
        let step = input::byte(data);
        let (mut out, mut expected) = (vec![1, 2, 3], Vec::new());
        let mut owed = Vec::new();
        if owes_refusal {
            owed.push((ALERT, vec![1, 100]));
        }
        if owes_keys {
            owed.push((HANDSHAKE, vec![24, 0, 0, 1, 0]));
        }
        let sealed = match step & 7 {
            0 if version == Version::Tls13 => {
                sender.owe_key_update();
                owes_keys = true;
                continue;
            }
            1 => {
                sender.owe_no_renegotiation();
                owes_refusal = true;
                continue;
            }
            2 => {
                let mut frozen = Vec::new();
                sender.freeze(&mut frozen);
                let mut from = &frozen[..];
                sender = Sender::thaw(&mut from).expect("thawed");
                assert!(from.is_empty());
                continue;
            }
            3 => {
                let sealed = sender.seal_owed(&toy, &mut out);
                expected = owed;
                (owes_keys, owes_refusal) = (false, false);
                sealed
            }
            4 => {
                expected.push((ALERT, vec![1, 0]));
                sender.seal_close_notify(&toy, &mut out)
            }
            5 if step >> 3 == 0 => {
                expected.push((ALERT, vec![2, step]));
                sender.seal_fatal(&toy, Alert(step), &mut out)
            }
            _ => {
                let text = vec![step; usize::from(step >> 3) * 1100];
                let sealed = sender.seal_data(&toy, &text, &mut out);
                expected = owed;
                expected.extend(text.chunks(MAX_TEXT).map(|part| (DATA, part.to_vec())));
                (owes_keys, owes_refusal) = (false, false);
                sealed
            }
        };
        assert_eq!(out[..3], [1, 2, 3]);
        if is_closed {
            assert!(sealed.is_err() || expected.is_empty());
            assert_eq!(out.len(), 3);
            continue;
        }
        assert_eq!(sealed, Ok(()));
        assert_eq!(sender.owes(), owes_keys || owes_refusal);
        is_closed = matches!(expected.last(), Some((ALERT, text)) if text[1] != 100);
        let mut rest = &out[3..];
        let mut found = Vec::new();
        while !rest.is_empty() {
            let number = peer.number;
            let (kind, text, behind) = peer.open(rest);
            rest = behind;
            if kind == HANDSHAKE {
                assert_eq!(text, [24, 0, 0, 1, 0]);
                peer.update();
                // One that nobody asked for is due.
                if number >= 1 << 24
                    && expected.get(found.len()).is_none_or(|(kind, _)| *kind != HANDSHAKE)
                {
                    continue;
                }
            } else {
                assert!(version == Version::Tls12 || kind != DATA || number < 1 << 24);
            }
            found.push((kind, text));
        }
        assert_eq!(found, expected);
    }
}
