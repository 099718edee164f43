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

    /// A copy in the same pool. Names and values are shared, and nobody writes over them.
    pub fn copy(self) -> Option<Self> {
        // SAFETY: table and pool are alive by `'t`, and so is what the table points to.
        unsafe { Self::from_raw(sys::apr_table_copy(self.pool.as_ptr(), self.as_ptr()), self.pool) }
    }

    /// All values of `name`, joined with commas (RFC 9110, section 5.3).
    pub fn get(self, name: &CStr) -> Option<&'t [u8]> {
        let mut values = self.values(name.to_bytes());
        let first = values.next()?;
        if values.next().is_none() {
            return Some(first);
        }
        // SAFETY: table, pool and name are alive.
        let value =
            unsafe { sys::apr_table_getm(self.pool.as_ptr(), self.as_ptr(), name.as_ptr()) };
        // SAFETY: a NUL-terminated string of the pool, alive for `'t`.
        (!value.is_null()).then(|| unsafe { CStr::from_ptr(value) }.to_bytes())
    }

    /// The values of `name`, one by one.
    fn values(self, name: &[u8]) -> impl Iterator<Item = &'t [u8]> {
        // SAFETY: a table begins with the array of its entries, as apr_table_elts says.
        let array = unsafe { &*sys::apr_table_elts(self.as_ptr()) };
        let entries: &[sys::apr_table_entry_t] = match usize::try_from(array.nelts) {
            // SAFETY: that many entries, which nobody changes while they are looked at.
            Ok(count @ 1..) => unsafe { std::slice::from_raw_parts(array.elts.cast(), count) },
            _ => &[],
        };
        // SAFETY: keys and values are NUL-terminated strings that live as long as the table's
        // pool; values are replaced in a table, never written over.
        let text = |text| unsafe { CStr::from_ptr(text) }.to_bytes();
        // Most are told apart by their first byte, without a look for the end of the key.
        let first = name.first().copied().unwrap_or_default();
        entries
            .iter()
            .filter(move |entry| !entry.key.is_null() && !entry.val.is_null())
            // SAFETY: as above: not NULL, and at least its NUL is there.
            .filter(move |entry| unsafe { *entry.key.cast::<u8>() }.eq_ignore_ascii_case(&first))
            .filter(move |entry| text(entry.key).eq_ignore_ascii_case(name))
            .map(move |entry| text(entry.val))
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
