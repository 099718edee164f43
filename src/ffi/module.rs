//! The module record, and the hooks that httpd calls.

use std::ffi::{CStr, c_int, c_void};
use std::marker::PhantomData;

use messages::{Level, MessageId};

use super::access_log::{self, AccessLogHooks};
use super::balancer::{self, BalanceHooks};
use super::command::Commands;
use super::conftree::Tree;
use super::connection::{Connection, Socket};
use super::content::{self, ContentHooks};
use super::ending::{self, EndHooks};
use super::filter::Loading;
use super::guard::guard;
use super::log::{self, Server};
use super::mod_status::{self, StatusHooks};
use super::orphans::{self, OrphanHooks};
use super::pool::Pool;
use super::proxy::{self, Names, ProxyHooks};
use super::request::Request;
use super::role::Parent;
use super::section::{self, SectionConfig};
use super::server::{Process, Version, version};
use super::slots::ModuleRecord;
use super::tls_contexts::{self, TlsHooks};
use super::{http2, optional, sys, tls};

/// What the module does at each hook.
pub(crate) trait Hooks:
    'static
    + AccessLogHooks
    + BalanceHooks
    + ContentHooks
    + EndHooks
    + OrphanHooks
    + ProxyHooks
    + StatusHooks
    + TlsHooks
{
    /// The module, as httpd knows it.
    const NAME: &'static CStr;
    /// The number of the message that says why the server cannot start.
    const CANNOT_START: MessageId;
    /// What is set in a section of the configuration.
    type Section: SectionConfig;

    /// The module is loaded: registers its filters.
    fn register(loading: &Loading);
    /// Before the configuration is read. `Err` ends the start.
    fn pre_config(parent: &Parent, httpd: Version) -> Result<(), String>;
    /// After the configuration was read. `Err` fails `configtest`.
    fn check_config() -> Result<(), String>;
    /// Warnings about what the configuration says and can hardly mean.
    fn warnings(parent: &Parent, files: Tree<'_>) -> Vec<(MessageId, String)>;
    /// The server goes on with a configuration that was read, until it [ends](Self::config_ends).
    fn config_begins(files: Tree<'_>);
    /// Another one is about to be read, or the server ends: what is kept on the heap for this one would
    /// stay there when the library is unloaded.
    fn config_ends();
    /// The configuration is final. `Err` ends the start.
    fn post_config(parent: &Parent, main: Server<'_>) -> Result<(), String>;
    /// A request's section is known, and no other module has changed its headers for that.
    fn section_known(r: Request<'_>);
    /// Before the handler.
    fn fixups(r: Request<'_>);
    /// A child process has started, and serves nothing yet.
    fn child_init(process: Process<'_>);
    /// A connection to a client or to a back end is being set up.
    fn pre_connection(c: Connection<'_>, socket: Socket<'_>);
}

/// The module record for hooks `H`.
pub(crate) const fn module_record<H: Hooks, const N: usize>(
    commands: &'static Commands<H::Section, N>,
) -> ModuleRecord {
    ModuleRecord {
        version: sys::MODULE_MAGIC_NUMBER_MAJOR,
        minor_version: sys::MODULE_MAGIC_NUMBER_MINOR,
        module_index: -1,
        name: H::NAME.as_ptr(),
        dynamic_load_handle: std::ptr::null_mut(),
        next: std::ptr::null_mut(),
        magic: sys::MODULE_MAGIC_COOKIE as std::ffi::c_ulong,
        rewrite_args: None,
        create_dir_config: Some(section::create::<H::Section>),
        merge_dir_config: Some(section::merge::<H::Section>),
        create_server_config: None,
        merge_server_config: None,
        cmds: commands.as_ptr(),
        register_hooks: Some(register_hooks::<H>),
        flags: 0,
    }
}

unsafe extern "C" fn register_hooks<H: Hooks>(pool: *mut sys::apr_pool_t) {
    static BEFORE_FIXUPS: Names<7> = Names([
        c"mod_headers.c".as_ptr(),
        c"mod_rewrite.c".as_ptr(),
        c"mod_proxy.c".as_ptr(),
        c"mod_auth_basic.c".as_ptr(),
        c"mod_lua.c".as_ptr(),
        c"mod_allowhandlers.c".as_ptr(),
        std::ptr::null(),
    ]);
    static BEFORE_SSL: Names<2> = Names([c"mod_ssl.c".as_ptr(), std::ptr::null()]);
    guard((), || {
        let middle = sys::APR_HOOK_MIDDLE;
        let first = sys::APR_HOOK_REALLY_FIRST;
        let none = std::ptr::null();
        // SAFETY: httpd copies nothing but the pointers: functions and names of
        // this library, which stays loaded for as long as its hooks.
        unsafe {
            sys::ap_hook_pre_config(Some(pre_config::<H>), none, none, middle);
            sys::ap_hook_check_config(Some(check_config::<H>), none, none, middle);
            sys::ap_hook_post_config(Some(post_config::<H>), none, none, middle);
            // Before them.
            sys::ap_hook_fixups(Some(section_known::<H>), none, none, first);
            // After the modules that change request headers or the handler there.
            sys::ap_hook_fixups(
                Some(fixups::<H>),
                BEFORE_FIXUPS.0.as_ptr(),
                none,
                sys::APR_HOOK_REALLY_LAST,
            );
            sys::ap_hook_child_init(Some(child_init::<H>), none, none, first);
            sys::ap_hook_pre_close_connection(Some(pre_close), none, none, middle);
            sys::ap_hook_pre_connection(
                Some(pre_connection::<H>),
                none,
                BEFORE_SSL.0.as_ptr(),
                first,
            );
        }
        access_log::register::<H>();
        ending::register::<H>();
        orphans::register::<H>();
        tls::register();
        tls_contexts::register::<H>();
        mod_status::register::<H>();
        // SAFETY: httpd passes the configuration's own pool.
        if let Some(pool) = unsafe { Pool::from_raw(pool) } {
            balancer::register_method::<H>(pool);
        }
        content::register::<H>();
        H::register(&Loading::new());
    });
}

const FAILED: c_int = sys::HTTP_INTERNAL_SERVER_ERROR;
const OK: c_int = sys::OK;

unsafe extern "C" fn pre_config<H: Hooks>(
    _pconf: *mut sys::apr_pool_t,
    _plog: *mut sys::apr_pool_t,
    _ptemp: *mut sys::apr_pool_t,
) -> c_int {
    guard(FAILED, || match H::pre_config(&Parent::new(), version()) {
        Ok(()) => {
            optional::hook_as(H::NAME, || {
                proxy::register::<H>();
                balancer::register::<H>();
                http2::register();
            });
            OK
        }
        Err(why) => refuse::<H>(&why),
    })
}

unsafe extern "C" fn check_config<H: Hooks>(
    _pconf: *mut sys::apr_pool_t,
    _plog: *mut sys::apr_pool_t,
    _ptemp: *mut sys::apr_pool_t,
    _server: *mut sys::server_rec,
) -> c_int {
    guard(FAILED, || match H::check_config() {
        Ok(()) => {
            // `configtest` and a start say it on standard error; see post_config for the log.
            if is_trial() {
                warn::<H>();
            }
            OK
        }
        Err(why) => refuse::<H>(&why),
    })
}

/// At its start httpd reads all of its configuration twice, the first time only to check it.
fn is_trial() -> bool {
    // SAFETY: asks for a number.
    let state = unsafe { sys::ap_state_query(sys::AP_SQ_MAIN_STATE) };
    state == sys::AP_SQ_MS_CREATE_PRE_CONFIG
}

fn warn<H: Hooks>() {
    // SAFETY: httpd has just read its files, in its only thread, and runs no other code of its own
    // while `warnings` looks at what it read.
    let files = unsafe { Tree::read() };
    for (number, text) in H::warnings(&Parent::new(), files) {
        log::startup(Level::Warn, number, &text);
    }
}

/// Has the hooks know of a configuration, until its pool is cleared.
fn begin<H: Hooks>(pool: Pool<'_>) {
    struct OfConfiguration<H: Hooks>(PhantomData<fn(H)>);

    impl<H: Hooks> Drop for OfConfiguration<H> {
        fn drop(&mut self) {
            H::config_ends();
        }
    }

    pool.own(OfConfiguration::<H>(PhantomData));
    // SAFETY: as in `warn`.
    H::config_begins(unsafe { Tree::read() });
}

unsafe extern "C" fn post_config<H: Hooks>(
    pconf: *mut sys::apr_pool_t,
    _plog: *mut sys::apr_pool_t,
    _ptemp: *mut sys::apr_pool_t,
    server: *mut sys::server_rec,
) -> c_int {
    guard(FAILED, || {
        if is_trial() {
            return OK;
        }
        warn::<H>();
        // SAFETY: httpd passes the configuration's own pool and main server.
        let (pool, main) = unsafe {
            ending::watch_config::<H>(pconf, server);
            (Pool::from_raw(pconf), Server::from_raw(server))
        };
        if let Some(pool) = pool {
            begin::<H>(pool);
        }
        match H::post_config(&Parent::new(), main) {
            Ok(()) => {
                if let Some(pool) = pool {
                    orphans::begin::<H>(pool);
                }
                OK
            }
            Err(why) => refuse::<H>(&why),
        }
    })
}

unsafe extern "C" fn section_known<H: Hooks>(r: *mut sys::request_rec) -> c_int {
    guard(sys::DECLINED, || {
        // SAFETY: httpd passes a live request for the length of the call.
        if let Some(r) = unsafe { Request::from_raw(r) } {
            H::section_known(r);
        }
        sys::DECLINED
    })
}

unsafe extern "C" fn fixups<H: Hooks>(r: *mut sys::request_rec) -> c_int {
    guard(sys::DECLINED, || {
        // SAFETY: httpd passes a live request for the length of the call.
        if let Some(r) = unsafe { Request::from_raw(r) } {
            H::fixups(r);
        }
        sys::DECLINED
    })
}

/// Ends the start, and says why.
fn refuse<H: Hooks>(why: &str) -> c_int {
    log::startup(Level::Error, H::CANNOT_START, &why);
    FAILED
}

unsafe extern "C" fn pre_connection<H: Hooks>(c: *mut sys::conn_rec, csd: *mut c_void) -> c_int {
    guard((), || {
        // SAFETY: httpd passes a live connection and its socket.
        let (c, socket) = unsafe { (Connection::from_raw(c), Socket::from_raw(csd.cast())) };
        if let (Some(c), Some(socket)) = (c, socket) {
            c.prepare();
            H::pre_connection(c, socket);
        }
    });
    OK
}

unsafe extern "C" fn child_init<H: Hooks>(
    pool: *mut sys::apr_pool_t,
    server: *mut sys::server_rec,
) {
    guard((), || {
        // SAFETY: httpd passes the child's pool and its main server, which live as long as the child.
        let Some(process) = (unsafe { Process::from_raw(pool, server) }) else { return };
        tls::init(&process, H::has_native_tls());
        ending::watch_child::<H>(&process);
        H::child_init(process);
    });
}

/// httpd is about to close a client's connection, or to wait for the client to close it. It does
/// not wait on one that is aborted, as one that was handed over is from here on.
unsafe extern "C" fn pre_close(c: *mut sys::conn_rec) -> c_int {
    guard((), || {
        // SAFETY: httpd passes a live connection.
        if let Some(c) = unsafe { Connection::from_raw(c) } {
            if c.is_handed_over() {
                tls::let_go(c);
                c.abort();
            }
            // It may be long until the client has closed it, too.
            c.forget_ssl();
        }
    });
    OK
}
