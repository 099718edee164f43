//! mod_log_config, found at run time: a request whose connection was handed over gets no line when
//! it ends. Its lines are kept as far as they are known, and somebody completes and writes them
//! when the tunnel has ended.
//!
//! Each item of a LogFormat is a function that some module registers with mod_log_config. This one
//! looks on while they are registered, and puts itself before those that say how long a request
//! took and how many bytes it had: for every request but these it calls what was registered. And
//! it wraps the function that writes lines.

use std::ffi::{CStr, c_char, c_int, c_void};
use std::os::fd::BorrowedFd;
use std::sync::atomic::{AtomicBool, AtomicPtr, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use super::connection::Connection;
use super::guard::guard;
use super::noted::Noted;
use super::pool::Pool;
use super::proxy::Names;
use super::request::Request;
use super::sys;

/// What the module does with lines of access logs.
pub(crate) trait AccessLogHooks {
    /// The names of `%{name}^WS`.
    const NAMES: &'static [&'static str];

    /// A line that is to be completed later, as bytes that say so.
    fn keep(line: &Line<'_>) -> Vec<u8>;
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
    /// The value of an item that is not: one of those below, or [`OWN`] and more for
    /// [`AccessLogHooks::NAMES`].
    Item(u8),
}

/// `%D`.
pub(crate) const MICROS: u8 = 0;
/// `%T` and `%{s}T`.
pub(crate) const SECONDS: u8 = 1;
/// `%{ms}T`.
pub(crate) const MILLIS: u8 = 2;
/// `%{us}T`.
pub(crate) const MICROS_TOO: u8 = 3;
/// `%I`.
pub(crate) const BYTES_IN: u8 = 4;
/// `%O`.
pub(crate) const BYTES_OUT: u8 = 5;
/// `%S`.
pub(crate) const BYTES_BOTH: u8 = 6;
/// The first of [`AccessLogHooks::NAMES`].
pub(crate) const OWN: u8 = 7;

/// The items that this module puts itself before, as they are registered.
const TAGS: [&CStr; 5] = [c"D", c"T", c"I", c"O", c"S"];
const TAG_D: usize = 0;
const TAG_T: usize = 1;
const TAG_I: usize = 2;
const TAG_O: usize = 3;
const TAG_S: usize = 4;

/// The functions that were registered for them. Written by the parent while it configures, like all
/// statics here.
static REGISTERED: [AtomicPtr<c_void>; TAGS.len()] =
    [const { AtomicPtr::new(std::ptr::null_mut()) }; TAGS.len()];

/// mod_log_config's `ap_register_log_handler`.
static REGISTER: AtomicPtr<c_void> = AtomicPtr::new(std::ptr::null_mut());
/// Its writer, as it is without further directives.
static DEFAULT_WRITER: AtomicPtr<c_void> = AtomicPtr::new(std::ptr::null_mut());
/// The writer, and what opens a log, that this module has put itself before.
static WRITER: AtomicPtr<c_void> = AtomicPtr::new(std::ptr::null_mut());
static OPENER: AtomicPtr<c_void> = AtomicPtr::new(std::ptr::null_mut());
/// Some other module writes the logs.
static IS_FOREIGN: AtomicBool = AtomicBool::new(false);

/// A log that is open.
struct Opened {
    /// As CustomLog names it.
    name: Box<[u8]>,
    /// What mod_log_config knows it by. Only compared.
    handle: usize,
    /// Where its lines go, each in one write.
    fd: BorrowedFd<'static>,
}

/// The logs of this configuration.
static OPENED: Mutex<Vec<Opened>> = Mutex::new(Vec::new());

fn opened<T>(look: impl FnOnce(&mut Vec<Opened>) -> T) -> T {
    look(&mut OPENED.lock().unwrap_or_else(PoisonError::into_inner))
}

/// The configuration that has them: when its pool is cleared, nothing is left of them. What a static
/// has on the heap would stay there when the library is unloaded.
struct OfConfiguration;

impl Drop for OfConfiguration {
    fn drop(&mut self) {
        opened(|logs| *logs = Vec::new());
    }
}

/// Where lines of the log of this name go. `None` if this configuration has none.
pub(crate) fn log(name: &[u8]) -> Option<BorrowedFd<'static>> {
    opened(|logs| logs.iter().find(|log| &*log.name == name).map(|log| log.fd))
}

/// Whether another module has put its own writer in the place of mod_log_config's.
pub(crate) fn is_foreign() -> bool {
    IS_FOREIGN.load(Ordering::Relaxed)
}

impl Connection<'_> {
    /// Notes what becomes of the lines of `r`, the last request of this connection. They can be kept
    /// where mod_log_config's own writer writes them.
    pub(crate) fn note_tunnel(&self, r: Request<'_>, noted: Noted) {
        let is_kept = noted.is_kept && !WRITER.load(Ordering::Relaxed).is_null();
        let request = r.as_ptr().addr();
        self.set_noted(Some(Box::new(Noted { request, is_kept, ..noted })));
    }
}

/// Calls `look` with what is noted of the last request of its connection.
fn noted<T>(r: Request<'_>, look: impl FnOnce(&mut Noted) -> T) -> Option<T> {
    let c = r.connection()?;
    let mut noted = c.take_noted()?;
    // One before it on the same connection has its own line.
    let is_it =
        std::iter::successors(Some(r), |r| r.next()).any(|r| r.as_ptr().addr() == noted.request);
    let result = is_it.then(|| look(&mut noted));
    c.set_noted(Some(noted));
    result
}

/// Texts that stand for items whose values are not known yet. Their addresses say which: no text
/// of a client has one of these.
struct Marks([[u8; 2]; 32]);

static MARKS: Marks = Marks([*b"-\0"; 32]);

impl Marks {
    fn of(&'static self, item: u8) -> *const c_char {
        self.0.get(usize::from(item)).map_or(std::ptr::null(), |mark| mark.as_ptr().cast())
    }

    fn item(&'static self, text: *const c_char) -> Option<u8> {
        let offset = text.addr().checked_sub(self.0.as_ptr().addr())?;
        u8::try_from(offset / 2).ok().filter(|item| usize::from(*item) < self.0.len())
    }
}

type Item = unsafe extern "C" fn(*mut sys::request_rec, *mut c_char) -> *const c_char;
type Register = unsafe extern "C" fn(*mut sys::apr_pool_t, *mut c_char, Option<Item>, c_int);
type Writer = unsafe extern "C" fn(
    *mut sys::request_rec,
    *mut c_void,
    *mut *const c_char,
    *mut c_int,
    c_int,
    sys::apr_size_t,
) -> sys::apr_status_t;
type Opener =
    unsafe extern "C" fn(*mut sys::apr_pool_t, *mut sys::server_rec, *const c_char) -> *mut c_void;
type SetWriter = unsafe extern "C" fn(Option<Writer>) -> *mut c_void;
type SetOpener = unsafe extern "C" fn(Option<Opener>) -> *mut c_void;

/// Functions of C as pointers and back.
macro_rules! function {
    ($pointer:expr => $type:ty) => {{
        let pointer: *mut c_void = $pointer;
        // SAFETY: NULL, or a function that its owner declares with this type: mod_log_config.h.
        unsafe { std::mem::transmute::<*mut c_void, Option<$type>>(pointer) }
    }};
}

fn retrieve(name: &CStr) -> *mut c_void {
    // SAFETY: looks the name up.
    let found = unsafe { sys::apr_dynamic_fn_retrieve(name.as_ptr()) };
    found.map_or(std::ptr::null_mut(), |function| function as *mut c_void)
}

const REGISTER_NAME: &CStr = c"ap_register_log_handler";
const SET_WRITER: &CStr = c"ap_log_set_writer";
const SET_OPENER: &CStr = c"ap_log_set_writer_init";

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
        opened(Vec::clear);
        for place in REGISTERED.iter().chain([&REGISTER, &DEFAULT_WRITER, &WRITER, &OPENER]) {
            place.store(std::ptr::null_mut(), Ordering::Relaxed);
        }
        IS_FOREIGN.store(false, Ordering::Relaxed);
        let register = retrieve(REGISTER_NAME);
        let own: Register = register_item;
        if register.is_null() || register == own as *mut c_void {
            return;
        }
        REGISTER.store(register, Ordering::Relaxed);
        if let Some(register) = function!(register => Register) {
            // SAFETY: mod_log_config keeps the name, and the function for this configuration.
            unsafe { register(pconf, c"^WS".as_ptr().cast_mut(), Some(item::<H>), 0) };
        }
        // SAFETY: a module that asks for the function of this name gets one of the same type.
        unsafe {
            sys::apr_dynamic_fn_register(
                REGISTER_NAME.as_ptr(),
                Some(std::mem::transmute::<Register, unsafe extern "C" fn()>(own)),
            );
        }
    });
    sys::OK
}

/// What all modules call to register an item.
unsafe extern "C" fn register_item(
    pool: *mut sys::apr_pool_t,
    tag: *mut c_char,
    function: Option<Item>,
    of_original: c_int,
) {
    guard((), || {
        let Some(register) = function!(REGISTER.load(Ordering::Relaxed) => Register) else {
            return;
        };
        // SAFETY: the caller passes a name that is NUL-terminated.
        let name = (!tag.is_null()).then(|| unsafe { CStr::from_ptr(tag) });
        let known = TAGS.iter().position(|known| name == Some(known));
        let own: [Item; TAGS.len()] = [
            standard::<TAG_D>,
            standard::<TAG_T>,
            standard::<TAG_I>,
            standard::<TAG_O>,
            standard::<TAG_S>,
        ];
        let function = match (known, function) {
            (Some(at), Some(function)) => {
                REGISTERED[at].store(function as *mut c_void, Ordering::Relaxed);
                Some(own[at])
            }
            (_, function) => function,
        };
        // SAFETY: as the caller calls it, or with a function of the same type in the place of its own.
        unsafe { register(pool, tag, function, of_original) };
    });
}

/// After mod_log_config has set its own writer, before any directive sets another one.
unsafe extern "C" fn after_items(
    _pconf: *mut sys::apr_pool_t,
    _plog: *mut sys::apr_pool_t,
    _ptemp: *mut sys::apr_pool_t,
) -> c_int {
    guard((), || {
        let Some(set) = function!(retrieve(SET_WRITER) => SetWriter) else { return };
        // SAFETY: sets no writer, and returns that which was set.
        let writer = unsafe { set(None) };
        let again = function!(writer => Writer);
        // SAFETY: sets it again at once.
        unsafe { set(again) };
        DEFAULT_WRITER.store(writer, Ordering::Relaxed);
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
        let (set_writer, set_opener) = (retrieve(SET_WRITER), retrieve(SET_OPENER));
        let (Some(set), Some(set_open)) =
            (function!(set_writer => SetWriter), function!(set_opener => SetOpener))
        else {
            return;
        };
        // SAFETY: functions of this library, of the types that mod_log_config declares.
        let (writer, opener) = unsafe { (set(Some(write::<H>)), set_open(Some(open))) };
        let of_log_config = object(set_writer);
        let is_known = [writer, opener].iter().all(|one| object(*one) == of_log_config);
        if is_known && !REGISTER.load(Ordering::Relaxed).is_null() {
            WRITER.store(writer, Ordering::Relaxed);
            OPENER.store(opener, Ordering::Relaxed);
            // SAFETY: httpd passes the pool of the configuration. The pool of the logs, which outlives
            // this library, is another one.
            if let Some(pool) = unsafe { Pool::from_raw(pconf) } {
                pool.own(OfConfiguration);
            }
            return;
        }
        let (writer, opener) = (function!(writer => Writer), function!(opener => Opener));
        // SAFETY: as it was.
        unsafe { (set(writer), set_open(opener)) };
        IS_FOREIGN.store(true, Ordering::Relaxed);
    });
    sys::OK
}

/// Where the file is in memory that has this function.
fn object(function: *mut c_void) -> Option<usize> {
    let mut info = std::mem::MaybeUninit::<libc::Dl_info>::zeroed();
    // SAFETY: only compares the address; writes to `info`.
    let found = unsafe { libc::dladdr(function, info.as_mut_ptr()) };
    // SAFETY: written by the call, or zero, which is valid.
    (found != 0).then(|| unsafe { info.assume_init() }.dli_fbase.addr())
}

/// Opens a log, and remembers where its lines go.
unsafe extern "C" fn open(
    pool: *mut sys::apr_pool_t,
    server: *mut sys::server_rec,
    name: *const c_char,
) -> *mut c_void {
    guard(std::ptr::null_mut(), || {
        let Some(open) = function!(OPENER.load(Ordering::Relaxed) => Opener) else {
            return std::ptr::null_mut();
        };
        // SAFETY: as mod_log_config calls it.
        let handle = unsafe { open(pool, server, name) };
        if !handle.is_null() && !name.is_null() {
            // SAFETY: as above.
            let name = unsafe { CStr::from_ptr(name) }.to_bytes();
            // SAFETY: made by mod_log_config just now.
            if let Some(fd) = unsafe { descriptor(handle) }
                .filter(|fd| os::log_file::is_one(*fd, name.starts_with(b"|")))
            {
                let handle = handle.addr();
                opened(|logs| logs.push(Opened { name: name.into(), handle, fd }));
            }
        }
        handle
    })
}

/// The descriptor of a log: its handle is an APR file or, with BufferedLogs, begins with a pointer
/// to one.
///
/// # Safety
/// `handle` was made by mod_log_config of httpd 2.4, whose writer is the one of this configuration.
unsafe fn descriptor(handle: *mut c_void) -> Option<BorrowedFd<'static>> {
    let is_buffered = WRITER.load(Ordering::Relaxed) != DEFAULT_WRITER.load(Ordering::Relaxed);
    let file: *mut sys::apr_file_t = if is_buffered {
        // SAFETY: by the caller.
        unsafe { *handle.cast() }
    } else {
        handle.cast()
    };
    if file.is_null() {
        return None;
    }
    let mut fd: sys::apr_os_file_t = -1;
    // SAFETY: by the caller; `fd` is ours.
    let rv = unsafe { sys::apr_os_file_get(&raw mut fd, file) };
    // SAFETY: it is open for as long as the logs of this configuration, which are those of the
    // process: a child has no other, and the parent forgets it before it opens others.
    (rv == 0 && fd >= 0).then(|| unsafe { BorrowedFd::borrow_raw(fd) })
}

/// An item that this module has put itself before.
unsafe extern "C" fn standard<const TAG: usize>(
    r: *mut sys::request_rec,
    argument: *mut c_char,
) -> *const c_char {
    guard(std::ptr::null(), || {
        // SAFETY: mod_log_config passes a live request.
        let is_kept = unsafe { Request::from_raw(r) }
            .and_then(|r| noted(r, |noted| noted.is_kept))
            .unwrap_or(false);
        // SAFETY: as above, and an argument that is NUL-terminated.
        match is_kept.then(|| unsafe { item_of(TAG, argument) }).flatten() {
            Some(item) => MARKS.of(item),
            // SAFETY: as mod_log_config calls it.
            None => unsafe { registered(TAG, r, argument) },
        }
    })
}

/// # Safety
/// `argument` is NULL, or NUL-terminated.
unsafe fn item_of(tag: usize, argument: *const c_char) -> Option<u8> {
    let argument = if argument.is_null() {
        b""
    } else {
        // SAFETY: by the caller.
        unsafe { CStr::from_ptr(argument) }.to_bytes()
    };
    match (tag, argument.to_ascii_lowercase().as_slice()) {
        (TAG_D, _) => Some(MICROS),
        (TAG_T, b"" | b"s") => Some(SECONDS),
        (TAG_T, b"ms") => Some(MILLIS),
        (TAG_T, b"us") => Some(MICROS_TOO),
        (TAG_I, _) => Some(BYTES_IN),
        (TAG_O, _) => Some(BYTES_OUT),
        (TAG_S, _) => Some(BYTES_BOTH),
        _ => None,
    }
}

/// What an item is without this module.
///
/// # Safety
/// As mod_log_config calls it.
unsafe fn registered(tag: usize, r: *mut sys::request_rec, argument: *mut c_char) -> *const c_char {
    match function!(REGISTERED[tag].load(Ordering::Relaxed) => Item) {
        // SAFETY: by the caller.
        Some(item) => unsafe { item(r, argument) },
        None => std::ptr::null(),
    }
}

/// The value of an item that is a number, for a request as it is now.
///
/// # Safety
/// `r` is alive.
unsafe fn number(tag: usize, r: *mut sys::request_rec) -> u64 {
    // SAFETY: these take an empty argument and return NULL, or text in the request's pool.
    let text = unsafe { registered(tag, r, c"".as_ptr().cast_mut()) };
    if text.is_null() {
        return 0;
    }
    // SAFETY: as above.
    let text = unsafe { CStr::from_ptr(text) };
    text.to_str().ok().and_then(|text| text.parse().ok()).unwrap_or(0)
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
        let shown = noted(r, |noted| match (noted.values.get(at), own) {
            (Some(Some(text)), _) => pool.copy(text.as_bytes()).as_ptr().cast_const(),
            (_, Some(own)) if noted.is_kept => MARKS.of(own),
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
    guard(sys::APR_EGENERAL as sys::apr_status_t, || {
        let writer = function!(WRITER.load(Ordering::Relaxed) => Writer);
        let Some(writer) = writer else { return sys::APR_EGENERAL as sys::apr_status_t };
        // SAFETY: mod_log_config passes a live request, and `count` texts and their lengths, which
        // live in its pool.
        let (request, texts_now, lengths_now) = unsafe {
            let count = usize::try_from(count).unwrap_or(0);
            let all = |count| {
                (
                    std::slice::from_raw_parts_mut(texts, count),
                    std::slice::from_raw_parts_mut(lengths, count),
                )
            };
            let (texts, lengths) = if count == 0 { Default::default() } else { all(count) };
            (Request::from_raw(r), texts, lengths)
        };
        let keeps = request
            .and_then(|r| noted(r, |noted| (noted.is_kept, noted.is_written, noted.read_ahead)));
        let (Some(request), Some((true, is_written, read_ahead))) = (request, keeps) else {
            // SAFETY: as mod_log_config calls it.
            return unsafe { writer(r, handle, texts, lengths, count, length) };
        };
        let name = opened(|logs| {
            let log = logs.iter().find(|log| log.handle == handle.addr())?;
            Some(log.name.clone())
        });
        if let Some(name) = &name {
            let portions = texts_now.iter().zip(&*lengths_now).map(|(text, length)| {
                match (MARKS.item(*text), usize::try_from(*length)) {
                    (Some(item), _) => Portion::Item(item),
                    (None, Ok(length)) => {
                        // SAFETY: a text of this length, see above.
                        Portion::Text(unsafe { std::slice::from_raw_parts(text.cast(), length) })
                    }
                    (None, Err(_)) => Portion::Text(&[]),
                }
            });
            let first =
                std::iter::successors(Some(request), |r| r.previous()).last().unwrap_or(request);
            // SAFETY: both are alive.
            let (micros, bytes_in, bytes_out) =
                unsafe { (number(TAG_D, first.as_ptr()), number(TAG_I, r), number(TAG_O, r)) };
            let line = Line {
                log: name,
                since: Duration::from_micros(micros),
                bytes: [bytes_in.saturating_sub(read_ahead), bytes_out],
                portions: portions.collect(),
            };
            let kept = H::keep(&line);
            noted(request, |noted| {
                // A tunnel holds them for long, and there may be very many.
                noted.lines.reserve_exact(kept.len());
                noted.lines.extend_from_slice(&kept);
            });
        }
        // Of a log that this module cannot write to, as that of another program than a file or a
        // pipe, this is the only line.
        if !is_written && name.is_some() {
            return sys::APR_SUCCESS as sys::apr_status_t;
        }
        // SAFETY: the request is alive; texts and lengths are those of this one line.
        let length = unsafe { fill(request, texts_now, lengths_now) };
        // SAFETY: as mod_log_config calls it.
        unsafe { writer(r, handle, texts, lengths, count, length) }
    })
}

/// Puts the values that items have now in the place of the marks, and returns how long the line is.
///
/// # Safety
/// The request is alive.
unsafe fn fill(r: Request<'_>, texts: &mut [*const c_char], lengths: &mut [c_int]) -> usize {
    let first = std::iter::successors(Some(r), |r| r.previous()).last().unwrap_or(r);
    let of = |tag, r: Request<'_>, argument: &CStr| {
        // SAFETY: by the caller; the argument is one that the item takes.
        unsafe { registered(tag, r.as_ptr(), argument.as_ptr().cast_mut()) }
    };
    let mut all = 0;
    for (text, length) in texts.iter_mut().zip(lengths) {
        let now = match MARKS.item(*text) {
            Some(MICROS) => of(TAG_D, first, c""),
            Some(SECONDS) => of(TAG_T, first, c"s"),
            Some(MILLIS) => of(TAG_T, first, c"ms"),
            Some(MICROS_TOO) => of(TAG_T, first, c"us"),
            Some(BYTES_IN) => of(TAG_I, r, c""),
            Some(BYTES_OUT) => of(TAG_O, r, c""),
            Some(BYTES_BOTH) => of(TAG_S, r, c""),
            _ => std::ptr::null(),
        };
        if !now.is_null() {
            *text = now;
            // SAFETY: text in the request's pool.
            let bytes = unsafe { CStr::from_ptr(now) }.count_bytes();
            *length = c_int::try_from(bytes).unwrap_or(0);
        }
        all += usize::try_from(*length).unwrap_or(0);
    }
    all
}
