//! `SetHandler wsforward-status`: shows open tunnels, says whether more are taken, and closes some.

use std::env;
use std::sync::atomic::Ordering::Relaxed;

use messages::{ClosedByAdmin, Level};
use os::{process, threads};
use report::filter::Filter;
use report::form::{self, Form};
use report::html::{self, List};
use report::metrics::{self, Format};
use report::query::Query;
use report::ready::{self, NotReady};
use report::view::{Overview, Process, ProcessKind, RelayThread, Tunnel};
use report::{accept, json};
use shared::{Fallbacks, Shared, Slot, TlsSessions};

use crate::config::DirConfig;
use crate::ffi::content::{self, Method, NoBody, Reply};
use crate::ffi::log;
use crate::ffi::request::Request;
use crate::ffi::server;
use crate::processes::memory::shared;
use crate::processes::{child, ready as ready_file};
use crate::status::snapshot::Snapshot;
use crate::status::totals;

const OK: u16 = 200;
const BAD_REQUEST: u16 = 400;
const FORBIDDEN: u16 = 403;
const TOO_LARGE: u16 = 413;
const UNSUPPORTED_TYPE: u16 = 415;
const UNAVAILABLE: u16 = 503;

const TEXT: &str = "text/plain; charset=utf-8";

fn text(status: u16, text: impl Into<String>) -> Reply {
    Reply { status, content_type: TEXT, body: text.into() }
}

fn json_text(body: String) -> Reply {
    Reply { status: OK, content_type: json::CONTENT_TYPE, body }
}

/// Answers a request.
pub(crate) fn content(r: Request<'_>, method: Method) -> Reply {
    let config = DirConfig::of(r);
    let Some(shared) = shared() else { return text(UNAVAILABLE, "no shared memory\n") };
    match method {
        Method::Get => show(r, &config, shared),
        Method::Post => close(r, &config, shared).unwrap_or_else(|refused| refused),
    }
}

fn show(r: Request<'_>, config: &DirConfig<'_>, shared: Shared<'_>) -> Reply {
    let query = match Query::parse(r.query().unwrap_or_default()) {
        Ok(query) => query,
        Err(bad) => return text(BAD_REQUEST, format!("{bad}\n")),
    };
    if query == Query::Ready {
        let (status, said) = ready::render(&is_ready(config, shared));
        return text(status, said);
    }
    let snapshot = Snapshot::take(shared);
    let tunnels = |filter: &Filter| -> Vec<Tunnel<'_>> {
        snapshot.tunnels().map(|(_, tunnel)| tunnel).filter(|one| filter.matches(one)).collect()
    };
    let overview = || overview(r, config, shared, &snapshot);
    match query {
        Query::Ready => text(OK, ""),
        Query::Tunnels { filter, limit } => {
            let mut tunnels = tunnels(&filter);
            let most = limit.and_then(|limit| usize::try_from(limit).ok());
            tunnels.truncate(most.unwrap_or(usize::MAX));
            json_text(json::tunnels(&tunnels))
        }
        Query::Json => json_text(json::overview(&overview(), &tunnels(&Filter::default()))),
        Query::Metrics => {
            let accept = r.headers_in().and_then(|headers| headers.get(c"Accept"));
            let format = match accept.is_some_and(accept::wants_open_metrics) {
                true => Format::OpenMetrics,
                false => Format::Text,
            };
            let body = metrics::render(&overview(), format);
            Reply { status: OK, content_type: format.content_type(), body }
        }
        Query::Page { filter, page } => {
            let list = List { tunnels: &tunnels(&filter), filter: &filter, page };
            let body = html::page(&overview(), &list);
            Reply { status: OK, content_type: html::CONTENT_TYPE, body }
        }
    }
}

/// Tunnels that may be open, by the limits and by the descriptors of the processes that live.
fn possible(shared: Shared<'_>) -> u64 {
    let settings = child::settings();
    // A drain process takes no more than it has.
    let of = |slot: &Slot| slot.capacity.load(Relaxed).max(slot.counts.relay.open.load(Relaxed));
    let by_descriptors = shared.sum(of);
    let by_memory = settings.by_memory.map(|bound| bound.tunnels);
    let limit = settings.max_tunnels.or(by_memory).map_or(u64::MAX, u64::from);
    by_descriptors.min(limit)
}

fn is_ready(config: &DirConfig<'_>, shared: Shared<'_>) -> Result<(), NotReady> {
    if let Some(file) = config.ready_file().filter(|file| !ready_file::is_there(file)) {
        return Err(NotReady::FileAbsent { file: file.to_string_lossy().into_owned() });
    }
    // Drain processes have what they have. Without a relay there is no limit of ours.
    if !shared.processes().any(Slot::takes_tunnels) {
        return Ok(());
    }
    ready::room(shared.open(), possible(shared), child::settings().ready_below.into())
}

fn overview(
    r: Request<'_>,
    config: &DirConfig<'_>,
    shared: Shared<'_>,
    snapshot: &Snapshot,
) -> Overview {
    let is_closing_allowed = config.status_actions();
    let count = |of: fn(&Fallbacks) -> &_| shared.total(|counts| of(&counts.fallen_back));
    let totals = totals::of(shared, snapshot);
    Overview {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        httpd: server::version().to_string(),
        openssl: server::openssl().unwrap_or_default(),
        mpm: server::mpm(),
        started: process::started(process::parent()).unwrap_or_default(),
        ready: is_ready(config, shared),
        is_closing_allowed,
        nonce: match is_closing_allowed {
            true => shared.new_nonce(r.user().unwrap_or_default()),
            false => String::new(),
        },
        possible: possible(shared),
        unlisted: shared.open().saturating_sub(snapshot.relayed()),
        open: snapshot.open(),
        samples: totals.samples,
        fallbacks: Fallbacks::EACH.iter().map(|(name, of)| (*name, count(*of))).collect(),
        tls_sessions: TlsSessions::EACH
            .iter()
            .map(|(name, of)| (*name, shared.total(|counts| of(&counts.tls_sessions))))
            .collect(),
        tunnel_durations: totals.tunnel_durations,
        handshake_durations: totals.handshake_durations,
        processes: shared.processes().map(|slot| one_process(slot, snapshot)).collect(),
    }
}

fn one_process(slot: &Slot, snapshot: &Snapshot) -> Process {
    let pid = slot.pid();
    let relay_thread = |thread: &threads::Thread| {
        let number = thread.name.strip_prefix("relay-")?.parse().ok()?;
        let cpu_micros = u64::try_from(thread.cpu.as_micros()).unwrap_or(u64::MAX);
        Some(RelayThread { number, cpu_micros })
    };
    Process {
        pid,
        kind: if snapshot.is_drain(pid) { ProcessKind::Drain } else { ProcessKind::Child },
        tunnels: slot.counts.relay.open.load(Relaxed),
        possible: slot.capacity.load(Relaxed),
        threads: threads::of(pid).iter().filter_map(relay_thread).collect(),
    }
}

/// Closes tunnels as a POST wants it.
///
/// # Errors
/// Why it does not.
fn close(r: Request<'_>, config: &DirConfig<'_>, shared: Shared<'_>) -> Result<Reply, Reply> {
    let refuse = |status, why: &str| Err(text(status, format!("{why}\n")));
    if !config.status_actions() {
        return refuse(FORBIDDEN, "WSForwardStatusActions is Off here");
    }
    let content_type = r.headers_in().and_then(|headers| headers.get(c"Content-Type"));
    if !content_type.is_some_and(form::is_form) {
        return refuse(UNSUPPORTED_TYPE, "expected application/x-www-form-urlencoded");
    }
    let body = content::body(r, form::MAX_BYTES).map_err(|why| match why {
        NoBody::TooLong => text(TOO_LARGE, "the form is too long\n"),
        NoBody::Failed => text(BAD_REQUEST, "the form could not be read\n"),
    })?;
    let form = Form::parse(&body).map_err(|bad| text(BAD_REQUEST, format!("{bad}\n")))?;
    let user = r.user().unwrap_or_default();
    if !shared.use_nonce(&form.nonce, user) {
        return refuse(FORBIDDEN, "the nonce is not good, or not any more: get another one");
    }
    let snapshot = Snapshot::take(shared);
    let number = shared.new_order(form.reason.as_bytes(), user);
    let wanted = snapshot.tunnels().filter(|(_, tunnel)| form.filter.matches(tunnel));
    let closed = shared.order_close_all(wanted.map(|(listed, _)| listed), form.code, number);
    let who = user.escape_ascii();
    let which = form.filter.to_query();
    let said = ClosedByAdmin { count: &closed, who: &who, which: &which, code: &form.code };
    log::request_at(r, Level::Notice, &said);
    Ok(json_text(json::closed(closed)))
}
