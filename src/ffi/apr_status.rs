//! `apr_status_t`: APR's own codes and errno in one number.

use std::ffi::{CStr, c_char};
use std::fmt;

use super::sys;

/// An APR status that is not success.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Status(sys::apr_status_t);

impl Status {
    /// End of file.
    pub(crate) const EOF: Self = Self(sys::APR_EOF);
    /// Nothing is there, on a non-blocking read.
    pub(crate) const AGAIN: Self = Self(libc::EAGAIN);
    /// The connection was aborted.
    pub(crate) const ABORTED: Self = Self(libc::ECONNABORTED);
    /// A failure that has no code of its own.
    pub(crate) const GENERAL: Self = Self(sys::APR_EGENERAL);
    /// A read that took too long.
    pub(crate) const TIMEUP: Self = Self(sys::APR_TIMEUP);

    /// `rv` as a result.
    pub(super) fn check(rv: sys::apr_status_t) -> Result<(), Self> {
        if rv == sys::APR_SUCCESS { Ok(()) } else { Err(Self(rv)) }
    }

    pub(super) fn into_raw(result: Result<(), Self>) -> sys::apr_status_t {
        match result {
            Ok(()) => sys::APR_SUCCESS,
            Err(Self(rv)) => rv,
        }
    }

    /// Nothing there on a non-blocking read.
    pub(crate) fn is_again(self) -> bool {
        // SAFETY: looks at a number only.
        unsafe { sys::wsf_status_is_eagain(self.0) != 0 }
    }

    /// The socket's timeout passed.
    pub(crate) fn is_timeup(self) -> bool {
        // SAFETY: looks at a number only.
        unsafe { sys::wsf_status_is_timeup(self.0) != 0 }
    }

    /// The system's error number, if it is one.
    pub(crate) fn errno(self) -> Option<i32> {
        /// Where APR's own codes begin.
        const APRS: i32 = sys::APR_OS_START_ERROR;
        Some(self.0).filter(|errno| (1..APRS).contains(errno))
    }

    /// The peer has ended its side.
    pub(crate) fn is_eof(self) -> bool {
        // SAFETY: looks at a number only.
        unsafe { sys::wsf_status_is_eof(self.0) != 0 }
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = [0 as c_char; 200];
        // SAFETY: apr_strerror writes at most `len` bytes, its NUL included, and
        // returns the buffer.
        let text =
            unsafe { CStr::from_ptr(sys::apr_strerror(self.0, text.as_mut_ptr(), text.len())) };
        f.write_str(&text.to_string_lossy())
    }
}
