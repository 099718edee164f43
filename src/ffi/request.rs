//! `request_rec`.

use std::any::Any;
use std::borrow::Cow;
use std::ffi::{CStr, c_char, c_int};
use std::fmt;
use std::marker::PhantomData;
use std::net::IpAddr;
use std::ptr::NonNull;

use super::conftree;
use super::connection::{Connection, USUAL_ADDRESS_BYTES, write_address};
use super::pool::Pool;
use super::slots::{config_of, set_config_of};
use super::sys;
use super::table::Table;

/// What [`Request::keep`] keeps.
type Kept = Box<dyn Any + Send>;

/// A request that lives at least as long as `'r`.
#[derive(Clone, Copy)]
pub(crate) struct Request<'r>(NonNull<sys::request_rec>, PhantomData<&'r ()>);

impl<'r> Request<'r> {
    /// # Safety
    /// `r` lives at least as long as `'r`, and is used by one thread at a time.
    pub(super) unsafe fn from_raw(r: *mut sys::request_rec) -> Option<Self> {
        NonNull::new(r).map(|r| Self(r, PhantomData))
    }

    pub(super) fn as_ptr(self) -> *mut sys::request_rec {
        self.0.as_ptr()
    }

    fn request_rec(&self) -> &sys::request_rec {
        // SAFETY: alive for `'r`; one thread at a time works on a request, and
        // none of its fields is written while this borrow lasts.
        unsafe { self.0.as_ref() }
    }

    /// The request's pool.
    pub(crate) fn pool(self) -> Option<Pool<'r>> {
        // SAFETY: the pool lives as long as the request.
        unsafe { Pool::from_raw(self.request_rec().pool) }
    }

    /// The client's connection.
    pub(crate) fn connection(self) -> Option<Connection<'r>> {
        // SAFETY: a request never outlives its connection.
        unsafe { Connection::from_raw(self.request_rec().connection) }
    }

    /// Whether it is proxied for a site of this server (not as a forward proxy).
    pub(crate) fn is_reverse_proxied(self) -> bool {
        self.request_rec().proxyreq == sys::PROXYREQ_REVERSE
    }

    /// Whether mod_proxy will serve it, as far as can be said before the handler.
    pub(crate) fn will_be_proxied(&self) -> bool {
        let record = self.request_rec();
        if record.proxyreq != sys::PROXYREQ_NONE {
            return record.proxyreq == sys::PROXYREQ_REVERSE;
        }
        // SAFETY: NULL, or NUL-terminated and as old as the request.
        let handler =
            (!record.handler.is_null()).then(|| unsafe { CStr::from_ptr(record.handler) });
        handler.is_some_and(|handler| handler.to_bytes().starts_with(b"proxy:"))
    }

    /// Sets a header field of the response, whatever the response will be.
    pub(crate) fn set_error_header(self, name: &'static CStr, value: &str) {
        if let Some(headers) = self.table(|record| &record.err_headers_out) {
            headers.set(name, value.as_bytes());
        }
    }

    /// Whether it is a subrequest, such as an SSI include.
    pub(crate) fn is_subrequest(self) -> bool {
        !self.request_rec().main.is_null()
    }

    /// The request that was redirected to this one within the server, if any.
    pub(crate) fn previous(self) -> Option<Self> {
        // SAFETY: the requests of a chain of redirects share a pool, and so live as long.
        unsafe { Self::from_raw(self.request_rec().prev) }
    }

    /// The request that this one was redirected to within the server, if any.
    pub(super) fn next(self) -> Option<Self> {
        // SAFETY: as for `previous`.
        unsafe { Self::from_raw(self.request_rec().next) }
    }

    /// Takes HTTP's own filters from the requests that were redirected to this one, as mod_proxy's
    /// tunnel does for this one: when httpd ends those requests, the filters would send a response
    /// head.
    pub(crate) fn end_redirected_silently(self) {
        for earlier in std::iter::successors(self.previous(), |r| r.previous()) {
            let (r, c) = (earlier.as_ptr(), earlier.request_rec().connection);
            // SAFETY: both are alive for `'r`, and this thread works on them.
            unsafe {
                (*r).output_filters = (*c).output_filters;
                (*r).proto_output_filters = (*c).output_filters;
            }
        }
    }

    /// The status so far.
    pub(crate) fn status(self) -> i32 {
        self.request_rec().status
    }

    /// Whether it is a GET; httpd itself counts HEAD as one.
    pub(crate) fn is_get(self) -> bool {
        self.request_rec().method_number == sys::M_GET && self.request_rec().header_only == 0
    }

    /// A text of the record, which lives as long as the request.
    fn text(self, field: fn(&sys::request_rec) -> *const c_char) -> Option<&'r CStr> {
        let text = field(self.request_rec());
        // SAFETY: NULL, or NUL-terminated and as old as the request.
        (!text.is_null()).then(|| unsafe { CStr::from_ptr(text) })
    }

    /// What `SetHandler` or its like set.
    pub(crate) fn handler(self) -> Option<&'r CStr> {
        self.text(|record| record.handler)
    }

    /// Whether its method has this number of httpd's. HEAD is a GET.
    pub(super) fn is_method(self, number: c_int) -> bool {
        self.request_rec().method_number == number
    }

    /// Says in `Allow` what methods there are.
    pub(super) fn allow_methods(self, numbers: &[c_int]) {
        let bits = numbers.iter().fold(0, |bits, number| bits | 1 << number);
        let allowed: *mut sys::ap_method_list_t = self.request_rec().allowed_methods;
        // SAFETY: NULL, or in the request's pool, which this thread works on.
        if let Some(allowed) = unsafe { allowed.as_mut() } {
            allowed.method_mask |= bits;
        }
    }

    /// The query of its URL, without the `?`.
    pub(crate) fn query(self) -> Option<&'r [u8]> {
        self.text(|record| record.args).map(CStr::to_bytes)
    }

    /// The user who was authenticated.
    pub(crate) fn user(self) -> Option<&'r [u8]> {
        self.text(|record| record.user).map(CStr::to_bytes)
    }

    /// Its path without the query, unescaped.
    pub(crate) fn path(self) -> &'r [u8] {
        self.text(|record| record.uri).map_or(&[], CStr::to_bytes)
    }

    /// Sets the status of the response.
    pub(super) fn set_status(self, status: u16) {
        // SAFETY: alive for `'r`.
        unsafe { (*self.as_ptr()).status = status.into() };
    }

    /// Sets a header field of the response.
    pub(crate) fn set_header(self, name: &'static CStr, value: &str) {
        if let Some(headers) = self.table(|record| &record.headers_out) {
            headers.set(name, value.as_bytes());
        }
    }

    /// Where the virtual host of the request begins in the configuration: file and line.
    pub(crate) fn virtual_host_place(self) -> String {
        // SAFETY: a request never outlives its server, nor that the name of its file.
        unsafe {
            self.request_rec()
                .server
                .as_ref()
                .map(|server| conftree::place(server.defn_name, server.defn_line_number))
                .unwrap_or_default()
        }
    }

    /// The virtual host that serves it: ServerName, and the port that it was made for.
    pub(crate) fn virtual_host(self) -> String {
        // SAFETY: a request never outlives its server, whose addresses are as old as it is; nobody
        // writes to them any more.
        let Some(server) = (unsafe { self.request_rec().server.as_ref() }) else {
            return String::new();
        };
        // SAFETY: as above.
        let address = unsafe { server.addrs.as_ref() }.map_or(0, |address| address.host_port);
        let ports = [server.port, address, self.connection().map_or(0, |c| c.local_port())];
        let port = ports.into_iter().find(|port| *port != 0).unwrap_or_default();
        // SAFETY: NULL, or NUL-terminated and as old as the server.
        let name = (!server.server_hostname.is_null())
            .then(|| unsafe { CStr::from_ptr(server.server_hostname) }.to_string_lossy());
        [name.as_deref().unwrap_or_default(), ":", &port.to_string()].concat()
    }

    /// The port of the client that [`Self::useragent_ip`] names; 0 if it is not known.
    pub(crate) fn useragent_port(self) -> u16 {
        // SAFETY: NULL, or as old as the request.
        unsafe { self.request_rec().useragent_addr.as_ref() }.map_or(0, |address| address.port)
    }

    /// Whether it is HTTP/1.1 or later; HTTP/2 counts as 2.0.
    pub(crate) fn is_http_1_1(self) -> bool {
        self.request_rec().proto_num >= 1001
    }

    /// A table that is one of the record's fields.
    fn table(
        self,
        field: for<'f> fn(&'f sys::request_rec) -> &'f *mut sys::apr_table_t,
    ) -> Option<Table<'r>> {
        // SAFETY: a request's tables, and what they hold, live in its pool.
        unsafe { Table::from_raw(*field(self.request_rec()), self.pool()?) }
    }

    /// The request header fields.
    pub(crate) fn headers_in(self) -> Option<Table<'r>> {
        self.table(|record| &record.headers_in)
    }

    /// Puts another table in the place of [`Self::headers_in`]: a copy of it, if it may not live
    /// as long as the request.
    pub(crate) fn set_headers_in(self, headers: Table<'_>) {
        let Some(headers) = self.pool().and_then(|pool| headers.in_pool(pool)) else { return };
        // SAFETY: alive for `'r`; the table is in the request's pool.
        unsafe { (*self.as_ptr()).headers_in = headers.as_ptr() };
    }

    /// The environment that SetEnv, mod_rewrite and others fill.
    pub(crate) fn env(self) -> Option<Table<'r>> {
        self.table(|record| &record.subprocess_env)
    }

    /// What modules note for each other.
    pub(crate) fn notes(self) -> Option<Table<'r>> {
        self.table(|record| &record.notes)
    }

    /// Removes a status line that was set for another status.
    pub(crate) fn clear_status_line(self) {
        // SAFETY: alive for `'r`; httpd makes the line from the status then.
        unsafe { (*self.as_ptr()).status_line = std::ptr::null() };
    }

    /// Whether the input filters are those of the connection alone, as
    /// mod_proxy's tunnel has them.
    pub(crate) fn reads_from_connection(self) -> bool {
        let record = self.request_rec();
        // SAFETY: a request never outlives its connection.
        let connection = unsafe { record.connection.as_ref() };
        connection.is_some_and(|c| {
            record.input_filters == c.input_filters && record.proto_input_filters == c.input_filters
        })
    }

    /// Makes the request read from the connection's filters as they are now.
    pub(crate) fn read_from_connection(self) {
        let (r, c) = (self.as_ptr(), self.request_rec().connection);
        // SAFETY: both are alive for `'r`, and this thread works on them.
        unsafe {
            (*r).input_filters = (*c).input_filters;
            (*r).proto_input_filters = (*c).input_filters;
        }
    }

    /// Whether the response goes through an output filter of that name.
    pub(crate) fn has_output_filter(self, name: &CStr) -> bool {
        // SAFETY: the request's own chain.
        unsafe { super::filter::find(self.request_rec().output_filters, name) }.is_some()
    }

    /// The client's address as mod_remoteip and others see it, without the scope that a
    /// link-local one has (`fe80::1%eth0`).
    pub(crate) fn useragent_ip(&self) -> Option<IpAddr> {
        let ip = self.request_rec().useragent_ip;
        // SAFETY: NULL, or NUL-terminated and as old as the request.
        let ip = (!ip.is_null()).then(|| unsafe { CStr::from_ptr(ip) })?;
        ip.to_str().ok()?.split('%').next()?.parse().ok()
    }

    /// The client's address and port; the address as mod_remoteip and others see it.
    pub(crate) fn client(self) -> Client<'r> {
        Client(self)
    }

    /// The site that the request is for: by its Host, or by ServerName where UseCanonicalName says
    /// so.
    pub(crate) fn site(&self) -> Option<Site<'r>> {
        let (record, r) = (self.request_rec(), self.as_ptr());
        // SAFETY: NULL, or NUL-terminated and as old as the request.
        let text = |text: *const c_char| (!text.is_null()).then(|| unsafe { CStr::from_ptr(text) });
        // SAFETY: the request is alive; these look at it, at its server and its section.
        let (scheme, host) = unsafe { (sys::ap_run_http_scheme(r), sys::ap_get_server_name(r)) };
        let port = if !std::ptr::eq(host, record.hostname) {
            // SAFETY: as above.
            Some(unsafe { sys::ap_get_server_port(r) })
        } else if record.parsed_uri.port_str.is_null() {
            // The client knows of no other one, whatever port it comes in by.
            None
        } else {
            Some(record.parsed_uri.port)
        };
        let scheme = text(scheme).map_or(Ok("http"), CStr::to_str).ok()?;
        Some(Site { scheme, host: text(host)?.to_bytes(), port })
    }

    /// What ties a line of another log to this request's line in the access log:
    /// UNIQUE_ID, %L, or the connection's number.
    pub(crate) fn log_id(&self) -> Cow<'_, str> {
        if let Some(id) = self.env().and_then(|env| env.get(c"UNIQUE_ID")) {
            return String::from_utf8_lossy(id);
        }
        if self.request_rec().log_id.is_null() {
            let mut id = std::ptr::null();
            // SAFETY: the request and its connection are alive; the id, if one is
            // made, is in the request's pool. httpd does the same when it first
            // logs about a request.
            unsafe {
                sys::ap_run_generate_log_id(
                    self.request_rec().connection,
                    self.as_ptr(),
                    &raw mut id,
                );
                (*self.as_ptr()).log_id = id;
            }
        }
        let id = self.request_rec().log_id;
        if !id.is_null() {
            // SAFETY: NUL-terminated and as old as the request.
            return unsafe { CStr::from_ptr(id) }.to_string_lossy();
        }
        self.connection().map(|c| format!("connection {}", c.id())).unwrap_or_default().into()
    }

    /// Keeps a value of the module with the request, for as long as that lives. There is one at a
    /// time.
    pub(crate) fn keep<T: Any + Send>(self, value: T) {
        let Some(pool) = self.pool() else { return };
        let kept = pool.own::<Kept>(Box::new(value));
        // SAFETY: the request's own vector, which this thread works on.
        unsafe { set_config_of(self.request_rec().request_config, kept.as_ptr().cast()) };
    }

    /// What [`Self::keep`] keeps.
    pub(crate) fn kept<T: Any>(&self) -> Option<&T> {
        // SAFETY: the request's own vector; NULL there, or what `keep` put there, which lives as long
        // as the request.
        let kept = unsafe { config_of(self.request_rec().request_config).cast::<Kept>().as_ref() }?;
        kept.downcast_ref()
    }

    /// This module's per-directory configuration, after all merging.
    pub(super) fn dir_config_ptr(self) -> *mut std::ffi::c_void {
        // SAFETY: the request's own.
        unsafe { config_of(self.request_rec().per_dir_config) }
    }

    /// A note of the request, which error pages (`error-notes`) and logs show.
    pub(crate) fn set_note(self, name: &'static CStr, value: &str) {
        if let Some(notes) = self.notes() {
            notes.set(name, value.as_bytes());
        }
    }
}

/// See [`Request::site`].
pub(crate) struct Site<'r> {
    /// `http` or `https`.
    pub(crate) scheme: &'r str,
    /// An IPv6 address may be without brackets.
    pub(crate) host: &'r [u8],
    /// `None` is the scheme's own.
    pub(crate) port: Option<u16>,
}

/// The client of a request, as text.
pub(crate) struct Client<'r>(Request<'r>);

impl Client<'_> {
    /// The same as a string.
    pub(crate) fn text(&self) -> String {
        let mut text = String::with_capacity(USUAL_ADDRESS_BYTES);
        // Writing to a String does not fail.
        let _ = self.write(&mut text);
        text
    }

    fn write(&self, to: &mut impl fmt::Write) -> fmt::Result {
        let record = self.0.request_rec();
        let port = self.0.useragent_port();
        // SAFETY: NULL, or NUL-terminated and as old as the request.
        let ip = (!record.useragent_ip.is_null())
            .then(|| unsafe { CStr::from_ptr(record.useragent_ip) });
        match ip {
            Some(ip) => write_address(to, ip, port),
            None => self.0.connection().map_or(Ok(()), |c| c.peer().write(to)),
        }
    }
}
