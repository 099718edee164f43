//! Drain processes that became children of httpd's parent, because that is the first process of its
//! container (PID 1). It reaps them, and would log each as a "long lost child" (AH00488) if it had
//! not been told of it.

use std::ffi::{c_int, c_void};
use std::sync::{Mutex, PoisonError};

use super::guard::guard;
use super::pool::Pool;
use super::sys;

/// What the module knows of processes that it started.
pub(crate) trait OrphanHooks {
    /// Drain processes, which may have become children of httpd's parent.
    fn orphans() -> Vec<u32>;
}

/// Those that httpd was told of, in the parent. Emptied for each configuration.
static KNOWN: Mutex<Vec<u32>> = Mutex::new(Vec::new());

fn change(change: impl FnOnce(&mut Vec<u32>)) {
    change(&mut KNOWN.lock().unwrap_or_else(PoisonError::into_inner));
}

/// Registers the hook that looks for them.
pub(super) fn register<H: OrphanHooks>() {
    let none = std::ptr::null();
    // SAFETY: httpd copies the pointer; the callback stays loaded for as long as the hook.
    unsafe { sys::ap_hook_monitor(Some(monitor::<H>), none, none, sys::APR_HOOK_MIDDLE) };
}

/// A new configuration: what httpd was told went away with the pool of the old one.
pub(super) fn begin<H: OrphanHooks>(pconf: Pool<'_>) {
    change(|known| *known = Vec::new());
    look::<H>(pconf);
}

fn look<H: OrphanHooks>(pconf: Pool<'_>) {
    // SAFETY: asks for a number.
    if unsafe { libc::getpid() } == 1 {
        H::orphans().into_iter().for_each(|pid| adopt(pconf, pid));
    }
}

/// httpd's parent calls this every ten seconds or so.
unsafe extern "C" fn monitor<H: OrphanHooks>(
    pconf: *mut sys::apr_pool_t,
    _server: *mut sys::server_rec,
) -> c_int {
    guard((), || {
        // SAFETY: httpd passes the configuration's pool.
        if let Some(pconf) = unsafe { Pool::from_raw(pconf) } {
            look::<H>(pconf);
        }
    });
    sys::OK
}

/// Tells httpd of a process, until the process or the configuration ends.
fn adopt(pconf: Pool<'_>, pid: u32) {
    let mut is_new = false;
    change(|known| {
        is_new = !known.contains(&pid);
        if is_new {
            known.push(pid);
        }
    });
    let Ok(number) = libc::pid_t::try_from(pid) else { return };
    if !is_new {
        return;
    }
    let pool = pconf.as_ptr();
    // SAFETY: zeroes make a valid apr_proc_t, of which the list looks at the pid alone. It lives
    // as long as the registration, which goes with the same pool, before this module is unloaded.
    unsafe {
        let process = sys::apr_palloc(pool, size_of::<sys::apr_proc_t>()).cast::<sys::apr_proc_t>();
        process.write_bytes(0, 1);
        (*process).pid = number;
        let data = process.cast::<c_void>();
        sys::apr_proc_other_child_register(process, Some(ended), data, std::ptr::null_mut(), pool);
    }
}

/// httpd calls this when something happened to one of them. Only its end matters, and that of its
/// registration: the list is on the heap, and would stay behind when the module is unloaded.
unsafe extern "C" fn ended(reason: c_int, data: *mut c_void, _status: c_int) {
    let has_ended = [sys::APR_OC_REASON_DEATH, sys::APR_OC_REASON_LOST].contains(&reason);
    if !has_ended && reason != sys::APR_OC_REASON_UNREGISTER {
        return;
    }
    guard((), || {
        // SAFETY: what `adopt` registered.
        let pid = unsafe { (*data.cast::<sys::apr_proc_t>()).pid };
        change(|known| {
            known.retain(|one| libc::pid_t::try_from(*one) != Ok(pid));
            if known.is_empty() {
                *known = Vec::new();
            }
        });
        if has_ended {
            // SAFETY: takes this registration off the list; the list allows that now. It calls this again.
            unsafe { sys::apr_proc_other_child_unregister(data) };
        }
    });
}
