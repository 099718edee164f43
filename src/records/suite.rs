//! Versions and cipher suites.

/// The version that was negotiated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Version {
    /// RFC 5246.
    Tls12,
    /// RFC 8446.
    Tls13,
}

/// The AEAD cipher, and with TLS 1.3 the hash of the key schedule.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Suite {
    /// AEAD_AES_128_GCM, SHA-256 (RFC 5116 5.1).
    Aes128Gcm,
    /// AEAD_AES_256_GCM, SHA-384 (RFC 5116 5.2).
    Aes256Gcm,
    /// AEAD_CHACHA20_POLY1305, SHA-256 (RFC 8439 2.8).
    Chacha20Poly1305,
}

/// Which end of the connection we are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// We sent the ClientHello.
    Client,
    /// We answered it.
    Server,
}

/// What each of the ciphers adds to a text.
pub const TAG_BYTES: usize = 16;
/// The size of the nonce, and so of the IV, of each of the ciphers (RFC 8446 5.3).
pub const IV_BYTES: usize = 12;

impl Suite {
    /// The length of a key.
    pub const fn key_bytes(self) -> usize {
        match self {
            Suite::Aes128Gcm => 16,
            Suite::Aes256Gcm | Suite::Chacha20Poly1305 => 32,
        }
    }

    /// The length of a traffic secret of TLS 1.3, which is that of the hash (RFC 8446 7.1).
    pub const fn secret_bytes(self) -> usize {
        match self {
            Suite::Aes128Gcm | Suite::Chacha20Poly1305 => 32,
            Suite::Aes256Gcm => 48,
        }
    }

    /// The part of the nonce that each record of TLS 1.2 has in front of its ciphertext: 8 bytes
    /// with GCM (RFC 5288 3), else none (RFC 7905 2).
    pub(crate) const fn explicit_nonce_bytes(self, version: Version) -> usize {
        match (version, self) {
            (Version::Tls12, Suite::Aes128Gcm | Suite::Aes256Gcm) => 8,
            _ => 0,
        }
    }

    /// What the key block of TLS 1.2 has as the IV of a direction: 4 bytes with GCM, the rest of
    /// the nonce being explicit (RFC 5288 3), else 12 (RFC 7905 2).
    pub const fn tls12_iv_bytes(self) -> usize {
        IV_BYTES - self.explicit_nonce_bytes(Version::Tls12)
    }
}
