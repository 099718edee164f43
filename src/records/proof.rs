//! What shows that keys and numbers are those of a direction.

use std::ops::{Range, RangeInclusive};

use crate::crypto::{Crypto, CryptoError, OpenError};
use crate::keys::{Keys, Secret, wipe};
use crate::protection::Protection;
use crate::record::{DATA, HANDSHAKE, HEADER_BYTES, record_bytes, without_padding};
use crate::suite::{Suite, Version};

/// What may be the keys of one direction.
#[derive(Debug)]
pub struct TrafficKeys(Protection);

/// Keys of a direction, the number of its next record, and with GCM of TLS 1.2 the nonce of the
/// next record that is sent.
#[derive(Debug)]
pub struct Proved {
    pub(crate) protection: Protection,
    pub(crate) explicit_nonce: u64,
}

/// The record that proved it, opened. It is overwritten when it goes.
pub struct Opened {
    record: Vec<u8>,
    kind: u8,
    /// Where the text is.
    place: Range<usize>,
    padding: usize,
}

impl Opened {
    /// Whether it has data.
    pub fn is_data(&self) -> bool {
        self.kind == DATA
    }

    /// Its text, if that is of handshake messages.
    pub fn messages(&self) -> Option<&[u8]> {
        (self.kind == HANDSHAKE).then(|| &self.record[self.place.clone()])
    }

    /// Whether it is longer than its text needs (RFC 8446 5.4).
    pub fn is_padded(&self) -> bool {
        self.padding > 0
    }
}

impl Drop for Opened {
    fn drop(&mut self) {
        wipe(&mut self.record);
    }
}

/// Why nothing is proved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProofError {
    /// The record is not one of these keys, or has none of the numbers.
    Wrong,
    /// The library failed.
    Crypto,
}

impl TrafficKeys {
    /// Those of a traffic secret of TLS 1.3.
    ///
    /// # Errors
    /// `crypto`'s.
    pub fn tls13<C: Crypto + ?Sized>(
        crypto: &C,
        suite: Suite,
        secret: Secret,
    ) -> Result<Self, CryptoError> {
        let keys = Keys::expand(crypto, suite, &secret)?;
        Ok(TrafficKeys(Protection { suite, keys, secret: Some(secret), number: 0 }))
    }

    /// Those of a key block of TLS 1.2.
    pub fn tls12(suite: Suite, keys: Keys) -> Self {
        TrafficKeys(Protection { suite, keys, secret: None, number: 0 })
    }

    /// Looks which of `numbers` the record `last` has, which was the last one of the direction. Each
    /// number costs a decryption. `last` is the whole record; it may be of any content, which is
    /// returned.
    ///
    /// # Errors
    /// `Wrong` if it has none of them: then the keys are of another connection, direction or
    /// generation, or more records went than was thought; or if it is none of TLS 1.3 (RFC 8446 5.4).
    pub fn prove<C: Crypto + ?Sized>(
        self,
        crypto: &C,
        last: &[u8],
        numbers: RangeInclusive<u64>,
    ) -> Result<(Proved, Opened), ProofError> {
        let version = self.0.version();
        if record_bytes(version, last) != Ok(Some(last.len())) {
            return Err(ProofError::Wrong);
        }
        let record = last.to_vec();
        let mut opened = Opened { record, kind: last[0], place: 0..0, padding: 0 };
        for number in numbers {
            // What a failed attempt leaves is not what was there.
            opened.record.copy_from_slice(last);
            opened.place = match self.0.open(crypto, number, &mut opened.record) {
                Err(OpenError::Forged) => continue,
                Err(OpenError::Crypto) => return Err(ProofError::Crypto),
                Ok(place) => place,
            };
            if version == Version::Tls13 {
                let sealed = opened.place.end;
                let inner = without_padding(&opened.record, opened.place.clone());
                (opened.kind, opened.place) = inner.map_err(|_| ProofError::Wrong)?;
                opened.padding = sealed - opened.place.end - 1;
            }
            let explicit = self.explicit_nonce(version, last);
            let next = number.checked_add(1).ok_or(ProofError::Wrong)?;
            return Ok((self.assume(next, explicit.wrapping_add(1)), opened));
        }
        Err(ProofError::Wrong)
    }

    /// The explicit nonce of a whole record (RFC 5288 3); 0 if it has none.
    fn explicit_nonce(&self, version: Version, record: &[u8]) -> u64 {
        let bytes = self.0.suite.explicit_nonce_bytes(version);
        let explicit = record.get(HEADER_BYTES..).and_then(|body| body.get(..bytes));
        explicit.and_then(|part| part.try_into().ok()).map_or(0, u64::from_be_bytes)
    }

    /// Nothing is proved: for keys that this record layer is the first to use, from number 0 on,
    /// and for tests. `explicit_nonce` is that of the next record that is sent with GCM of TLS 1.2.
    pub fn assume(self, number: u64, explicit_nonce: u64) -> Proved {
        let TrafficKeys(mut protection) = self;
        protection.number = number;
        Proved { protection, explicit_nonce }
    }
}
