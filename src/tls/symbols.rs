//! The functions of OpenSSL that are used, with their types. Values of constants are those of
//! openssl/ssl.h and openssl/bio.h, the same in 1.1.1 and 3.x.
#![allow(non_snake_case, reason = "functions keep the names they have in OpenSSL")]

use std::ffi::{CStr, c_char, c_int, c_long, c_uint, c_ulong, c_void};

/// `SSL`
#[repr(C)]
#[derive(Debug)]
pub struct Ssl {
    _opaque: [u8; 0],
}

/// `SSL_CTX`
#[repr(C)]
#[derive(Debug)]
pub struct SslCtx {
    _opaque: [u8; 0],
}

/// `SSL_METHOD`
#[repr(C)]
#[derive(Debug)]
pub(crate) struct SslMethod {
    _opaque: [u8; 0],
}

/// `SSL_SESSION`
#[repr(C)]
#[derive(Debug)]
pub(crate) struct SslSession {
    _opaque: [u8; 0],
}

/// `EVP_PKEY`
#[repr(C)]
#[derive(Debug)]
pub(crate) struct EvpPkey {
    _opaque: [u8; 0],
}

/// `BIO`
#[repr(C)]
#[derive(Debug)]
pub(crate) struct Bio {
    _opaque: [u8; 0],
}

/// `BIO_METHOD`
#[repr(C)]
#[derive(Debug)]
pub(crate) struct BioMethod {
    _opaque: [u8; 0],
}

pub(crate) type BioRead = unsafe extern "C" fn(*mut Bio, *mut c_char, c_int) -> c_int;
pub(crate) type BioWrite = unsafe extern "C" fn(*mut Bio, *const c_char, c_int) -> c_int;
pub(crate) type BioCtrl = unsafe extern "C" fn(*mut Bio, c_int, c_long, *mut c_void) -> c_long;
pub(crate) type BioCreate = unsafe extern "C" fn(*mut Bio) -> c_int;
pub(crate) type InfoCallback = unsafe extern "C" fn(*const Ssl, c_int, c_int);
pub(crate) type VerifyCallback = unsafe extern "C" fn(c_int, *mut c_void) -> c_int;

pub(crate) const ERROR_SSL: c_int = 1;
pub(crate) const ERROR_WANT_READ: c_int = 2;
pub(crate) const ERROR_WANT_WRITE: c_int = 3;
pub(crate) const ERROR_SYSCALL: c_int = 5;
pub(crate) const ERROR_ZERO_RETURN: c_int = 6;

pub(crate) const SENT_SHUTDOWN: c_int = 1;
pub(crate) const RECEIVED_SHUTDOWN: c_int = 2;

pub(crate) const CTRL_MODE: c_int = 33;
pub(crate) const CTRL_SET_SESS_CACHE_MODE: c_int = 44;
pub(crate) const CTRL_CLEAR_MODE: c_int = 78;
pub(crate) const CTRL_GET_PEER_TMP_KEY: c_int = 109;
pub(crate) const CTRL_GET_TMP_KEY: c_int = 133;

pub(crate) const EVP_PKEY_RSA: c_int = 6;

pub(crate) const MODE_ENABLE_PARTIAL_WRITE: c_long = 0x1;
pub(crate) const MODE_ACCEPT_MOVING_WRITE_BUFFER: c_long = 0x2;
pub(crate) const MODE_AUTO_RETRY: c_long = 0x4;
pub(crate) const MODE_RELEASE_BUFFERS: c_long = 0x10;

pub(crate) const OP_ENABLE_KTLS: u64 = 1 << 3;
pub(crate) const OP_NO_RENEGOTIATION: u64 = 1 << 30;

pub(crate) const BIO_TYPE_SOURCE_SINK: c_int = 0x400;
pub(crate) const BIO_CTRL_DUP: c_int = 12;
pub(crate) const BIO_CTRL_FLUSH: c_int = 11;
pub(crate) const BIO_FLAGS_READ: c_int = 0x01;
pub(crate) const BIO_FLAGS_RWS: c_int = 0x07;
pub(crate) const BIO_FLAGS_SHOULD_RETRY: c_int = 0x08;

/// Makes the table: a field per function, and its lookup.
macro_rules! functions {
    ($(#[$about:meta])* $table:ident: $($name:ident($($argument:ty),*) $(-> $result:ty)?;)*) => {
        $(#[$about])*
        #[derive(Clone, Copy, Debug)]
        pub(crate) struct $table {
            $(pub $name: unsafe extern "C" fn($($argument),*) $(-> $result)?,)*
        }

        impl $table {
            /// Asks `look_up` for every function.
            ///
            /// # Errors
            /// The name of the first that there is not.
            ///
            /// # Safety
            /// What `look_up` returns is null or the function of that name of an OpenSSL 1.1.1
            /// or later, whose prototype is the one given here.
            pub(crate) unsafe fn resolve(
                look_up: impl Fn(&CStr) -> *mut c_void,
            ) -> Result<Self, &'static str> {
                Ok($table {
                    $($name: {
                        let name = concat!(stringify!($name), "\0");
                        let address = CStr::from_bytes_with_nul(name.as_bytes())
                            .map_or(std::ptr::null_mut(), &look_up);
                        if address.is_null() {
                            return Err(stringify!($name));
                        }
                        // SAFETY: not null, and of this prototype by the contract of `resolve`.
                        unsafe {
                            std::mem::transmute::<
                                *mut c_void,
                                unsafe extern "C" fn($($argument),*) $(-> $result)?,
                            >(address)
                        }
                    },)*
                })
            }
        }
    };
}

pub(crate) use functions;

functions! {
    /// The functions that every session needs. Valid for as long as the library that they are of is
    /// loaded.
    Functions:

    OpenSSL_version_num() -> c_ulong;
    ERR_clear_error();
    ERR_get_error() -> c_ulong;
    ERR_reason_error_string(c_ulong) -> *const c_char;

    EVP_PKEY_set_type(*mut EvpPkey, c_int) -> c_int;
    EVP_PKEY_free(*mut EvpPkey);

    BIO_meth_new(c_int, *const c_char) -> *mut BioMethod;
    BIO_meth_set_read(*mut BioMethod, BioRead) -> c_int;
    BIO_meth_set_write(*mut BioMethod, BioWrite) -> c_int;
    BIO_meth_set_ctrl(*mut BioMethod, BioCtrl) -> c_int;
    BIO_meth_set_destroy(*mut BioMethod, BioCreate) -> c_int;
    BIO_new(*const BioMethod) -> *mut Bio;
    BIO_set_data(*mut Bio, *mut c_void);
    BIO_get_data(*mut Bio) -> *mut c_void;
    BIO_set_init(*mut Bio, c_int);
    BIO_set_flags(*mut Bio, c_int);
    BIO_clear_flags(*mut Bio, c_int);

    TLS_method() -> *const SslMethod;
    SSL_CTX_new(*const SslMethod) -> *mut SslCtx;
    SSL_CTX_ctrl(*mut SslCtx, c_int, c_long, *mut c_void) -> c_long;
    SSL_CTX_set_options(*mut SslCtx, u64) -> u64;

    SSL_ctrl(*mut Ssl, c_int, c_long, *mut c_void) -> c_long;
    SSL_set_options(*mut Ssl, u64) -> u64;
    SSL_clear_options(*mut Ssl, u64) -> u64;
    SSL_set_SSL_CTX(*mut Ssl, *mut SslCtx) -> *mut SslCtx;
    SSL_set_ex_data(*mut Ssl, c_int, *mut c_void) -> c_int;
    SSL_set_info_callback(*mut Ssl, Option<InfoCallback>);
    SSL_set_msg_callback(*mut Ssl, *mut c_void);
    SSL_set_num_tickets(*mut Ssl, usize) -> c_int;
    SSL_set_verify(*mut Ssl, c_int, Option<VerifyCallback>);
    SSL_set_quiet_shutdown(*mut Ssl, c_int);
    SSL_set_read_ahead(*mut Ssl, c_int);
    SSL_set_bio(*mut Ssl, *mut Bio, *mut Bio);
    SSL_get_session(*const Ssl) -> *mut SslSession;
    SSL_SESSION_set1_id(*mut SslSession, *const u8, c_uint) -> c_int;

    SSL_up_ref(*mut Ssl) -> c_int;
    SSL_free(*mut Ssl);
    SSL_read(*mut Ssl, *mut c_void, c_int) -> c_int;
    SSL_write(*mut Ssl, *const c_void, c_int) -> c_int;
    SSL_shutdown(*mut Ssl) -> c_int;
    SSL_get_error(*const Ssl, c_int) -> c_int;
    SSL_has_pending(*const Ssl) -> c_int;
    SSL_rstate_string(*const Ssl) -> *const c_char;
    SSL_get_shutdown(*const Ssl) -> c_int;
    SSL_set_shutdown(*mut Ssl, c_int);
    SSL_is_init_finished(*const Ssl) -> c_int;
    SSL_is_server(*const Ssl) -> c_int;
    SSL_version(*const Ssl) -> c_int;
}
