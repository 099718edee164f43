//! The direction that is sent.

use crate::alert::{Alert, FATAL, WARNING};
use crate::crypto::Crypto;
use crate::error::SealError;
use crate::messages::{KEY_UPDATE, KEY_UPDATE_NOT_REQUESTED};
use crate::proof::Proved;
use crate::protection::Protection;
use crate::record::{ALERT, DATA, HANDSHAKE, MAX_TEXT_BYTES};
use crate::suite::Version;

/// New keys are made after so many records. AES-GCM must not protect more than 2^24.5 full ones
/// with one key (RFC 8446 5.5).
pub(crate) const MAX_RECORDS_PER_KEY: u64 = 1 << 24;

/// Encrypts what is sent. One owner, and no copies: no nonce is used twice.
#[derive(Debug)]
pub struct Sender {
    pub(crate) protection: Protection,
    /// Of the next record, with GCM of TLS 1.2.
    pub(crate) explicit_nonce: u64,
    /// The peer asked for a KeyUpdate (RFC 8446 4.6.3).
    pub(crate) owes_key_update: bool,
    /// The peer asked for a renegotiation (RFC 5246 7.2.2).
    pub(crate) owes_no_renegotiation: bool,
    pub(crate) closed: bool,
}

impl Sender {
    /// Goes on where the direction is.
    pub fn new(proved: Proved) -> Self {
        let Proved { protection, explicit_nonce } = proved;
        Sender {
            protection,
            explicit_nonce,
            owes_key_update: false,
            owes_no_renegotiation: false,
            closed: false,
        }
    }

    /// The version of the session.
    pub fn version(&self) -> Version {
        self.protection.version()
    }

    /// The peer asked for new keys ([`crate::Content::KeyUpdate`]): they come before the next data,
    /// or with [`seal_owed`](Self::seal_owed). However often it asks meanwhile, they come once.
    pub fn owe_key_update(&mut self) {
        self.owes_key_update = true;
    }

    /// The peer asked for a renegotiation ([`crate::Content::Renegotiation`]): the warning that
    /// there is none goes as [`owe_key_update`](Self::owe_key_update) says.
    pub fn owe_no_renegotiation(&mut self) {
        self.owes_no_renegotiation = true;
    }

    /// Whether [`seal_owed`](Self::seal_owed) has something to seal.
    pub fn owes(&self) -> bool {
        self.owes_key_update || self.owes_no_renegotiation
    }

    /// Appends what the peer is owed, if anything.
    ///
    /// # Errors
    /// See [`SealError`].
    pub fn seal_owed<C: Crypto + ?Sized>(
        &mut self,
        crypto: &C,
        out: &mut Vec<u8>,
    ) -> Result<(), SealError> {
        if self.owes_no_renegotiation {
            self.owes_no_renegotiation = false;
            self.seal_alert_record(crypto, WARNING, Alert::NO_RENEGOTIATION, out)?;
        }
        if self.owes_key_update {
            self.seal_key_update(crypto, out)?;
        }
        Ok(())
    }

    /// Appends `text` in as many records as it needs; none if it is empty. What is owed to the peer
    /// goes in front, and new keys where it is time for them.
    ///
    /// # Errors
    /// See [`SealError`]; records that were appended before it stay, and must be sent or the
    /// connection ended.
    pub fn seal_data<C: Crypto + ?Sized>(
        &mut self,
        crypto: &C,
        text: &[u8],
        out: &mut Vec<u8>,
    ) -> Result<(), SealError> {
        self.seal_owed(crypto, out)?;
        for part in text.chunks(MAX_TEXT_BYTES) {
            let is_tls13 = self.version() == Version::Tls13;
            if is_tls13 && self.protection.number >= MAX_RECORDS_PER_KEY {
                self.seal_key_update(crypto, out)?;
            }
            self.seal(crypto, DATA, part, out)?;
        }
        Ok(())
    }

    /// Appends close_notify. Nothing can be sealed afterwards (RFC 8446 6.1).
    ///
    /// # Errors
    /// See [`SealError`].
    pub fn seal_close_notify<C: Crypto + ?Sized>(
        &mut self,
        crypto: &C,
        out: &mut Vec<u8>,
    ) -> Result<(), SealError> {
        let sealed = self.seal_alert_record(crypto, WARNING, Alert::CLOSE_NOTIFY, out);
        self.closed = true;
        sealed
    }

    /// Appends a fatal alert. Nothing can be sealed afterwards (RFC 8446 6.2).
    ///
    /// # Errors
    /// See [`SealError`].
    pub fn seal_fatal<C: Crypto + ?Sized>(
        &mut self,
        crypto: &C,
        alert: Alert,
        out: &mut Vec<u8>,
    ) -> Result<(), SealError> {
        let sealed = self.seal_alert_record(crypto, FATAL, alert, out);
        self.closed = true;
        sealed
    }

    fn seal_alert_record<C: Crypto + ?Sized>(
        &mut self,
        crypto: &C,
        level: u8,
        alert: Alert,
        out: &mut Vec<u8>,
    ) -> Result<(), SealError> {
        self.seal(crypto, ALERT, &[level, alert.0], out)
    }

    /// Our KeyUpdate asks for none of the peer's: only what we send needs new keys.
    fn seal_key_update<C: Crypto + ?Sized>(
        &mut self,
        crypto: &C,
        out: &mut Vec<u8>,
    ) -> Result<(), SealError> {
        self.owes_key_update = false;
        let message = [KEY_UPDATE, 0, 0, 1, KEY_UPDATE_NOT_REQUESTED];
        self.seal(crypto, HANDSHAKE, &message, out)?;
        let updated = self.protection.update(crypto);
        // Half new keys are none.
        self.closed |= updated.is_err();
        Ok(updated?)
    }

    fn seal<C: Crypto + ?Sized>(
        &mut self,
        crypto: &C,
        kind: u8,
        text: &[u8],
        out: &mut Vec<u8>,
    ) -> Result<(), SealError> {
        if self.closed {
            return Err(SealError::Closed);
        }
        let number = self.protection.take_number().ok_or(SealError::Exhausted)?;
        let explicit_nonce = self.explicit_nonce;
        self.explicit_nonce = explicit_nonce.wrapping_add(1);
        let before = out.len();
        let sealed = self.protection.seal(crypto, number, explicit_nonce, (kind, text), out);
        if sealed.is_err() {
            // What is there may be the plain text.
            out.truncate(before);
            self.closed = true;
        }
        Ok(sealed?)
    }
}
