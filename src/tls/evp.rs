//! Ciphers and key derivation by libcrypto's EVP.

use std::cell::{Cell, RefCell};
use std::ffi::{c_int, c_void};
use std::fmt;
use std::ptr;

use records::{Crypto, CryptoError, IV_BYTES, Keys, OpenError, Suite, TAG_BYTES};

use crate::algorithms::{Algorithms, SUITES};
use crate::derive;
use crate::native_symbols::{AEAD_GET_TAG, AEAD_SET_TAG, EvpCipherCtx};

/// A cipher context, and whose keys are in it.
struct Slot {
    context: *mut EvpCipherCtx,
    /// [`Keys::id`]; 0 if there are none.
    id: u64,
}

const SEAL: usize = 1;
const OPEN: usize = 0;

/// Contexts for the use of one thread: one for each cipher and direction. It keeps the keys that it
/// was used with last, so that they need not be expanded for each record.
pub(crate) struct Evp<'a> {
    algorithms: &'a Algorithms,
    slots: RefCell<[[Slot; 2]; SUITES.len()]>,
    /// Whether anything is in the slots.
    is_used: Cell<bool>,
}

impl fmt::Debug for Evp<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Evp")
    }
}

impl<'a> Evp<'a> {
    pub(crate) fn new(algorithms: &'a Algorithms) -> Self {
        let slot = || Slot { context: ptr::null_mut(), id: 0 };
        let slots = RefCell::new(SUITES.map(|_| [slot(), slot()]));
        Evp { algorithms, slots, is_used: Cell::new(false) }
    }

    /// Has no keys in any context any more.
    pub(crate) fn forget_keys(&self) {
        if !self.is_used.take() {
            return;
        }
        for slot in self.slots.borrow_mut().iter_mut().flatten() {
            // SAFETY: null, or a context of ours; that overwrites the keys in it.
            unsafe { (self.algorithms.functions.EVP_CIPHER_CTX_free)(slot.context) };
            *slot = Slot { context: ptr::null_mut(), id: 0 };
        }
    }

    /// Puts key and nonce into the context of a direction, which is returned. It is the caller's
    /// until the next call.
    fn prepare(
        &self,
        suite: Suite,
        keys: &Keys,
        nonce: &[u8; IV_BYTES],
        direction: usize,
    ) -> Result<*mut EvpCipherCtx, CryptoError> {
        let functions = &self.algorithms.functions;
        let slot = &mut self.slots.borrow_mut()[suite as usize][direction];
        let cipher = self.algorithms.cipher(suite);
        if cipher.is_null() {
            return Err(CryptoError);
        }
        if slot.context.is_null() {
            // SAFETY: takes nothing.
            slot.context = unsafe { (functions.EVP_CIPHER_CTX_new)() };
            if slot.context.is_null() {
                return Err(CryptoError);
            }
            self.is_used.set(true);
        }
        let is_new = slot.id != keys.id();
        // Until it is known to have gone well.
        slot.id = 0;
        let (cipher, key) =
            if is_new { (cipher, keys.key(suite).as_ptr()) } else { (ptr::null(), ptr::null()) };
        let direction = c_int::from(direction == SEAL);
        // SAFETY: a context of ours; the key has the length of the cipher's, the nonce is of the
        // length that each of the ciphers has without being told.
        let done = unsafe {
            (functions.EVP_CipherInit_ex)(
                slot.context,
                cipher,
                ptr::null_mut(),
                key,
                nonce.as_ptr(),
                direction,
            )
        };
        if done != 1 {
            return Err(CryptoError);
        }
        slot.id = keys.id();
        Ok(slot.context)
    }

    /// Has a prepared context go over `text`, where it lies.
    fn update(
        &self,
        context: *mut EvpCipherCtx,
        aad: &[u8],
        text: &mut [u8],
    ) -> Result<(), CryptoError> {
        let functions = &self.algorithms.functions;
        let length = |bytes: &[u8]| c_int::try_from(bytes.len()).map_err(|_| CryptoError);
        let mut written = 0;
        // SAFETY: a context of ours that was given key and nonce; aad is only read. Without a place
        // for output it is no text.
        let done = unsafe {
            (functions.EVP_CipherUpdate)(
                context,
                ptr::null_mut(),
                &mut written,
                aad.as_ptr(),
                length(aad)?,
            )
        };
        if done != 1 {
            return Err(CryptoError);
        }
        if text.is_empty() {
            return Ok(());
        }
        let expected = length(text)?;
        let place = text.as_mut_ptr();
        // SAFETY: as above; in and out may be the same, and these modes write as much as they read.
        let done =
            unsafe { (functions.EVP_CipherUpdate)(context, place, &mut written, place, expected) };
        if done == 1 && written == expected { Ok(()) } else { Err(CryptoError) }
    }

    /// Ends it: with the check of the tag, if it is being opened. Nothing is written.
    fn finish(&self, context: *mut EvpCipherCtx) -> bool {
        let (mut nothing, mut written) = ([0_u8; 32], 0);
        // SAFETY: a context of ours; these modes write nothing at the end, and no cipher more than
        // a block.
        let done = unsafe {
            (self.algorithms.functions.EVP_CipherFinal_ex)(
                context,
                nothing.as_mut_ptr(),
                &mut written,
            )
        };
        done == 1 && written == 0
    }

    /// Reads or sets the tag.
    fn tag(
        &self,
        context: *mut EvpCipherCtx,
        what: c_int,
        tag: &mut [u8; TAG_BYTES],
    ) -> Result<(), CryptoError> {
        // SAFETY: a context of ours; the tag has the length that is said.
        let done = unsafe {
            (self.algorithms.functions.EVP_CIPHER_CTX_ctrl)(
                context,
                what,
                16,
                tag.as_mut_ptr().cast::<c_void>(),
            )
        };
        if done == 1 { Ok(()) } else { Err(CryptoError) }
    }
}

impl Crypto for Evp<'_> {
    fn seal(
        &self,
        suite: Suite,
        keys: &Keys,
        nonce: &[u8; IV_BYTES],
        aad: &[u8],
        text: &mut [u8],
    ) -> Result<[u8; TAG_BYTES], CryptoError> {
        let context = self.prepare(suite, keys, nonce, SEAL)?;
        self.update(context, aad, text)?;
        if !self.finish(context) {
            return Err(CryptoError);
        }
        let mut tag = [0; TAG_BYTES];
        self.tag(context, AEAD_GET_TAG, &mut tag)?;
        Ok(tag)
    }

    fn open(
        &self,
        suite: Suite,
        keys: &Keys,
        nonce: &[u8; IV_BYTES],
        aad: &[u8],
        text: &mut [u8],
        tag: &[u8; TAG_BYTES],
    ) -> Result<(), OpenError> {
        let context = self.prepare(suite, keys, nonce, OPEN)?;
        self.tag(context, AEAD_SET_TAG, &mut { *tag })?;
        self.update(context, aad, text)?;
        if self.finish(context) { Ok(()) } else { Err(OpenError::Forged) }
    }

    fn expand_label(
        &self,
        suite: Suite,
        secret: &[u8],
        label: &str,
        out: &mut [u8],
    ) -> Result<(), CryptoError> {
        if label == "traffic upd" {
            // What was sealed or opened with the keys before must not be any more.
            self.forget_keys();
        }
        derive::expand_label(self.algorithms, suite, secret, label, out)
    }
}

impl Drop for Evp<'_> {
    fn drop(&mut self) {
        self.forget_keys();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::library::Library;

    fn algorithms() -> Algorithms {
        // SAFETY: the libssl that the tests link, which stays loaded.
        let library = unsafe { Library::used_at(openssl_sys::SSL_read as *const std::ffi::c_void) };
        Algorithms::new(&library.expect("library").native.expect("all functions"))
    }

    /// How many contexts may have a key.
    fn kept(evp: &Evp<'_>) -> usize {
        evp.slots.borrow().iter().flatten().filter(|slot| !slot.context.is_null()).count()
    }

    #[test]
    fn keys_are_forgotten_when_they_are_asked_to_be_and_when_new_ones_come() {
        let algorithms = algorithms();
        let suite = Suite::Aes128Gcm;
        let evp = Evp::new(&algorithms);
        let keys = Keys::tls12(suite, &[1; 16], &[2; 4]).expect("their lengths");
        let seal = || evp.seal(suite, &keys, &[3; 12], &[], &mut [4; 20]).map(drop);
        let derive = |label| evp.expand_label(suite, &[5; 32], label, &mut [0; 32]);
        assert_eq!((seal(), kept(&evp)), (Ok(()), 1));
        evp.forget_keys();
        assert_eq!(kept(&evp), 0);
        assert_eq!((seal(), kept(&evp)), (Ok(()), 1));
        assert_eq!((derive("key"), kept(&evp)), (Ok(()), 1));
        assert_eq!((derive("traffic upd"), kept(&evp)), (Ok(()), 0));
    }

    #[test]
    fn a_suite_that_is_forbidden_is_not_had() {
        let mut algorithms = algorithms();
        assert!(algorithms.has(Suite::Aes256Gcm));
        algorithms.forbid(Suite::Aes256Gcm);
        assert!(!algorithms.has(Suite::Aes256Gcm) && algorithms.has(Suite::Aes128Gcm));
    }
}
