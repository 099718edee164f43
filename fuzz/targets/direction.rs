//! One direction of a TLS session, sealed and opened by other means than the first.

use records::{Keys, Proved, Secret, Suite, TrafficKeys, Version};

use crate::toy::{self, Toy};

/// What a record is sealed or opened with.
pub(crate) struct With<'a> {
    pub suite: Suite,
    pub key: &'a [u8],
    pub nonce: &'a [u8],
    /// What is authenticated besides.
    pub aad: &'a [u8],
}

/// Who does it.
pub(crate) struct Ciphers {
    /// Encrypts a text, and returns the tag.
    pub seal: fn(&With<'_>, &mut [u8]) -> [u8; 16],
    /// Decrypts a text, and returns whether the tag behind it is right.
    pub open: fn(&With<'_>, &mut [u8], &[u8]) -> bool,
    /// HKDF-Expand-Label: suite, secret, label.
    pub expand: fn(Suite, &[u8], &str, &mut [u8]),
}

#[derive(Clone)]
pub(crate) struct Direction {
    ciphers: &'static Ciphers,
    pub version: Version,
    pub suite: Suite,
    secret: Vec<u8>,
    key: Vec<u8>,
    iv: Vec<u8>,
    pub number: u64,
    pub explicit: u64,
}

impl Direction {
    /// One that nothing protects.
    pub(crate) fn new(version: Version, suite: Suite) -> Self {
        match version {
            Version::Tls12 => {
                let (key, iv) = (vec![8; suite.key_bytes()], vec![9; suite.tls12_iv_bytes()]);
                Direction::tls12(&toy::CIPHERS, suite, key, iv)
            }
            Version::Tls13 => Direction::tls13(&toy::CIPHERS, suite, vec![7; suite.secret_bytes()]),
        }
    }

    /// With the keys of a key block.
    pub(crate) fn tls12(
        ciphers: &'static Ciphers,
        suite: Suite,
        key: Vec<u8>,
        iv: Vec<u8>,
    ) -> Self {
        let (version, secret) = (Version::Tls12, Vec::new());
        Direction { ciphers, version, suite, secret, key, iv, number: 0, explicit: 5 }
    }

    /// With a traffic secret.
    pub(crate) fn tls13(ciphers: &'static Ciphers, suite: Suite, secret: Vec<u8>) -> Self {
        let (version, key, iv) = (Version::Tls13, vec![0; suite.key_bytes()], vec![0; 12]);
        let mut direction =
            Direction { ciphers, version, suite, secret, key, iv, number: 0, explicit: 5 };
        direction.expand();
        direction
    }

    fn expand(&mut self) {
        (self.ciphers.expand)(self.suite, &self.secret, "key", &mut self.key);
        (self.ciphers.expand)(self.suite, &self.secret, "iv", &mut self.iv);
    }

    pub(crate) fn update(&mut self) {
        let mut next = self.secret.clone();
        (self.ciphers.expand)(self.suite, &self.secret, "traffic upd", &mut next);
        self.secret = next;
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
                TrafficKeys::tls13(&Toy::default(), self.suite, secret).expect("keys")
            }
        }
    }

    pub(crate) fn proved(&self) -> Proved {
        self.keys().assume(self.number, self.explicit)
    }

    fn nonce_and_aad(&self, head: &[u8], explicit: &[u8], length: usize) -> (Vec<u8>, Vec<u8>) {
        let number = self.number.to_be_bytes();
        let nonce = if self.iv.len() == 4 {
            [&self.iv, explicit].concat()
        } else {
            let behind = self.iv[4..].iter().zip(number).map(|(byte, part)| byte ^ part);
            self.iv[..4].iter().copied().chain(behind).collect()
        };
        let aad = match self.version {
            Version::Tls13 => head.to_vec(),
            Version::Tls12 => [&number, &head[..3], &(length as u16).to_be_bytes()].concat(),
        };
        (nonce, aad)
    }

    /// With this type in the header, and just that inside.
    pub(crate) fn seal(&mut self, outer: u8, inner: &[u8]) -> Vec<u8> {
        self.seal_as(outer, 3, inner)
    }

    /// As version 3.`minor`.
    pub(crate) fn seal_as(&mut self, outer: u8, minor: u8, inner: &[u8]) -> Vec<u8> {
        let explicit = self.explicit.to_be_bytes();
        let explicit = if self.iv.len() == 4 { &explicit[..] } else { &[] };
        let [high, low] = ((explicit.len() + inner.len() + 16) as u16).to_be_bytes();
        let head = [outer, 3, minor, high, low];
        let (nonce, aad) = self.nonce_and_aad(&head, explicit, inner.len());
        let mut text = inner.to_vec();
        let with = With { suite: self.suite, key: &self.key, nonce: &nonce, aad: &aad };
        let tag = (self.ciphers.seal)(&with, &mut text);
        self.number += 1;
        self.explicit += 1;
        [&head, explicit, &text, &tag].concat()
    }

    /// The type and the text of the first record, and what is behind it.
    pub(crate) fn open<'a>(&mut self, bytes: &'a [u8]) -> (u8, Vec<u8>, &'a [u8]) {
        let (head, rest) = bytes.split_at(5);
        let (body, rest) = rest.split_at(usize::from(head[3]) << 8 | usize::from(head[4]));
        let (explicit, body) = body.split_at(if self.iv.len() == 4 { 8 } else { 0 });
        let (text, tag) = body.split_at(body.len() - 16);
        let (nonce, aad) = self.nonce_and_aad(head, explicit, text.len());
        let mut text = text.to_vec();
        let with = With { suite: self.suite, key: &self.key, nonce: &nonce, aad: &aad };
        let is_right = (self.ciphers.open)(&with, &mut text, tag);
        assert!(is_right, "it is sealed rightly");
        self.number += 1;
        let kind = match self.version {
            Version::Tls12 => head[0],
            Version::Tls13 => text.pop().expect("a type"),
        };
        (kind, text, rest)
    }
}
