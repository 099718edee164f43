//! Key derivation by `EVP_PKEY`, which 1.1.1 has too.

use std::ffi::{CStr, c_int, c_void};
use std::ptr;

use records::CryptoError;

use crate::native_symbols::{ANY_OPERATION, EvpPkeyCtx, NativeFunctions};

/// An `EVP_PKEY_CTX` that derives keys. It overwrites what it was given when it is freed.
pub(crate) struct Derivation<'a> {
    functions: &'a NativeFunctions,
    context: *mut EvpPkeyCtx,
    kind: c_int,
}

impl<'a> Derivation<'a> {
    pub(crate) fn new(functions: &'a NativeFunctions, kind: c_int) -> Result<Self, CryptoError> {
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

    pub(crate) fn set(
        &self,
        what: c_int,
        number: c_int,
        pointer: *mut c_void,
    ) -> Result<(), CryptoError> {
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

    /// Sets what the commands of 3.0 do not (the mode of HKDF).
    pub(crate) fn set_text(&self, what: &CStr, text: &CStr) -> Result<(), CryptoError> {
        // SAFETY: a context of ours, C strings.
        let done = unsafe {
            (self.functions.EVP_PKEY_CTX_ctrl_str)(self.context, what.as_ptr(), text.as_ptr())
        };
        if done == 1 { Ok(()) } else { Err(CryptoError) }
    }

    pub(crate) fn set_bytes(&self, what: c_int, bytes: &[u8]) -> Result<(), CryptoError> {
        let length = c_int::try_from(bytes.len()).map_err(|_| CryptoError)?;
        self.set(what, length, bytes.as_ptr().cast_mut().cast())
    }

    pub(crate) fn derive(self, out: &mut [u8]) -> Result<(), CryptoError> {
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
