//! TLS contexts: none, 1.2 and 1.3, which count the KeyUpdates that they see.

use std::ffi::{c_int, c_void};
use std::io;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use foreign_types_shared::ForeignType;
use openssl::ssl::{
    SslContext, SslContextBuilder, SslFiletype, SslMethod, SslMode, SslVerifyMode, SslVersion,
};

const VERSIONS: [Option<SslVersion>; 3] =
    [None, Some(SslVersion::TLS1_2), Some(SslVersion::TLS1_3)];

/// KeyUpdates (RFC 8446 4.6.3) of one kind of peers.
#[derive(Debug)]
pub(crate) struct KeyUpdates {
    pub sent: AtomicU64,
    pub came: AtomicU64,
}

pub(crate) static OF_CLIENTS: KeyUpdates = KeyUpdates::none();
pub(crate) static OF_ORIGINS: KeyUpdates = KeyUpdates::none();

impl KeyUpdates {
    const fn none() -> Self {
        Self { sent: AtomicU64::new(0), came: AtomicU64::new(0) }
    }

    /// How many were sent and came since the last call.
    pub(crate) fn take(&self) -> [u64; 2] {
        [self.sent.swap(0, Relaxed), self.came.swap(0, Relaxed)]
    }
}

/// Of openssl/ssl3.h and openssl/ssl.h.
const HANDSHAKE: c_int = 22;
const KEY_UPDATE: u8 = 24;
const SET_MSG_CALLBACK_ARG: c_int = 16;

type MessageCallback = unsafe extern "C" fn(
    is_sent: c_int,
    version: c_int,
    kind: c_int,
    bytes: *const c_void,
    length: usize,
    ssl: *mut c_void,
    counts: *mut c_void,
);

unsafe extern "C" {
    fn SSL_CTX_set_msg_callback(context: *mut c_void, callback: Option<MessageCallback>);
    fn SSL_CTX_ctrl(
        context: *mut c_void,
        command: c_int,
        number: std::ffi::c_long,
        pointer: *mut c_void,
    ) -> std::ffi::c_long;
}

unsafe extern "C" fn on_message(
    is_sent: c_int,
    _: c_int,
    kind: c_int,
    bytes: *const c_void,
    length: usize,
    _: *mut c_void,
    counts: *mut c_void,
) {
    if kind != HANDSHAKE || length == 0 {
        return;
    }
    // SAFETY: OpenSSL passes a message of that length, and the argument set with the callback.
    let (kind, counts) = unsafe { (*bytes.cast::<u8>(), &*counts.cast::<KeyUpdates>()) };
    if kind == KEY_UPDATE {
        let count = if is_sent == 0 { &counts.came } else { &counts.sent };
        count.fetch_add(1, Relaxed);
    }
}

fn each(
    counts: &'static KeyUpdates,
    set: impl Fn(&mut SslContextBuilder) -> Result<(), openssl::error::ErrorStack>,
) -> io::Result<[Option<SslContext>; 3]> {
    let mut contexts = [None, None, None];
    for (context, version) in contexts.iter_mut().zip(VERSIONS) {
        let Some(version) = version else { continue };
        let mut builder = SslContext::builder(SslMethod::tls())?;
        builder.set_min_proto_version(Some(version))?;
        builder.set_max_proto_version(Some(version))?;
        builder.set_mode(SslMode::RELEASE_BUFFERS);
        set(&mut builder)?;
        let made = builder.build();
        // SAFETY: a live context; the callback and what it is given live for ever.
        unsafe {
            SSL_CTX_set_msg_callback(made.as_ptr().cast(), Some(on_message));
            let counts = std::ptr::from_ref(counts).cast_mut();
            SSL_CTX_ctrl(made.as_ptr().cast(), SET_MSG_CALLBACK_ARG, 0, counts.cast());
        }
        *context = Some(made);
    }
    Ok(contexts)
}

/// Of clients. Whom they talk to is not the question here.
pub(crate) fn clients() -> io::Result<[Option<SslContext>; 3]> {
    each(&OF_CLIENTS, |builder| {
        builder.set_verify(SslVerifyMode::NONE);
        Ok(())
    })
}

/// Of back ends.
pub(crate) fn origins(certificate: &str, key: &str) -> io::Result<[Option<SslContext>; 3]> {
    each(&OF_ORIGINS, |builder| {
        builder.set_certificate_file(certificate, SslFiletype::PEM)?;
        builder.set_private_key_file(key, SslFiletype::PEM)
    })
}
