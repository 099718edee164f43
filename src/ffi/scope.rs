//! The request that a thread is serving right now, for callbacks that httpd
//! gives no request: connection hooks and connection filters.

use std::cell::Cell;
use std::ptr::NonNull;
use std::thread::LocalKey;

use super::connection::Connection;
use super::request::Request;
use super::sys;

/// What is being served in this thread, with data `D` of the module's own. For
/// a `thread_local!` without a destructor: it holds pointers only.
pub(crate) struct Scope<D>(Cell<Option<Current<D>>>);

struct Current<D> {
    request: NonNull<sys::request_rec>,
    origin: Option<NonNull<sys::conn_rec>>,
    data: NonNull<D>,
}

impl<D> Clone for Current<D> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<D> Copy for Current<D> {}

/// What [`Scope::look`] shows.
pub(crate) struct Serving<'s, D> {
    /// The request.
    pub(crate) request: Request<'s>,
    /// The connection to the back end, once there is one.
    pub(crate) origin: Option<Connection<'s>>,
    /// The module's own data.
    pub(crate) data: &'s D,
}

impl<D> Scope<D> {
    /// Nothing is being served.
    pub(crate) const fn new() -> Self {
        Self(Cell::new(None))
    }

    /// Runs `body`, during which callbacks in this thread see `request` and `data`.
    pub(crate) fn enter<T>(&self, request: Request<'_>, data: &D, body: impl FnOnce() -> T) -> T {
        struct Leave<'s, D>(&'s Scope<D>, Option<Current<D>>);
        impl<D> Drop for Leave<'_, D> {
            fn drop(&mut self) {
                self.0.0.set(self.1);
            }
        }
        let request = NonNull::new(request.as_ptr());
        let current =
            request.map(|request| Current { request, origin: None, data: NonNull::from(data) });
        // Put back even if `body` panics, so that nobody sees what is gone.
        let _leave = Leave(self, self.0.replace(current));
        body()
    }

    /// What this thread is serving, if anything.
    pub(crate) fn look<T>(&self, see: impl for<'s> FnOnce(Serving<'s, D>) -> T) -> Option<T> {
        let current = self.0.get()?;
        // SAFETY: `enter` borrows the request for as long as it is current.
        let request = unsafe { Request::from_raw(current.request.as_ptr()) }?;
        // SAFETY: forgotten as a cleanup of the connection's pool (`Forget`), while it is alive.
        let origin =
            current.origin.and_then(|origin| unsafe { Connection::from_raw(origin.as_ptr()) });
        // SAFETY: `enter` borrows the data for as long as it is current.
        let data = unsafe { current.data.as_ref() };
        Some(see(Serving { request, origin, data }))
    }
}

impl<D: 'static> Scope<D> {
    /// Says which connection leads to the back end of the current request, until it is closed.
    pub(crate) fn set_origin(this: &'static LocalKey<Self>, origin: Connection<'_>) {
        let (Some(pool), Some(c)) = (origin.pool(), NonNull::new(origin.as_ptr())) else { return };
        // Once for a connection that is kept and serves several requests.
        if origin.note_scope(std::ptr::from_ref(this).cast()) {
            pool.own(Forget(this, c));
        }
        let origin = Some(c);
        this.with(|scope| scope.0.set(scope.0.get().map(|current| Current { origin, ..current })));
    }

    /// The connection is about to be another request's, and another thread's.
    pub(crate) fn forget_origin(this: &'static LocalKey<Self>) {
        let forget = |current| Current { origin: None, ..current };
        this.with(|scope| scope.0.set(scope.0.get().map(forget)));
    }
}

/// Owned by a connection to a back end: forgets it when it is closed. While a request is served
/// over it, the thread that serves it is the one that closes it. When it is kept for other
/// requests, any thread may.
struct Forget<D: 'static>(&'static LocalKey<Scope<D>>, NonNull<sys::conn_rec>);

// SAFETY: the pointer is compared, and never followed.
unsafe impl<D> Send for Forget<D> {}

impl<D> Drop for Forget<D> {
    fn drop(&mut self) {
        let forget = |current: Current<D>| Current {
            origin: current.origin.filter(|origin| *origin != self.1),
            ..current
        };
        self.0.with(|scope| scope.0.set(scope.0.get().map(forget)));
    }
}
