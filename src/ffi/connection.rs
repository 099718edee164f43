//! `conn_rec` and its socket.

use std::cell::Cell;
use std::ffi::CStr;
use std::fmt;
use std::marker::PhantomData;
use std::os::fd::BorrowedFd;
use std::ptr::NonNull;
use std::time::Duration;

use super::apr_status::Status;
use super::noted::Noted;
use super::openssl::SslRef;
use super::pool::Pool;
use super::slots::{config_of, set_config_of};
use super::sys;

/// A connection, to a client or to a back end, that lives at least as long as `'c`.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Connection<'c>(NonNull<sys::conn_rec>, PhantomData<&'c ()>);

impl<'c> Connection<'c> {
    /// # Safety
    /// `c` lives at least as long as `'c`, and is used by one thread at a time.
    pub(super) unsafe fn from_raw(c: *mut sys::conn_rec) -> Option<Self> {
        NonNull::new(c).map(|c| Self(c, PhantomData))
    }

    pub(super) fn as_ptr(self) -> *mut sys::conn_rec {
        self.0.as_ptr()
    }

    pub(super) fn conn_rec(&self) -> &sys::conn_rec {
        // SAFETY: alive for `'c`; nobody writes to it while the borrow lasts,
        // since one thread at a time works on a connection.
        unsafe { self.0.as_ref() }
    }

    /// The connection's pool.
    pub(crate) fn pool(self) -> Option<Pool<'c>> {
        // SAFETY: the pool lives as long as the connection.
        unsafe { Pool::from_raw(self.conn_rec().pool) }
    }

    /// Whether this is a stream of another connection (HTTP/2).
    pub(crate) fn is_secondary(self) -> bool {
        !self.conn_rec().master.is_null()
    }

    /// How many requests the connection has served before this one.
    pub(crate) fn keepalives(self) -> i32 {
        self.conn_rec().keepalives
    }

    /// Sets [`Self::keepalives`].
    pub(crate) fn set_keepalives(self, keepalives: i32) {
        // SAFETY: alive for `'c`, written by the thread that works on it.
        unsafe { (*self.as_ptr()).keepalives = keepalives };
    }

    /// The port at this end; 0 if it has none.
    pub(crate) fn local_port(self) -> u16 {
        // SAFETY: NULL, or as old as the connection.
        unsafe { self.conn_rec().local_addr.as_ref() }.map_or(0, |address| address.port)
    }

    /// Closes the connection after the current request instead of keeping it.
    pub(crate) fn close_after_request(self) {
        // SAFETY: alive for `'c`, written by the thread that works on it.
        unsafe { (*self.as_ptr()).keepalive = sys::AP_CONN_CLOSE };
    }

    /// Undoes [`Self::close_after_request`]: what the peer sends decides again.
    pub(crate) fn may_be_kept(self) {
        // SAFETY: alive for `'c`, written by the thread that works on it.
        unsafe { (*self.as_ptr()).keepalive = sys::AP_CONN_UNKNOWN };
    }

    /// Notes whether the client was just asked to authenticate itself, and returns what was noted
    /// before.
    pub(crate) fn note_challenge(&self, challenged: bool) -> bool {
        self.state().is_some_and(|state| state.challenged.replace(challenged))
    }

    /// Notes that this scope knows the connection, and says whether that is new.
    pub(super) fn note_scope(&self, scope: *const ()) -> bool {
        self.state().is_none_or(|state| state.scope.replace(scope) != scope)
    }

    /// The connection's own socket.
    pub(crate) fn socket(self) -> Option<Socket<'c>> {
        // SAFETY: alive for `'c`; core sets the socket before any hook of ours.
        let socket = unsafe { sys::ap_get_conn_socket(self.as_ptr()) };
        // SAFETY: the socket is the connection's and lives as long.
        unsafe { Socket::from_raw(socket) }
    }

    /// Sets the connection up for this module. Runs in the first of the pre_connection hooks, so
    /// that the state is dropped last: pools run their cleanups in reverse order, mod_ssl's before
    /// this one.
    pub(super) fn prepare(self) {
        if let Some(pool) = self.pool() {
            let state = pool.own(State {
                ssl: Cell::new(None),
                ssl_ref: Cell::new(None),
                at_close: Cell::new(None),
                noted: Cell::new(None),
                challenged: Cell::new(false),
                scope: Cell::new(std::ptr::null()),
            });
            // SAFETY: the connection's own, which this thread works on.
            unsafe { set_config_of(self.conn_rec().conn_config, state.as_ptr().cast()) };
        }
    }

    fn state(&self) -> Option<&State> {
        // SAFETY: the connection's own vector; NULL there, or what `prepare` made, which lives as
        // long as the connection.
        unsafe { config_of(self.conn_rec().conn_config).cast::<State>().as_ref() }
    }

    /// Its TLS session, which is alive: see [`Self::keep_ssl`].
    pub(super) fn ssl(&self) -> Option<NonNull<tls::Ssl>> {
        self.state()?.ssl.get()
    }

    /// Keeps its TLS session until [`Self::forget_ssl`], or the connection's end, whichever comes
    /// first. mod_ssl gives it up in the middle of a connection when something goes wrong with it, such as a
    /// message of TLS's own that is not completed (ssl_filter_io_shutdown in ssl_engine_io.c).
    ///
    /// # Safety
    /// It is alive.
    pub(super) unsafe fn keep_ssl(&self, ssl: NonNull<tls::Ssl>) {
        if let Some(state) = self.state() {
            state.ssl.set(Some(ssl));
            // SAFETY: by the caller.
            state.ssl_ref.set(unsafe { SslRef::new(ssl) });
        }
    }

    /// The connection has no TLS session any more, as far as this module is concerned.
    pub(super) fn forget_ssl(&self) {
        if let Some(state) = self.state() {
            state.ssl.set(None);
            state.ssl_ref.set(None);
        }
    }

    /// Has `last` run when httpd has closed the connection: as the last cleanup of the connection's
    /// pool, whose memory is still valid then. On a connection that was not
    /// [prepared](Self::prepare) it is dropped at once instead. It is given the lines of access logs
    /// that were kept.
    pub(super) fn at_close(&self, last: impl FnOnce(Vec<u8>) + Send + 'static) {
        if let Some(state) = self.state() {
            state.at_close.set(Some(Box::new(last)));
        }
    }

    /// What is noted of its last request, which is gone from there.
    pub(super) fn take_noted(&self) -> Option<Box<Noted>> {
        self.state()?.noted.take()
    }

    /// Notes it.
    pub(super) fn set_noted(&self, noted: Option<Box<Noted>>) {
        if let Some(state) = self.state() {
            state.noted.set(noted);
        }
    }

    /// Whether [`Self::at_close`] has something to run.
    pub(super) fn has_at_close(&self) -> bool {
        self.state().is_some_and(|state| {
            let last = state.at_close.take();
            let has = last.is_some();
            state.at_close.set(last);
            has
        })
    }

    /// Whether httpd believes that the peer is gone.
    pub(crate) fn is_aborted(self) -> bool {
        // SAFETY: alive for `'c`.
        unsafe { sys::wsf_conn_aborted(self.as_ptr()) != 0 }
    }

    /// Makes httpd believe that the peer is gone.
    pub(crate) fn abort(self) {
        // SAFETY: alive for `'c`, written by the thread that works on it.
        unsafe { sys::wsf_conn_set_aborted(self.as_ptr()) };
    }

    /// Whether output waits in the connection's filters.
    pub(crate) fn has_pending_output(self) -> bool {
        self.conn_rec().data_in_output_filters != 0
    }

    /// Whether its socket has something to be read now.
    pub(crate) fn is_readable(self) -> bool {
        let Some(socket) = self.socket() else { return false };
        socket.fd().is_some_and(os::poll::is_readable)
    }

    /// The number that httpd gave the connection.
    pub(crate) fn id(self) -> i64 {
        self.conn_rec().id
    }

    /// The peer's address and port.
    pub(crate) fn peer(self) -> Peer<'c> {
        Peer(self)
    }
}

/// The peer of a connection, as text.
pub(crate) struct Peer<'c>(Connection<'c>);

impl Peer<'_> {
    /// The same as a string.
    pub(crate) fn text(&self) -> String {
        let mut text = String::with_capacity(USUAL_ADDRESS_BYTES);
        // Writing to a String does not fail.
        let _ = self.write(&mut text);
        text
    }

    /// Without the general machine of formatting this takes a quarter of the time, for each tunnel.
    pub(super) fn write(&self, to: &mut impl fmt::Write) -> fmt::Result {
        let record = self.0.conn_rec();
        // SAFETY: the address lives as long as the connection.
        let address = unsafe { record.client_addr.as_ref() };
        // SAFETY: httpd fills in the text of each connection's peer.
        let ip = (!record.client_ip.is_null()).then(|| unsafe { CStr::from_ptr(record.client_ip) });
        let (Some(address), Some(ip)) = (address, ip) else { return to.write_str("unknown") };
        // A unix socket has a path; its port field holds bytes of that.
        if ip.to_bytes().starts_with(b"/") || address.family == libc::AF_UNIX {
            write!(to, "unix:{}", ip.to_string_lossy())
        } else if ip.is_empty() {
            to.write_str("unknown")
        } else {
            write_address(to, ip, address.port)
        }
    }
}

impl fmt::Display for Peer<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.write(f)
    }
}

/// An address of IPv4 and a port have no more; one of IPv6 seldom.
pub(super) const USUAL_ADDRESS_BYTES: usize = 32;

/// An address and a port, as URLs have them.
pub(super) fn write_address(to: &mut impl fmt::Write, ip: &CStr, port: u16) -> fmt::Result {
    // It is made of digits and the like.
    let ip = ip.to_str().unwrap_or_default();
    let [open, close] = if ip.contains(':') { ["[", "]:"] } else { ["", ":"] };
    to.write_str(open)?;
    to.write_str(ip)?;
    to.write_str(close)?;
    write!(to, "{port}")
}

/// What runs when a connection is closed.
type AtClose = Box<dyn FnOnce(Vec<u8>) + Send>;

/// This module's state of a connection.
struct State {
    ssl: Cell<Option<NonNull<tls::Ssl>>>,
    /// What keeps it alive.
    ssl_ref: Cell<Option<SslRef>>,
    at_close: Cell<Option<AtClose>>,
    noted: Cell<Option<Box<Noted>>>,
    challenged: Cell<bool>,
    /// Only compared; see [`Connection::note_scope`].
    scope: Cell<*const ()>,
}

// SAFETY: a connection and its state are used by one thread at a time; the session is OpenSSL's, who
// ties it to no thread.
unsafe impl Send for State {}

impl Drop for State {
    fn drop(&mut self) {
        // Whoever was handed the session has a reference of its own, and is the only one now.
        self.ssl_ref.set(None);
        if let Some(last) = self.at_close.take() {
            last(self.noted.take().map(|noted| noted.into_lines()).unwrap_or_default());
        }
    }
}

/// A socket of a connection.
#[derive(Clone, Copy)]
pub(crate) struct Socket<'c>(NonNull<sys::apr_socket_t>, PhantomData<&'c ()>);

impl Socket<'_> {
    /// # Safety
    /// `socket` lives at least as long as the wrapper's lifetime.
    pub(super) unsafe fn from_raw(socket: *mut sys::apr_socket_t) -> Option<Self> {
        NonNull::new(socket).map(|socket| Self(socket, PhantomData))
    }

    /// The descriptor.
    pub(crate) fn fd(&self) -> Option<BorrowedFd<'_>> {
        let mut fd: sys::apr_os_sock_t = -1;
        // SAFETY: the socket is alive; `fd` is ours.
        let rv = unsafe { sys::apr_os_sock_get(&raw mut fd, self.0.as_ptr()) };
        // SAFETY: the socket owns the descriptor and lives as long as the borrow.
        (rv == 0 && fd >= 0).then(|| unsafe { BorrowedFd::borrow_raw(fd) })
    }

    /// How long a blocking operation may wait; `None` is for ever.
    pub(crate) fn timeout(self) -> Option<Duration> {
        let mut timeout: sys::apr_interval_time_t = -1;
        // SAFETY: the socket is alive; `timeout` is ours.
        unsafe { sys::apr_socket_timeout_get(self.0.as_ptr(), &raw mut timeout) };
        u64::try_from(timeout).ok().map(Duration::from_micros)
    }

    /// Sets [`Self::timeout`]. For APR a timeout of 0 means a socket that never blocks, so 0
    /// becomes one microsecond.
    pub(crate) fn set_timeout(self, timeout: Option<Duration>) -> Result<(), Status> {
        let timeout = match timeout {
            None => -1,
            Some(t) => i64::try_from(t.as_micros()).unwrap_or(i64::MAX).max(1),
        };
        // SAFETY: the socket is alive.
        Status::check(unsafe { sys::apr_socket_timeout_set(self.0.as_ptr(), timeout) })
    }
}
