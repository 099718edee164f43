//! Keys out of secrets, by libcrypto: HKDF-Expand-Label of TLS 1.3 and the PRF of TLS 1.2.

use std::ffi::{CStr, c_int, c_void};
use std::ptr;

use records::{CryptoError, Suite};

use crate::native_symbols::{
    ANY_OPERATION, CTRL_HKDF_INFO, CTRL_HKDF_KEY, CTRL_HKDF_MD, CTRL_TLS_MD, CTRL_TLS_SECRET,
    CTRL_TLS_SEED, EvpMd, EvpPkeyCtx, NativeFunctions, PKEY_HKDF, PKEY_TLS1_PRF,
};

/// The most that HkdfLabel takes here: the lengths, "tls13 " and the longest label.
const MAX_INFO_BYTES: usize = 2 + 1 + 255 + 1;

/// The hash of a suite (RFC 8446 B.4). TLS 1.2 has the same with these ciphers (RFC 5288 3, RFC
/// 5289 3.2, RFC 7905 2).
fn hash(functions: &NativeFunctions, suite: Suite) -> *const EvpMd {
    // SAFETY: both take nothing and return a static.
    unsafe {
        match suite {
            Suite::Aes128Gcm | Suite::Chacha20Poly1305 => (functions.EVP_sha256)(),
            Suite::Aes256Gcm => (functions.EVP_sha384)(),
        }
    }
}

/// RFC 8446 7.1, with an empty context.
pub(crate) fn expand_label(
    functions: &NativeFunctions,
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
    let derivation = Derivation::new(functions, PKEY_HKDF)?;
    derivation.set_text(c"mode", c"EXPAND_ONLY")?;
    derivation.set(CTRL_HKDF_MD, 0, hash(functions, suite).cast_mut().cast())?;
    derivation.set_bytes(CTRL_HKDF_KEY, secret)?;
    derivation.set_bytes(CTRL_HKDF_INFO, &info[..at])?;
    derivation.derive(out)
}

/// The key block of TLS 1.2 (RFC 5246 6.3), `out.len()` bytes of it. The randoms are the client's
/// and the server's.
pub(crate) fn key_block(
    functions: &NativeFunctions,
    suite: Suite,
    master_secret: &[u8],
    randoms: [&[u8]; 2],
    out: &mut [u8],
) -> Result<(), CryptoError> {
    let [client, server] = randoms;
    let derivation = Derivation::new(functions, PKEY_TLS1_PRF)?;
    derivation.set(CTRL_TLS_MD, 0, hash(functions, suite).cast_mut().cast())?;
    derivation.set_bytes(CTRL_TLS_SECRET, master_secret)?;
    derivation.set_bytes(CTRL_TLS_SEED, &[b"key expansion", server, client].concat())?;
    derivation.derive(out)
}

/// An `EVP_PKEY_CTX` that derives. It overwrites what it was given when it is freed.
struct Derivation<'a> {
    functions: &'a NativeFunctions,
    context: *mut EvpPkeyCtx,
    kind: c_int,
}

impl<'a> Derivation<'a> {
    fn new(functions: &'a NativeFunctions, kind: c_int) -> Result<Self, CryptoError> {
        // SAFETY: no engine.
        let context = unsafe { (functions.EVP_PKEY_CTX_new_id)(kind, ptr::null_mut()) };
        if context.is_null() {
            return Err(CryptoError);
        }
        let derivation = Derivation { functions, context, kind };
        // SAFETY: a context of ours.
        let done = unsafe { (functions.EVP_PKEY_derive_init)(context) };
        if done == 1 { Ok(derivation) } else { Err(CryptoError) }
    }

    fn set(&self, what: c_int, number: c_int, pointer: *mut c_void) -> Result<(), CryptoError> {
        // SAFETY: a context of ours; what goes with each command is what kdf.h says, and is copied.
        let done = unsafe {
            (self.functions.EVP_PKEY_CTX_ctrl)(
                self.context,
                self.kind,
                ANY_OPERATION,
                what,
                number,
                pointer,
            )
        };
        if done == 1 { Ok(()) } else { Err(CryptoError) }
    }

    /// The way of 3.x to set what it has no working command for.
    fn set_text(&self, what: &CStr, text: &CStr) -> Result<(), CryptoError> {
        // SAFETY: a context of ours, C strings.
        let done = unsafe {
            (self.functions.EVP_PKEY_CTX_ctrl_str)(self.context, what.as_ptr(), text.as_ptr())
        };
        if done == 1 { Ok(()) } else { Err(CryptoError) }
    }

    fn set_bytes(&self, what: c_int, bytes: &[u8]) -> Result<(), CryptoError> {
        let length = c_int::try_from(bytes.len()).map_err(|_| CryptoError)?;
        self.set(what, length, bytes.as_ptr().cast_mut().cast())
    }

    fn derive(self, out: &mut [u8]) -> Result<(), CryptoError> {
        let mut length = out.len();
        // SAFETY: a context of ours; out has room for length bytes.
        let done = unsafe {
            (self.functions.EVP_PKEY_derive)(self.context, out.as_mut_ptr(), &mut length)
        };
        if done == 1 && length == out.len() { Ok(()) } else { Err(CryptoError) }
    }
}

impl Drop for Derivation<'_> {
    fn drop(&mut self) {
        // SAFETY: ours, and used no more.
        unsafe { (self.functions.EVP_PKEY_CTX_free)(self.context) };
    }
}
