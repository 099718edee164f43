//! Ciphers by libcrypto, as the openssl crate has them: the module asks for them by other means.

use openssl::hash::MessageDigest;
use openssl::pkey::PKey;
use openssl::sign::Signer;
use openssl::symm::{Cipher, decrypt_aead, encrypt_aead};
use records::Suite;

use crate::direction::Ciphers;

pub(crate) static CIPHERS: Ciphers = Ciphers {
    seal: |suite, key, nonce, aad, text| {
        let mut tag = [0; 16];
        let sealed = encrypt_aead(cipher(suite), key, Some(nonce), aad, text, &mut tag);
        text.copy_from_slice(&sealed.expect("sealed"));
        tag
    },
    open: |suite, key, nonce, aad, text, tag| {
        let opened = decrypt_aead(cipher(suite), key, Some(nonce), aad, text, tag);
        let Ok(opened) = opened else { return false };
        text.copy_from_slice(&opened);
        true
    },
    expand,
};

fn cipher(suite: Suite) -> Cipher {
    match suite {
        Suite::Aes128Gcm => Cipher::aes_128_gcm(),
        Suite::Aes256Gcm => Cipher::aes_256_gcm(),
        Suite::Chacha20Poly1305 => Cipher::chacha20_poly1305(),
    }
}

fn hmac(suite: Suite, key: &[u8], parts: &[&[u8]]) -> Vec<u8> {
    let hash = match suite {
        Suite::Aes128Gcm | Suite::Chacha20Poly1305 => MessageDigest::sha256(),
        Suite::Aes256Gcm => MessageDigest::sha384(),
    };
    let key = PKey::hmac(key).expect("a key");
    let mut signer = Signer::new(hash, &key).expect("HMAC");
    for part in parts {
        signer.update(part).expect("HMAC");
    }
    signer.sign_to_vec().expect("HMAC")
}

/// RFC 8446 7.1; the hash is at least as long as what is made.
fn expand(suite: Suite, secret: &[u8], label: &str, out: &mut [u8]) {
    let (length, label) = (out.len() as u8, [b"tls13 ", label.as_bytes()].concat());
    let bytes = hmac(suite, secret, &[&[0, length, label.len() as u8], &label, &[0, 1]]);
    out.copy_from_slice(&bytes[..out.len()]);
}

/// RFC 5246 5 and 6.3: `count` bytes of the key block.
pub(crate) fn key_block(
    suite: Suite,
    master: &[u8],
    [client, server]: [&[u8]; 2],
    count: usize,
) -> Vec<u8> {
    let seed = [b"key expansion", server, client].concat();
    let mut block = Vec::new();
    let mut link = hmac(suite, master, &[&seed]);
    while block.len() < count {
        block.extend(hmac(suite, master, &[&link, &seed]));
        link = hmac(suite, master, &[&link]);
    }
    block.truncate(count);
    block
}
