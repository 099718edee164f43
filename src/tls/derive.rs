//! Keys out of secrets, by libcrypto: HKDF-Expand-Label of TLS 1.3 and the PRF of TLS 1.2.

use std::ffi::CStr;

use records::{CryptoError, Suite};

use crate::algorithms::Algorithms;
use crate::kdf;
use crate::native_symbols::{
    CTRL_HKDF_INFO, CTRL_HKDF_KEY, CTRL_HKDF_MD, CTRL_TLS_MD, CTRL_TLS_SECRET, CTRL_TLS_SEED,
    EvpMd, PKEY_HKDF, PKEY_TLS1_PRF,
};
use crate::pkey::Derivation;

/// The most that HkdfLabel takes here: the lengths, and a label with "tls13 " in front.
const MAX_INFO_BYTES: usize = 2 + 1 + 255 + 1;

/// The hash of a suite (RFC 8446 B.4), which 3.x wants by its name. TLS 1.2 has the same with these
/// ciphers (RFC 5288 3, RFC 5289 3.2, RFC 7905 2).
fn hash(algorithms: &Algorithms, suite: Suite) -> (&'static CStr, *const EvpMd) {
    // SAFETY: both take nothing and return a static.
    unsafe {
        match suite {
            Suite::Aes128Gcm | Suite::Chacha20Poly1305 => {
                (c"SHA256", (algorithms.functions.EVP_sha256)())
            }
            Suite::Aes256Gcm => (c"SHA384", (algorithms.functions.EVP_sha384)()),
        }
    }
}

/// RFC 8446 7.1, with an empty context.
pub(crate) fn expand_label(
    algorithms: &Algorithms,
    suite: Suite,
    secret: &[u8],
    label: &str,
    out: &mut [u8],
) -> Result<(), CryptoError> {
    const PREFIX: &[u8] = b"tls13 ";
    let length = u16::try_from(out.len()).map_err(|_| CryptoError)?;
    let label_length = u8::try_from(PREFIX.len() + label.len()).map_err(|_| CryptoError)?;
    let mut info = [0; MAX_INFO_BYTES];
    let mut at = 0;
    for part in [&length.to_be_bytes()[..], &[label_length], PREFIX, label.as_bytes(), &[0]] {
        info[at..at + part.len()].copy_from_slice(part);
        at += part.len();
    }
    let info = &info[..at];
    let (name, md) = hash(algorithms, suite);
    if let Some(kdfs) = &algorithms.kdfs {
        let texts = [(c"digest", name), (c"mode", c"EXPAND_ONLY")];
        return kdf::derive(
            &kdfs.functions,
            kdfs.hkdf,
            texts,
            [(c"key", secret), (c"info", info)],
            out,
        );
    }
    let derivation = Derivation::new(&algorithms.functions, PKEY_HKDF)?;
    derivation.set_text(c"mode", c"EXPAND_ONLY")?;
    derivation.set(CTRL_HKDF_MD, 0, md.cast_mut().cast())?;
    derivation.set_bytes(CTRL_HKDF_KEY, secret)?;
    derivation.set_bytes(CTRL_HKDF_INFO, info)?;
    derivation.derive(out)
}

/// The key block of TLS 1.2 (RFC 5246 6.3), `out.len()` bytes of it. The randoms are the client's
/// and the server's.
pub(crate) fn key_block(
    algorithms: &Algorithms,
    suite: Suite,
    master_secret: &[u8],
    [client, server]: [&[u8]; 2],
    out: &mut [u8],
) -> Result<(), CryptoError> {
    let seed = [b"key expansion", server, client].concat();
    let (name, md) = hash(algorithms, suite);
    if let Some(kdfs) = &algorithms.kdfs {
        let bytes = [(c"secret", master_secret), (c"seed", &seed[..])];
        return kdf::derive(&kdfs.functions, kdfs.tls1_prf, [(c"digest", name)], bytes, out);
    }
    let derivation = Derivation::new(&algorithms.functions, PKEY_TLS1_PRF)?;
    derivation.set(CTRL_TLS_MD, 0, md.cast_mut().cast())?;
    derivation.set_bytes(CTRL_TLS_SECRET, master_secret)?;
    derivation.set_bytes(CTRL_TLS_SEED, &seed)?;
    derivation.derive(out)
}
