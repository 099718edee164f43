//! Streams of HTTP/2, as far as httpd's core tells of them.

use std::ffi::c_void;
use std::sync::atomic::{AtomicPtr, Ordering};

use super::connection::Connection;
use super::optional::symbol;
use super::sys;

type PollfdOf = unsafe extern "C" fn(
    *mut sys::conn_rec,
    *mut sys::apr_pollfd_t,
    *mut sys::apr_interval_time_t,
) -> sys::apr_status_t;

/// `ap_get_pollfd_from_conn()`, which httpd has from 2.4.58 on, as WebSockets over HTTP/2.
/// Written anew for every configuration that is read, before it is used.
static POLLFD_OF: AtomicPtr<c_void> = AtomicPtr::new(std::ptr::null_mut());

/// Looks for what httpd has.
pub(super) fn register() {
    POLLFD_OF.store(symbol(c"ap_get_pollfd_from_conn"), Ordering::Relaxed);
}

/// Says what to poll for input of a connection.
pub(super) fn pollfd_of(c: Connection<'_>, polled: &mut sys::apr_pollfd_t) -> Option<()> {
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
