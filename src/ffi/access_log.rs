//! mod_log_config, found at run time: a request whose connection was handed over gets no line when
//! it ends. Its lines are kept as far as they are known, and somebody completes and writes them
//! when the tunnel has ended.
//!
//! This module puts itself before the items that are not known yet ([`log_items`]), before what opens
//! the logs ([`log_files`]), and before the function that writes lines.

use std::ffi::{CStr, c_char, c_int, c_void};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use super::connection::Connection;
use super::guard::guard;
use super::log_config::{Place, Writer, object, setters};
use super::log_files::{self, OfConfiguration};
use super::log_items::{self, BYTES_IN, BYTES_OUT, MICROS, OWN, mark, marked, noted, now, number};
use super::noted::Noted;
use super::pool::Pool;
use super::proxy::Names;
use super::request::Request;
use super::sys;

/// What the module does with lines of access logs.
pub(crate) trait AccessLogHooks {
    /// The names of `%{name}^WS`.
    const NAMES: &'static [&'static str];

    /// A line that is to be completed later, as bytes that say so, beside those of others of `r`, which
    /// take `others` bytes. `None` if that is too much: then it is written now.
    fn keep(r: Request<'_>, line: &Line<'_>, others: usize) -> Option<Vec<u8>>;
}

/// A line of an access log that is not complete.
pub(crate) struct Line<'l> {
    /// The log, as CustomLog names it.
    pub(crate) log: &'l [u8],
    /// How long the request has taken until now.
    pub(crate) since: Duration,
    /// How many bytes its connection has had until now: in, out.
    pub(crate) bytes: [u64; 2],
    /// What it is made of.
    pub(crate) portions: Vec<Portion<'l>>,
}

/// A part of a line.
#[derive(Clone, Copy)]
pub(crate) enum Portion<'l> {
    /// Text that is known.
    Text(&'l [u8]),
    /// The value of an item that is not: one of [`log_items`], or [`OWN`] and more for
    /// [`AccessLogHooks::NAMES`].
    Item(u8),
}

/// mod_log_config's writer as it is without further directives.
static DEFAULT_WRITER: Place<Writer> = Place::new();
/// The writer that this module has put itself before.
static WRITER: Place<Writer> = Place::new();
/// Some other module writes the logs.
static IS_FOREIGN: AtomicBool = AtomicBool::new(false);

/// Whether another module has put its own writer in the place of mod_log_config's.
pub(crate) fn is_foreign() -> bool {
    IS_FOREIGN.load(Ordering::Relaxed)
}

impl Connection<'_> {
    /// Notes what becomes of the lines of `r`, the last request of this connection. They can be kept
    /// where mod_log_config's own writer writes them.
    pub(crate) fn note_tunnel(&self, r: Request<'_>, noted: Noted) {
        let is_kept = noted.is_kept && WRITER.get().is_some();
        let request = r.as_ptr().addr();
        self.set_noted(Some(Box::new(Noted { request, is_kept, ..noted })));
    }
}

/// Registers the hooks.
pub(super) fn register<H: AccessLogHooks>() {
    static LOG_CONFIG: Names<2> = Names([c"mod_log_config.c".as_ptr(), std::ptr::null()]);
    static LOGGERS: Names<3> =
        Names([c"mod_log_config.c".as_ptr(), c"mod_logio.c".as_ptr(), std::ptr::null()]);
    let (first, none) = (sys::APR_HOOK_REALLY_FIRST, std::ptr::null());
    // SAFETY: httpd copies nothing but the pointers: functions and names of this library, which
    // stays loaded for as long as its hooks.
    unsafe {
        sys::ap_hook_pre_config(Some(before_items::<H>), none, LOGGERS.0.as_ptr(), first);
        sys::ap_hook_pre_config(Some(after_items), LOG_CONFIG.0.as_ptr(), none, first);
        sys::ap_hook_open_logs(Some(open_logs::<H>), none, LOG_CONFIG.0.as_ptr(), first);
    }
}

/// Before items are registered: looks on from here.
unsafe extern "C" fn before_items<H: AccessLogHooks>(
    pconf: *mut sys::apr_pool_t,
    _plog: *mut sys::apr_pool_t,
    _ptemp: *mut sys::apr_pool_t,
) -> c_int {
    guard((), || {
        log_files::forget();
        DEFAULT_WRITER.set(None);
        WRITER.set(None);
        IS_FOREIGN.store(false, Ordering::Relaxed);
        // SAFETY: this is a hook of pre_config.
        unsafe { log_items::look_on(pconf, item::<H>) };
    });
    sys::OK
}

/// After mod_log_config has set its own writer, before any directive sets another one.
unsafe extern "C" fn after_items(
    _pconf: *mut sys::apr_pool_t,
    _plog: *mut sys::apr_pool_t,
    _ptemp: *mut sys::apr_pool_t,
) -> c_int {
    guard((), || {
        let Some((set, _)) = setters() else { return };
        // SAFETY: sets no writer, and returns that which was set.
        let writer = unsafe { set(None) };
        // SAFETY: sets it again at once.
        unsafe { set(writer) };
        DEFAULT_WRITER.set(writer);
    });
    sys::OK
}

/// The directives were read, and mod_log_config is about to open its logs.
unsafe extern "C" fn open_logs<H: AccessLogHooks>(
    pconf: *mut sys::apr_pool_t,
    _plog: *mut sys::apr_pool_t,
    _ptemp: *mut sys::apr_pool_t,
    _server: *mut sys::server_rec,
) -> c_int {
    guard((), || {
        let Some((set_writer, set_opener)) = setters() else { return };
        // SAFETY: functions of this library, of the types that mod_log_config declares.
        let (writer, opener) =
            unsafe { (set_writer(Some(write::<H>)), set_opener(Some(log_files::open))) };
        let of_log_config = object(set_writer as *mut c_void);
        let [of_writer, of_opener] =
            [writer.map(|f| f as *mut c_void), opener.map(|f| f as *mut c_void)]
                .map(|function| function.and_then(object));
        let is_known = of_writer == of_log_config && of_opener == of_log_config;
        if is_known && log_items::looks_on() {
            WRITER.set(writer);
            let [now, default] =
                [writer, DEFAULT_WRITER.get()].map(|writer| writer.map(|f| f as usize));
            log_files::begin(opener, now != default);
            // SAFETY: httpd passes the pool of the configuration. The pool of the logs, which outlives
            // this library, is another one.
            if let Some(pool) = unsafe { Pool::from_raw(pconf) } {
                pool.own(OfConfiguration);
            }
            return;
        }
        // SAFETY: as it was.
        unsafe { (set_writer(writer), set_opener(opener)) };
        IS_FOREIGN.store(true, Ordering::Relaxed);
    });
    sys::OK
}

/// `%{name}^WS`.
unsafe extern "C" fn item<H: AccessLogHooks>(
    r: *mut sys::request_rec,
    name: *mut c_char,
) -> *const c_char {
    guard(std::ptr::null(), || {
        // SAFETY: mod_log_config passes a live request, and a name that is NUL-terminated.
        let (r, name) =
            unsafe { (Request::from_raw(r), (!name.is_null()).then(|| CStr::from_ptr(name))) };
        let (Some(r), Some(name)) = (r, name) else { return std::ptr::null() };
        let named = |known: &&str| known.as_bytes() == name.to_bytes();
        let (Some(at), Some(pool)) = (H::NAMES.iter().position(named), r.pool()) else {
            return std::ptr::null();
        };
        let own = u8::try_from(at).ok().and_then(|at| at.checked_add(OWN));
        let shown = noted(r, |noted| match ((noted.values)(at), own) {
            (Some(text), _) => pool.copy_for_log(text.as_bytes()).as_ptr().cast_const(),
            (_, Some(own)) if noted.is_kept => mark(own),
            _ => std::ptr::null(),
        });
        shown.unwrap_or(std::ptr::null())
    })
}

/// Writes a line, or keeps it.
unsafe extern "C" fn write<H: AccessLogHooks>(
    r: *mut sys::request_rec,
    handle: *mut c_void,
    texts: *mut *const c_char,
    lengths: *mut c_int,
    count: c_int,
    length: sys::apr_size_t,
) -> sys::apr_status_t {
    guard(sys::APR_EGENERAL, || {
        let Some(writer) = WRITER.get() else { return sys::APR_EGENERAL };
        // SAFETY: mod_log_config passes a live request.
        let request = unsafe { Request::from_raw(r) };
        let keeps = request.and_then(|r| {
            noted(r, |noted| (noted.is_kept, noted.is_written, noted.read_ahead, noted.lines.len()))
        });
        let (Some(request), Some((true, is_written, read_ahead, others))) = (request, keeps) else {
            // SAFETY: as mod_log_config calls it.
            return unsafe { writer(r, handle, texts, lengths, count, length) };
        };
        // SAFETY: mod_log_config passes so many texts and their lengths, which live as long as the
        // request; nobody else looks at them meanwhile.
        let Some(mut parts) = (unsafe { Parts::new(texts, lengths, count) }) else {
            return sys::APR_EGENERAL;
        };
        let name = log_files::name(handle);
        if let Some(name) = &name {
            let line = Line {
                log: name,
                since: Duration::from_micros(number(request, MICROS)),
                bytes: [
                    number(request, BYTES_IN).saturating_sub(read_ahead),
                    number(request, BYTES_OUT),
                ],
                portions: parts.portions(),
            };
            let kept = H::keep(request, &line, others);
            let is_later = kept.is_some() && !is_written;
            if let Some(kept) = kept {
                noted(request, |noted| {
                    // A tunnel holds them for long, and there may be very many.
                    noted.lines.reserve_exact(kept.len());
                    noted.lines.extend_from_slice(&kept);
                });
            }
            if is_later {
                return sys::APR_SUCCESS;
            }
        }
        // Of a log that is neither a file nor a pipe, and of a long line, this is the only one.
        let length = parts.fill(request);
        // SAFETY: as mod_log_config calls it; texts and lengths are those of this one line.
        unsafe { writer(r, handle, texts, lengths, count, length) }
    })
}

/// The parts of a line as mod_log_config has them.
struct Parts<'l> {
    texts: &'l mut [*const c_char],
    lengths: &'l mut [c_int],
}

impl<'l> Parts<'l> {
    /// # Safety
    /// So many texts, each of the length that stands at the same place, live for `'l`, and so do the
    /// two arrays, of which nobody else has a reference.
    unsafe fn new(texts: *mut *const c_char, lengths: *mut c_int, count: c_int) -> Option<Self> {
        let count = usize::try_from(count).ok()?;
        if texts.is_null() || lengths.is_null() {
            return None;
        }
        // SAFETY: by the caller.
        let (texts, lengths) = unsafe {
            (
                std::slice::from_raw_parts_mut(texts, count),
                std::slice::from_raw_parts_mut(lengths, count),
            )
        };
        Some(Self { texts, lengths })
    }

    fn portions(&self) -> Vec<Portion<'l>> {
        let portion = |(text, length): (&*const c_char, &c_int)| {
            match (marked(*text), usize::try_from(*length)) {
                (Some(item), _) => Portion::Item(item),
                (None, Ok(length)) if !text.is_null() => {
                    // SAFETY: a text of this length, see `new`.
                    Portion::Text(unsafe { std::slice::from_raw_parts(text.cast(), length) })
                }
                (None, _) => Portion::Text(&[]),
            }
        };
        self.texts.iter().zip(&*self.lengths).map(portion).collect()
    }

    /// Puts the values that items have now in the place of the marks, and returns how long the line is.
    fn fill(&mut self, r: Request<'l>) -> usize {
        let mut all = 0;
        for (text, length) in self.texts.iter_mut().zip(&mut *self.lengths) {
            if let Some(value) = marked(*text).and_then(|item| now(r, item)) {
                *text = value.as_ptr();
                *length = c_int::try_from(value.count_bytes()).unwrap_or(0);
            }
            all += usize::try_from(*length).unwrap_or(0);
        }
        all
    }
}
