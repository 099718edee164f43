//! Ciphers by libcrypto, as the openssl crate has them: the module asks for them by other means.

use std::cell::OnceCell;

use openssl::cipher::Cipher;
use openssl::cipher_ctx::CipherCtx;
use openssl::error::ErrorStack;
use openssl::hash::MessageDigest;
use openssl::pkey::PKey;
use openssl::sign::Signer;
use records::Suite;

use crate::direction::{Ciphers, With};

pub(crate) static CIPHERS: Ciphers = Ciphers {
    seal: |with, text| seal(with, text).expect("sealed"),
    open: |with, text, tag| open(with, text, tag).is_ok(),
    expand,
};

fn seal(with: &With<'_>, text: &mut [u8]) -> Result<[u8; 16], ErrorStack> {
    let (mut context, mut tag) = (CipherCtx::new()?, [0; 16]);
    with_cipher(with.suite, |cipher| {
        context.encrypt_init(Some(cipher), Some(with.key), Some(with.nonce))
    })?;
    context.cipher_update(with.aad, None)?;
    context.cipher_update_inplace(text, text.len())?;
    context.cipher_final(&mut [0; 16])?;
    context.tag(&mut tag)?;
    Ok(tag)
}

fn open(with: &With<'_>, text: &mut [u8], tag: &[u8]) -> Result<usize, ErrorStack> {
    let mut context = CipherCtx::new()?;
    with_cipher(with.suite, |cipher| {
        context.decrypt_init(Some(cipher), Some(with.key), Some(with.nonce))
    })?;
    context.set_tag(tag)?;
    context.cipher_update(with.aad, None)?;
    context.cipher_update_inplace(text, text.len())?;
    context.cipher_final(&mut [0; 16])
}

/// To look a cipher up by its name takes longer than to use it.
fn with_cipher<T>(suite: Suite, then: impl FnOnce(&openssl::cipher::CipherRef) -> T) -> T {
    thread_local! {
        static FETCHED: [OnceCell<Cipher>; 3] = const { [const { OnceCell::new() }; 3] };
    }
    let name = match suite {
        Suite::Aes128Gcm => "AES-128-GCM",
        Suite::Aes256Gcm => "AES-256-GCM",
        Suite::Chacha20Poly1305 => "ChaCha20-Poly1305",
    };
    FETCHED.with(|all| {
        let fetch = || Cipher::fetch(None, name, None).expect("a cipher");
        then(all[suite as usize].get_or_init(fetch))
    })
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
