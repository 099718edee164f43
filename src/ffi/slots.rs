//! This module's own entries in httpd's vectors, one for each loaded module: configurations of
//! sections, state of requests and connections, log levels.

use std::ffi::{c_int, c_void};

use super::sys;

/// `module` of http_config.h.
pub(crate) type ModuleRecord = sys::module;

unsafe extern "C" {
    /// The record itself (lib.rs), where httpd writes the module's index.
    static wsforward_module: ModuleRecord;
}

/// The module's place in httpd's configuration vectors and log levels.
pub(super) fn module_index() -> c_int {
    // SAFETY: a static of this library; httpd writes it while it loads modules,
    // before any thread runs.
    unsafe { (&raw const wsforward_module.module_index).read() }
}

/// This module's entry of a configuration vector.
///
/// # Safety
/// `vector` is NULL or one of httpd's, and alive.
pub(super) unsafe fn config_of(vector: *mut sys::ap_conf_vector_t) -> *mut c_void {
    match (usize::try_from(module_index()), vector.is_null()) {
        // SAFETY: httpd makes every vector with one entry for each module
        // (ap_get_module_config of http_config.h).
        (Ok(index), false) => unsafe { *vector.cast::<*mut c_void>().add(index) },
        _ => std::ptr::null_mut(),
    }
}

/// Sets this module's entry of a configuration vector.
///
/// # Safety
/// As for [`config_of`], and nobody else uses the vector meanwhile.
pub(super) unsafe fn set_config_of(vector: *mut sys::ap_conf_vector_t, value: *mut c_void) {
    if let (Ok(index), false) = (usize::try_from(module_index()), vector.is_null()) {
        // SAFETY: as in `config_of`; the rest is the caller's.
        unsafe { *vector.cast::<*mut c_void>().add(index) = value };
    }
}
