//! httpd's error log, with the request, connection or server attached and the
//! per-module LogLevel honoured.

use std::ffi::{CString, c_int};
use std::fmt;
use std::marker::PhantomData;

use super::request::Request;
use super::slots::module_index;
use super::sys;

/// Those of httpd's log levels that this module uses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[repr(i32)]
#[allow(missing_docs)]
pub(crate) enum Level {
    Error = sys::APLOG_ERR as i32,
    Warn = sys::APLOG_WARNING as i32,
    Info = sys::APLOG_INFO as i32,
    Debug = sys::APLOG_DEBUG as i32,
}

/// A number of docs/messages.md.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct MessageId(pub(crate) u16);

impl fmt::Display for MessageId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "WSF{:04}", self.0)
    }
}

/// Logs about a request.
pub(crate) fn request(r: Request<'_>, level: Level, number: MessageId, text: fmt::Arguments<'_>) {
    let index = module_index();
    // SAFETY: `Request` is valid for as long as it is borrowed.
    if unsafe { sys::ap_get_request_module_loglevel(r.as_ptr(), index) } < level as c_int {
        return;
    }
    let line = line(number, text);
    // SAFETY: file, format and text are NUL-terminated and outlive the call.
    unsafe {
        sys::ap_log_rerror_(
            FILE.as_ptr(),
            0,
            index,
            level as c_int,
            0,
            r.as_ptr(),
            c"%s".as_ptr(),
            line.as_ptr(),
        );
    }
}

/// A server that lives at least as long as `'s`, whose error log any thread may write to.
#[derive(Clone, Copy)]
pub(crate) struct Server<'s>(*const sys::server_rec, PhantomData<&'s ()>);

// SAFETY: servers are only read; httpd's log functions are made for threads.
unsafe impl Send for Server<'_> {}
// SAFETY: as above.
unsafe impl Sync for Server<'_> {}

impl Server<'_> {
    /// # Safety
    /// `server` is one of httpd's, and lives at least as long as the result.
    pub(super) unsafe fn from_raw(server: *const sys::server_rec) -> Self {
        Self(server, PhantomData)
    }

    /// Whether a line of this level would be written.
    pub(crate) fn is_logged(self, level: Level) -> bool {
        // SAFETY: a server of this process's configuration.
        unsafe { sys::ap_get_server_module_loglevel(self.0, module_index()) >= level as c_int }
    }

    /// Logs about the server as a whole.
    pub(crate) fn log(self, level: Level, number: MessageId, text: fmt::Arguments<'_>) {
        if !self.is_logged(level) {
            return;
        }
        let line = line(number, text);
        // SAFETY: file, format and text are NUL-terminated and outlive the call.
        unsafe {
            sys::ap_log_error_(
                FILE.as_ptr(),
                0,
                module_index(),
                level as c_int,
                0,
                self.0,
                c"%s".as_ptr(),
                line.as_ptr(),
            );
        }
    }
}

/// Logs about the start of the server, on standard error until a log is open.
pub(crate) fn startup(level: Level, number: MessageId, text: fmt::Arguments<'_>) {
    let line = line(number, text);
    // SAFETY: httpd takes no server for its start-up messages; the strings are
    // NUL-terminated and outlive the call.
    unsafe {
        sys::ap_log_error_(
            FILE.as_ptr(),
            0,
            module_index(),
            level as c_int | sys::APLOG_STARTUP as c_int,
            0,
            std::ptr::null(),
            c"%s".as_ptr(),
            line.as_ptr(),
        );
    }
}

/// What %F of ErrorLogFormat shows instead of a source file: the message number says where a line
/// comes from.
const FILE: &std::ffi::CStr = c"mod_wsforward";

fn line(number: MessageId, text: fmt::Arguments<'_>) -> CString {
    let mut line = format!("{number}: {text}");
    line.retain(|c| c != '\0');
    CString::new(line).unwrap_or_default()
}
