//! The callbacks by which OpenSSL tells what is noted of a session.
//!
//! The keylog callback of the SSL_CTX tells the secrets of TLS 1.3, a callback of each BIO the bytes
//! that really went, in the order in which they did. The BIOs are the owner's, and are there when
//! the handshake begins, which the SSL's info callback tells. A [`Trace`] is the SSL's (ex_data): it
//! goes when that is freed.

use std::ffi::{CStr, c_char, c_int, c_long, c_void};
use std::ptr;
use std::slice;
use std::sync::atomic::AtomicPtr;
use std::sync::atomic::Ordering::{Acquire, Release};

use crate::keylog::pass_on;
use crate::library::Library;
use crate::native_symbols::{
    BIO_CB_READ, BIO_CB_RETURN, BIO_CB_WRITE, BioCallback, CB_HANDSHAKE_START, CB_LOOP,
    EX_INDEX_BIO, EX_INDEX_SSL, NativeFunctions,
};
use crate::reason::Reason;
use crate::symbols::{Bio, Functions, Ssl};
use crate::trace::Trace;

/// The callback of the BIOs.
const OURS: BioCallback = bio_callback;

/// What the callbacks need of OpenSSL: they get nothing but its objects.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Tracing {
    functions: Functions,
    native: NativeFunctions,
    /// Where an SSL has its [`Trace`], and a BIO that of its SSL.
    ssl_index: c_int,
    bio_index: c_int,
}

/// Set by who makes a context with native sessions: once in a process.
static TRACING: AtomicPtr<Tracing> = AtomicPtr::new(ptr::null_mut());

impl Tracing {
    /// That of this process, if it has one.
    pub(crate) fn get() -> Option<&'static Self> {
        // SAFETY: null, or leaked by `start`.
        unsafe { TRACING.load(Acquire).as_ref() }
    }

    /// Sets up what traces need, once in a process.
    pub(crate) fn start(library: &Library, native: NativeFunctions) -> Option<()> {
        if Self::get().is_some() {
            return Some(());
        }
        // SAFETY: the function that is given has the type of CRYPTO_EX_free, and lives as long as
        // this module is loaded, which who has traces made sees to.
        let (ssl_index, bio_index) = unsafe {
            let index = |class, free| {
                let none = ptr::null_mut();
                (native.CRYPTO_get_ex_new_index)(class, 0, none, none, none, free)
            };
            (index(EX_INDEX_SSL, Some(free_trace as _)), index(EX_INDEX_BIO, None))
        };
        if ssl_index < 0 || bio_index < 0 {
            return None;
        }
        let functions = library.functions;
        let tracing = Box::leak(Box::new(Tracing { functions, native, ssl_index, bio_index }));
        TRACING.store(tracing, Release);
        Some(())
    }

    /// Has a session followed from its handshake on, if nobody else has an info callback on it.
    ///
    /// # Safety
    /// A live SSL whose handshake has not begun.
    pub(crate) unsafe fn await_handshake(&self, ssl: *mut Ssl) {
        // SAFETY: by the caller.
        unsafe {
            if (self.native.SSL_get_info_callback)(ssl).is_none() {
                (self.functions.SSL_set_info_callback)(ssl, Some(info));
            }
        }
    }

    /// The trace of a session.
    ///
    /// # Safety
    /// A live SSL, used by this thread alone for as long as the trace is.
    unsafe fn trace<'a>(&self, ssl: *const Ssl) -> Option<&'a mut Trace> {
        // SAFETY: by the caller; what is at this index is null or a trace that `begin` leaked, and
        // goes with the SSL.
        unsafe { (self.native.SSL_get_ex_data)(ssl, self.ssl_index).cast::<Trace>().as_mut() }
    }

    /// Begins to follow, if nobody else does.
    ///
    /// # Safety
    /// A live SSL at the beginning of its first handshake.
    unsafe fn begin(&self, ssl: *mut Ssl) {
        let native = &self.native;
        // SAFETY: by the caller; the SSL owns its BIOs.
        unsafe {
            let (rbio, wbio) = ((native.SSL_get_rbio)(ssl), (native.SSL_get_wbio)(ssl));
            for bio in [rbio, wbio] {
                // One callback is all that a BIO has.
                if bio.is_null()
                    || (native.BIO_get_callback_ex)(bio).is_some()
                    || !(native.BIO_get_callback_arg)(bio).is_null()
                {
                    return;
                }
            }
            // Not of a handshake that follows others.
            if (native.BIO_number_read)(rbio) != 0 || (native.BIO_number_written)(wbio) != 0 {
                return;
            }
            let trace = Box::new(Trace::new(rbio, wbio));
            let trace = Box::into_raw(trace).cast::<c_void>();
            if (self.functions.SSL_set_ex_data)(ssl, self.ssl_index, trace) != 1 {
                drop(Box::from_raw(trace.cast::<Trace>()));
                return;
            }
            for bio in [rbio, wbio] {
                // Where it cannot be set the callback finds none, and the end is that it is not
                // what went.
                (native.BIO_set_ex_data)(bio, self.bio_index, trace);
                (native.BIO_set_callback_ex)(bio, Some(bio_callback));
            }
        }
    }

    /// Takes the trace from a session that its owner has let go of, before anything of it is
    /// changed.
    ///
    /// # Errors
    /// Why it cannot be used.
    ///
    /// # Safety
    /// A live SSL, used by this thread alone.
    pub(crate) unsafe fn take(&self, ssl: *mut Ssl) -> Result<Box<Trace>, Reason> {
        let native = &self.native;
        // SAFETY: by the caller; what is at this index is null or a trace that `begin` leaked, and it
        // is taken from there. The BIOs are the SSL's, if they are those that it has now.
        unsafe {
            let trace = (native.SSL_get_ex_data)(ssl, self.ssl_index).cast::<Trace>();
            if trace.is_null() {
                return Err(Reason::Untraced);
            }
            let (rbio, wbio) = ((native.SSL_get_rbio)(ssl), (native.SSL_get_wbio)(ssl));
            let is_ours = |bio: *mut Bio| {
                !bio.is_null()
                    && (native.BIO_get_ex_data)(bio, self.bio_index) == trace.cast()
                    && (native.BIO_get_callback_ex)(bio)
                        .is_some_and(|callback| ptr::fn_addr_eq(callback, OURS))
            };
            let is_followed =
                (*trace).rbio == rbio && (*trace).wbio == wbio && is_ours(rbio) && is_ours(wbio);
            for bio in [rbio, wbio] {
                if is_ours(bio) {
                    (native.BIO_set_callback_ex)(bio, None);
                }
            }
            // Nobody finds it any more.
            for bio in [rbio, wbio] {
                if !bio.is_null() {
                    (native.BIO_set_ex_data)(bio, self.bio_index, ptr::null_mut());
                }
            }
            (self.functions.SSL_set_ex_data)(ssl, self.ssl_index, ptr::null_mut());
            let trace = Box::from_raw(trace);
            if !is_followed {
                return Err(Reason::Untraced);
            }
            trace.check((native.BIO_number_read)(rbio), (native.BIO_number_written)(wbio))?;
            Ok(trace)
        }
    }
}

/// The info callback of an SSL: does what that of the SSL_CTX does, begins the trace, and notes
/// what is awaited.
unsafe extern "C" fn info(ssl: *const Ssl, place: c_int, value: c_int) {
    let Some(tracing) = Tracing::get() else { return };
    let native = &tracing.native;
    // SAFETY: OpenSSL calls this with a live SSL, whose thread this is. It is const by custom: what
    // gets it in the same callbacks of mod_ssl changes it too.
    unsafe {
        if place == CB_HANDSHAKE_START {
            tracing.begin(ssl.cast_mut());
        }
        if place & CB_LOOP != 0
            && let Some(trace) = tracing.trace(ssl)
        {
            trace.note_state(CStr::from_ptr((native.SSL_state_string)(ssl)));
        }
        if let Some(of_ctx) = (native.SSL_CTX_get_info_callback)((native.SSL_get_SSL_CTX)(ssl)) {
            of_ctx(ssl, place, value);
        }
    }
}

/// The keylog callback: takes the secrets of data (RFC 8446 7.1), and passes all on.
pub(crate) unsafe extern "C" fn keylog(ssl: *const Ssl, line: *const c_char) {
    if let Some(tracing) = Tracing::get() {
        // SAFETY: OpenSSL calls this with a live SSL, whose thread this is, and a C string.
        unsafe {
            if let Some(trace) = tracing.trace(ssl) {
                let is_server = (tracing.functions.SSL_is_server)(ssl) != 0;
                trace.note_secret(is_server, CStr::from_ptr(line).to_bytes());
            }
        }
    }
    // SAFETY: what OpenSSL gives.
    unsafe { pass_on(ssl, line) };
}

/// The callback of the BIOs.
unsafe extern "C" fn bio_callback(
    bio: *mut Bio,
    operation: c_int,
    bytes: *const c_char,
    _: usize,
    _: c_int,
    _: c_long,
    result: c_int,
    processed: *mut usize,
) -> c_long {
    const HAS_READ: c_int = BIO_CB_READ | BIO_CB_RETURN;
    const HAS_WRITTEN: c_int = BIO_CB_WRITE | BIO_CB_RETURN;
    if operation & BIO_CB_RETURN == 0 {
        return 1;
    }
    if matches!(operation, HAS_READ | HAS_WRITTEN)
        && let Some(tracing) = Tracing::get()
    {
        // SAFETY: OpenSSL calls this with a live BIO; what is at this index is null, or the trace of
        // the SSL that reads or writes just now, on this thread alone, and so is alive.
        let trace = unsafe {
            (tracing.native.BIO_get_ex_data)(bio, tracing.bio_index).cast::<Trace>().as_mut()
        };
        if let Some(trace) = trace {
            // SAFETY: null, or a number; as many bytes were read into or written from there.
            let passed = unsafe {
                let count = processed.as_ref().map_or(0, |count| *count);
                let count = if result > 0 && !bytes.is_null() { count } else { 0 };
                if count == 0 { &[] } else { slice::from_raw_parts(bytes.cast::<u8>(), count) }
            };
            if operation == HAS_READ {
                trace.received.follower.follow(passed);
            } else {
                trace.sent.follower.follow(passed);
                trace.has_failed_writes |= passed.is_empty();
            }
        }
    }
    c_long::from(result)
}

/// The end of an SSL with a trace.
unsafe extern "C" fn free_trace(
    _: *mut c_void,
    trace: *mut c_void,
    _: *mut c_void,
    _: c_int,
    _: c_long,
    _: *mut c_void,
) {
    if !trace.is_null() {
        // SAFETY: leaked by `begin`, and the SSL's alone. Its BIOs read and write no more.
        drop(unsafe { Box::from_raw(trace.cast::<Trace>()) });
    }
}
