//! Bucket brigades, as far as an input filter meets them: plain bytes.

use std::marker::PhantomData;
use std::ptr::NonNull;

use super::apr_status::Status;
use super::sys;

/// A brigade borrowed from the caller of a filter.
pub(crate) struct Brigade<'b>(NonNull<sys::apr_bucket_brigade>, PhantomData<&'b mut ()>);

impl Brigade<'_> {
    /// # Safety
    /// `bb` is a valid brigade that nobody else uses during the borrow.
    pub(super) unsafe fn from_raw(bb: *mut sys::apr_bucket_brigade) -> Option<Self> {
        NonNull::new(bb).map(|bb| Self(bb, PhantomData))
    }

    pub(super) fn as_ptr(&mut self) -> *mut sys::apr_bucket_brigade {
        self.0.as_ptr()
    }

    /// Appends a copy of `bytes`.
    pub(crate) fn append(&mut self, bytes: &[u8]) {
        // SAFETY: the brigade is ours for the borrow; `bytes` is copied.
        unsafe { sys::wsf_brigade_append(self.as_ptr(), bytes.as_ptr().cast(), bytes.len()) };
    }

    /// How many bytes it holds, as far as that is known without reading.
    pub(crate) fn length(&mut self) -> u64 {
        let mut length: sys::apr_off_t = 0;
        // SAFETY: the brigade is ours for the borrow; nothing is read for it (0), and `length` is
        // ours.
        unsafe { sys::apr_brigade_length(self.as_ptr(), 0, &raw mut length) };
        // -1 for a bucket that has to be read first.
        u64::try_from(length).unwrap_or(0)
    }

    /// Appends the mark of the end of a response (EOS).
    pub(crate) fn append_end(&mut self) {
        // SAFETY: the brigade is ours for the borrow.
        unsafe { sys::wsf_brigade_append_eos(self.as_ptr()) };
    }

    /// Appends the mark of the end of a connection (EOC).
    pub(super) fn append_close(&mut self) {
        // SAFETY: the brigade is ours for the borrow.
        unsafe { sys::wsf_brigade_append_eoc(self.as_ptr()) };
    }

    /// Moves all bytes into `to`, and empties the brigade.
    pub(crate) fn drain_into(&mut self, to: &mut Vec<u8>) -> Result<(), Status> {
        self.copy_into(to)?;
        self.clear();
        Ok(())
    }

    /// Appends a copy of all bytes to `to`.
    pub(crate) fn copy_into(&mut self, to: &mut Vec<u8>) -> Result<(), Status> {
        let mut length: sys::apr_off_t = 0;
        // SAFETY: the brigade is ours; `length` is written before it is read.
        Status::check(unsafe { sys::apr_brigade_length(self.as_ptr(), 1, &raw mut length) })?;
        let mut length = usize::try_from(length).unwrap_or(0);
        to.reserve(length);
        let start = to.len();
        // SAFETY: at least `length` bytes are reserved behind `start`; flatten
        // writes at most that many and says how many.
        Status::check(unsafe {
            sys::apr_brigade_flatten(
                self.as_ptr(),
                to.as_mut_ptr().add(start).cast(),
                &raw mut length,
            )
        })?;
        // SAFETY: that many bytes were just written.
        unsafe { to.set_len(start + length) };
        Ok(())
    }

    /// Keeps only bytes that were read: deletes metadata, and sockets.
    pub(crate) fn keep_data(&mut self) {
        // SAFETY: the brigade is ours for the borrow.
        unsafe { sys::wsf_brigade_keep_data(self.as_ptr()) };
    }

    /// Deletes every bucket.
    pub(crate) fn clear(&mut self) {
        // SAFETY: the brigade is ours for the borrow.
        unsafe { sys::apr_brigade_cleanup(self.as_ptr().cast()) };
    }
}
