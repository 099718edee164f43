//! `apr_table_t`: header fields, environment, notes.

use std::ffi::CStr;
use std::marker::PhantomData;
use std::ptr::NonNull;

use super::pool::Pool;
use super::sys;

/// A table that lives at least as long as `'t`, with the pool it allocates from.
#[derive(Clone, Copy)]
pub struct Table<'t> {
    table: NonNull<sys::apr_table_t>,
    pool: Pool<'t>,
    life: PhantomData<&'t ()>,
}

impl<'t> Table<'t> {
    /// # Safety
    /// `table` lives at least as long as `'t`, and is used by one thread at a time.
    pub(super) unsafe fn from_raw(table: *mut sys::apr_table_t, pool: Pool<'t>) -> Option<Self> {
        NonNull::new(table).map(|table| Self { table, pool, life: PhantomData })
    }

    pub(super) fn as_ptr(self) -> *mut sys::apr_table_t {
        self.table.as_ptr()
    }

    /// A deep copy in the same pool.
    pub fn copy(self) -> Option<Self> {
        // SAFETY: table and pool are alive by `'t`.
        unsafe {
            Self::from_raw(sys::apr_table_clone(self.pool.as_ptr(), self.as_ptr()), self.pool)
        }
    }

    /// All values of `name`, joined with commas (RFC 9110, section 5.3).
    pub fn get(self, name: &CStr) -> Option<&'t [u8]> {
        // SAFETY: table, pool and name are alive.
        let value =
            unsafe { sys::apr_table_getm(self.pool.as_ptr(), self.as_ptr(), name.as_ptr()) };
        if value.is_null() {
            return None;
        }
        // SAFETY: a NUL-terminated string of the table or the pool, both alive
        // for `'t`; values are replaced in a table, never written over.
        Some(unsafe { CStr::from_ptr(value) }.to_bytes())
    }

    /// Sets `name` to `value`, replacing all it had.
    pub fn set(self, name: &CStr, value: &[u8]) {
        let value = self.pool.copy(value);
        // SAFETY: `name` and `value` are copied by apr_table_set.
        unsafe { sys::apr_table_set(self.as_ptr(), name.as_ptr(), value.as_ptr()) };
    }

    /// Removes all values of `name`.
    pub fn unset(self, name: &CStr) {
        // SAFETY: table and name are alive.
        unsafe { sys::apr_table_unset(self.as_ptr(), name.as_ptr()) };
    }
}
