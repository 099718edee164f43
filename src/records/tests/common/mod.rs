//! Ciphers of `ring`, and a peer that seals what it should not.

#![allow(dead_code, reason = "each file of tests uses a part")]

pub(crate) mod pair;

use records::{Crypto, CryptoError, Keys, OpenError, Proved, Secret, Suite, TrafficKeys, Version};
use ring::{aead, hkdf};

pub(crate) const SUITES: [Suite; 3] = [Suite::Aes128Gcm, Suite::Aes256Gcm, Suite::Chacha20Poly1305];

/// All that a session can be.
pub(crate) fn sessions() -> impl Iterator<Item = (Version, Suite)> {
    [Version::Tls12, Version::Tls13].into_iter().flat_map(|v| SUITES.map(|suite| (v, suite)))
}

pub(crate) struct Ring;

fn algorithm(suite: Suite) -> &'static aead::Algorithm {
    match suite {
        Suite::Aes128Gcm => &aead::AES_128_GCM,
        Suite::Aes256Gcm => &aead::AES_256_GCM,
        Suite::Chacha20Poly1305 => &aead::CHACHA20_POLY1305,
    }
}

fn less_safe(suite: Suite, key: &[u8]) -> aead::LessSafeKey {
    aead::LessSafeKey::new(aead::UnboundKey::new(algorithm(suite), key).expect("its length"))
}

impl Crypto for Ring {
    fn seal(
        &self,
        suite: Suite,
        keys: &Keys,
        nonce: &[u8; 12],
        aad: &[u8],
        text: &mut [u8],
    ) -> Result<[u8; 16], CryptoError> {
        let nonce = aead::Nonce::assume_unique_for_key(*nonce);
        let key = less_safe(suite, keys.key(suite));
        let tag = key.seal_in_place_separate_tag(nonce, aead::Aad::from(aad), text);
        tag.map_err(|_| CryptoError)?.as_ref().try_into().map_err(|_| CryptoError)
    }

    fn open(
        &self,
        suite: Suite,
        keys: &Keys,
        nonce: &[u8; 12],
        aad: &[u8],
        text: &mut [u8],
        tag: &[u8; 16],
    ) -> Result<(), OpenError> {
        let mut whole = [&*text, tag].concat();
        let nonce = aead::Nonce::assume_unique_for_key(*nonce);
        let key = less_safe(suite, keys.key(suite));
        let plain = key.open_in_place(nonce, aead::Aad::from(aad), &mut whole);
        text.copy_from_slice(plain.map_err(|_| OpenError::Forged)?);
        records::wipe(&mut whole);
        Ok(())
    }

    fn expand_label(
        &self,
        suite: Suite,
        secret: &[u8],
        label: &str,
        out: &mut [u8],
    ) -> Result<(), CryptoError> {
        out.copy_from_slice(&expand_label(suite, secret, label, out.len()));
        Ok(())
    }
}

struct Length(usize);

impl hkdf::KeyType for Length {
    fn len(&self) -> usize {
        self.0
    }
}

/// RFC 8446 7.1.
pub(crate) fn expand_label(suite: Suite, secret: &[u8], label: &str, length: usize) -> Vec<u8> {
    let hash = match suite {
        Suite::Aes256Gcm => hkdf::HKDF_SHA384,
        _ => hkdf::HKDF_SHA256,
    };
    let mut info = u16::try_from(length).expect("short").to_be_bytes().to_vec();
    info.push(u8::try_from(6 + label.len()).expect("short"));
    info.extend_from_slice(b"tls13 ");
    info.extend_from_slice(label.as_bytes());
    info.push(0);
    let mut out = vec![0; length];
    let prk = hkdf::Prk::new_less_safe(hash, secret);
    prk.expand(&[&info], Length(length)).expect("short").fill(&mut out).expect("its length");
    out
}

/// One direction, sealed and opened as the RFCs have it, whatever is in the records.
#[derive(Clone)]
pub(crate) struct Direction {
    pub version: Version,
    pub suite: Suite,
    /// TLS 1.3.
    pub secret: Vec<u8>,
    pub key: Vec<u8>,
    pub iv: Vec<u8>,
    pub number: u64,
    pub explicit: u64,
}

impl Direction {
    /// Of arbitrary keys.
    pub(crate) fn new(version: Version, suite: Suite) -> Self {
        let bytes = |start: u8, count: usize| (start..).take(count).collect::<Vec<u8>>();
        let secret = bytes(100, suite.secret_bytes());
        let mut direction = Direction {
            version,
            suite,
            secret,
            key: bytes(1, suite.key_bytes()),
            iv: bytes(50, suite.tls12_iv_bytes()),
            number: 0,
            explicit: 0x0102_0304_0506_0708,
        };
        if version == Version::Tls13 {
            direction.expand();
        }
        direction
    }

    fn expand(&mut self) {
        self.key = expand_label(self.suite, &self.secret, "key", self.suite.key_bytes());
        self.iv = expand_label(self.suite, &self.secret, "iv", 12);
    }

    /// RFC 8446 7.2.
    pub(crate) fn update(&mut self) {
        self.secret = expand_label(self.suite, &self.secret, "traffic upd", self.secret.len());
        self.expand();
        self.number = 0;
    }

    pub(crate) fn keys(&self) -> TrafficKeys {
        match self.version {
            Version::Tls12 => {
                let keys = Keys::tls12(self.suite, &self.key, &self.iv).expect("lengths");
                TrafficKeys::tls12(self.suite, keys)
            }
            Version::Tls13 => {
                let secret = Secret::new(self.suite, &self.secret).expect("its length");
                TrafficKeys::tls13(&Ring, self.suite, secret).expect("keys")
            }
        }
    }

    /// For what comes next.
    pub(crate) fn proved(&self) -> Proved {
        self.keys().assume(self.number, self.explicit)
    }

    fn has_explicit(&self) -> bool {
        self.iv.len() == 4
    }

    fn nonce(&self, explicit: &[u8]) -> aead::Nonce {
        let mut nonce = self.iv.clone();
        if self.has_explicit() {
            nonce.extend_from_slice(explicit);
        } else {
            let number = [&[0; 4][..], &self.number.to_be_bytes()].concat();
            nonce.iter_mut().zip(number).for_each(|(byte, part)| *byte ^= part);
        }
        aead::Nonce::assume_unique_for_key(nonce.try_into().expect("12 bytes"))
    }

    fn aad(&self, head: [u8; 5], length: usize) -> Vec<u8> {
        match self.version {
            Version::Tls13 => head.to_vec(),
            Version::Tls12 => {
                let length = u16::try_from(length).expect("short").to_be_bytes();
                [&self.number.to_be_bytes()[..], &head[..3], &length].concat()
            }
        }
    }

    /// A record of one type, which may be any.
    pub(crate) fn seal(&mut self, kind: u8, text: &[u8]) -> Vec<u8> {
        match self.version {
            Version::Tls13 => self.seal_outer(23, &[text, &[kind]].concat()),
            Version::Tls12 => self.seal_outer(kind, text),
        }
    }

    /// The same, and zeros behind it. Only TLS 1.3 has them.
    pub(crate) fn seal_padded(&mut self, kind: u8, text: &[u8], zeros: usize) -> Vec<u8> {
        self.seal_outer(23, &[text, &[kind], &vec![0; zeros][..]].concat())
    }

    /// A record with this type in its header, and just that inside.
    pub(crate) fn seal_outer(&mut self, outer: u8, inner: &[u8]) -> Vec<u8> {
        let explicit = self.explicit.to_be_bytes();
        let explicit = if self.has_explicit() { &explicit[..] } else { &[] };
        let length = u16::try_from(explicit.len() + inner.len() + 16).expect("short");
        let [high, low] = length.to_be_bytes();
        let head = [outer, 3, 3, high, low];
        let mut body = inner.to_vec();
        let aad = aead::Aad::from(self.aad(head, inner.len()));
        let key = less_safe(self.suite, &self.key);
        key.seal_in_place_append_tag(self.nonce(explicit), aad, &mut body).expect("sealed");
        let record = [&head[..], explicit, &body].concat();
        self.number = self.number.wrapping_add(1);
        self.explicit = self.explicit.wrapping_add(1);
        record
    }

    /// The type and the text of a record.
    pub(crate) fn open(&mut self, record: &[u8]) -> Option<(u8, Vec<u8>)> {
        let head: [u8; 5] = record[..5].try_into().expect("5 bytes");
        assert_eq!(usize::from(u16::from_be_bytes([head[3], head[4]])), record.len() - 5);
        let (explicit, body) = record[5..].split_at(if self.has_explicit() { 8 } else { 0 });
        let mut body = body.to_vec();
        let aad = aead::Aad::from(self.aad(head, body.len() - 16));
        let key = less_safe(self.suite, &self.key);
        let text = key.open_in_place(self.nonce(explicit), aad, &mut body).ok()?;
        self.number += 1;
        match self.version {
            Version::Tls12 => Some((head[0], text.to_vec())),
            Version::Tls13 => {
                assert_eq!(head[..3], [23, 3, 3]);
                let (kind, text) = text.split_last()?;
                Some((*kind, text.to_vec()))
            }
        }
    }

    /// All records of `bytes`.
    pub(crate) fn open_all(&mut self, mut bytes: &[u8]) -> Vec<(u8, Vec<u8>)> {
        let mut found = Vec::new();
        while !bytes.is_empty() {
            let length = 5 + usize::from(u16::from_be_bytes([bytes[3], bytes[4]]));
            let (record, rest) = bytes.split_at(length);
            let (kind, text) = self.open(record).expect("sealed rightly");
            if (kind, &text[..1]) == (22, &[24]) {
                self.update();
            }
            found.push((kind, text));
            bytes = rest;
        }
        found
    }
}
