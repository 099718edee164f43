//! The limits on relayed tunnels, which neither the MPM nor mod_qos sees. A request reserves a place
//! just before mod_proxy picks a worker, or in the scheme handler if it becomes an upgrade request only
//! then; either way no balancer member is blamed for a 503. No tunnel goes to the relay without a
//! place, and mod_proxy is done with no request that keeps one.

use std::fmt::Display;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::{Relaxed, SeqCst};
use std::time::{SystemTime, UNIX_EPOCH};

use messages::{
    Expired, Level, MaxTunnels, MaxTunnelsPerClient, MemoryFull, OriginRefused, ProcessFull,
    ReadyFileAbsent, Refused, WrongExpiry,
};
use protocol::origin_rule::Denied;
use shared::{Full, Refusal, Slot, wrapping_sum};

use crate::config::{ClientPrefix, DirConfig};
use crate::ffi::log;
use crate::ffi::proxy::Answer;
use crate::ffi::request::Request;
use crate::processes::child;
use crate::processes::memory::shared;
use crate::processes::ready;
use crate::processes::{listing, own_slot};
use crate::request::expiry::NotOpen;
use crate::request::reservation::{Place, Reservation};
use crate::request::{decision, origin};

const FORBIDDEN: u16 = 403;
const INTERNAL_SERVER_ERROR: u16 = 500;
const SERVICE_UNAVAILABLE: u16 = 503;

/// How much of a variable the log shows.
const MAX_SHOWN_BYTES: usize = 100;

/// Seconds after which a refused client may try again.
const RETRY_AFTER_SECONDS: &str = "10";

/// The place of a request, which is the caller's from now on.
pub(crate) fn take_place(r: Request<'_>) -> Option<Place> {
    Reservation::look(r, |reservation| reservation.place.take())
}

/// A request is not to become a relayed tunnel.
pub(crate) fn give_back(r: Request<'_>) {
    drop(take_place(r));
}

fn put_place(r: Request<'_>, place: Place) {
    Reservation::change(r, |reservation| reservation.place.set(Some(place)));
}

/// The network that stands for a client, as an address and the bits of it that count: those who
/// have IPv6 have at least a /64 of addresses.
fn network(client: IpAddr, prefix: ClientPrefix) -> (IpAddr, u32) {
    match client.to_canonical() {
        IpAddr::V4(address) => {
            let mask = u32::MAX.checked_shl(32 - prefix.v4).unwrap_or(0);
            (Ipv4Addr::from_bits(address.to_bits() & mask).into(), prefix.v4)
        }
        IpAddr::V6(address) => {
            let mask = u128::MAX.checked_shl(128 - prefix.v6).unwrap_or(0);
            (Ipv6Addr::from_bits(address.to_bits() & mask).into(), prefix.v6)
        }
    }
}

/// Lets a request to a URL pass, or refuses it with a status, before a worker is chosen. This concerns only
/// what looks like an upgrade request by now; handler.rs decides on the headers as they are then.
///
/// # Errors
/// The status to answer with.
pub(crate) fn admit(r: Request<'_>, url: &[u8]) -> Result<(), u16> {
    let config = DirConfig::of(r);
    let is_candidate =
        config.forward() && decision::is_candidate(r, &config) && decision::may_be_upgraded(r, url);
    if is_candidate { reserve(r, &config) } else { Ok(()) }
}

/// Takes a place for an upgrade request that may become a relayed tunnel and has none yet, if the
/// site is for whoever sent it. A handler that refuses it calls [`refuse_by_handler`].
///
/// # Errors
/// The status to answer with.
pub(crate) fn reserve(r: Request<'_>, config: &DirConfig<'_>) -> Result<(), u16> {
    if let Some(file) = config.ready_file().filter(|file| !ready::is_there(file)) {
        give_back(r);
        static LAST: AtomicU64 = AtomicU64::new(0);
        count(r, Refusal::NotReady);
        let file = file.to_bytes().escape_ascii();
        // This is as the administrator wants it.
        let level = level(&LAST, Level::Info);
        log::request_at(r, level, &Refused { why: &ReadyFileAbsent { file: &file } });
        r.set_error_header(c"Retry-After", RETRY_AFTER_SECONDS);
        return Err(SERVICE_UNAVAILABLE);
    }
    if let Err(denied) = origin::check(r, config) {
        give_back(r);
        return Err(refuse_origin(r, &denied));
    }
    // A stream of HTTP/2 never leaves its thread.
    let is_stream = r.connection().is_none_or(|client| client.is_secondary());
    if !config.relay() || is_stream || !child::has_relay() {
        return Ok(());
    }
    // That of the request itself, or of the one that was redirected to it: it is the same one.
    let before = std::iter::successors(Some(r), |r| r.previous());
    if let Some(place) = before.into_iter().find_map(take_place) {
        put_place(r, place);
        return Ok(());
    }
    let Some(slot) = own_slot::slot() else { return Ok(()) };
    match check(r, slot) {
        Ok(place) => {
            put_place(r, place);
            Ok(())
        }
        Err((why, text)) => Err(refuse(r, why, &text)),
    }
}

/// Counts and logs a request for which there is no room. Returns the status to answer with.
pub(crate) fn refuse(r: Request<'_>, why: Refusal, text: &dyn Display) -> u16 {
    static LAST: AtomicU64 = AtomicU64::new(0);
    count(r, why);
    log::request_at(r, level(&LAST, Level::Error), &Refused { why: text });
    r.set_error_header(c"Retry-After", RETRY_AFTER_SECONDS);
    SERVICE_UNAVAILABLE
}

/// Counts a request that is refused.
fn count(r: Request<'_>, why: Refusal) {
    own_slot::count_refusal(why);
    listing::count_handshake(&r.virtual_host(), why.into(), None);
}

/// Counts and logs a request that this site is not for. Returns the status to answer with.
fn refuse_origin(r: Request<'_>, denied: &Denied) -> u16 {
    static LAST: AtomicU64 = AtomicU64::new(0);
    count(r, Refusal::Origin);
    log::request_at(r, level(&LAST, Level::Error), &OriginRefused { why: denied });
    FORBIDDEN
}

/// Refuses a request whose tunnel is not to begin because of its WSFORWARD_EXPIRES. Returns the status
/// to answer with.
pub(crate) fn refuse_expired(r: Request<'_>, why: &NotOpen<'_>) -> u16 {
    give_back(r);
    match why {
        NotOpen::Past => {
            count(r, Refusal::Expired);
            log::request(r, &Expired);
            FORBIDDEN
        }
        NotOpen::Wrong(text) => {
            let seen = &text[..text.len().min(MAX_SHOWN_BYTES)];
            // It may be a client's text, by way of a header.
            static LAST: AtomicU64 = AtomicU64::new(0);
            let level = level(&LAST, Level::Error);
            log::request_at(r, level, &WrongExpiry { seen: &seen.escape_ascii() });
            INTERNAL_SERVER_ERROR
        }
    }
}

/// The answer of a scheme handler to a request that it refuses. To mod_proxy a 503 is the
/// member's: it would be in error, and the next one tried; so may any status be, by failonstatus.
/// So the handler is content with the member, and [`status`] says the status when mod_proxy is done
/// with it (mod_proxy.c, proxy_handler).
pub(crate) fn refuse_by_handler(r: Request<'_>, status: u16) -> Answer {
    Reservation::change(r, |reservation| reservation.refused.set(Some(status)));
    Answer::OK
}

/// What mod_proxy is to answer, where that is not what the handler said.
pub(crate) fn status(r: Request<'_>) -> Option<u16> {
    Reservation::look(r, |reservation| reservation.refused.get())
}

/// A place for the request. It is taken before anything is counted: of several at
/// a time none slips through.
fn check(r: Request<'_>, slot: &'static Slot) -> Result<Place, (Refusal, String)> {
    let settings = child::settings();
    let mut place = Place::take(slot);
    let here = slot.counts.relay.open.load(Relaxed) + slot.reserved.load(SeqCst) - 1;
    let capacity = slot.capacity.load(Relaxed);
    if here >= capacity {
        let text = ProcessFull { open: &here, most: &capacity };
        return Err((Refusal::Descriptors, text.to_string()));
    }
    let Some(shared) = shared() else { return Ok(place) };
    let by_memory = settings.by_memory.map(|bound| bound.tunnels);
    if let Some(most) = settings.max_tunnels.or(by_memory) {
        let of = |slot: &Slot| {
            slot.counts.relay.open.load(Relaxed).wrapping_add(slot.reserved.load(SeqCst))
        };
        let is_over = |open: u64| open > u64::from(most);
        // Who lives is asked of the kernel only if it matters.
        if is_over(wrapping_sum(shared.slots().map(of))) && is_over(shared.sum(of)) {
            return Err(match settings.by_memory {
                None => (Refusal::Tunnels, MaxTunnels { most: &most }.to_string()),
                Some(bound) => (Refusal::Memory, MemoryFull { bound: &bound }.to_string()),
            });
        }
    }
    let Some(most) = settings.max_per_client else { return Ok(place) };
    let Some(client) = r.useragent_ip() else { return Ok(place) };
    let (network, bits) = network(client, settings.client_prefix);
    let key = match network {
        IpAddr::V4(network) => shared.client_key(&network.octets()),
        IpAddr::V6(network) => shared.client_key(&network.octets()),
    };
    match shared.count_client(key, slot, most as usize) {
        Ok(entry) => place.client_entry = entry,
        Err(Full) => {
            let network = format_args!("{network}/{bits}");
            let text = MaxTunnelsPerClient { most: &most, client: &client, network: &network };
            return Err((Refusal::Client, text.to_string()));
        }
    }
    Ok(place)
}

/// A full server, or one that strangers ask, says so once a second, not once for each request.
fn level(last: &AtomicU64, first: Level) -> Level {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |now| now.as_secs());
    if last.swap(now, Relaxed) != now { first } else { Level::Debug }
}
