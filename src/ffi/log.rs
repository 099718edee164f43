//! httpd's error log, with the request, connection or server attached and the
//! per-module LogLevel honoured.

use std::ffi::{CString, c_int};
use std::fmt;
use std::marker::PhantomData;
use std::os::fd::BorrowedFd;

use messages::{Level, Message, MessageId};
use os::poll;

use super::request::Request;
use super::slots::module_index;
use super::sys;

/// httpd's number of a level.
fn of_httpd(level: Level) -> c_int {
    match level {
        Level::Error => sys::APLOG_ERR,
        Level::Warn => sys::APLOG_WARNING,
        Level::Notice => sys::APLOG_NOTICE,
        Level::Info => sys::APLOG_INFO,
        Level::Debug => sys::APLOG_DEBUG,
    }
}

/// Logs about a request.
pub(crate) fn request<M: Message>(r: Request<'_>, message: &M) {
    request_at(r, M::LEVEL, message);
}

/// The same at a level of the caller's.
pub(crate) fn request_at<M: Message>(r: Request<'_>, level: Level, message: &M) {
    request_line(r, level, M::ID, message);
}

/// The same where the text is not the message's own.
pub(crate) fn request_line(r: Request<'_>, level: Level, id: MessageId, text: &dyn fmt::Display) {
    let index = module_index();
    // SAFETY: `Request` is valid for as long as it is borrowed.
    if unsafe { sys::ap_get_request_module_loglevel(r.as_ptr(), index) } < of_httpd(level) {
        return;
    }
    let line = line(id, text);
    // SAFETY: file, format and text are NUL-terminated and outlive the call.
    unsafe {
        sys::ap_log_rerror_(
            FILE.as_ptr(),
            0,
            index,
            of_httpd(level),
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
        // httpd writes its own notices whatever the configured level.
        // SAFETY: a server of this process's configuration.
        level <= Level::Notice
            || unsafe { sys::ap_get_server_module_loglevel(self.0, module_index()) }
                >= of_httpd(level)
    }

    /// Whether its error log takes a line now: one that is piped to a program may stand still. Where
    /// there is no file, the system's log takes all.
    pub(crate) fn takes_lines(self) -> bool {
        let mut fd: sys::apr_os_file_t = -1;
        // SAFETY: a server of this process's configuration; its log, if it has one, is open for as long.
        let is_file = unsafe {
            let file = (*self.0).error_log;
            !file.is_null() && sys::apr_os_file_get(&raw mut fd, file) == 0 && fd >= 0
        };
        // SAFETY: an open descriptor, by the log that has it.
        !is_file || poll::has_room(unsafe { BorrowedFd::borrow_raw(fd) })
    }

    /// Logs about the server as a whole.
    pub(crate) fn say<M: Message>(self, message: &M) {
        self.log(M::LEVEL, M::ID, message);
    }

    /// The same for a text that was made before.
    pub(crate) fn log(self, level: Level, id: MessageId, text: &dyn fmt::Display) {
        if !self.is_logged(level) {
            return;
        }
        let line = line(id, text);
        // SAFETY: file, format and text are NUL-terminated and outlive the call.
        unsafe {
            sys::ap_log_error_(
                FILE.as_ptr(),
                0,
                module_index(),
                of_httpd(level),
                0,
                self.0,
                c"%s".as_ptr(),
                line.as_ptr(),
            );
        }
    }
}

/// Logs about the start of the server, on standard error until a log is open.
pub(crate) fn startup(level: Level, id: MessageId, text: &dyn fmt::Display) {
    let line = line(id, text);
    // SAFETY: httpd takes no server for its start-up messages; the strings are
    // NUL-terminated and outlive the call.
    unsafe {
        sys::ap_log_error_(
            FILE.as_ptr(),
            0,
            module_index(),
            of_httpd(level) | sys::APLOG_STARTUP,
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

fn line(id: MessageId, text: &dyn fmt::Display) -> CString {
    let mut line = format!("{id}: {text}");
    line.retain(|c| c != '\0');
    CString::new(line).unwrap_or_default()
}
