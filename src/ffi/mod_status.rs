//! The module's part of mod_status's page. The hook is an optional one: without mod_status nobody
//! calls it.

use std::ffi::c_int;

use super::guard::guard;
use super::request::Request;
use super::{optional, sys};

/// What the module shows on the page of mod_status.
pub(crate) trait StatusHooks {
    /// What this module adds to mod_status, as HTML or as `?auto`.
    fn status(r: Request<'_>, auto: bool) -> String;
}

/// `AP_STATUS_SHORT` of mod_status.h: the lines of `?auto`.
const SHORT: c_int = 1;

/// Adds the module's part to mod_status, if that is loaded.
pub(super) fn register<H: StatusHooks>() {
    type Hook = unsafe extern "C" fn(*mut sys::request_rec, c_int) -> c_int;
    let hook: Hook = page::<H>;
    // SAFETY: a function of this library, with the arguments that
    // mod_status.h declares for this hook, which are those of `Hook`.
    unsafe {
        optional::hook(
            c"status_hook",
            std::mem::transmute::<Hook, unsafe extern "C" fn()>(hook),
            sys::APR_HOOK_MIDDLE,
        );
    }
}

unsafe extern "C" fn page<H: StatusHooks>(r: *mut sys::request_rec, flags: c_int) -> c_int {
    guard((), || {
        // SAFETY: mod_status passes its live request.
        let Some(request) = (unsafe { Request::from_raw(r) }) else { return };
        let page = H::status(request, flags & SHORT != 0);
        if let Ok(length) = c_int::try_from(page.len()) {
            // SAFETY: mod_status passes its live request; `page` is readable for
            // its length. A client that is gone is mod_status's business.
            unsafe { sys::ap_rwrite(page.as_ptr().cast(), length, r) };
        }
    });
    sys::OK
}
