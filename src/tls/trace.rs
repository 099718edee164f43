//! What is noted of a session while it is its owner's, so that it can leave OpenSSL.

use std::ffi::CStr;

use crate::follower::Follower;
use crate::reason::Reason;
use crate::symbols::Bio;

/// The longest traffic secret (SHA-384).
const MAX_SECRET_BYTES: usize = 48;

/// A secret of a direction, as the keylog had it.
#[derive(Default)]
struct Logged {
    bytes: [[u8; 16]; MAX_SECRET_BYTES / 16],
    length: usize,
}

impl Logged {
    fn bytes(&self) -> &[u8] {
        &self.bytes.as_flattened()[..self.length]
    }

    fn wipe(&mut self) {
        records::wipe(self.bytes.as_flattened_mut());
        self.length = 0;
    }

    /// Takes it from hexadecimal digits; none if those are not what they should be.
    fn set(&mut self, hex: &[u8]) {
        self.wipe();
        let digit = |byte: u8| char::from(byte).to_digit(16).and_then(|n| u8::try_from(n).ok());
        let bytes = self.bytes.as_flattened_mut();
        if !hex.len().is_multiple_of(2) || hex.len() / 2 > bytes.len() {
            return;
        }
        for (byte, pair) in bytes.iter_mut().zip(hex.chunks_exact(2)) {
            let (Some(high), Some(low)) = (digit(pair[0]), digit(pair[1])) else {
                return;
            };
            *byte = high << 4 | low;
        }
        self.length = hex.len() / 2;
    }
}

/// One direction.
#[derive(Default)]
pub(crate) struct Way {
    secret: Logged,
    pub follower: Follower,
}

impl Way {
    /// The secret of TLS 1.3; empty if there was none.
    pub(crate) fn secret(&self) -> &[u8] {
        self.secret.bytes()
    }
}

/// What is noted of a session.
pub(crate) struct Trace {
    pub received: Way,
    pub sent: Way,
    /// The BIOs that are followed, which are the SSL's.
    pub rbio: *mut Bio,
    pub wbio: *mut Bio,
    /// A record that was sealed may not have gone.
    pub has_failed_writes: bool,
    /// The peer was asked for a certificate, and has not answered.
    awaits_certificate: bool,
}

impl Drop for Trace {
    fn drop(&mut self) {
        self.received.secret.wipe();
        self.sent.secret.wipe();
    }
}

impl Trace {
    /// One of a session whose handshake begins.
    pub(crate) fn new(rbio: *mut Bio, wbio: *mut Bio) -> Self {
        let (received, sent) = (Way::default(), Way::default());
        Trace { received, sent, rbio, wbio, has_failed_writes: false, awaits_certificate: false }
    }

    /// Whether all that went was followed, which the BIOs' own counts tell, and nothing is half
    /// done.
    pub(crate) fn check(&self, read: u64, written: u64) -> Result<(), Reason> {
        if [read, written] != [self.received.follower.bytes, self.sent.follower.bytes] {
            return Err(Reason::Untraced);
        }
        let are_between =
            [&self.received, &self.sent].iter().all(|way| way.follower.is_between_records());
        if self.has_failed_writes || self.awaits_certificate || !are_between {
            return Err(Reason::Unfinished);
        }
        Ok(())
    }

    /// The state that a handshake is about to leave, as SSL_state_string has it. After the first
    /// handshake too a server can ask for a certificate (RFC 8446 4.6.2); an answer ends with a
    /// Finished.
    pub(crate) fn note_state(&mut self, state: &CStr) {
        match state.to_bytes() {
            b"TWCR" => self.awaits_certificate = true,
            b"TRFIN" => self.awaits_certificate = false,
            _ => {}
        }
    }

    /// A line of the keylog: label, client random and secret.
    pub(crate) fn note_secret(&mut self, is_server: bool, line: &[u8]) {
        let mut words = line.split(|byte| *byte == b' ');
        let (Some(label), Some(_), Some(hex)) = (words.next(), words.next(), words.next()) else {
            return;
        };
        // "_0", or "_N" for those that follow a KeyUpdate.
        let is_clients = match label {
            b"CLIENT_TRAFFIC_SECRET_0" | b"CLIENT_TRAFFIC_SECRET_N" => true,
            b"SERVER_TRAFFIC_SECRET_0" | b"SERVER_TRAFFIC_SECRET_N" => false,
            _ => return,
        };
        let way = if is_clients == is_server { &mut self.received } else { &mut self.sent };
        way.secret.set(hex);
        way.follower.new_keys();
    }
}
