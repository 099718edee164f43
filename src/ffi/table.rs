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
        // SAFETY: table and name are alive.
        let first = unsafe { sys::apr_table_get(self.as_ptr(), name.as_ptr()) };
        if first.is_null() {
            return None;
        }
        // SAFETY: keys and values are NUL-terminated strings that live as long as the table's
        // pool; values are replaced in a table, never written over.
        let text = |text| unsafe { CStr::from_ptr(text) }.to_bytes();
        let is_named = |entry: &&sys::apr_table_entry_t| {
            !entry.key.is_null() && text(entry.key).eq_ignore_ascii_case(name.to_bytes())
        };
        let mut entries = self.entries().iter();
        let found = entries.find(|entry| entry.val.cast_const() == first && is_named(entry));
        // Equal keys have the same checksum (apr_tables.c).
        let sum = found.map_or(0, |found| found.key_checksum);
        if !entries.any(|entry| entry.key_checksum == sum && is_named(&entry)) {
            return Some(text(first));
        }
        // SAFETY: table, pool and name are alive.
        let value =
            unsafe { sys::apr_table_getm(self.pool.as_ptr(), self.as_ptr(), name.as_ptr()) };
        // SAFETY: a NUL-terminated string of the pool, alive for `'t`.
        (!value.is_null()).then(|| text(value))
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
    pub(crate) fn set(self, name: &CStr, value: &[u8]) {
        let value = self.pool.copy(value);
        // SAFETY: `name` and `value` are copied by apr_table_set.
        unsafe { sys::apr_table_set(self.as_ptr(), name.as_ptr(), value.as_ptr()) };
    }

    /// Removes all values of `name`.
    pub(crate) fn unset(self, name: &CStr) {
        // SAFETY: table and name are alive.
        unsafe { sys::apr_table_unset(self.as_ptr(), name.as_ptr()) };
    }
}
