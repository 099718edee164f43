//! The SSL_CTXs that mod_ssl makes for a configuration, one for each server and each part of it that
//! has TLS towards back ends. The parent notes them, by mod_ssl's optional hook `init_server`, where
//! sessions are to leave OpenSSL. Only a child changes anything about them: what is set there may point
//! into this library, which the parent unloads at each reload. All of them are needed, since the name
//! that a client asks for (SNI) gives its session the SSL_CTX of another virtual host.

use std::ffi::{c_int, c_void};
use std::marker::PhantomData;
use std::ptr::NonNull;
use std::sync::{Mutex, PoisonError};

use tls::SslCtx;

use super::guard::guard;
use super::pool::Pool;
use super::server::Process;
use super::{optional, sys};

/// What the module does with TLS.
pub(crate) trait TlsHooks: 'static {
    /// Whether the configuration wants the TLS sessions of relayed tunnels to leave OpenSSL.
    fn has_native_tls() -> bool;
}

/// One of them.
#[derive(Clone, Copy)]
struct Noted(NonNull<SslCtx>);

// SAFETY: an address, which is used in a child alone, in its first thread.
unsafe impl Send for Noted {}

/// Those of the configuration that was read last. Written by the parent; its children have copies.
static NOTED: Mutex<Vec<Noted>> = Mutex::new(Vec::new());

/// Asks mod_ssl, if it is loaded, to show us each.
pub(super) fn register<H: TlsHooks>() {
    type Hook = unsafe extern "C" fn(
        *mut sys::server_rec,
        *mut sys::apr_pool_t,
        c_int,
        *mut c_void,
    ) -> c_int;
    let hook: Hook = init_server::<H>;
    // SAFETY: a function of this library, with the arguments that mod_ssl_openssl.h declares for
    // this hook, which are those of `Hook`.
    unsafe {
        optional::hook(
            c"init_server",
            std::mem::transmute::<Hook, unsafe extern "C" fn()>(hook),
            sys::APR_HOOK_MIDDLE,
        );
    }
}

unsafe extern "C" fn init_server<H: TlsHooks>(
    _server: *mut sys::server_rec,
    pool: *mut sys::apr_pool_t,
    _is_proxy: c_int,
    context: *mut c_void,
) -> c_int {
    guard((), || {
        // SAFETY: mod_ssl passes the configuration's own pool.
        let pool = unsafe { Pool::from_raw(pool) };
        if let (Some(pool), Some(context), true) =
            (pool, NonNull::new(context.cast()), H::has_native_tls())
        {
            note(pool, Noted(context));
        }
    });
    sys::OK
}

fn note(pool: Pool<'_>, context: Noted) {
    /// Forgets them with their configuration.
    struct OfConfiguration(PhantomData<()>);

    impl Drop for OfConfiguration {
        fn drop(&mut self) {
            *NOTED.lock().unwrap_or_else(PoisonError::into_inner) = Vec::new();
        }
    }

    let mut noted = NOTED.lock().unwrap_or_else(PoisonError::into_inner);
    if noted.is_empty() {
        pool.own(OfConfiguration(PhantomData));
    }
    // Virtual hosts may have one in common.
    if !noted.iter().any(|one| one.0 == context.0) {
        noted.push(context);
    }
}

/// All of them, in a child that has just started: they live as long as it does.
pub(super) fn of_child(_: &Process<'_>) -> Vec<NonNull<SslCtx>> {
    let noted = NOTED.lock().unwrap_or_else(PoisonError::into_inner);
    noted.iter().map(|one| one.0).collect()
}
