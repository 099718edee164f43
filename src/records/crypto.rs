//! What the record layer has somebody else do.

use std::fmt;

use crate::keys::Keys;
use crate::suite::{IV_BYTES, Suite, TAG_BYTES};

/// The ciphers and the key derivation.
pub trait Crypto {
    /// Encrypts `text` where it lies, and returns the tag (RFC 5116 2.1). [`Keys::id`] tells
    /// whether a context that was made earlier is of these keys.
    ///
    /// # Errors
    /// If the library fails. What `text` is then is not looked at.
    fn seal(
        &self,
        suite: Suite,
        keys: &Keys,
        nonce: &[u8; IV_BYTES],
        aad: &[u8],
        text: &mut [u8],
    ) -> Result<[u8; TAG_BYTES], CryptoError>;

    /// Decrypts `text` where it lies if the tag is right (RFC 5116 2.2).
    ///
    /// # Errors
    /// `Forged` if the tag is not right. What `text` is after an error is not looked at.
    fn open(
        &self,
        suite: Suite,
        keys: &Keys,
        nonce: &[u8; IV_BYTES],
        aad: &[u8],
        text: &mut [u8],
        tag: &[u8; TAG_BYTES],
    ) -> Result<(), OpenError>;

    /// HKDF-Expand-Label (RFC 8446 7.1) with the suite's hash and an empty context. `label` is
    /// without "tls13 " in front.
    ///
    /// # Errors
    /// If the library fails. What is in `out` then is not looked at.
    fn expand_label(
        &self,
        suite: Suite,
        secret: &[u8],
        label: &str,
        out: &mut [u8],
    ) -> Result<(), CryptoError>;
}

/// The library failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CryptoError;

impl fmt::Display for CryptoError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the TLS library failed")
    }
}

impl std::error::Error for CryptoError {}

/// Why a record was not opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OpenError {
    /// The tag is not right: other keys, another number, or not what was sent.
    Forged,
    /// The library failed.
    Crypto,
}

impl From<CryptoError> for OpenError {
    fn from(_: CryptoError) -> Self {
        OpenError::Crypto
    }
}
