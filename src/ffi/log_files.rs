//! The logs that mod_log_config has opened: where their lines go.

use std::ffi::{CStr, c_char, c_void};
use std::os::fd::BorrowedFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};

use super::guard::guard;
use super::log_config::{Opener, Place};
use super::sys;

/// What opens a log, that this module has put itself before.
static OPENER: Place<Opener> = Place::new();
/// Lines are buffered: a log is known by its buffer.
static IS_BUFFERED: AtomicBool = AtomicBool::new(false);

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
pub(super) struct OfConfiguration;

impl Drop for OfConfiguration {
    fn drop(&mut self) {
        forget();
    }
}

/// Another configuration begins.
pub(super) fn forget() {
    OPENER.set(None);
    opened(|logs| *logs = Vec::new());
}

/// Logs are opened from now on by `open`, which calls this one: mod_log_config's own, whose
/// handles are buffers with BufferedLogs.
pub(super) fn begin(opener: Option<Opener>, is_buffered: bool) {
    OPENER.set(opener);
    IS_BUFFERED.store(is_buffered, Ordering::Relaxed);
}

/// Where lines of the log of this name go. `None` if this configuration has none.
pub(crate) fn log(name: &[u8]) -> Option<BorrowedFd<'static>> {
    opened(|logs| logs.iter().find(|log| &*log.name == name).map(|log| log.fd))
}

/// The name of the log that mod_log_config knows by this handle, if lines can be written to it.
pub(super) fn name(handle: *mut c_void) -> Option<Box<[u8]>> {
    opened(|logs| logs.iter().find(|log| log.handle == handle.addr()).map(|log| log.name.clone()))
}

/// Opens a log, and remembers where its lines go.
pub(super) unsafe extern "C" fn open(
    pool: *mut sys::apr_pool_t,
    server: *mut sys::server_rec,
    name: *const c_char,
) -> *mut c_void {
    guard(std::ptr::null_mut(), || {
        let Some(open) = OPENER.get() else { return std::ptr::null_mut() };
        // SAFETY: as mod_log_config calls it.
        let handle = unsafe { open(pool, server, name) };
        if !handle.is_null() && !name.is_null() {
            // SAFETY: as above.
            let name = unsafe { CStr::from_ptr(name) }.to_bytes();
            // SAFETY: made by mod_log_config just now.
            let fd = unsafe { descriptor(handle) };
            if let Some(fd) = fd.filter(|fd| os::log_file::is_one(*fd, name.starts_with(b"|"))) {
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
/// `handle` was made by mod_log_config of httpd 2.4, by the function that `begin` was told of.
unsafe fn descriptor(handle: *mut c_void) -> Option<BorrowedFd<'static>> {
    let file: *mut sys::apr_file_t = if IS_BUFFERED.load(Ordering::Relaxed) {
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
