//! Ciphers that protect nothing, and are quick: what is fuzzed is what is around them. No nonce may
//! be used twice, which they see to.

use std::cell::RefCell;
use std::collections::HashSet;

use records::{Crypto, CryptoError, Keys, OpenError, Suite};

use crate::direction::Ciphers;

/// What [`Toy`] does, with plain bytes.
pub(crate) static CIPHERS: Ciphers = Ciphers {
    seal: |with, text| seal(with.key, with.nonce, with.aad, text),
    open: |with, text, tag| open(with.key, with.nonce, with.aad, text, tag),
    expand: |_, secret, label, out| expand(secret, label, out),
};

/// What was sealed with.
#[derive(Default)]
pub(crate) struct Toy(RefCell<HashSet<(Vec<u8>, [u8; 12])>>);

/// FNV-1a, with the length.
fn hash(parts: &[&[u8]]) -> u64 {
    let mut hash = 0xcbf2_9ce4_8422_2325_u64;
    let mut add = |byte: u8| hash = (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
    for part in parts {
        part.len().to_le_bytes().into_iter().for_each(&mut add);
        part.iter().copied().for_each(&mut add);
    }
    hash
}

fn mask(key: &[u8], nonce: &[u8], text: &mut [u8]) {
    let mut state = hash(&[key, nonce]) | 1;
    for byte in text {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        *byte ^= state.to_be_bytes()[0];
    }
}

fn tag(key: &[u8], nonce: &[u8], aad: &[u8], text: &[u8]) -> [u8; 16] {
    let one = hash(&[key, nonce, aad, text]);
    let two = hash(&[&one.to_le_bytes(), key]);
    (u128::from(one) << 64 | u128::from(two)).to_le_bytes()
}

fn seal(key: &[u8], nonce: &[u8], aad: &[u8], text: &mut [u8]) -> [u8; 16] {
    mask(key, nonce, text);
    tag(key, nonce, aad, text)
}

fn open(key: &[u8], nonce: &[u8], aad: &[u8], text: &mut [u8], found: &[u8]) -> bool {
    let is_right = tag(key, nonce, aad, text) == found;
    mask(key, nonce, text);
    is_right
}

fn expand(secret: &[u8], label: &str, out: &mut [u8]) {
    for (at, part) in out.chunks_mut(8).enumerate() {
        let bytes = hash(&[secret, label.as_bytes(), &at.to_le_bytes()]).to_le_bytes();
        part.copy_from_slice(&bytes[..part.len()]);
    }
}

impl Crypto for Toy {
    fn seal(
        &self,
        suite: Suite,
        keys: &Keys,
        nonce: &[u8; 12],
        aad: &[u8],
        text: &mut [u8],
    ) -> Result<[u8; 16], CryptoError> {
        let key = keys.key(suite);
        assert!(self.0.borrow_mut().insert((key.to_vec(), *nonce)), "a nonce is used once");
        Ok(seal(key, nonce, aad, text))
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
        let is_right = open(keys.key(suite), nonce, aad, text, tag);
        if is_right { Ok(()) } else { Err(OpenError::Forged) }
    }

    fn expand_label(
        &self,
        _: Suite,
        secret: &[u8],
        label: &str,
        out: &mut [u8],
    ) -> Result<(), CryptoError> {
        expand(secret, label, out);
        Ok(())
    }
}
