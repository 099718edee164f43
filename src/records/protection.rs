//! How a record of one direction is encrypted, and its number.

use std::ops::Range;

use crate::crypto::{Crypto, CryptoError, OpenError};
use crate::keys::{Keys, Secret};
use crate::record::{DATA, HEADER_BYTES, header};
use crate::suite::{IV_BYTES, Suite, TAG_BYTES, Version};

/// The keys of one direction, and the number of the next record.
#[derive(Debug)]
pub(crate) struct Protection {
    pub suite: Suite,
    pub keys: Keys,
    pub secret: Option<Secret>,
    /// Of the next record (RFC 8446 5.3, RFC 5246 6.1).
    pub number: u64,
}

/// No record gets this number: the one behind it would be the first again.
const LAST_NUMBER: u64 = u64::MAX;

impl Protection {
    /// It is TLS 1.3 that has secrets to make the next keys of.
    pub(crate) fn version(&self) -> Version {
        if self.secret.is_some() { Version::Tls13 } else { Version::Tls12 }
    }

    /// The number of the next record, which is taken with that: whatever happens to the record,
    /// no other gets the number.
    pub(crate) fn take_number(&mut self) -> Option<u64> {
        let number = self.number;
        if number == LAST_NUMBER {
            return None;
        }
        self.number += 1;
        Some(number)
    }

    /// The next generation of keys (RFC 8446 7.2). Its numbers begin at 0 again (RFC 8446 5.3).
    pub(crate) fn update<C: Crypto + ?Sized>(&mut self, crypto: &C) -> Result<(), CryptoError> {
        // Only TLS 1.3 has KeyUpdates.
        let secret = self.secret.as_ref().ok_or(CryptoError)?;
        let secret = secret.next(crypto, self.suite)?;
        self.keys = Keys::expand(crypto, self.suite, &secret)?;
        // The old ones are wiped.
        self.secret = Some(secret);
        self.number = 0;
        Ok(())
    }

    /// RFC 8446 5.3, RFC 7905 2.
    fn nonce(&self, number: u64) -> [u8; IV_BYTES] {
        let mut nonce = self.keys.iv();
        for (byte, part) in nonce[IV_BYTES - 8..].iter_mut().zip(number.to_be_bytes()) {
            *byte ^= part;
        }
        nonce
    }

    /// RFC 5288 3: what the explicit part is in the IV is 0, so that this puts it there.
    fn nonce_with(&self, number: u64, explicit: &[u8]) -> [u8; IV_BYTES] {
        match explicit.try_into() {
            Ok(explicit) => self.nonce(u64::from_be_bytes(explicit)),
            // There is none.
            Err(_) => self.nonce(number),
        }
    }

    /// RFC 5246 6.2.3.3; `length` is that of the text.
    fn tls12_aad(number: u64, kind: u8, length: usize) -> [u8; 13] {
        let mut aad = [0; 13];
        aad[..8].copy_from_slice(&number.to_be_bytes());
        aad[8..].copy_from_slice(&header(kind, length));
        aad
    }

    /// Appends a record to `out`. The caller has taken `number`, and with GCM of TLS 1.2 the
    /// `explicit_nonce`, for this record alone. After an error `out` may have more than before.
    pub(crate) fn seal<C: Crypto + ?Sized>(
        &self,
        crypto: &C,
        number: u64,
        explicit_nonce: u64,
        (kind, text): (u8, &[u8]),
        out: &mut Vec<u8>,
    ) -> Result<(), CryptoError> {
        let explicit = explicit_nonce.to_be_bytes();
        let explicit = &explicit[..self.suite.explicit_nonce_bytes(self.version())];
        let tag = match self.version() {
            Version::Tls13 => {
                // RFC 8446 5.2: the type is behind the text. No padding.
                let header = header(DATA, text.len() + 1 + TAG_BYTES);
                out.reserve(header.len() + text.len() + 1 + TAG_BYTES);
                out.extend_from_slice(&header);
                let at = out.len();
                out.extend_from_slice(text);
                out.push(kind);
                let nonce = self.nonce(number);
                crypto.seal(self.suite, &self.keys, &nonce, &header, &mut out[at..])?
            }
            Version::Tls12 => {
                let header = header(kind, explicit.len() + text.len() + TAG_BYTES);
                out.reserve(header.len() + explicit.len() + text.len() + TAG_BYTES);
                out.extend_from_slice(&header);
                out.extend_from_slice(explicit);
                let at = out.len();
                out.extend_from_slice(text);
                let nonce = self.nonce_with(number, explicit);
                let aad = Self::tls12_aad(number, kind, text.len());
                crypto.seal(self.suite, &self.keys, &nonce, &aad, &mut out[at..])?
            }
        };
        out.extend_from_slice(&tag);
        Ok(())
    }

    /// Decrypts the body of a whole record where it lies. Returns where in the record the text is,
    /// which with TLS 1.3 is followed by its type and the padding.
    pub(crate) fn open<C: Crypto + ?Sized>(
        &self,
        crypto: &C,
        number: u64,
        record: &mut [u8],
    ) -> Result<Range<usize>, OpenError> {
        let version = self.version();
        let Some((head, body)) = record.split_first_chunk_mut::<HEADER_BYTES>() else {
            return Err(OpenError::Forged);
        };
        let explicit_bytes = self.suite.explicit_nonce_bytes(version);
        let Some((explicit, body)) = body.split_at_mut_checked(explicit_bytes) else {
            return Err(OpenError::Forged);
        };
        let Some((text, tag)) = body.split_last_chunk_mut::<TAG_BYTES>() else {
            return Err(OpenError::Forged);
        };
        let nonce = self.nonce_with(number, explicit);
        let start = HEADER_BYTES + explicit_bytes;
        let place = start..start + text.len();
        match version {
            Version::Tls13 => crypto.open(self.suite, &self.keys, &nonce, head, text, tag)?,
            Version::Tls12 => {
                let aad = Self::tls12_aad(number, head[0], text.len());
                crypto.open(self.suite, &self.keys, &nonce, &aad, text, tag)?;
            }
        }
        Ok(place)
    }
}
