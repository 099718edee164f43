//! Whether a libcrypto does what is asked of it, before a session depends on it.

use records::{Crypto, Keys, OpenError, Suite};

use crate::algorithms::{Algorithms, SUITES};
use crate::derive;
use crate::evp::Evp;
use crate::native_symbols::NativeTable;

/// RFC 8448 3: the secret of the server's data, and its keys.
const SECRET: [u8; 32] = [
    0xa1, 0x1a, 0xf9, 0xf0, 0x55, 0x31, 0xf8, 0x56, 0xad, 0x47, 0x11, 0x6b, 0x45, 0xa9, 0x50, 0x32,
    0x82, 0x04, 0xb4, 0xf4, 0x4b, 0xfb, 0x6b, 0x3a, 0x4b, 0x4f, 0x1f, 0x3f, 0xcb, 0x63, 0x16, 0x43,
];
const KEY: [u8; 16] = [
    0x9f, 0x02, 0x28, 0x3b, 0x6c, 0x9c, 0x07, 0xef, 0xc2, 0x6b, 0xb9, 0xf2, 0xac, 0x92, 0xe3, 0x56,
];
/// RFC 5246 5 and 6.3, by another implementation, of the inputs below.
const BLOCK: [u8; 40] = [
    0x69, 0xec, 0xaa, 0x42, 0x75, 0xa8, 0x7e, 0x17, 0x68, 0x3b, 0x8e, 0x1e, 0x7b, 0xe1, 0x83, 0x85,
    0x76, 0xa0, 0x14, 0xa8, 0x82, 0xda, 0x31, 0x45, 0xfe, 0xe3, 0x7b, 0xbb, 0xcd, 0x0d, 0xf3, 0x69,
    0x65, 0x7b, 0xfb, 0xbe, 0x17, 0xcd, 0x9c, 0x16,
];
const IV: [u8; 12] = [0xcf, 0x78, 0x2b, 0x88, 0xdd, 0x83, 0x54, 0x9a, 0xad, 0xf1, 0xe9, 0x84];

/// The algorithms of a libcrypto that work.
///
/// # Errors
/// What does not, without which nothing does, as a text.
pub(crate) fn tried(table: &NativeTable) -> Result<Algorithms, &'static str> {
    let mut algorithms = Algorithms::new(table);
    try_derivation(&algorithms)?;
    for suite in SUITES {
        if !works(&Evp::new(&algorithms), suite) {
            algorithms.forbid(suite);
        }
    }
    let works = SUITES.iter().any(|suite| algorithms.has(*suite));
    if works { Ok(algorithms) } else { Err("no cipher of its libcrypto works") }
}

fn try_derivation(algorithms: &Algorithms) -> Result<(), &'static str> {
    let (mut key, mut iv) = ([0; KEY.len()], [0; IV.len()]);
    let suite = Suite::Aes128Gcm;
    let expanded = derive::expand_label(algorithms, suite, &SECRET, "key", &mut key)
        .and_then(|()| derive::expand_label(algorithms, suite, &SECRET, "iv", &mut iv));
    if expanded.is_err() || key != KEY || iv != IV {
        return Err("HKDF of its libcrypto does not work");
    }
    let mut block = [0; BLOCK.len()];
    let randoms = [&[1; 32][..], &[2; 32]];
    let derived = derive::key_block(algorithms, suite, &[3; 48], randoms, &mut block);
    if derived.is_err() || block != BLOCK {
        return Err("the PRF of TLS 1.2 of its libcrypto does not work");
    }
    Ok(())
}

/// Whether a cipher opens what it sealed, and nothing else; with keys that are new and with those
/// that are in a context already.
fn works(evp: &Evp<'_>, suite: Suite) -> bool {
    const TEXT: [u8; 100] = [7; 100];
    let (key, iv) = ([5; 32], [0; 12]);
    let keys = Keys::tls12(suite, &key[..suite.key_bytes()], &iv[..suite.tls12_iv_bytes()]);
    let Some(keys) = keys else { return false };
    (0..3).all(|number: u8| {
        let mut text = TEXT;
        let nonce = [number; 12];
        let Ok(tag) = evp.seal(suite, &keys, &nonce, b"aad", &mut text) else { return false };
        let is_sealed = text != TEXT;
        let mut forged = text;
        forged[99] ^= 1;
        let forged = evp.open(suite, &keys, &nonce, b"aad", &mut forged, &tag);
        let opened = evp.open(suite, &keys, &nonce, b"aad", &mut text, &tag);
        is_sealed && forged == Err(OpenError::Forged) && opened == Ok(()) && text == TEXT
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::library::Library;

    /// With what 1.1.1 has too, and with what 3.x has besides.
    #[test]
    fn all_algorithms_work() {
        // SAFETY: the libssl that the tests link, which stays loaded.
        let library = unsafe { Library::used_at(openssl_sys::SSL_read as *const std::ffi::c_void) };
        let table = library.expect("library").native.expect("all functions");
        assert!(table.fetch.is_some() && table.kdf.is_some(), "it is not 3.x");
        for table in [table, NativeTable { fetch: None, kdf: None, ..table }] {
            let algorithms = tried(&table).expect("it works");
            assert!(SUITES.iter().all(|suite| algorithms.has(*suite)));
            let mut secret = [0; 48];
            let derived = derive::expand_label(
                &algorithms,
                Suite::Aes256Gcm,
                &[9; 48],
                "traffic upd",
                &mut secret,
            );
            assert_eq!(derived, Ok(()));
            assert_eq!((secret[0], secret[47]), SHA384_ENDS);
        }
    }

    /// Of HKDF-Expand-Label with SHA-384, by another implementation.
    const SHA384_ENDS: (u8, u8) = (0xef, 0xee);
}
