//! The httpd that runs: its version, its modules, its processes and threads.

use std::ffi::{CStr, c_char, c_int};
use std::fmt;
use std::time::Duration;

use super::log::Server;
use super::optional;
use super::pool::Pool;
use super::role::Parent;
use super::sys;

/// httpd's version as it runs, not as it was built against.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[allow(missing_docs)]
pub(crate) struct Version {
    pub(crate) major: i32,
    pub(crate) minor: i32,
    pub(crate) patch: i32,
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.major, self.minor, self.patch)
    }
}

/// The version of the httpd that runs.
pub(crate) fn version() -> Version {
    // SAFETY: a plain structure of numbers and a pointer, filled below.
    let mut version: sys::ap_version_t = unsafe { std::mem::zeroed() };
    // SAFETY: fills the structure it is given.
    unsafe { sys::ap_get_server_revision(&raw mut version) };
    Version { major: version.major, minor: version.minor, patch: version.patch }
}

/// The name of the MPM.
pub(crate) fn mpm() -> String {
    // SAFETY: a NUL-terminated name of the MPM's, which stays loaded.
    let name = unsafe {
        let name = sys::ap_show_mpm();
        (!name.is_null()).then(|| CStr::from_ptr(name))
    };
    name.map(|name| name.to_string_lossy().to_ascii_lowercase()).unwrap_or_default()
}

/// The version of the OpenSSL that mod_ssl brought, if it is loaded.
pub(crate) fn openssl() -> Option<String> {
    type VersionText = unsafe extern "C" fn(c_int) -> *const c_char;
    /// `OPENSSL_VERSION` of openssl/crypto.h.
    const VERSION: c_int = 0;
    let version = optional::symbol(c"OpenSSL_version");
    if version.is_null() {
        return None;
    }
    // SAFETY: openssl/crypto.h declares the function of this name with this type.
    let version: VersionText = unsafe { std::mem::transmute(version) };
    // SAFETY: it answers with a text of its own, NUL-terminated, whatever it is asked.
    let text = unsafe { CStr::from_ptr(version(VERSION)) };
    Some(text.to_string_lossy().into_owned())
}

/// Worker threads of each child; 1 where children have none (prefork).
pub(crate) fn worker_threads() -> u64 {
    let mut threads: c_int = 0;
    // SAFETY: `threads` is ours.
    unsafe { sys::ap_mpm_query(sys::AP_MPMQ_MAX_THREADS, &raw mut threads) };
    u64::try_from(threads).unwrap_or(0).max(1)
}

/// The most children that httpd may have at a time.
pub(crate) fn most_children() -> u64 {
    let mut children: c_int = 0;
    // SAFETY: `children` is ours.
    unsafe { sys::ap_mpm_query(sys::AP_MPMQ_MAX_DAEMONS, &raw mut children) };
    u64::try_from(children).unwrap_or(0)
}

/// GracefulShutdownTimeout; `None` is for as long as it takes.
pub(crate) fn graceful_timeout(_: &Parent) -> Option<Duration> {
    // SAFETY: a number that the parent, in its only thread, writes when it reads its configuration.
    let seconds = unsafe { sys::ap_graceful_shutdown_timeout };
    u64::try_from(seconds).ok().filter(|seconds| *seconds > 0).map(Duration::from_secs)
}

/// Whether httpd listens no more, as in a graceful stop alone.
pub(super) fn has_closed_listeners(_: &Parent) -> bool {
    // SAFETY: the list of the configuration that runs, which the parent changes in its only thread.
    let mut next = unsafe { sys::ap_listeners.as_ref() };
    let mut is_closed = next.is_some();
    while let Some(listener) = next {
        is_closed &= listener.active == 0;
        // SAFETY: NULL, or the next one of that list.
        next = unsafe { listener.next.as_ref() };
    }
    is_closed
}

/// Whether the MPM has a child that has not ended. It is asked as the MPM itself asks in a graceful
/// stop.
pub(super) fn has_children(_: &Parent) -> bool {
    let mut used: c_int = 0;
    // SAFETY: `used` is ours.
    unsafe { sys::ap_mpm_query(sys::AP_MPMQ_MAX_DAEMON_USED, &raw mut used) };
    (0..used).any(|slot| {
        // SAFETY: NULL, or a place of the scoreboard, which is there for as long as the MPM runs.
        let process = unsafe { sys::ap_get_scoreboard_process(slot).as_ref() };
        // SAFETY: takes numbers, and sends no signal.
        process.is_some_and(|process| unsafe { sys::ap_mpm_safe_kill(process.pid, 0) == 0 })
    })
}

/// Whether a module is loaded, by the name of its source file.
pub(crate) fn is_loaded(name: &CStr) -> bool {
    // SAFETY: compares names in httpd's list of modules, which only the parent changes, in its only
    // thread, while it reads its configuration.
    unsafe { !sys::ap_find_linked_module(name.as_ptr()).is_null() }
}

/// Whether the MPM is one whose children have worker threads: event and worker.
pub(crate) fn is_threaded() -> bool {
    let mut threaded: c_int = 0;
    // SAFETY: `threaded` is ours.
    unsafe { sys::ap_mpm_query(sys::AP_MPMQ_IS_THREADED, &raw mut threaded) };
    threaded != 0
}

/// The child process that httpd has started.
#[derive(Clone, Copy)]
pub(crate) struct Process<'p> {
    pool: Pool<'p>,
    server: *mut sys::server_rec,
}

impl<'p> Process<'p> {
    /// # Safety
    /// `pool` and `server` are a child's own, which live as long as the child.
    pub(super) unsafe fn from_raw(
        pool: *mut sys::apr_pool_t,
        server: *mut sys::server_rec,
    ) -> Option<Self> {
        // SAFETY: by the caller.
        unsafe { Pool::from_raw(pool) }.map(|pool| Self { pool, server })
    }

    /// Lives as long as the child.
    pub(super) fn pool(&self) -> Pool<'p> {
        self.pool
    }

    /// The main server, as httpd has it.
    pub(super) fn server_ptr(&self) -> *mut sys::server_rec {
        self.server
    }

    /// Timeout of the main server; none if it is no length of time.
    pub(crate) fn timeout(&self) -> Option<Duration> {
        // SAFETY: it lives as long as the child, by `from_raw`, and is only read.
        let micros = unsafe { (*self.server).timeout };
        u64::try_from(micros).ok().filter(|micros| *micros > 0).map(Duration::from_micros)
    }

    /// The main server, for log lines that belong to no request.
    pub(crate) fn main_server(&self) -> Server<'static> {
        // SAFETY: it lives as long as the child, by `from_raw`: no code runs after its end.
        unsafe { Server::from_raw(self.server) }
    }
}
