//! What mod_log_config offers other modules: how its functions are called, found and kept.

use std::ffi::{CStr, c_char, c_int, c_void};
use std::marker::PhantomData;
use std::sync::atomic::{AtomicPtr, Ordering};

use super::sys;

/// Makes the text of an item (`ap_log_handler_fn_t`).
pub(super) type Item = unsafe extern "C" fn(*mut sys::request_rec, *mut c_char) -> *const c_char;
/// Registers an item.
pub(super) type Register =
    unsafe extern "C" fn(*mut sys::apr_pool_t, *mut c_char, Option<Item>, c_int);
/// Writes a line (`ap_log_writer`).
pub(super) type Writer = unsafe extern "C" fn(
    *mut sys::request_rec,
    *mut c_void,
    *mut *const c_char,
    *mut c_int,
    c_int,
    sys::apr_size_t,
) -> sys::apr_status_t;
/// Opens a log (`ap_log_writer_init`).
pub(super) type Opener =
    unsafe extern "C" fn(*mut sys::apr_pool_t, *mut sys::server_rec, *const c_char) -> *mut c_void;
/// Set what writes lines, and what opens logs, and return what was set before.
pub(super) type SetWriter = unsafe extern "C" fn(Option<Writer>) -> Option<Writer>;
pub(super) type SetOpener = unsafe extern "C" fn(Option<Opener>) -> Option<Opener>;

const REGISTER: &CStr = c"ap_register_log_handler";
const SET_WRITER: &CStr = c"ap_log_set_writer";
const SET_OPENER: &CStr = c"ap_log_set_writer_init";

/// Types of functions.
///
/// # Safety
/// The type is a pointer to a function, and nothing else.
pub(super) unsafe trait Function: Copy {}

// SAFETY: see above.
unsafe impl Function for Item {}
// SAFETY: likewise.
unsafe impl Function for Register {}
// SAFETY: likewise.
unsafe impl Function for Writer {}
// SAFETY: likewise.
unsafe impl Function for Opener {}
// SAFETY: likewise.
unsafe impl Function for SetWriter {}
// SAFETY: likewise.
unsafe impl Function for SetOpener {}

/// A function that is set while the parent configures, and called later.
pub(super) struct Place<F>(AtomicPtr<c_void>, PhantomData<F>);

impl<F: Function> Place<F> {
    pub(super) const fn new() -> Self {
        Self(AtomicPtr::new(std::ptr::null_mut()), PhantomData)
    }

    pub(super) fn set(&self, function: Option<F>) {
        // SAFETY: a pointer to a function, or NULL for none: as large as any pointer, see `Function`.
        let pointer = unsafe { std::mem::transmute_copy::<Option<F>, *mut c_void>(&function) };
        self.0.store(pointer, Ordering::Relaxed);
    }

    pub(super) fn get(&self) -> Option<F> {
        let pointer = self.0.load(Ordering::Relaxed);
        // SAFETY: what `set` has put there, or NULL.
        unsafe { std::mem::transmute_copy::<*mut c_void, Option<F>>(&pointer) }
    }
}

/// # Safety
/// Who registers a function of this name declares it with this type.
unsafe fn retrieve<F: Function>(name: &CStr) -> Option<F> {
    // SAFETY: looks the name up.
    let found = unsafe { sys::apr_dynamic_fn_retrieve(name.as_ptr()) };
    // SAFETY: a pointer to a function is as large as any other, see `Function`; by the caller.
    found.map(|found| unsafe { std::mem::transmute_copy::<unsafe extern "C" fn(), F>(&found) })
}

/// What registers items now.
pub(super) fn registers() -> Option<Register> {
    // SAFETY: so mod_log_config.h declares it.
    unsafe { retrieve(REGISTER) }
}

/// Has all modules that come from now on register their items there.
pub(super) fn register_by(function: Register) {
    // SAFETY: a module that asks for the function of this name gets one of the same type.
    unsafe {
        sys::apr_dynamic_fn_register(
            REGISTER.as_ptr(),
            Some(std::mem::transmute::<Register, unsafe extern "C" fn()>(function)),
        );
    }
}

/// What sets the writer, and the opener. None without mod_log_config.
pub(super) fn setters() -> Option<(SetWriter, SetOpener)> {
    // SAFETY: so mod_log_config.h declares them.
    unsafe { Some((retrieve(SET_WRITER)?, retrieve(SET_OPENER)?)) }
}

/// Where the file is in memory that has the function at this address.
pub(super) fn object(function: *mut c_void) -> Option<usize> {
    let mut info = std::mem::MaybeUninit::<libc::Dl_info>::zeroed();
    // SAFETY: only compares the address; writes to `info`.
    let found = unsafe { libc::dladdr(function, info.as_mut_ptr()) };
    // SAFETY: written by the call, or zero, which is valid.
    (found != 0).then(|| unsafe { info.assume_init() }.dli_fbase.addr())
}
