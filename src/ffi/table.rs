//! `apr_table_t`: header fields, environment, notes.

use std::ffi::CStr;
use std::marker::PhantomData;
use std::ptr::NonNull;

use super::pool::Pool;
use super::sys;

/// A table that lives at least as long as `'t`, with the pool it allocates from.
#[derive(Clone, Copy)]
pub(crate) struct Table<'t> {
    table: NonNull<sys::apr_table_t>,
    pool: Pool<'t>,
    life: PhantomData<&'t ()>,
}

impl<'t> Table<'t> {
    /// # Safety
    /// `table` and what it holds are in `pool`, or live as long, and are used by one thread at a
    /// time.
    pub(super) unsafe fn from_raw(table: *mut sys::apr_table_t, pool: Pool<'t>) -> Option<Self> {
        NonNull::new(table).map(|table| Self { table, pool, life: PhantomData })
    }

    pub(super) fn as_ptr(self) -> *mut sys::apr_table_t {
        self.table.as_ptr()
    }

    /// A copy in the same pool. Names and values are shared, and nobody writes over them.
    pub(crate) fn copy(self) -> Option<Self> {
        // SAFETY: table and pool are alive by `'t`, and so is what the table points to.
        unsafe { Self::from_raw(sys::apr_table_copy(self.pool.as_ptr(), self.as_ptr()), self.pool) }
    }

    /// This table if it is in `pool`, or a copy there of all that it holds.
    pub(super) fn in_pool<'p>(self, pool: Pool<'p>) -> Option<Table<'p>> {
        let table = if self.pool == pool {
            self.as_ptr()
        } else {
            // SAFETY: table and pool are alive.
            unsafe { sys::apr_table_clone(pool.as_ptr(), self.as_ptr()) }
        };
        // SAFETY: the table is in this pool.
        unsafe { Table::from_raw(table, pool) }
    }

    /// All values of `name`, joined with commas (RFC 9110, section 5.3).
    pub(crate) fn get(self, name: &CStr) -> Option<&'t [u8]> {
        // Most differ in their first letter, and a request has its fields looked at again and again.
        const LOWER: u8 = 0x20;
        let first = name.to_bytes().first().map(|byte| byte | LOWER);
        let is_named = |entry: &&sys::apr_table_entry_t| {
            // SAFETY: NULL, or NUL-terminated.
            let begins = unsafe { entry.key.cast::<u8>().as_ref() };
            begins.is_some_and(|byte| Some(byte | LOWER) == first)
                // SAFETY: both are NUL-terminated, and the key is not NULL.
                && unsafe { libc::strcasecmp(entry.key, name.as_ptr()) } == 0
        };
        let mut values = self.entries().iter().filter(is_named);
        let first = values.next()?.val.cast_const();
        let value = match values.next() {
            None => first,
            // SAFETY: table, pool and name are alive.
            Some(_) => unsafe {
                sys::apr_table_getm(self.pool.as_ptr(), self.as_ptr(), name.as_ptr())
            },
        };
        // SAFETY: NULL, or a NUL-terminated string that lives as long as the table's pool; values are
        // replaced in a table, never written over.
        (!value.is_null()).then(|| unsafe { CStr::from_ptr(value) }.to_bytes())
    }

    fn entries(&self) -> &[sys::apr_table_entry_t] {
        // SAFETY: a table begins with the array of its entries, as apr_table_elts says.
        let array = unsafe { &*sys::apr_table_elts(self.as_ptr()) };
        match usize::try_from(array.nelts) {
            // SAFETY: that many entries, which nobody changes while they are looked at.
            Ok(count @ 1..) => unsafe { std::slice::from_raw_parts(array.elts.cast(), count) },
            _ => &[],
        }
    }

    /// Sets `name` to `value`, replacing all it had.
    pub(crate) fn set(self, name: &'static CStr, value: &[u8]) {
        let value = self.pool.copy(value);
        // SAFETY: the table keeps both, which live as long as its pool: the one is in there, the other
        // in this library.
        unsafe { sys::apr_table_setn(self.as_ptr(), name.as_ptr(), value.as_ptr()) };
    }

    /// Removes all values of `name`.
    pub(crate) fn unset(self, name: &CStr) {
        // SAFETY: table and name are alive.
        unsafe { sys::apr_table_unset(self.as_ptr(), name.as_ptr()) };
    }
}
