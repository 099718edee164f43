//! The part of the key schedule of TLS 1.3 that goes on after the handshake (RFC 8446 7).

use crate::crypto::{Crypto, CryptoError};
use crate::keys::{Keys, Secret};
use crate::suite::Suite;

impl Secret {
    /// The secret that follows a KeyUpdate (RFC 8446 7.2).
    pub(crate) fn next<C: Crypto + ?Sized>(
        &self,
        crypto: &C,
        suite: Suite,
    ) -> Result<Self, CryptoError> {
        let mut next = Secret::zero(suite);
        crypto.expand_label(suite, self.bytes(), "traffic upd", next.bytes_mut())?;
        Ok(next)
    }
}

impl Keys {
    /// The keys of a secret of TLS 1.3 (RFC 8446 7.3).
    ///
    /// # Errors
    /// `crypto`'s.
    pub fn expand<C: Crypto + ?Sized>(
        crypto: &C,
        suite: Suite,
        secret: &Secret,
    ) -> Result<Self, CryptoError> {
        let mut keys = Keys::zero();
        let (key, iv) = keys.parts_mut(suite);
        crypto.expand_label(suite, secret.bytes(), "key", key)?;
        crypto.expand_label(suite, secret.bytes(), "iv", iv)?;
        Ok(keys)
    }
}
