//! APR pools: memory that lives as long as a request, a connection or a
//! configuration.

use std::ffi::{CStr, CString, c_char, c_void};
use std::marker::PhantomData;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicBool, Ordering};

use super::guard::guard;
use super::sys;

/// Set by [`drop_nothing_more`].
static DROPS_NOTHING: AtomicBool = AtomicBool::new(false);

/// From now on pools leave the values that they [own](Pool::own) alone: the process ends within a
/// signal handler, which must not wait for the allocator or any other lock.
pub(super) fn drop_nothing_more() {
    DROPS_NOTHING.store(true, Ordering::Relaxed);
}

/// A pool that lives at least as long as `'p`.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Pool<'p>(NonNull<sys::apr_pool_t>, PhantomData<&'p ()>);

impl<'p> Pool<'p> {
    /// # Safety
    /// `pool` is a pool that lives at least as long as `'p`, and is used by one
    /// thread at a time.
    pub(super) unsafe fn from_raw(pool: *mut sys::apr_pool_t) -> Option<Self> {
        NonNull::new(pool).map(|pool| Self(pool, PhantomData))
    }

    pub(super) fn as_ptr(self) -> *mut sys::apr_pool_t {
        self.0.as_ptr()
    }

    /// Gives `value` to the pool, which drops it when it is cleared, in whichever thread that is.
    pub(crate) fn own<T: Send + 'static>(self, value: T) -> NonNull<T> {
        unsafe extern "C" fn drop_value<T>(data: *mut c_void) -> sys::apr_status_t {
            if DROPS_NOTHING.load(Ordering::Relaxed) {
                return sys::APR_SUCCESS;
            }
            guard((), || {
                // SAFETY: `data` is the value that was written below; APR runs a cleanup once,
                // and frees the pool's memory after that.
                unsafe { std::ptr::drop_in_place(data.cast::<T>()) };
            });
            sys::APR_SUCCESS
        }
        let value = self.write(value);
        // SAFETY: the pool is alive (`'p`); the callbacks match APR's types. A
        // child that execs must not drop it: apr_pool_cleanup_null.
        unsafe {
            sys::apr_pool_cleanup_register(
                self.as_ptr(),
                value.as_ptr().cast(),
                Some(drop_value::<T>),
                Some(sys::apr_pool_cleanup_null),
            );
        }
        value
    }

    /// A value in pool memory that is never dropped.
    pub(super) fn write<T>(self, value: T) -> NonNull<T> {
        const { assert!(align_of::<T>() <= 8, "APR aligns to 8 bytes") };
        // SAFETY: the pool is alive; APR aborts the process rather than return
        // NULL (httpd sets an abort function on its pools).
        let memory = unsafe { sys::apr_palloc(self.as_ptr(), size_of::<T>()) }.cast::<T>();
        // SAFETY: fresh memory of the size of T, aligned for it (asserted above).
        unsafe { memory.write(value) };
        // SAFETY: not NULL, see above.
        unsafe { NonNull::new_unchecked(memory) }
    }

    /// A NUL-terminated copy of `text`, cut at its first NUL.
    pub(super) fn copy(self, text: &[u8]) -> NonNull<c_char> {
        let text = text.split(|byte| *byte == 0).next().unwrap_or_default();
        // SAFETY: the pool is alive; `text` is readable for its length. The copy
        // is never NULL, as in `write`.
        unsafe {
            NonNull::new_unchecked(sys::apr_pstrmemdup(
                self.as_ptr(),
                text.as_ptr().cast(),
                text.len(),
            ))
        }
    }

    /// The same with what mod_log_config escapes: nothing of a client ends a text of the line.
    pub(super) fn copy_for_log(self, text: &[u8]) -> NonNull<c_char> {
        let is_plain = |byte: &u8| matches!(byte, b' '..=b'~') && !matches!(byte, b'"' | b'\\');
        let copy = self.copy(text);
        if text.iter().all(is_plain) {
            return copy;
        }
        // SAFETY: the pool is alive; `copy` is NUL-terminated. What comes of a text is never NULL, as in
        // `write`.
        unsafe { NonNull::new_unchecked(sys::ap_escape_logitem(self.as_ptr(), copy.as_ptr())) }
    }

    /// A copy of `text` that lives as long as the pool, cut at its first NUL.
    pub(crate) fn text(self, text: &[u8]) -> &'p [u8] {
        // SAFETY: NUL-terminated by `copy`, in a pool that lives for `'p`, and nobody writes to it.
        unsafe { CStr::from_ptr(self.copy(text).as_ptr()) }.to_bytes()
    }
}

/// `text` as a C string, without the NUL bytes that it cannot hold.
pub(crate) fn c_string(text: &str) -> CString {
    CString::new(text.replace('\0', "")).unwrap_or_default()
}
