//! SHA-1 and base64 of apr-util, which every httpd brings along.

use std::ffi::{CStr, c_char, c_int};

use super::sys;

/// base64(SHA-1(`text`)), as `Sec-WebSocket-Accept` wants it.
pub(crate) fn base64_sha1(text: &[u8]) -> Option<Vec<u8>> {
    // apr_sha1_base64 is made for password files: "{SHA}" goes before the hash.
    const PREFIX: &[u8] = b"{SHA}";
    let mut out = [0 as c_char; 64];
    let length = c_int::try_from(text.len()).ok()?;
    // SAFETY: `text` is readable for `length`; the result takes 5 + 28 + 1 bytes.
    unsafe { sys::apr_sha1_base64(text.as_ptr().cast(), length, out.as_mut_ptr()) };
    // SAFETY: apr_sha1_base64 ended it with a NUL.
    let out = unsafe { CStr::from_ptr(out.as_ptr()) }.to_bytes();
    out.strip_prefix(PREFIX).map(<[u8]>::to_vec)
}
