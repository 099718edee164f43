//! What a peer sends, of the bytes that a target is given: its own records, and such as no library
//! sends, with the same keys.

use std::io::Write as _;

use openssl::ssl::SslStream;
use records::Version;

use crate::direction::Direction;
use crate::input;
use crate::pair::End;

pub(crate) const ALERT: u8 = 21;
pub(crate) const HANDSHAKE: u8 = 22;
pub(crate) const DATA: u8 = 23;
const MAX_TEXT: usize = 16_384;
/// Messages are cut in so many.
const MOST_RECORDS: usize = 200;

mod raw {
    use std::ffi::c_int;

    use openssl_sys::SSL;

    unsafe extern "C" {
        pub(super) fn SSL_key_update(ssl: *mut SSL, kind: c_int) -> c_int;
        pub(super) fn SSL_new_session_ticket(ssl: *mut SSL) -> c_int;
        pub(super) fn SSL_renegotiate(ssl: *mut SSL) -> c_int;
        pub(super) fn SSL_do_handshake(ssl: *mut SSL) -> c_int;
    }
}

/// The direction from the peer.
pub(crate) struct Script {
    pub direction: Direction,
    /// Records that it has sent and that nobody was given yet, and how to go on behind each.
    pub records: Vec<(Vec<u8>, Direction)>,
    /// Something else than the peer has sealed with its keys: it can send no more itself.
    is_forged: bool,
    /// The handshake messages that were forged.
    messages: Vec<u8>,
    /// A record ended with a NewSessionTicket of no bytes.
    pub has_empty_ticket: bool,
    last: Vec<u8>,
}

impl Script {
    /// `direction` is behind what the peer has sent.
    pub(crate) fn new(direction: Direction) -> Self {
        Script {
            direction,
            records: Vec::new(),
            is_forged: false,
            messages: Vec::new(),
            has_empty_ticket: false,
            last: Vec::new(),
        }
    }

    fn is_tls13(&self) -> bool {
        self.direction.version == Version::Tls13
    }

    /// The peer itself does something.
    pub(crate) fn peer_acts(
        &mut self,
        peer: &mut SslStream<End>,
        is_server: bool,
        what: u8,
        data: &mut &[u8],
    ) {
        use foreign_types_shared::ForeignTypeRef as _;
        if self.is_forged {
            return;
        }
        let ssl = peer.ssl().as_ptr();
        match (what & 3, self.is_tls13()) {
            // SAFETY: a live SSL that this thread alone uses, here and below.
            (1, true) => unsafe {
                raw::SSL_key_update(ssl, (what >> 2 & 1).into());
                raw::SSL_do_handshake(ssl);
            },
            // SAFETY: as above.
            (2, true) if is_server => unsafe {
                raw::SSL_new_session_ticket(ssl);
                raw::SSL_do_handshake(ssl);
            },
            // SAFETY: as above.
            (2, false) => unsafe {
                raw::SSL_renegotiate(ssl);
                raw::SSL_do_handshake(ssl);
            },
            (3, _) => drop(peer.shutdown()),
            _ => {
                let count = usize::from(input::byte(data));
                let count = if what & 4 == 0 { count } else { count * 97 };
                let text: Vec<u8> = (0..count).map(|at| (at * 7) as u8).collect();
                // One that was told of an end sends nothing.
                let _ = peer.write_all(&text);
            }
        }
        self.pass_on(peer);
    }

    /// What the peer sent of itself goes on its way.
    pub(crate) fn pass_on(&mut self, peer: &mut SslStream<End>) {
        let mut sent = std::mem::take(&mut *peer.get_ref().outgoing.borrow_mut());
        if self.is_forged {
            return;
        }
        while !sent.is_empty() {
            let (kind, text, rest) = self.direction.open(&sent);
            if kind == HANDSHAKE && self.is_tls13() && text.first() == Some(&24) {
                self.direction.update();
            }
            let rest = rest.to_vec();
            sent.truncate(sent.len() - rest.len());
            self.push(sent);
            sent = rest;
        }
    }

    /// All that has come.
    pub(crate) fn take_stream(&mut self) -> Vec<u8> {
        let records: Vec<_> = self.records.drain(..).map(|(record, _)| record).collect();
        records.concat()
    }

    /// A record of that type, which with TLS 1.3 is inside, in front of so much padding.
    fn seal(&mut self, kind: u8, text: &[u8], padding: usize) {
        self.is_forged = true;
        if kind == HANDSHAKE {
            self.messages.extend_from_slice(text);
            self.has_empty_ticket |= self.messages.ends_with(&[4, 0, 0, 0]);
        }
        let record = if self.is_tls13() {
            let mut inner = [text, &[kind]].concat();
            inner.resize(inner.len() + padding, 0);
            self.direction.seal(DATA, &inner)
        } else {
            self.direction.seal(kind, text)
        };
        self.push(record);
    }

    fn push(&mut self, record: Vec<u8>) {
        self.last.clone_from(&record);
        self.records.push((record, self.direction.clone()));
    }

    /// Handshake messages in records of at most `cut` bytes each. The keys are new behind a KeyUpdate
    /// with which a record ends.
    pub(crate) fn seal_messages(&mut self, text: &[u8], cut: usize) {
        let mut end = 0;
        for part in text.chunks(cut.max(text.len() / MOST_RECORDS).max(1)) {
            end += part.len();
            self.seal(HANDSHAKE, part, 0);
            let is_update = [0, 1].iter().any(|asks| text[..end].ends_with(&[24, 0, 0, 1, *asks]));
            if self.is_tls13() && is_update {
                self.direction.update();
            }
        }
    }

    /// Something that a library would not send.
    pub(crate) fn forge(&mut self, kind: u8, more: u8, data: &mut &[u8]) {
        let count = usize::from(input::byte(data));
        match kind {
            4 => self.seal(DATA, input::bytes(data, count), usize::from(more) * 40),
            5 => self.seal(HANDSHAKE, input::bytes(data, count), 0),
            6 => {
                let cut = if more & 4 == 0 { MAX_TEXT } else { usize::from(input::byte(data)) };
                let text = self.messages(data, 1 + (more & 3));
                // The count says what is in front of it, too.
                let front = if count < 4 { &[0_u8; 4][..count] } else { &[] };
                self.seal_messages(&[front, &text].concat(), cut);
            }
            7 if more & 4 == 0 => {
                let alert = [1 + (more & 1), count as u8];
                self.seal(ALERT, &alert, usize::from(more & 2));
            }
            7 => self.seal(ALERT, input::bytes(data, count), 0),
            8 => self.seal(input::byte(data), input::bytes(data, count), usize::from(more)),
            // Just about as long as is allowed.
            9 => {
                let kind = if more & 4 == 0 { DATA } else { HANDSHAKE };
                let padding = [0, 1, 100, 300][usize::from(more & 3)];
                self.seal(kind, &vec![more; MAX_TEXT - 127 + count], padding);
            }
            10 => {
                let padding = [0, MAX_TEXT - 200, 1, 2][usize::from(more & 3)];
                self.seal(
                    if more & 4 == 0 { DATA } else { input::byte(data) },
                    &[],
                    padding + count,
                );
            }
            // The same again and again.
            11 => {
                let kind = [DATA, ALERT, HANDSHAKE, DATA][usize::from(more & 3)];
                let text = match (kind, self.is_tls13()) {
                    (ALERT, true) => &[1, 90][..],
                    (ALERT, false) => &[1, 41],
                    // HelloRequest, or the beginning of a ClientHello.
                    (HANDSHAKE, false) => &[(more >> 2 & 1), 0, 0, 0],
                    (HANDSHAKE, true) => &[24, 0, 0, 1, 0],
                    _ => &[],
                };
                for _ in 0..count % 48 {
                    self.seal(kind, text, 0);
                    if (kind, self.is_tls13()) == (HANDSHAKE, true) {
                        self.direction.update();
                    }
                }
            }
            12 => self.unsealed(count, more, data),
            13 => {
                // One bit is another one.
                self.seal(DATA, &[7; 9], 0);
                if let Some((record, _)) = self.records.last_mut() {
                    let at = 5 + count % (record.len() - 5);
                    record[at] ^= 1 << more;
                }
            }
            14 if more & 1 == 0 => {
                // A record is lost.
                self.direction.number += 1 + count as u64;
                self.seal(DATA, &[8; 9], 0);
            }
            14 => {
                // A record comes again.
                self.is_forged = true;
                self.records.push((self.last.clone(), self.direction.clone()));
            }
            // A header that is another one, and sealed with it.
            _ => {
                let (outer, minor) =
                    if more & 1 == 0 { (DATA, count as u8) } else { (count as u8, 3) };
                self.is_forged = true;
                let text: &[u8] = if self.is_tls13() { &[9, 9, DATA] } else { &[9, 9] };
                let record = self.direction.seal_as(outer, minor, text);
                self.push(record);
            }
        }
    }

    /// A whole record that nobody sealed.
    fn unsealed(&mut self, count: usize, more: u8, data: &mut &[u8]) {
        self.is_forged = true;
        let kind = if more & 1 == 0 { DATA } else { input::byte(data) };
        // OpenSSL looks at it in TLS 1.3 too.
        let minor = if more & 2 == 0 || self.is_tls13() { 3 } else { input::byte(data) };
        let length =
            if more & 4 == 0 { count } else { count << 8 | usize::from(input::byte(data)) };
        let mut record = vec![kind, 3, minor, (length >> 8) as u8, length as u8];
        record.resize(5 + length, count as u8);
        self.push(record);
    }

    /// Messages as they should be, and such as should not come.
    fn messages(&mut self, data: &mut &[u8], count: u8) -> Vec<u8> {
        let mut text = Vec::new();
        for _ in 0..count {
            let choice = input::byte(data);
            let (kind, body) = match choice & 15 {
                0..4 => (24, vec![choice & 1]),
                4 => (24, vec![choice >> 4]),
                5 => (24, vec![0; usize::from(choice >> 4)]),
                6 | 7 => (4, ticket(input::bytes(data, usize::from(choice >> 4)))),
                8 => (4, input::bytes(data, usize::from(choice >> 4)).to_vec()),
                9 => (0, vec![0; usize::from(choice >> 4 & 1)]),
                10 => (1, vec![choice; usize::from(choice) * 8]),
                // CertificateRequest: no context, no extension.
                11 => (13, vec![0, 0, 0]),
                12 => (20, vec![choice; 32]),
                13 => (1, vec![choice; 131_060 + usize::from(choice) * 2]),
                14 => (4, vec![0; 131_300 + usize::from(choice) / 4]),
                _ => (input::byte(data), vec![0; usize::from(choice >> 4)]),
            };
            let [.., a, b, c] = body.len().to_be_bytes();
            text.extend([&[kind, a, b, c], &body[..]].concat());
        }
        text
    }
}

/// A NewSessionTicket (RFC 8446 4.6.1).
fn ticket(bytes: &[u8]) -> Vec<u8> {
    let length = [0, bytes.len() as u8 + 1];
    [&[0, 0, 1, 0, 1, 2, 3, 4, 1, 7], &length[..], bytes, &[5, 0, 0]].concat()
}
