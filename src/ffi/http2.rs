//! Streams of HTTP/2: how to wait for their input.

use std::ffi::c_void;
use std::os::fd::BorrowedFd;
use std::sync::atomic::{AtomicPtr, Ordering};

use super::connection::Connection;
use super::optional::symbol;
use super::sys;

type PollfdOf = unsafe extern "C" fn(
    *mut sys::conn_rec,
    *mut sys::apr_pollfd_t,
    *mut sys::apr_interval_time_t,
) -> sys::apr_status_t;

/// `ap_get_pollfd_from_conn()`, which httpd has from 2.4.58 on. That version also brought
/// WebSockets over HTTP/2. Looked up again for every configuration, before it is used.
static POLLFD_OF: AtomicPtr<c_void> = AtomicPtr::new(std::ptr::null_mut());

/// Looks the function up.
pub(super) fn register() {
    POLLFD_OF.store(symbol(c"ap_get_pollfd_from_conn"), Ordering::Relaxed);
}

/// Fills in what to poll for input of a connection; `None` if httpd does not say.
fn pollfd_of(c: Connection<'_>, polled: &mut sys::apr_pollfd_t) -> Option<()> {
    let function = POLLFD_OF.load(Ordering::Relaxed);
    if function.is_null() {
        return None;
    }
    // SAFETY: http_core.h declares the function of this name with this type.
    let pollfd_of: PollfdOf = unsafe { std::mem::transmute(function) };
    // SAFETY: the connection is alive; the record is the caller's; no timeout is asked for.
    let rv = unsafe { pollfd_of(c.as_ptr(), polled, std::ptr::null_mut()) };
    (rv == 0).then_some(())
}

impl<'c> Connection<'c> {
    /// A descriptor that becomes readable when a stream of HTTP/2 has input: a pipe of mod_http2.
    pub(crate) fn input_signal(&self) -> Option<BorrowedFd<'c>> {
        // SAFETY: a plain structure of numbers and pointers, filled below.
        let mut polled: sys::apr_pollfd_t = unsafe { std::mem::zeroed() };
        pollfd_of(*self, &mut polled)?;
        if polled.desc_type != sys::APR_POLL_FILE {
            return None;
        }
        let mut fd: sys::apr_os_file_t = -1;
        // SAFETY: the type says that it is a file; `fd` is ours.
        let rv = unsafe { sys::apr_os_file_get(&raw mut fd, polled.desc.f) };
        // SAFETY: the pipe is the stream's, and lives as long.
        (rv == 0 && fd >= 0).then(|| unsafe { BorrowedFd::borrow_raw(fd) })
    }
}
