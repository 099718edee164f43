//! What sessions have in common.

use std::io;
use std::ptr;

use crate::algorithms::Algorithms;
use crate::bio;
use crate::callbacks::Tracing;
use crate::library::Library;
use crate::self_test;
use crate::symbols::{BioMethod, CTRL_SET_SESS_CACHE_MODE, OP_NO_RENEGOTIATION, SslCtx};

/// What [`Session`](crate::Session)s are made with: an SSL_CTX without callbacks, session cache
/// or certificates, and the BIO below them. One per process, made after any fork that precedes
/// the sessions; a fork that takes sessions along takes it along.
#[derive(Debug)]
pub struct Context {
    pub(crate) library: Library,
    pub(crate) neutral: *mut SslCtx,
    pub(crate) method: *mut BioMethod,
    /// What sessions need to leave OpenSSL, or why they cannot.
    pub(crate) native: Result<Algorithms, String>,
}

// SAFETY: nothing in it changes after it is made; SSL_CTX counts its references atomically.
unsafe impl Sync for Context {}
// SAFETY: as above; OpenSSL ties neither object to a thread.
unsafe impl Send for Context {}

impl Context {
    /// Makes the context of sessions that stay in OpenSSL. It lives as long as the process.
    ///
    /// # Errors
    /// OpenSSL's, out of memory above all.
    pub fn new(library: Library) -> io::Result<&'static Self> {
        Self::make(library, Err("native sessions are off".to_owned()))
    }

    /// Makes the context of sessions that leave OpenSSL where that can be: see
    /// [`take_over`](crate::take_over). Where this OpenSSL does not allow it they all stay in it:
    /// see [`why_not_native`](Self::why_not_native).
    ///
    /// # Errors
    /// As [`new`](Self::new).
    pub fn with_native(library: Library) -> io::Result<&'static Self> {
        let native = library.native.map_err(|name| format!("the OpenSSL of mod_ssl has no {name}"));
        let native = native.and_then(|table| {
            let algorithms = self_test::tried(&table)?;
            Tracing::start(&library, table.functions)
                .ok_or("its OpenSSL has no room for what is noted of sessions")?;
            Ok(algorithms)
        });
        Self::make(library, native)
    }

    /// Why no session of this context can be native, if that is so: a text for the log.
    pub fn why_not_native(&self) -> Option<&str> {
        self.native.as_ref().err().map(String::as_str)
    }

    fn make(library: Library, native: Result<Algorithms, String>) -> io::Result<&'static Self> {
        let context: &'static mut Context = Box::leak(Box::new(Context {
            library,
            neutral: ptr::null_mut(),
            method: ptr::null_mut(),
            native,
        }));
        let functions = &library.functions;
        // SAFETY: the method is a static of OpenSSL's, the SSL_CTX ours and checked.
        unsafe {
            (functions.ERR_clear_error)();
            context.neutral = (functions.SSL_CTX_new)((functions.TLS_method)());
            if context.neutral.is_null() {
                return Err(library.last_error());
            }
            (functions.SSL_CTX_set_options)(context.neutral, OP_NO_RENEGOTIATION);
            let off = 0;
            (functions.SSL_CTX_ctrl)(
                context.neutral,
                CTRL_SET_SESS_CACHE_MODE,
                off,
                ptr::null_mut(),
            );
        }
        let context: &'static mut Context = context;
        let functions = Box::leak(Box::new(library.functions));
        context.method = bio::method(functions).ok_or_else(|| library.last_error())?;
        Ok(context)
    }
}
