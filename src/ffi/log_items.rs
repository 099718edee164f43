//! The items of access logs that say how long a request took and how many bytes it had. Each is a
//! function that some module registers with mod_log_config. This module looks on meanwhile, and puts
//! itself before them: a request whose lines are kept gets a mark for each, and for every other
//! request it calls what was registered.

use std::ffi::{CStr, c_char, c_int};

use super::guard::guard;
use super::log_config::{self, Item, Place, Register};
use super::noted::Noted;
use super::request::Request;
use super::sys;

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
/// The first of [`AccessLogHooks::NAMES`](super::access_log::AccessLogHooks::NAMES).
pub(crate) const OWN: u8 = 7;

/// The items that this module puts itself before, as they are registered.
const TAGS: [&CStr; 5] = [c"D", c"T", c"I", c"O", c"S"];
const TAG_D: usize = 0;
const TAG_T: usize = 1;
const TAG_I: usize = 2;
const TAG_O: usize = 3;
const TAG_S: usize = 4;

/// The functions that were registered for them.
static REGISTERED: [Place<Item>; TAGS.len()] = [const { Place::new() }; TAGS.len()];

/// mod_log_config's `ap_register_log_handler`.
static REGISTER: Place<Register> = Place::new();

/// Texts that stand for items whose values are not known yet. Their addresses say which: no text
/// of a client has one of these.
struct Marks([[u8; 2]; 32]);

static MARKS: Marks = Marks([*b"-\0"; 32]);

/// The mark of an item, NULL if there are not so many.
pub(super) fn mark(item: u8) -> *const c_char {
    MARKS.0.get(usize::from(item)).map_or(std::ptr::null(), |mark| mark.as_ptr().cast())
}

/// Which item this text is the mark of. Only its address is looked at.
pub(super) fn marked(text: *const c_char) -> Option<u8> {
    let offset = text.addr().checked_sub(MARKS.0.as_ptr().addr())?;
    u8::try_from(offset / 2).ok().filter(|item| usize::from(*item) < MARKS.0.len())
}

/// A configuration begins, and no item was registered yet: looks on from here. `own` is that of
/// this module. `false` without mod_log_config.
///
/// # Safety
/// Called by a hook of pre_config, with its pool.
pub(super) unsafe fn look_on(pconf: *mut sys::apr_pool_t, own: Item) {
    REGISTERED.iter().for_each(|place| place.set(None));
    REGISTER.set(None);
    let through: Register = register_item;
    let Some(register) = log_config::registers() else { return };
    if std::ptr::fn_addr_eq(register, through) {
        return;
    }
    REGISTER.set(Some(register));
    // SAFETY: mod_log_config keeps the name, and the function for this configuration.
    unsafe { register(pconf, c"^WS".as_ptr().cast_mut(), Some(own), 0) };
    log_config::register_by(through);
}

/// Whether it could.
pub(super) fn looks_on() -> bool {
    REGISTER.get().is_some()
}

/// What all modules call to register an item.
unsafe extern "C" fn register_item(
    pool: *mut sys::apr_pool_t,
    tag: *mut c_char,
    function: Option<Item>,
    of_original: c_int,
) {
    guard((), || {
        let Some(register) = REGISTER.get() else { return };
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
                REGISTERED[at].set(Some(function));
                Some(own[at])
            }
            (_, function) => function,
        };
        // SAFETY: as the caller calls it, or with a function of the same type in the place of its own.
        unsafe { register(pool, tag, function, of_original) };
    });
}

/// Calls `look` with what is noted of the last request of its connection.
pub(super) fn noted<T>(r: Request<'_>, look: impl FnOnce(&mut Noted) -> T) -> Option<T> {
    let c = r.connection()?;
    let mut noted = c.take_noted()?;
    // One before it on the same connection has its own line.
    let is_it =
        std::iter::successors(Some(r), |r| r.next()).any(|r| r.as_ptr().addr() == noted.request);
    let result = is_it.then(|| look(&mut noted));
    c.set_noted(Some(noted));
    result
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
            Some(item) => mark(item),
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
    match REGISTERED[tag].get() {
        // SAFETY: by the caller.
        Some(item) => unsafe { item(r, argument) },
        None => std::ptr::null(),
    }
}

/// The text that an item of those that have marks has now, NUL-terminated and in the pool of the
/// request. `None` for items of this module, and those that no module has registered.
pub(super) fn now<'r>(r: Request<'r>, item: u8) -> Option<&'r CStr> {
    // How long it took is said of the first of a chain of requests.
    let first = || std::iter::successors(Some(r), |r| r.previous()).last().unwrap_or(r);
    let (tag, of, argument) = match item {
        MICROS => (TAG_D, first(), c""),
        SECONDS => (TAG_T, first(), c"s"),
        MILLIS => (TAG_T, first(), c"ms"),
        MICROS_TOO => (TAG_T, first(), c"us"),
        BYTES_IN => (TAG_I, r, c""),
        BYTES_OUT => (TAG_O, r, c""),
        BYTES_BOTH => (TAG_S, r, c""),
        _ => return None,
    };
    // SAFETY: the request is alive; the argument is one that the item takes, and does not change.
    let text = unsafe { registered(tag, of.as_ptr(), argument.as_ptr().cast_mut()) };
    // SAFETY: text of an item is NUL-terminated, and lives as long as the request.
    (!text.is_null()).then(|| unsafe { CStr::from_ptr(text) })
}

/// The same as a number, 0 if it is none.
pub(super) fn number(r: Request<'_>, item: u8) -> u64 {
    let text = now(r, item).and_then(|text| text.to_str().ok());
    text.and_then(|text| text.parse().ok()).unwrap_or(0)
}
