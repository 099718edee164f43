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
pub struct Scope<D>(Cell<Option<Current<D>>>);

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
pub struct Serving<'s, D> {
    /// The request.
    pub request: Request<'s>,
    /// The connection to the back end, once there is one.
    pub origin: Option<Connection<'s>>,
    /// The module's own data.
    pub data: &'s D,
}

impl<D> Scope<D> {
    /// Nothing is being served.
    pub const fn new() -> Self {
        Self(Cell::new(None))
    }

    /// Runs `body`, during which callbacks in this thread see `request` and `data`.
    pub fn enter<T>(&self, request: Request<'_>, data: &D, body: impl FnOnce() -> T) -> T {
        struct Leave<'s, D>(&'s Scope<D>, Option<Current<D>>);
        impl<D> Drop for Leave<'_, D> {
            fn drop(&mut self) {
                self.0.0.set(self.1);
            }
        }
        let request = NonNull::new(request.as_ptr());
        let current =
            request.map(|request| Current { request, origin: None, data: NonNull::from(data) });
        // Put back even when `body` panics: nobody sees what is gone.
        let _leave = Leave(self, self.0.replace(current));
        body()
    }

    /// What this thread is serving, if anything.
    pub fn look<T>(&self, see: impl for<'s> FnOnce(Serving<'s, D>) -> T) -> Option<T> {
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
    pub fn set_origin(this: &'static LocalKey<Self>, origin: Connection<'_>) {
        let Some(pool) = origin.pool() else { return };
        let Some(c) = NonNull::new(origin.as_ptr()) else { return };
        pool.own(Forget(this, c));
        Self::set_known_origin(this, origin);
    }

    /// The same for a connection of which it was said before.
    pub fn set_known_origin(this: &'static LocalKey<Self>, origin: Connection<'_>) {
        let origin = NonNull::new(origin.as_ptr());
        this.with(|scope| scope.0.set(scope.0.get().map(|current| Current { origin, ..current })));
    }

    /// The connection is about to be another request's, and another thread's.
    pub fn forget_origin(this: &'static LocalKey<Self>) {
        let forget = |current| Current { origin: None, ..current };
        this.with(|scope| scope.0.set(scope.0.get().map(forget)));
    }
}

/// What a connection to a back end takes along when it goes. The thread that serves a request
/// from it is the one that closes it meanwhile; any may, when it is kept for others.
struct Forget<D: 'static>(&'static LocalKey<Scope<D>>, NonNull<sys::conn_rec>);

impl<D> Drop for Forget<D> {
    fn drop(&mut self) {
        let forget = |current: Current<D>| Current {
            origin: current.origin.filter(|origin| *origin != self.1),
            ..current
        };
        self.0.with(|scope| scope.0.set(scope.0.get().map(forget)));
    }
}
