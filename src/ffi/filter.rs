//! Input filters of a connection.

use std::cell::RefCell;
use std::ffi::CStr;
use std::marker::PhantomData;
use std::sync::atomic::{AtomicPtr, Ordering};

use super::apr_status::Status;
use super::brigade::Brigade;
use super::connection::Connection;
use super::guard::guard;
use super::sys;

/// How a filter is read (`ap_input_mode_t`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)]
pub(crate) enum Mode {
    ReadBytes,
    GetLine,
    EatCrlf,
    Speculative,
    Exhaustive,
    Init,
}

/// One read: what is wanted, and whether to wait for it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Read {
    /// What is wanted.
    pub(crate) mode: Mode,
    /// Whether to wait for it.
    pub(crate) block: bool,
    /// The most bytes wanted, where the mode has a bound.
    pub(crate) bytes: usize,
}

/// A filter on a connection, owned by the connection's pool.
///
/// Reads only go down a chain. One that comes back to a filter while it runs fails.
pub(crate) trait InputFilter: Send + 'static {
    /// Answers a read with bytes in `out`.
    fn read(
        &mut self,
        c: Connection<'_>,
        next: &mut Next<'_>,
        out: &mut Brigade<'_>,
        read: Read,
    ) -> Result<(), Status>;
}

/// The rest of the chain below a filter.
pub(crate) struct Next<'f>(*mut sys::ap_filter_t, PhantomData<&'f ()>);

impl Next<'_> {
    /// Reads from the filter below.
    pub(crate) fn read(&mut self, out: &mut Brigade<'_>, read: Read) -> Result<(), Status> {
        let mode = match read.mode {
            Mode::ReadBytes => sys::AP_MODE_READBYTES,
            Mode::GetLine => sys::AP_MODE_GETLINE,
            Mode::EatCrlf => sys::AP_MODE_EATCRLF,
            Mode::Speculative => sys::AP_MODE_SPECULATIVE,
            Mode::Exhaustive => sys::AP_MODE_EXHAUSTIVE,
            Mode::Init => sys::AP_MODE_INIT,
        };
        let block = if read.block { sys::APR_BLOCK_READ } else { sys::APR_NONBLOCK_READ };
        let bytes = sys::apr_off_t::try_from(read.bytes).unwrap_or(sys::apr_off_t::MAX);
        // SAFETY: httpd keeps the chain below a filter alive while it runs.
        Status::check(unsafe { sys::ap_get_brigade(self.0, out.as_ptr(), mode, block, bytes) })
    }
}

/// Where in the chain a filter sits.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Layer {
    /// Above TLS: sees plain text.
    AboveTls,
    /// Between TLS and the socket.
    BelowTls,
}

impl Next<'_> {
    /// Has core's output filter write what it has kept, without waiting. The call has no brigade,
    /// as in the MPMs (event.c, "write completion").
    pub(super) fn write_pending(&mut self) {
        // SAFETY: httpd keeps the chain alive for as long as the connection; an output filter has
        // a function for output, and core's takes NULL for "nothing more".
        unsafe {
            let function = (*(*self.0).frec).filter_func.out_func;
            if let Some(function) = function {
                function(self.0, std::ptr::null_mut());
            }
        }
    }
}

/// This module is being loaded, which is when its kinds of filters are made known to httpd: later
/// other threads look at the list of them.
pub(crate) struct Loading(());

impl Loading {
    pub(super) fn new() -> Self {
        Self(())
    }
}

/// A kind of filter, known to httpd from [`Kind::register`] on.
pub(crate) struct Kind<F>(AtomicPtr<sys::ap_filter_rec_t>, PhantomData<fn() -> F>);

impl<F: InputFilter> Kind<F> {
    /// A kind that is not registered yet.
    pub(crate) const fn new() -> Self {
        Self(AtomicPtr::new(std::ptr::null_mut()), PhantomData)
    }

    /// Makes the filter known to httpd, under a name for its logs.
    pub(crate) fn register(&self, _: &Loading, name: &'static CStr, layer: Layer) {
        let kind = match layer {
            // mod_ssl's filter is CONNECTION + 5, core's socket filter NETWORK.
            Layer::AboveTls => sys::AP_FTYPE_CONNECTION,
            Layer::BelowTls => sys::AP_FTYPE_NETWORK - 2,
        };
        // SAFETY: httpd copies the name; the function lives as long as the module.
        let record =
            unsafe { sys::ap_register_input_filter(name.as_ptr(), Some(enter::<F>), None, kind) };
        self.0.store(record, Ordering::Relaxed);
    }

    /// Puts `filter` on a connection, for as long as that lives.
    pub(crate) fn add(&self, c: Connection<'_>, filter: F) -> Result<(), Status> {
        let record = self.0.load(Ordering::Relaxed);
        let pool = c.pool().ok_or(Status::GENERAL)?;
        if record.is_null() {
            return Err(Status::GENERAL);
        }
        let context = pool.own(RefCell::new(filter));
        // SAFETY: registered for F by this `Kind`; the context lives as long as
        // the connection, as the filter does.
        let added = unsafe {
            sys::ap_add_input_filter_handle(
                record,
                context.as_ptr().cast(),
                std::ptr::null_mut(),
                c.as_ptr(),
            )
        };
        if added.is_null() { Err(Status::GENERAL) } else { Ok(()) }
    }
}

/// A chain from its first filter on.
///
/// # Safety
/// As for [`walk`].
pub(super) unsafe fn first<'f>(chain: *mut sys::ap_filter_t) -> Next<'f> {
    Next(chain, PhantomData)
}

/// The filters of a chain, each with its name, in lower case as httpd keeps it.
///
/// # Safety
/// `chain` is NULL or a filter of a connection or request that lives at least as long as `'f`, and
/// is worked on by this thread.
unsafe fn walk<'f>(
    chain: *mut sys::ap_filter_t,
) -> impl Iterator<Item = (*mut sys::ap_filter_t, &'f CStr)> {
    let mut at = chain;
    std::iter::from_fn(move || {
        let this = at;
        // SAFETY: chains end with NULL, and live as long as what they belong to, by the caller.
        let filter = unsafe { this.as_ref() }?;
        at = filter.next;
        // SAFETY: every filter has a record, which has a name, for as long as httpd runs.
        Some((this, unsafe { CStr::from_ptr((*filter.frec).name) }))
    })
}

/// The part of a chain that begins with the filter of that name.
///
/// # Safety
/// As for [`walk`].
pub(super) unsafe fn find<'f>(chain: *mut sys::ap_filter_t, name: &CStr) -> Option<Next<'f>> {
    // SAFETY: by the caller.
    unsafe { walk(chain) }.find(|(_, of)| *of == name).map(|(filter, _)| Next(filter, PhantomData))
}

/// The first filter of a chain whose name is not known.
///
/// # Safety
/// As for [`walk`].
pub(super) unsafe fn unknown<'f>(
    chain: *mut sys::ap_filter_t,
    is_known: fn(&[u8]) -> bool,
) -> Option<&'f CStr> {
    // SAFETY: by the caller.
    unsafe { walk(chain) }.map(|(_, name)| name).find(|name| !is_known(name.to_bytes()))
}

/// What httpd calls: the C side of [`InputFilter::read`].
unsafe extern "C" fn enter<F: InputFilter>(
    f: *mut sys::ap_filter_t,
    bb: *mut sys::apr_bucket_brigade,
    mode: sys::ap_input_mode_t,
    block: sys::apr_read_type_e,
    bytes: sys::apr_off_t,
) -> sys::apr_status_t {
    guard(sys::APR_EGENERAL, || {
        // SAFETY: httpd passes the filter it calls; `add` set its context to an F
        // of the connection's pool, which one thread works on.
        let (context, c, next) = unsafe { (&*(*f).ctx.cast::<RefCell<F>>(), (*f).c, (*f).next) };
        let Ok(mut context) = context.try_borrow_mut() else { return sys::APR_EGENERAL };
        // SAFETY: httpd passes the filter's live connection and a brigade for
        // the length of the call.
        let (c, out) = unsafe { (Connection::from_raw(c), Brigade::from_raw(bb)) };
        let (Some(c), Some(mut out)) = (c, out) else { return sys::APR_EGENERAL };
        let mode = match mode {
            sys::AP_MODE_READBYTES => Mode::ReadBytes,
            sys::AP_MODE_GETLINE => Mode::GetLine,
            sys::AP_MODE_EATCRLF => Mode::EatCrlf,
            sys::AP_MODE_SPECULATIVE => Mode::Speculative,
            sys::AP_MODE_EXHAUSTIVE => Mode::Exhaustive,
            _ => Mode::Init,
        };
        let read = Read {
            mode,
            block: block == sys::APR_BLOCK_READ,
            bytes: usize::try_from(bytes).unwrap_or(0),
        };
        let mut next = Next(next, PhantomData);
        Status::into_raw(context.read(c, &mut next, &mut out, read))
    })
}
