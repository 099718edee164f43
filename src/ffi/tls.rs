//! The TLS sessions of connections. mod_ssl's `pre_handshake` is an optional hook: without mod_ssl it
//! never runs, and every connection is plain.

use std::ffi::{c_int, c_void};
use std::os::fd::{AsRawFd, BorrowedFd};
use std::ptr::NonNull;

use messages::LacksFunction;
use once_cell::sync::OnceCell;
use relay::Tls;
use tls::{Context, Library, Native};

use super::connection::Connection;
use super::guard::guard;
use super::openssl::{self, OpenSsl, openssl};
use super::role::Parent;
use super::server::Process;
use super::{optional, sys, tls_contexts};

/// Asks mod_ssl, if it is loaded, to show us each session.
pub(super) fn register() {
    type Hook = unsafe extern "C" fn(*mut sys::conn_rec, *mut c_void, c_int) -> c_int;
    let hook: Hook = pre_handshake;
    // SAFETY: a function of this library, with the arguments that
    // mod_ssl_openssl.h declares for this hook, which are those of `Hook`.
    unsafe {
        optional::hook(
            c"pre_handshake",
            std::mem::transmute::<Hook, unsafe extern "C" fn()>(hook),
            sys::APR_HOOK_MIDDLE,
        );
    }
}

unsafe extern "C" fn pre_handshake(
    c: *mut sys::conn_rec,
    ssl: *mut c_void,
    _is_proxy: c_int,
) -> c_int {
    guard((), || {
        // SAFETY: mod_ssl passes the live connection that the session is for.
        let c = unsafe { Connection::from_raw(c) };
        let Some((c, ssl)) = c.zip(NonNull::new(ssl.cast())) else { return };
        // SAFETY: a live one.
        unsafe { c.keep_ssl(ssl) };
        if let Some(openssl) = openssl() {
            // SAFETY: its handshake is about to begin, in this thread; its SSL_CTX, and each that it
            // may get by SNI, is one of `tls_contexts`.
            unsafe { openssl.context.trace(ssl.as_ptr()) };
        }
    });
    sys::OK
}

/// mod_ssl's OpenSSL, if mod_ssl is loaded.
///
/// # Safety
/// It is used only while mod_ssl stays loaded.
unsafe fn find() -> Option<Result<Library, tls::Error>> {
    // Only mod_ssl has this function; core offers the others of its kind too.
    // SAFETY: looks a name up in APR's table.
    let function = unsafe { sys::apr_dynamic_fn_retrieve(c"ssl_ext_list".as_ptr()) }?;
    // SAFETY: by the caller.
    Some(unsafe { Library::used_at(function as *const c_void) })
}

/// Why no session can leave OpenSSL, if mod_ssl is loaded and that is known already. In the parent.
pub(crate) fn why_not_native(_: &Parent) -> Option<String> {
    // SAFETY: it is asked and forgotten here.
    match unsafe { find() }? {
        Ok(library) => {
            library.lacks_for_native().map(|name| LacksFunction { name: &name }.to_string())
        }
        Err(error) => Some(error.to_string()),
    }
}

/// Why no session of this child can leave OpenSSL, if there is any TLS.
pub(crate) fn why_not_native_here(_: &Process<'_>) -> Option<&'static str> {
    openssl()?.context.why_not_native()
}

/// Finds mod_ssl's OpenSSL, in a child that has just started. If sessions are to leave it, `native`, they
/// are followed from now on.
pub(super) fn init(child: &Process<'_>, native: bool) {
    let (pool, server) = (child.pool().as_ptr(), child.server_ptr());
    openssl::init(|| {
        // SAFETY: modules stay loaded for as long as a child runs.
        let library = unsafe { find() }.ok_or("mod_ssl is not loaded")?;
        let library = library.map_err(|error| error.to_string())?;
        let context = if native { Context::with_native(library) } else { Context::new(library) };
        let context = context.map_err(|error| error.to_string())?;
        if native && context.why_not_native().is_none() {
            for traced in tls_contexts::of_child(child) {
                // SAFETY: live, of mod_ssl's, and the child has no session yet.
                unsafe { library.trace_context(traced.as_ptr()) };
            }
        }
        // SAFETY: a child's pool lives as long as the child; zeroes make a valid
        // conn_rec of numbers and pointers, two of which are then filled in.
        let stub = unsafe {
            let stub = sys::apr_palloc(pool, size_of::<sys::conn_rec>()).cast::<sys::conn_rec>();
            stub.write_bytes(0, 1);
            (*stub).pool = pool;
            (*stub).base_server = server;
            (*stub).conn_config = sys::ap_create_conn_config(pool);
            stub
        };
        let stub = NonNull::new(stub).ok_or("out of memory")?;
        Ok(OpenSsl { context, library, stub })
    });
}

/// Whether a connection has TLS.
pub(crate) fn is_on(c: Connection<'_>) -> bool {
    c.ssl().is_some()
}

/// Whether a connection's TLS, if it has any, is one that can be taken over at all.
///
/// # Errors
/// Why it never can.
pub(crate) fn is_takeable(c: Connection<'_>) -> Result<(), String> {
    match c.ssl().and_then(|_| openssl::why_none()) {
        Some(why) => Err(why),
        None => Ok(()),
    }
}

/// Whether a TLS message that carries no data, such as a KeyUpdate (RFC 8446, section 4.6.3), has
/// arrived only in part: the session cannot be taken over until the peer has sent the rest.
pub(crate) fn is_within_message(c: Connection<'_>) -> bool {
    let (Some(ssl), Some(openssl)) = (c.ssl(), openssl()) else { return false };
    // SAFETY: the connection keeps the SSL (`Connection::keep_ssl`).
    unsafe { !openssl.library.is_init_finished(ssl.as_ptr()) }
}

/// Makes a read continue after records that carry no data. Without it a read says that nothing is
/// there while records wait in mod_ssl's own brigade.
pub(crate) fn set_auto_retry(c: Connection<'_>) {
    if let (Some(ssl), Some(openssl)) = (c.ssl(), openssl()) {
        // SAFETY: the connection keeps the SSL (`Connection::keep_ssl`); this
        // thread is the one that works on the connection.
        unsafe { openssl.library.set_auto_retry(ssl.as_ptr()) };
    }
}

/// Undoes [`set_auto_retry`] for one read: what comes after the first record stays in core's
/// filter.
pub(crate) fn clear_auto_retry(c: Connection<'_>) {
    if let (Some(ssl), Some(openssl)) = (c.ssl(), openssl()) {
        // SAFETY: as in `set_auto_retry`.
        unsafe { openssl.library.clear_auto_retry(ssl.as_ptr()) };
    }
}

/// Sends close_notify on a connection that is still httpd's, if it has TLS: the
/// peer learns that nothing was cut off (RFC 8446, section 6.1).
pub(crate) fn send_close_notify(c: Connection<'_>) {
    if let (Some(ssl), Some(openssl)) = (c.ssl(), openssl()) {
        // SAFETY: as in `set_auto_retry`. An error is the connection's end, which
        // whoever writes next is told.
        let _ = unsafe { openssl.library.send_close_notify(ssl.as_ptr()) };
    }
}

/// Has mod_ssl let go of the session of a connection that was handed over, and of the client's
/// certificate, which it frees at no other time (ssl_engine_io.c). The peer is told nothing.
pub(super) fn let_go(c: Connection<'_>) {
    if let (Some(ssl), Some(openssl)) = (c.ssl(), openssl()) {
        // SAFETY: the connection keeps the SSL (`Connection::keep_ssl`). This thread is the one that works
        // on the connection.
        unsafe {
            openssl.library.shutdown_quietly(ssl.as_ptr(), || {
                // An error is one of a connection that ends anyway.
                let _ = c.pass_close();
            });
        }
    }
}

/// The session that another process froze, which had left OpenSSL there, of the front of `frozen`, which is
/// what remains. `None` if these are not its bytes. Asks nothing of httpd.
///
/// # Safety
/// `fd` is a copy of its descriptor, and open for as long as the session lives.
pub(crate) unsafe fn thaw(frozen: &mut &[u8], fd: BorrowedFd<'_>) -> Option<Box<dyn Tls>> {
    /// Where the configuration has changed, and this process's own sessions stay in OpenSSL.
    static OF_OTHERS: OnceCell<Option<&'static Context>> = OnceCell::new();
    let openssl = openssl()?;
    let context = match openssl.context.why_not_native() {
        None => Some(openssl.context),
        Some(_) => *OF_OTHERS.get_or_init(|| Context::with_native(openssl.library).ok()),
    };
    // SAFETY: by the caller.
    let session = unsafe { Native::thaw(context?, frozen, fd.as_raw_fd()) }?;
    Some(Box::new(session))
}
