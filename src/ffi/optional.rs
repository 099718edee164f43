//! Functions and hooks that another module or a newer httpd may have or not, found by name at run
//! time.

use std::ffi::{CStr, c_int, c_void};

use super::sys;

/// The address of a function of that name in what is loaded, or NULL.
pub(super) fn symbol(name: &CStr) -> *mut c_void {
    // SAFETY: looks `name` up in what is loaded; httpd loads modules globally.
    unsafe { libc::dlsym(libc::RTLD_DEFAULT, name.as_ptr()) }
}

/// Has APR know the hooks that `add` adds by this name, by which it sorts them. In pre_config it would take
/// the name of whichever module was loaded last: that of mod_proxy_http, maybe.
pub(super) fn hook_as(name: &'static CStr, add: impl FnOnce()) {
    let current = &raw mut sys::apr_hook_debug_current;
    // SAFETY: APR's variable, which httpd uses in its only thread, as this is called.
    let before = unsafe { current.replace(name.as_ptr()) };
    add();
    // SAFETY: the same.
    unsafe { current.write(before) };
}

/// Adds a function to an optional hook, which is called if somebody has such a hook.
///
/// # Safety
/// `function` has the type that the hook of this name is declared with, cast to a function without
/// arguments, and stays loaded for as long as httpd's hooks.
pub(super) unsafe fn hook(name: &'static CStr, function: unsafe extern "C" fn(), order: c_int) {
    let none = std::ptr::null();
    // SAFETY: APR keeps both pointers; the function is as the caller says.
    unsafe { sys::apr_optional_hook_add(name.as_ptr(), Some(function), none, none, order) };
}
