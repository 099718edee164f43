//! Functions and hooks that another module or a newer httpd may have or not, found by name at run
//! time.

use std::ffi::{CStr, c_void};

/// The address of a function of that name in what is loaded, or NULL.
pub(super) fn symbol(name: &CStr) -> *mut c_void {
    // SAFETY: looks `name` up in what is loaded; httpd loads modules globally.
    unsafe { libc::dlsym(libc::RTLD_DEFAULT, name.as_ptr()) }
}
