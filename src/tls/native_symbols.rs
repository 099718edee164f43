//! The further functions of OpenSSL that sessions outside of it need. Values of constants are those
//! of openssl/{bio,crypto,evp,kdf}.h, the same in 1.1.1 and 3.x.
#![allow(non_snake_case, reason = "functions keep the names they have in OpenSSL")]

use std::ffi::{CStr, c_char, c_int, c_long, c_uint, c_void};

use crate::symbols::{Bio, InfoCallback, Ssl, SslCtx, SslSession, functions};

/// Declares types of which nothing is known here.
macro_rules! opaque {
    ($($about:literal $name:ident;)*) => {$(
        #[doc = $about]
        #[repr(C)]
        #[derive(Debug)]
        pub(crate) struct $name {
            _opaque: [u8; 0],
        }
    )*};
}

opaque! {
    "`SSL_CIPHER`" SslCipher;
    "`EVP_CIPHER`" EvpCipher;
    "`EVP_CIPHER_CTX`" EvpCipherCtx;
    "`EVP_MD`" EvpMd;
    "`EVP_PKEY_CTX`" EvpPkeyCtx;
    "`EVP_KDF`" EvpKdf;
    "`EVP_KDF_CTX`" EvpKdfCtx;
}

/// `SSL_CTX_keylog_cb_func`
pub(crate) type KeylogCallback = unsafe extern "C" fn(*const Ssl, *const c_char);
/// `BIO_callback_fn_ex`
pub(crate) type BioCallback = unsafe extern "C" fn(
    *mut Bio,
    c_int,
    *const c_char,
    usize,
    c_int,
    c_long,
    c_int,
    *mut usize,
) -> c_long;
/// `CRYPTO_EX_free`
pub(crate) type ExFree =
    unsafe extern "C" fn(*mut c_void, *mut c_void, *mut c_void, c_int, c_long, *mut c_void);
/// `OSSL_PARAM`
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub(crate) struct OsslParam {
    pub key: *const c_char,
    pub data_type: c_uint,
    pub data: *mut c_void,
    pub data_size: usize,
    pub return_size: usize,
}

/// `EVP_CIPHER_fetch`
pub(crate) type CipherFetch =
    unsafe extern "C" fn(*mut c_void, *const c_char, *const c_char) -> *mut EvpCipher;

pub(crate) const CB_LOOP: c_int = 0x01;
pub(crate) const CB_HANDSHAKE_START: c_int = 0x10;
/// `SSL_WRITING` of SSL_want.
pub(crate) const WANT_WRITING: c_int = 2;

pub(crate) const BIO_CB_READ: c_int = 0x02;
pub(crate) const BIO_CB_WRITE: c_int = 0x03;
pub(crate) const BIO_CB_RETURN: c_int = 0x80;

pub(crate) const EX_INDEX_SSL: c_int = 0;
pub(crate) const EX_INDEX_BIO: c_int = 12;

pub(crate) const AEAD_GET_TAG: c_int = 0x10;
pub(crate) const AEAD_SET_TAG: c_int = 0x11;

pub(crate) const PARAM_TEXT: c_uint = 4;
pub(crate) const PARAM_OCTETS: c_uint = 5;

pub(crate) const PKEY_TLS1_PRF: c_int = 1021;
pub(crate) const PKEY_HKDF: c_int = 1036;
pub(crate) const ANY_OPERATION: c_int = -1;
pub(crate) const CTRL_TLS_MD: c_int = 0x1000;
pub(crate) const CTRL_TLS_SECRET: c_int = 0x1001;
pub(crate) const CTRL_TLS_SEED: c_int = 0x1002;
pub(crate) const CTRL_HKDF_MD: c_int = 0x1003;
pub(crate) const CTRL_HKDF_KEY: c_int = 0x1005;
pub(crate) const CTRL_HKDF_INFO: c_int = 0x1006;

functions! {
    /// The functions that sessions outside of OpenSSL need besides. Valid as
    /// [`Functions`](crate::symbols::Functions) are.
    NativeFunctions:

    CRYPTO_get_ex_new_index(
        c_int,
        c_long,
        *mut c_void,
        *mut c_void,
        *mut c_void,
        Option<ExFree>
    ) -> c_int;

    BIO_get_callback_ex(*const Bio) -> Option<BioCallback>;
    BIO_set_callback_ex(*mut Bio, Option<BioCallback>);
    BIO_get_callback_arg(*const Bio) -> *mut c_char;
    BIO_get_ex_data(*const Bio, c_int) -> *mut c_void;
    BIO_set_ex_data(*mut Bio, c_int, *mut c_void) -> c_int;
    BIO_number_read(*mut Bio) -> u64;
    BIO_number_written(*mut Bio) -> u64;

    SSL_CTX_get_info_callback(*mut SslCtx) -> Option<InfoCallback>;
    SSL_CTX_get_keylog_callback(*const SslCtx) -> Option<KeylogCallback>;
    SSL_CTX_set_keylog_callback(*mut SslCtx, Option<KeylogCallback>);
    SSL_get_SSL_CTX(*const Ssl) -> *mut SslCtx;
    SSL_get_info_callback(*const Ssl) -> Option<InfoCallback>;
    SSL_get_ex_data(*const Ssl, c_int) -> *mut c_void;
    SSL_get_rbio(*const Ssl) -> *mut Bio;
    SSL_get_wbio(*const Ssl) -> *mut Bio;
    SSL_want(*const Ssl) -> c_int;
    SSL_state_string(*const Ssl) -> *const c_char;
    SSL_get_current_cipher(*const Ssl) -> *const SslCipher;
    SSL_CIPHER_get_protocol_id(*const SslCipher) -> u16;
    SSL_get_current_compression(*const Ssl) -> *const c_void;
    SSL_get_client_random(*const Ssl, *mut u8, usize) -> usize;
    SSL_get_server_random(*const Ssl, *mut u8, usize) -> usize;
    SSL_SESSION_get_master_key(*const SslSession, *mut u8, usize) -> usize;
    SSL_SESSION_get_max_fragment_length(*const SslSession) -> u8;

    EVP_aes_128_gcm() -> *const EvpCipher;
    EVP_aes_256_gcm() -> *const EvpCipher;
    EVP_chacha20_poly1305() -> *const EvpCipher;
    EVP_sha256() -> *const EvpMd;
    EVP_sha384() -> *const EvpMd;
    EVP_CIPHER_CTX_new() -> *mut EvpCipherCtx;
    EVP_CIPHER_CTX_free(*mut EvpCipherCtx);
    EVP_CIPHER_CTX_ctrl(*mut EvpCipherCtx, c_int, c_int, *mut c_void) -> c_int;
    EVP_CipherInit_ex(
        *mut EvpCipherCtx,
        *const EvpCipher,
        *mut c_void,
        *const u8,
        *const u8,
        c_int
    ) -> c_int;
    EVP_CipherUpdate(*mut EvpCipherCtx, *mut u8, *mut c_int, *const u8, c_int) -> c_int;
    EVP_CipherFinal_ex(*mut EvpCipherCtx, *mut u8, *mut c_int) -> c_int;
    EVP_PKEY_CTX_new_id(c_int, *mut c_void) -> *mut EvpPkeyCtx;
    EVP_PKEY_CTX_free(*mut EvpPkeyCtx);
    EVP_PKEY_CTX_ctrl(*mut EvpPkeyCtx, c_int, c_int, c_int, c_int, *mut c_void) -> c_int;
    EVP_PKEY_CTX_ctrl_str(*mut EvpPkeyCtx, *const c_char, *const c_char) -> c_int;
    EVP_PKEY_derive_init(*mut EvpPkeyCtx) -> c_int;
    EVP_PKEY_derive(*mut EvpPkeyCtx, *mut u8, *mut usize) -> c_int;
}

functions! {
    /// Key derivation of 3.x. Valid as [`Functions`](crate::symbols::Functions) are.
    KdfFunctions:

    EVP_KDF_fetch(*mut c_void, *const c_char, *const c_char) -> *mut EvpKdf;
    EVP_KDF_CTX_new(*mut EvpKdf) -> *mut EvpKdfCtx;
    EVP_KDF_CTX_free(*mut EvpKdfCtx);
    EVP_KDF_derive(*mut EvpKdfCtx, *mut u8, usize, *const OsslParam) -> c_int;
}

/// [`NativeFunctions`], and what only 3.x has.
#[derive(Clone, Copy, Debug)]
pub(crate) struct NativeTable {
    pub functions: NativeFunctions,
    pub fetch: Option<CipherFetch>,
    pub kdf: Option<KdfFunctions>,
}

impl NativeTable {
    /// Asks `look_up` for every function.
    ///
    /// # Errors
    /// The name of the first that there is not.
    ///
    /// # Safety
    /// As that of [`NativeFunctions::resolve`].
    pub(crate) unsafe fn resolve(
        look_up: impl Fn(&CStr) -> *mut c_void,
    ) -> Result<Self, &'static str> {
        let fetch = look_up(c"EVP_CIPHER_fetch");
        // SAFETY: null, or a function of that prototype, by the caller; an Option of a function
        // pointer is null where there is none.
        let fetch = unsafe { std::mem::transmute::<*mut c_void, Option<CipherFetch>>(fetch) };
        // SAFETY: by the caller.
        let kdf = unsafe { KdfFunctions::resolve(&look_up) }.ok();
        // SAFETY: by the caller.
        let functions = unsafe { NativeFunctions::resolve(look_up) }?;
        Ok(NativeTable { functions, fetch, kdf })
    }
}
