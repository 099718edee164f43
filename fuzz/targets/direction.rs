//! One direction of a TLS session, sealed and opened by other means than the first.

use records::{Keys, Proved, Secret, Suite, TrafficKeys, Version};

use crate::toy::{self, Toy};

#[derive(Clone)]
pub(crate) struct Direction {
    pub version: Version,
    suite: Suite,
    secret: Vec<u8>,
    key: Vec<u8>,
    iv: Vec<u8>,
    pub number: u64,
    pub explicit: u64,
}

impl Direction {
    pub(crate) fn new(version: Version, suite: Suite) -> Self {
        let secret = vec![7; suite.secret_bytes()];
        let (key, iv) = (vec![8; suite.key_bytes()], vec![9; suite.tls12_iv_bytes()]);
        let mut direction = Direction { version, suite, secret, key, iv, number: 0, explicit: 5 };
        if version == Version::Tls13 {
            direction.expand();
        }
        direction
    }

    fn expand(&mut self) {
        self.iv = vec![0; 12];
        toy::expand(&self.secret, "key", &mut self.key);
        toy::expand(&self.secret, "iv", &mut self.iv);
    }

    pub(crate) fn update(&mut self) {
        let mut next = self.secret.clone();
        toy::expand(&self.secret, "traffic upd", &mut next);
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
        let explicit = self.explicit.to_be_bytes();
        let explicit = if self.iv.len() == 4 { &explicit[..] } else { &[] };
        let [high, low] = ((explicit.len() + inner.len() + 16) as u16).to_be_bytes();
        let head = [outer, 3, 3, high, low];
        let (nonce, aad) = self.nonce_and_aad(&head, explicit, inner.len());
        let mut text = inner.to_vec();
        let tag = toy::seal(&self.key, &nonce, &aad, &mut text);
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
        assert!(toy::open(&self.key, &nonce, &aad, &mut text, tag), "it is sealed rightly");
        self.number += 1;
        let kind = match self.version {
            Version::Tls12 => head[0],
            Version::Tls13 => text.pop().expect("a type"),
        };
        (kind, text, rest)
    }
}
