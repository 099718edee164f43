//! What is noted of a session while it is its owner's, so that it can leave OpenSSL.
//!
//! OpenSSL's own callbacks tell it: the keylog callback of the SSL_CTX the secrets of TLS 1.3, a
//! callback of each BIO the bytes that really went, in the order in which they did. The BIOs are the
//! owner's, and are there when the handshake begins, which the SSL's info callback tells. A [`Trace`]
//! is the SSL's (ex_data): it goes when that is freed.

use std::ffi::{CStr, c_char, c_int, c_long, c_void};
use std::ptr;
use std::slice;
use std::sync::RwLock;
use std::sync::atomic::AtomicPtr;
use std::sync::atomic::Ordering::{Acquire, Release};

use crate::context::Context;
use crate::follower::Follower;
use crate::library::Library;
use crate::native_symbols::{
    BIO_CB_READ, BIO_CB_RETURN, BIO_CB_WRITE, BioCallback, CB_HANDSHAKE_START, EX_INDEX_BIO,
    EX_INDEX_SSL, KeylogCallback, NativeFunctions,
};
use crate::reason::Reason;
use crate::symbols::{Bio, Functions, Ssl, SslCtx};

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

fn tracing() -> Option<&'static Tracing> {
    // SAFETY: null, or leaked by `Tracing::start`.
    unsafe { TRACING.load(Acquire).as_ref() }
}

/// The keylog callback that an SSL_CTX had before ours.
struct Former {
    /// The address of the SSL_CTX.
    ctx: usize,
    callback: KeylogCallback,
    /// SSL_get_SSL_CTX, also where no session is native.
    get_ssl_ctx: unsafe extern "C" fn(*const Ssl) -> *mut SslCtx,
}

/// Of all SSL_CTXs that had one.
static FORMER: RwLock<Vec<Former>> = RwLock::new(Vec::new());

/// The longest traffic secret (SHA-384).
const MAX_SECRET_BYTES: usize = 48;

/// A secret of a direction, as the keylog had it.
#[derive(Default)]
struct Logged {
    bytes: [[u8; 16]; MAX_SECRET_BYTES / 16],
    length: usize,
}

impl Logged {
    fn bytes(&self) -> &[u8] {
        &self.bytes.as_flattened()[..self.length]
    }

    fn wipe(&mut self) {
        records::wipe(self.bytes.as_flattened_mut());
        self.length = 0;
    }

    /// Takes it from hexadecimal digits; none if those are not what they should be.
    fn set(&mut self, hex: &[u8]) {
        self.wipe();
        let digit = |byte: u8| char::from(byte).to_digit(16).and_then(|n| u8::try_from(n).ok());
        let bytes = self.bytes.as_flattened_mut();
        if hex.len() % 2 != 0 || hex.len() / 2 > bytes.len() {
            return;
        }
        for (byte, pair) in bytes.iter_mut().zip(hex.chunks_exact(2)) {
            let (Some(high), Some(low)) = (digit(pair[0]), digit(pair[1])) else {
                return;
            };
            *byte = high << 4 | low;
        }
        self.length = hex.len() / 2;
    }
}

/// One direction.
#[derive(Default)]
pub(crate) struct Way {
    secret: Logged,
    pub follower: Follower,
}

impl Way {
    /// The secret of TLS 1.3; empty if there was none.
    pub(crate) fn secret(&self) -> &[u8] {
        self.secret.bytes()
    }
}

/// What is noted of a session.
pub(crate) struct Trace {
    pub received: Way,
    pub sent: Way,
    rbio: *mut Bio,
    wbio: *mut Bio,
    /// Of the BIOs when it began.
    bytes_before: [u64; 2],
    /// A record that was sealed may not have gone.
    has_failed_writes: bool,
}

impl Drop for Trace {
    fn drop(&mut self) {
        self.received.secret.wipe();
        self.sent.secret.wipe();
    }
}

impl Tracing {
    /// Sets up what traces need, once in a process.
    pub(crate) fn start(library: &Library, native: NativeFunctions) -> Option<()> {
        if tracing().is_some() {
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
            let bytes_before = [(native.BIO_number_read)(rbio), (native.BIO_number_written)(wbio)];
            let trace = Box::new(Trace {
                received: Way::default(),
                sent: Way::default(),
                rbio,
                wbio,
                bytes_before,
                has_failed_writes: false,
            });
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
    unsafe fn take(&self, ssl: *mut Ssl) -> Result<Box<Trace>, Reason> {
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
            // Nothing went by the callbacks.
            let [read, written] = trace.bytes_before;
            let received = (native.BIO_number_read)(rbio).wrapping_sub(read);
            let sent = (native.BIO_number_written)(wbio).wrapping_sub(written);
            if received != trace.received.follower.bytes || sent != trace.sent.follower.bytes {
                return Err(Reason::Untraced);
            }
            let is_between = |way: &Way| way.follower.is_between_records();
            if trace.has_failed_writes || !is_between(&trace.received) || !is_between(&trace.sent) {
                return Err(Reason::Unfinished);
            }
            Ok(trace)
        }
    }
}

impl Library {
    /// The function that this OpenSSL has not, for want of which no session can be native.
    pub fn lacks_for_native(&self) -> Option<&'static str> {
        self.native.err()
    }

    /// Has the sessions of an SSL_CTX tell their secrets to their traces. A keylog callback that is
    /// there goes on being called. Does nothing where [`lacks_for_native`](Self::lacks_for_native)
    /// names something, or if it was done before.
    ///
    /// # Safety
    /// `ctx` is a live SSL_CTX of this library, and no session of it has begun. This module stays
    /// loaded for as long as it has sessions.
    pub unsafe fn trace_context(&self, ctx: *mut SslCtx) {
        let Ok(table) = &self.native else { return };
        let native = &table.functions;
        let Ok(mut all) = FORMER.write() else { return };
        // SAFETY: a live SSL_CTX, by the caller.
        unsafe {
            let former = (native.SSL_CTX_get_keylog_callback)(ctx);
            if former.is_some_and(|former| ptr::fn_addr_eq(former, keylog as KeylogCallback)) {
                return;
            }
            // Of one that is gone and had the same address.
            all.retain(|former| former.ctx != ctx.addr());
            let get_ssl_ctx = native.SSL_get_SSL_CTX;
            all.extend(former.map(|callback| Former { ctx: ctx.addr(), callback, get_ssl_ctx }));
            (native.SSL_CTX_set_keylog_callback)(ctx, Some(keylog));
        }
    }
}

impl Context {
    /// Has a session followed from its handshake on, if sessions of this context can be native. What
    /// is noted is the SSL's, and wiped and freed when it is.
    ///
    /// # Safety
    /// `ssl` is a live SSL of the context's library, of an SSL_CTX that was given to
    /// [`Library::trace_context`], whose handshake has not begun. One thread at a time uses it.
    pub unsafe fn trace(&self, ssl: *mut Ssl) {
        let Some(tracing) = tracing().filter(|_| self.native.is_ok()) else { return };
        // SAFETY: by the caller.
        unsafe {
            if (tracing.native.SSL_get_info_callback)(ssl).is_none() {
                (tracing.functions.SSL_set_info_callback)(ssl, Some(info));
            }
        }
    }

    /// The trace of a session that its owner has let go of.
    ///
    /// # Errors
    /// Why it cannot be used.
    ///
    /// # Safety
    /// A live SSL of the context's library, used by this thread alone.
    pub(crate) unsafe fn take_trace(&self, ssl: *mut Ssl) -> Result<Box<Trace>, Reason> {
        let tracing = tracing().filter(|_| self.native.is_ok()).ok_or(Reason::Off)?;
        // SAFETY: by the caller.
        unsafe { tracing.take(ssl) }
    }
}

/// The info callback of an SSL: does what that of the SSL_CTX does, and begins the trace.
unsafe extern "C" fn info(ssl: *const Ssl, place: c_int, value: c_int) {
    let Some(tracing) = tracing() else { return };
    let native = &tracing.native;
    // SAFETY: OpenSSL calls this with a live SSL, whose thread this is. It is const by custom: what
    // gets it in the same callbacks of mod_ssl changes it too.
    unsafe {
        if place == CB_HANDSHAKE_START {
            (tracing.functions.SSL_set_info_callback)(ssl.cast_mut(), None);
            tracing.begin(ssl.cast_mut());
        }
        if let Some(of_ctx) = (native.SSL_CTX_get_info_callback)((native.SSL_get_SSL_CTX)(ssl)) {
            of_ctx(ssl, place, value);
        }
    }
}

/// The keylog callback: takes the secrets of data (RFC 8446 7.1), and passes all on.
unsafe extern "C" fn keylog(ssl: *const Ssl, line: *const c_char) {
    if let Some(tracing) = tracing() {
        // SAFETY: OpenSSL calls this with a live SSL, whose thread this is, and a C string.
        unsafe {
            if let Some(trace) = tracing.trace(ssl) {
                let is_server = (tracing.functions.SSL_is_server)(ssl) != 0;
                trace.note_secret(is_server, CStr::from_ptr(line).to_bytes());
            }
        }
    }
    let former = FORMER.read().ok().and_then(|all| {
        // SAFETY: a live SSL, by OpenSSL.
        let ctx = all.first().map(|any| unsafe { (any.get_ssl_ctx)(ssl) })?;
        Some(all.iter().find(|former| former.ctx == ctx.addr())?.callback)
    });
    if let Some(former) = former {
        // SAFETY: what OpenSSL would have called.
        unsafe { former(ssl, line) };
    }
}

impl Trace {
    /// A line of the keylog: label, client random and secret.
    fn note_secret(&mut self, is_server: bool, line: &[u8]) {
        let mut words = line.split(|byte| *byte == b' ');
        let (Some(label), Some(_), Some(hex)) = (words.next(), words.next(), words.next()) else {
            return;
        };
        // "_0", or "_N" for those that follow a KeyUpdate.
        let is_clients = match label {
            b"CLIENT_TRAFFIC_SECRET_0" | b"CLIENT_TRAFFIC_SECRET_N" => true,
            b"SERVER_TRAFFIC_SECRET_0" | b"SERVER_TRAFFIC_SECRET_N" => false,
            _ => return,
        };
        let way = if is_clients == is_server { &mut self.received } else { &mut self.sent };
        way.secret.set(hex);
        way.follower.new_keys();
    }
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
        && let Some(tracing) = tracing()
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
