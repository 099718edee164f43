//! Key derivation by `EVP_KDF`, which 3.x has.

use std::ffi::{CStr, c_void};
use std::ptr;

use records::CryptoError;

use crate::native_symbols::{EvpKdf, KdfFunctions, OsslParam, PARAM_OCTETS, PARAM_TEXT};

/// What `OSSL_PARAM_UNMODIFIED` is.
const UNMODIFIED: usize = usize::MAX;

fn parameter(name: &CStr, data_type: u32, data: &[u8]) -> OsslParam {
    OsslParam {
        key: name.as_ptr(),
        data_type,
        // It is only read.
        data: data.as_ptr().cast_mut().cast::<c_void>(),
        data_size: data.len(),
        return_size: UNMODIFIED,
    }
}

/// Fills `out` by a derivation with these parameters.
pub(crate) fn derive<const T: usize, const B: usize>(
    functions: &KdfFunctions,
    kdf: *mut EvpKdf,
    texts: [(&CStr, &CStr); T],
    bytes: [(&CStr, &[u8]); B],
    out: &mut [u8],
) -> Result<(), CryptoError> {
    if kdf.is_null() {
        return Err(CryptoError);
    }
    // SAFETY: a derivation of this library's, which is never freed.
    let context = unsafe { (functions.EVP_KDF_CTX_new)(kdf) };
    if context.is_null() {
        return Err(CryptoError);
    }
    let end = OsslParam {
        key: ptr::null(),
        data_type: 0,
        data: ptr::null_mut(),
        data_size: 0,
        return_size: 0,
    };
    let mut parameters = [end; 5];
    let given = texts
        .iter()
        .map(|(name, text)| parameter(name, PARAM_TEXT, text.to_bytes()))
        .chain(bytes.iter().map(|(name, bytes)| parameter(name, PARAM_OCTETS, bytes)));
    // The last one stays the end.
    for (place, parameter) in parameters[..4].iter_mut().zip(given) {
        *place = parameter;
    }
    // SAFETY: a context of ours; the parameters end with one without a name, and what they refer to
    // lives until the call is over, which copies it. out has room for as many bytes. Freeing it
    // overwrites what was copied.
    let done = unsafe {
        let done =
            (functions.EVP_KDF_derive)(context, out.as_mut_ptr(), out.len(), parameters.as_ptr());
        (functions.EVP_KDF_CTX_free)(context);
        done
    };
    if done == 1 { Ok(()) } else { Err(CryptoError) }
}
