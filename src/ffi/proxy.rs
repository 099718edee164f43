//! mod_proxy and mod_proxy_http, found at run time: they may be loaded before
//! us, after us, or not at all, and a direct link would fail in two of the three.

use std::borrow::Cow;
use std::ffi::{CStr, c_char, c_int, c_void};
use std::sync::atomic::{AtomicPtr, Ordering};

use super::balancer::Worker;
use super::guard::guard;
use super::optional::{self, symbol};
use super::request::Request;
use super::sys;

/// What the module does when mod_proxy serves a request.
pub(crate) trait ProxyHooks {
    /// mod_proxy is about to choose a worker for a request to this URL, which may be a balancer's.
    ///
    /// # Errors
    /// The status to answer with instead.
    fn request_begins(r: Request<'_>, url: &[u8]) -> Result<(), u16>;
    /// A request was sent to a back end, whose response is about to be read.
    fn response_begins(response: Request<'_>);
    /// mod_proxy is done with a request. Returns the status to answer with, if not the handler's
    /// own.
    fn request_status(r: Request<'_>) -> Option<u16>;
    /// mod_proxy asks who serves a URL.
    fn scheme_handler(call: &SchemeCall<'_>) -> Answer;
}

/// Names for APR's hook sorting, ended by NULL.
#[repr(transparent)]
pub(super) struct Names<const N: usize>(pub(super) [*const c_char; N]);

// SAFETY: pointers to string literals, only read.
unsafe impl<const N: usize> Sync for Names<N> {}

/// The modules whose handlers come after ours. They ask to be first too, so this has to be said: of
/// all of them, since what they serve is to be left to them.
static SUCCESSORS: Names<11> = Names([
    c"mod_proxy_ajp.c".as_ptr(),
    c"mod_proxy_connect.c".as_ptr(),
    c"mod_proxy_fcgi.c".as_ptr(),
    c"mod_proxy_fdpass.c".as_ptr(),
    c"mod_proxy_ftp.c".as_ptr(),
    c"mod_proxy_http.c".as_ptr(),
    c"mod_proxy_http2.c".as_ptr(),
    c"mod_proxy_scgi.c".as_ptr(),
    c"mod_proxy_uwsgi.c".as_ptr(),
    c"mod_proxy_wstunnel.c".as_ptr(),
    std::ptr::null(),
]);

type SchemeHandler = unsafe extern "C" fn(
    *mut sys::request_rec,
    *mut sys::proxy_worker,
    *mut sys::proxy_server_conf,
    *mut c_char,
    *const c_char,
    sys::apr_port_t,
) -> c_int;

type CanUpgrade = unsafe extern "C" fn(
    *mut sys::apr_pool_t,
    *const sys::proxy_worker,
    *const c_char,
    *const c_char,
) -> c_int;

/// mod_proxy_http's scheme handler. Looked up again for every configuration, before it is used: the
/// modules may be somewhere else in memory then.
static HTTP_HANDLER: AtomicPtr<c_void> = AtomicPtr::new(std::ptr::null_mut());
/// `ap_proxy_worker_can_upgrade()`, looked up at the same time.
static CAN_UPGRADE: AtomicPtr<c_void> = AtomicPtr::new(std::ptr::null_mut());

/// What a scheme handler answers, in httpd's terms.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Answer(pub(super) c_int);

impl Answer {
    /// Not ours: the next handler may take the request.
    pub(crate) const DECLINED: Self = Self(sys::DECLINED);
    /// Served.
    pub(crate) const OK: Self = Self(sys::OK);
    /// 500, after a bug.
    pub(super) const FAILED: Self = Self(sys::HTTP_INTERNAL_SERVER_ERROR);

    /// An HTTP status for the client.
    pub(crate) fn status(code: u16) -> Self {
        Self(c_int::from(code))
    }

    /// Whether it is this HTTP status.
    pub(crate) fn is_status(self, code: u16) -> bool {
        self == Self::status(code)
    }
}

/// Registers our scheme handler with mod_proxy, if that is loaded. Hooks are
/// sorted after all pre_config hooks ran, so this is early enough.
pub(super) fn register<H: ProxyHooks>() {
    type Register = unsafe extern "C" fn(
        sys::proxy_HOOK_scheme_handler_t,
        *const *const c_char,
        *const *const c_char,
        c_int,
    );
    type CreateReq = unsafe extern "C" fn(*mut sys::request_rec, *mut sys::request_rec) -> c_int;
    let create: CreateReq = create_req::<H>;
    // SAFETY: a function of this library, with the arguments that mod_proxy.h declares for this hook,
    // which are those of `CreateReq`.
    unsafe {
        optional::hook(
            c"create_req",
            std::mem::transmute::<CreateReq, unsafe extern "C" fn()>(create),
            sys::APR_HOOK_MIDDLE,
        );
    }
    type RequestStatus = unsafe extern "C" fn(*mut c_int, *mut sys::request_rec) -> c_int;
    let status: RequestStatus = request_status::<H>;
    // SAFETY: a function of this library, with the arguments that mod_proxy.h declares
    // for this hook, which are those of `RequestStatus`.
    unsafe {
        optional::hook(
            c"request_status",
            std::mem::transmute::<RequestStatus, unsafe extern "C" fn()>(status),
            sys::APR_HOOK_REALLY_FIRST,
        );
    }
    HTTP_HANDLER.store(std::ptr::null_mut(), Ordering::Relaxed);
    CAN_UPGRADE.store(symbol(c"ap_proxy_worker_can_upgrade"), Ordering::Relaxed);
    register_pre_request::<H>();
    let hook = symbol(c"proxy_hook_scheme_handler");
    if hook.is_null() {
        return;
    }
    // SAFETY: mod_proxy.h declares the function of this name with this type.
    let hook: Register = unsafe { std::mem::transmute(hook) };
    // SAFETY: the callback lives as long as this load of the module, as the hook does.
    unsafe {
        hook(
            Some(scheme_handler::<H>),
            std::ptr::null(),
            SUCCESSORS.0.as_ptr(),
            sys::APR_HOOK_FIRST,
        );
    }
}

/// The same for mod_proxy's hook before the choice of a worker. mod_proxy_balancer asks to be first there.
fn register_pre_request<H: ProxyHooks>() {
    type Register = unsafe extern "C" fn(
        sys::proxy_HOOK_pre_request_t,
        *const *const c_char,
        *const *const c_char,
        c_int,
    );
    let hook = symbol(c"proxy_hook_pre_request");
    if hook.is_null() {
        return;
    }
    // SAFETY: mod_proxy.h declares the function of this name with this type.
    let hook: Register = unsafe { std::mem::transmute(hook) };
    let none = std::ptr::null();
    // SAFETY: the callback lives as long as this load of the module, as the hook does.
    unsafe { hook(Some(pre_request::<H>), none, none, sys::APR_HOOK_REALLY_FIRST) };
}

/// Looks for mod_proxy_http's handler among those registered. `false` if
/// mod_proxy or mod_proxy_http is not loaded, or too old to upgrade.
pub(crate) fn find_http_handler() -> bool {
    type Handlers = unsafe extern "C" fn() -> *mut sys::apr_array_header_t;
    let get = symbol(c"proxy_hook_get_scheme_handler");
    if get.is_null() || CAN_UPGRADE.load(Ordering::Relaxed).is_null() {
        return false;
    }
    // SAFETY: APR_DECLARE_EXTERNAL_HOOK declares the function of this name so.
    let get: Handlers = unsafe { std::mem::transmute(get) };
    // SAFETY: no arguments; the result is NULL or an array of hook entries.
    let Some(handlers) = (unsafe { get().as_ref() }) else { return false };
    let entries = handlers.elts.cast::<sys::proxy_LINK_scheme_handler_t>();
    for at in 0..usize::try_from(handlers.nelts).unwrap_or(0) {
        // SAFETY: within the array; its entries are of the LINK type that
        // mod_proxy.h declares for this hook.
        let entry = unsafe { &*entries.add(at) };
        if entry.szName.is_null() {
            continue;
        }
        // SAFETY: names of hooks are NUL-terminated.
        let name = unsafe { CStr::from_ptr(entry.szName) };
        if name == c"mod_proxy_http.c"
            && let Some(handler) = entry.pFunc
        {
            HTTP_HANDLER.store(handler as *mut c_void, Ordering::Relaxed);
            return true;
        }
    }
    false
}

/// One run of the scheme_handler hook: a request, and where mod_proxy wants it to go.
pub(crate) struct SchemeCall<'r> {
    /// The request.
    pub(crate) request: Request<'r>,
    worker: *mut sys::proxy_worker,
    conf: *mut sys::proxy_server_conf,
    url: &'r CStr,
    proxy_host: *const c_char,
    proxy_port: sys::apr_port_t,
}

impl SchemeCall<'_> {
    /// The URL at the back end.
    pub(crate) fn url(&self) -> &[u8] {
        self.url.to_bytes()
    }

    /// The back end: the worker's name if that has a unix socket, or the URL.
    pub(crate) fn backend(&self) -> Cow<'_, [u8]> {
        const UNIX: &[u8] = b"unix:";
        let Some(pool) = self.request.pool() else { return self.url().into() };
        // SAFETY: mod_proxy passes a live worker for the length of the call.
        let worker = unsafe { Worker::from_raw(self.worker, pool) };
        let name = worker.map(|worker| worker.name()).unwrap_or_default();
        if name.starts_with(UNIX) {
            return name.into();
        }
        // The worker for all that has none of its own.
        match self.request.notes().and_then(|notes| notes.get(c"uds_path")) {
            Some(path) => [UNIX, path].concat().into(),
            None => self.url().into(),
        }
    }

    /// Whether the request goes through ProxyRemote.
    pub(crate) fn is_through_proxy(&self) -> bool {
        !self.proxy_host.is_null()
    }

    /// Whether the worker's `upgrade=` parameter (`default` if it has none) lets `token`
    /// pass. mod_proxy_http's default is WebSocket for ws: URLs, and nothing for others.
    pub(crate) fn worker_allows(&self, token: &[u8], default: Option<&CStr>) -> bool {
        let function = CAN_UPGRADE.load(Ordering::Relaxed);
        let Some(pool) = self.request.pool() else { return false };
        if function.is_null() {
            return false;
        }
        // SAFETY: mod_proxy.h declares the function of this name with this type.
        let can_upgrade: CanUpgrade = unsafe { std::mem::transmute(function) };
        let token = pool.copy(token);
        let default = default.map_or(std::ptr::null(), CStr::as_ptr);
        // SAFETY: pool and worker are alive during the hook; the default is NULL or
        // NUL-terminated.
        unsafe { can_upgrade(pool.as_ptr(), self.worker, token.as_ptr(), default) != 0 }
    }

    /// Has mod_proxy_http serve the request, from `url` instead of its own.
    pub(crate) fn delegate(&self, url: &[u8]) -> Answer {
        let handler = HTTP_HANDLER.load(Ordering::Relaxed);
        let Some(pool) = self.request.pool() else { return Answer::DECLINED };
        if handler.is_null() {
            return Answer::DECLINED;
        }
        // SAFETY: `find_http_handler` stored a function of this type.
        let handler: SchemeHandler = unsafe { std::mem::transmute(handler) };
        let url = pool.copy(url);
        // SAFETY: the very arguments that mod_proxy gave this hook, but for the
        // URL, a copy in the request's pool that the handler may write to.
        Answer(unsafe {
            handler(
                self.request.as_ptr(),
                self.worker,
                self.conf,
                url.as_ptr(),
                self.proxy_host,
                self.proxy_port,
            )
        })
    }
}

unsafe extern "C" fn scheme_handler<H: ProxyHooks>(
    r: *mut sys::request_rec,
    worker: *mut sys::proxy_worker,
    conf: *mut sys::proxy_server_conf,
    url: *mut c_char,
    proxy_host: *const c_char,
    proxy_port: sys::apr_port_t,
) -> c_int {
    guard(Answer::FAILED, || {
        // SAFETY: mod_proxy passes a live request for the length of the call.
        let Some(request) = (unsafe { Request::from_raw(r) }) else { return Answer::DECLINED };
        // SAFETY: and a NUL-terminated URL in the request's pool.
        let url = unsafe { CStr::from_ptr(url) };
        H::scheme_handler(&SchemeCall { request, worker, conf, url, proxy_host, proxy_port })
    })
    .0
}

/// mod_proxy looks for a worker: for the first time, if it has none yet.
unsafe extern "C" fn pre_request<H: ProxyHooks>(
    worker: *mut *mut sys::proxy_worker,
    _balancer: *mut *mut sys::proxy_balancer,
    r: *mut sys::request_rec,
    _conf: *mut sys::proxy_server_conf,
    url: *mut *mut c_char,
) -> c_int {
    guard(sys::DECLINED, || {
        // SAFETY: mod_proxy passes the addresses of its own variables, and a live request.
        let (first, url, r) = unsafe { ((*worker).is_null(), *url, Request::from_raw(r)) };
        let (true, false, Some(r)) = (first, url.is_null(), r) else { return sys::DECLINED };
        // SAFETY: NUL-terminated, in the request's pool.
        let url = unsafe { CStr::from_ptr(url) };
        H::request_begins(r, url.to_bytes()).err().map_or(sys::DECLINED, c_int::from)
    })
}

/// mod_proxy_http has sent a request and made the record that reads its response.
unsafe extern "C" fn create_req<H: ProxyHooks>(
    _r: *mut sys::request_rec,
    response: *mut sys::request_rec,
) -> c_int {
    guard(sys::DECLINED, || {
        // SAFETY: mod_proxy passes live requests for the length of the call.
        if let Some(response) = unsafe { Request::from_raw(response) } {
            H::response_begins(response);
        }
        sys::DECLINED
    })
}

/// mod_proxy is done with a request and its worker.
unsafe extern "C" fn request_status<H: ProxyHooks>(
    status: *mut c_int,
    r: *mut sys::request_rec,
) -> c_int {
    guard(sys::DECLINED, || {
        // SAFETY: mod_proxy passes a live request for the length of the call.
        let wanted = unsafe { Request::from_raw(r) }.and_then(H::request_status);
        // SAFETY: and a status of its own.
        if let (Some(wanted), Some(status)) = (wanted, unsafe { status.as_mut() }) {
            *status = c_int::from(wanted);
        }
        sys::DECLINED
    })
}
