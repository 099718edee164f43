//! mod_wsforward: WebSocket forwarding and relaying for Apache httpd 2.4.
//!
//! The way of a request: [`admission`] keeps the limits, [`decision`] says whether it is ours,
//! [`handler`] has mod_proxy_http serve it, [`head`] checks the back end's answer on its way in,
//! [`worker_tunnel`] follows the open tunnel in its thread, [`request::stream`] that of an HTTP/2
//! stream, [`request::handover`] takes it out of there. [`child`] has the relay that carries it, and
//! [`processes::drain`] passes it on when its child ends first.
//! This file is the module record and its hooks, nothing else.

#![cfg_attr(
    not(test),
    warn(clippy::cast_possible_truncation, clippy::cast_possible_wrap, clippy::cast_sign_loss)
)]

mod config;
mod ffi;
mod processes;
mod request;
mod status;

use std::ffi::CStr;

use config::{DIRECTIVES, DirConfig};
use ffi::access_log::{self, AccessLogHooks, Line};
use ffi::balancer::BalanceHooks;
use ffi::command::Commands;
use ffi::conftree::Tree;
use ffi::connection::{Connection, Socket};
use ffi::content::{ContentHooks, Method, Reply};
use ffi::ending::{ChildExit, EndHooks};
use ffi::filter::Loading;
use ffi::log::{self, Server};
use ffi::mod_status::StatusHooks;
use ffi::module;
use ffi::orphans::OrphanHooks;
use ffi::proxy::{Answer, ProxyHooks, SchemeCall};
use ffi::request::Request;
use ffi::role::Parent;
use ffi::server::{Process, Version};
use ffi::slots::ModuleRecord;
use ffi::tls_contexts::TlsHooks;
use messages::{
    CannotStart, Http2Streams, HttpdTooOld, LineTooLong, MemoryBound, Message, MessageId, MpmItk,
    NoNativeTls, NoProxy, NoSharedMemory, UselessRelay,
};
use processes::{access_line, child, graceful_stop, memory, parent, registry};
use request::{admission, backends, decision, handler, head, origin, worker_tunnel};

/// What all Rust code in the module allocates with.
#[global_allocator]
static ALLOCATOR: allocator::BlockCache = allocator::BlockCache;

/// The module record that LoadModule looks for.
#[unsafe(no_mangle)]
pub static mut wsforward_module: ModuleRecord = module::module_record::<Hooks, _>(&COMMANDS);

static COMMANDS: Commands<DirConfig<'static>, { DIRECTIVES.len() + 1 }> =
    Commands::new(&DIRECTIVES);

pub(crate) struct Hooks;

/// The oldest httpd whose mod_proxy_http tunnels upgrades.
const OLDEST: Version = Version { major: 2, minor: 4, patch: 47 };

impl module::Hooks for Hooks {
    const NAME: &'static CStr = c"mod_wsforward.c";
    const CANNOT_START: MessageId = CannotStart::ID;

    type Section = DirConfig<'static>;

    fn register(loading: &Loading) {
        head::register(loading);
        worker_tunnel::register(loading);
    }

    fn pre_config(parent: &Parent, httpd: Version) -> Result<(), String> {
        config::reset(parent);
        if httpd < OLDEST {
            return Err(HttpdTooOld { oldest: &OLDEST, found: &httpd }.to_string());
        }
        Ok(())
    }

    fn check_config() -> Result<(), String> {
        let proxied = ffi::proxy::find_http_handler();
        if config::is_used() && !proxied {
            return Err(NoProxy.to_string());
        }
        Ok(())
    }

    fn config_begins(files: Tree<'_>) {
        status::pages::find(&files.directives(&[status::pages::DIRECTIVE]));
    }

    fn config_ends() {
        status::pages::forget();
    }

    fn warnings(parent: &Parent, files: Tree<'_>) -> Vec<(MessageId, String)> {
        let directives = files.directives(&config::ADVISED);
        let useless = config::advice::useless_relay(&directives).into_iter();
        let streams = config::advice::streams(&directives).into_iter();
        useless
            .map(|text| (UselessRelay::ID, text))
            .chain(streams.map(|text| (Http2Streams::ID, text)))
            .chain(config::advice::itk().map(|text| (MpmItk::ID, text)))
            .chain(config::advice::native_tls(parent).map(|text| (NoNativeTls::ID, text)))
            .collect()
    }

    fn post_config(parent: &Parent, main: Server<'_>) -> Result<(), String> {
        if let Some(bound) = config::find_bound(parent) {
            main.say(&MemoryBound { bound: &bound });
        }
        if config::uses_relay() && access_log::is_foreign() {
            main.say(&messages::ForeignLogWriter);
        }
        parent::measure(parent);
        let created = memory::create(parent, main).and_then(|()| registry::create(parent));
        created.map_err(|error| NoSharedMemory { error: &error }.to_string())
    }

    fn section_known(r: Request<'_>) {
        origin::keep(r);
    }

    fn fixups(r: Request<'_>) {
        decision::claim(r);
    }

    fn child_init(process: Process<'_>) {
        child::start(process);
    }

    fn pre_connection(c: Connection<'_>, socket: Socket<'_>) {
        child::watch_stop();
        head::connected(c, socket);
    }
}

impl AccessLogHooks for Hooks {
    const NAMES: &'static [&'static str] = &access_line::NAMES;

    fn keep(r: Request<'_>, line: &Line<'_>, others: usize) -> Option<Vec<u8>> {
        let kept = access_line::keep(line, others);
        if kept.is_none() {
            log::request(r, &LineTooLong { log: &access_line::shown(line.log) });
        }
        kept
    }
}

impl EndHooks for Hooks {
    fn child_stopping(graceful: bool) {
        child::stopping(graceful);
    }

    fn child_exit(how: ChildExit) {
        child::stop(how);
    }

    fn parent_runs(parent: &Parent) {
        graceful_stop::watch(parent);
    }

    fn stops_gracefully(parent: &Parent) {
        graceful_stop::tell(parent);
    }

    fn children_gone(parent: &Parent, main: Server<'_>) {
        graceful_stop::wait(parent, main);
        parent::end_all(parent, main);
    }

    fn parent_ends(parent: &Parent, main: Server<'_>) {
        graceful_stop::forget(parent);
        parent::end_all(parent, main);
    }
}

impl OrphanHooks for Hooks {
    fn orphans() -> Vec<u32> {
        registry::drains().iter().map(|drain| drain.pid).collect()
    }
}

impl BalanceHooks for Hooks {
    fn may_be_tunnel(r: Request<'_>) -> bool {
        backends::may_be_tunnel(r)
    }

    fn tunnels(worker: &[u8]) -> u64 {
        backends::tunnels(worker)
    }

    fn is_full(worker: &[u8]) -> bool {
        backends::is_full(worker)
    }

    fn look_closer() {
        backends::look_closer();
    }

    fn choose(r: Request<'_>, worker: &[u8]) -> bool {
        backends::count(r, worker)
    }
}

impl ProxyHooks for Hooks {
    fn response_begins(response: Request<'_>) {
        head::request_sent(response);
    }

    fn request_begins(r: Request<'_>, url: &[u8]) -> Result<(), u16> {
        admission::admit(r, url)
    }

    fn request_status(r: Request<'_>) -> Option<u16> {
        // Whatever it was, it is over. An error page may take as long as the client wants.
        admission::give_back(r);
        backends::forget(r);
        admission::status(r)
    }

    fn scheme_handler(call: &SchemeCall<'_>) -> Answer {
        handler::serve(call)
    }
}

impl ContentHooks for Hooks {
    const HANDLER: &CStr = c"wsforward-status";
    const SECURITY_POLICY: &str = report::html::CONTENT_SECURITY_POLICY;

    fn content(r: Request<'_>, method: Method) -> Reply {
        status::handler::content(r, method)
    }
}

impl TlsHooks for Hooks {
    fn has_native_tls() -> bool {
        config::uses_native_tls()
    }
}

impl StatusHooks for Hooks {
    fn status(r: Request<'_>, auto: bool) -> String {
        status::mod_status::page(r, auto)
    }
}
