//! What is set in each section of the configuration (a server, a directory, a location, an
//! .htaccess), as httpd keeps it, merges it and passes it around.

use std::any::TypeId;
use std::ffi::{c_char, c_void};
use std::ptr::NonNull;

use super::guard::guard;
use super::pool::Pool;
use super::request::Request;
use super::sys;

/// A kind of configuration, which is the same for all sections.
pub(crate) trait SectionConfig: 'static {
    /// What is set in one section. Its texts may live in the section's pool, for `'p`.
    type In<'p>: Copy + Default;

    /// What holds in a section `over` within (or after) `base`.
    fn merge<'p>(base: &Self::In<'p>, over: &Self::In<'p>) -> Self::In<'p>;
}

/// What httpd gets a pointer to.
#[repr(C)]
struct Stored<'p, C: SectionConfig> {
    /// Of `C`: who reads as another kind gets nothing.
    kind: TypeId,
    config: C::In<'p>,
}

/// Puts a configuration into a pool, for httpd.
fn store<'p, C: SectionConfig>(pool: Pool<'p>, config: C::In<'p>) -> *mut c_void {
    let stored = pool.write(Stored::<C> { kind: TypeId::of::<C>(), config });
    stored.as_ptr().cast()
}

/// The configuration that httpd has a pointer to; `None` if there is none, or not of this kind.
///
/// # Safety
/// `stored` is NULL, or was made by [`create`] or [`merge`] in a pool that is alive.
pub(super) unsafe fn stored<'p, C: SectionConfig>(
    stored: *mut c_void,
) -> Option<NonNull<C::In<'p>>> {
    // SAFETY: by the caller; each kind of `Stored` begins with a TypeId.
    let kind = unsafe { stored.cast::<TypeId>().as_ref() }?;
    if *kind != TypeId::of::<C>() {
        return None;
    }
    // SAFETY: by the caller, and of this kind.
    NonNull::new(unsafe { &raw mut (*stored.cast::<Stored<'p, C>>()).config })
}

/// The configuration of the sections that a request is in.
pub(crate) fn config<C: SectionConfig>(r: Request<'_>) -> C::In<'_> {
    // SAFETY: httpd keeps here what `create` or `merge` made, in a pool that lives at least as long
    // as the request. Nobody writes to it any more.
    unsafe { stored::<C>(r.dir_config_ptr()).map(|config| config.read()) }.unwrap_or_default()
}

/// What httpd calls for a new section.
pub(super) unsafe extern "C" fn create<C: SectionConfig>(
    pool: *mut sys::apr_pool_t,
    _directory: *mut c_char,
) -> *mut c_void {
    guard(std::ptr::null_mut(), || {
        // SAFETY: httpd passes the pool that the configuration is to live in.
        match unsafe { Pool::from_raw(pool) } {
            Some(pool) => store::<C>(pool, C::In::default()),
            None => std::ptr::null_mut(),
        }
    })
}

/// What httpd calls for a section within, or after, another.
pub(super) unsafe extern "C" fn merge<C: SectionConfig>(
    pool: *mut sys::apr_pool_t,
    base: *mut c_void,
    over: *mut c_void,
) -> *mut c_void {
    guard(base, || {
        // SAFETY: httpd passes the pool that the configuration is to live in.
        let Some(pool) = (unsafe { Pool::from_raw(pool) }) else { return base };
        // SAFETY: both were made by these two functions, in pools that outlive this one.
        let of = |one| unsafe { stored::<C>(one).map(|config| config.read()) }.unwrap_or_default();
        store::<C>(pool, C::merge(&of(base), &of(over)))
    })
}
