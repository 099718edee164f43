//! Taking an open tunnel out of its worker thread: is it allowed, taking what
//! httpd and mod_ssl have read already, and giving both sockets to the relay
//! when httpd has let go of them.
//!
//! The order of calls that this rests on: the first read of mod_proxy's tunnel
//! loop is a non-blocking one of either connection (ap_proxy_tunnel_run); an
//! error makes it return at once without a shutdown; mod_proxy_http then
//! answers DONE and releases the back end's connection, whose pool is cleared
//! there and then; the client's connection is closed by the MPM.
//!
//! Bytes that were read and not yet passed on are in three places: plain text in
//! mod_ssl's filter, which one read empties; ciphertext or plain bytes in core's
//! filter, which AP_MODE_EXHAUSTIVE empties without touching the socket; and a part
//! of a record in the SSL itself, which comes along. However fast a peer sends,
//! nothing has to be waited for.

use std::ffi::CStr;
use std::fmt;
use std::io;
use std::os::fd::OwnedFd;
use std::time::Instant;

use messages::{
    AnswersNotTaken, HandedOver, HasEnded, HasFilter, HasRateLimit, IsStream, NoDescriptor,
    NoPlace, NoRelayHere, NotInTime, NotOfModSsl, StaysInThread, TlsMessageIncomplete, TlsOf,
};
use os::{descriptors, poll};
use shared::Fallback;

use crate::config::{AccessLog, DirConfig};
use crate::ffi::brigade::Brigade;
use crate::ffi::connection::Connection;
use crate::ffi::filter::{Mode, Next, Read};
use crate::ffi::log;
use crate::ffi::noted::{Noted, Values};
use crate::ffi::request::Request;
use crate::ffi::scope::Serving;
use crate::ffi::tls;
use crate::processes::own_slot;
use crate::processes::record::TunnelRecord;
use crate::processes::{access_line, child};
use crate::request::handshake::{Handshake, connections};
use crate::request::meeting::{Meeting, Waiting};
use crate::request::tunnel::Side;
use crate::request::{admission, backends};

/// What is asked of mod_ssl at once; its buffer holds 8192 bytes.
const CHUNK_BYTES: usize = 64 * 1024;

/// The connection filters that a detached tunnel can do without: those of httpd
/// that carry bytes (mod_logio counts them, mod_reqtimeout has done its work,
/// mod_remoteip's PROXY header was read) and ours.
fn is_passive(name: &[u8]) -> bool {
    name == TLS_FILTER.to_bytes()
        || matches!(
            name,
            b"core"
                | b"core_in"
                | b"ssl/tls coalescing filter"
                | b"log_input_output"
                | b"reqtimeout"
                | b"remoteip_input"
                | b"wsforward_deadline"
                | b"wsforward_head"
                | b"wsforward_tunnel"
        )
}

/// mod_ssl's, on both ways.
const TLS_FILTER: &CStr = c"ssl/tls filter";

/// Whether a peer can bring it about whenever it likes, rather than the configuration.
fn is_by_peers(why: Fallback) -> bool {
    matches!(why, Fallback::Descriptors | Fallback::Ended)
}

/// What came of an attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Attempt {
    /// The loop is to be left: both connections are the relay's, or both are to be closed.
    Leave,
    /// The loop goes on.
    GoOn,
}

/// A tunnel is about to begin: settles what can be said before the loop drops
/// the request's own filters.
pub(crate) fn begin(serving: &Serving<'_, Handshake>) {
    let handshake = serving.data;
    if !handshake.relay {
        return stays(serving);
    }
    // The loop passes by a rate limit, in the thread as well; a thread that is
    // held is a limit of its own, so such a tunnel is left there.
    if serving.request.has_output_filter(c"rate_limit") {
        fall_back(serving, Fallback::Filter, &HasRateLimit);
        return;
    }
    // What the configuration keeps here has to be known before the loop asks how long to wait, where
    // that is not as ever. Else it is looked at when the loop has begun.
    if handshake.rules.get().idle_timeout.is_some()
        && let (Some(client), Some(origin)) = (serving.request.connection(), serving.origin)
        && let Err((why, text)) = allowed(client, origin)
    {
        return fall_back(serving, why, &text);
    }
    handshake.tunnel.is_to_leave.set(true);
}

fn fall_back(serving: &Serving<'_, Handshake>, why: Fallback, text: &dyn fmt::Display) {
    serving.data.tunnel.is_to_leave.set(false);
    // It holds a worker, which the MPM counts. But what a client can bring about is held against
    // its limits, until the request is over.
    if !is_by_peers(why) {
        admission::give_back(serving.request);
    }
    stays(serving);
    own_slot::count_fallback(why);
    log::request(serving.request, &StaysInThread { why: text });
}

/// The tunnel stays in its thread: one that may be silent for ever must not be one without a
/// peer. The relay does the same for those that outlive their probation.
fn stays(serving: &Serving<'_, Handshake>) {
    let Some(keep_alive) = child::settings().keep_alive else { return };
    for socket in connections(serving).filter_map(Connection::socket) {
        if let Some(fd) = socket.fd() {
            // What a kernel does not know of this it does without.
            let _ = keep_alive.turn_on(fd);
        }
    }
}

/// What a tunnel that cannot leave waits for.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Wait {
    /// Answers to requests before this one, on their way to the client.
    Answers,
    /// The rest of a message of a side's TLS. Nothing else goes on meanwhile: OpenSSL neither
    /// reads nor writes data before it has all of it.
    Message(Side),
}

impl fmt::Display for Wait {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Answers => AnswersNotTaken.fmt(f),
            Self::Message(side) => TlsMessageIncomplete { whose: &side.name() }.fmt(f),
        }
    }
}

/// Waits for that, in the worker thread: no longer than until the tunnel has to have left, however
/// many bytes come or go meanwhile. `false` if that was too long.
pub(crate) fn wait(serving: &Serving<'_, Handshake>, wait: Wait) -> bool {
    let tunnel = &serving.data.tunnel;
    let (Some(client), Some(origin)) = (serving.request.connection(), serving.origin) else {
        return false;
    };
    let c = match wait {
        Wait::Answers | Wait::Message(Side::Client) => client,
        Wait::Message(Side::Origin) => origin,
    };
    let left = || {
        let by = tunnel.leaves_by.get()?;
        Some(by.saturating_duration_since(Instant::now())).filter(|left| !left.is_zero())
    };
    if let (Some(left), Some(socket)) = (left(), c.socket())
        && let Some(fd) = socket.fd()
    {
        match wait {
            Wait::Answers => poll::wait_for_room(fd, left),
            Wait::Message(_) => drop(poll::wait([Some(fd)], Some(left))),
        }
    }
    // Where nothing came, mod_ssl would take another read of a back end's session for a handshake
    // that has failed.
    if left().is_some() {
        return true;
    }
    tunnel.is_to_leave.set(false);
    tunnel.is_late.set(true);
    log::request(serving.request, &NotInTime { why: &wait });
    // Nobody waits for them.
    client.abort();
    origin.abort();
    false
}

/// Writes what is on its way to the client. `false` if it went too slowly.
pub(crate) fn write_answers(serving: &Serving<'_, Handshake>, client: Connection<'_>) -> bool {
    while client.has_pending_output() && !client.is_aborted() {
        client.write_pending();
        if client.has_pending_output() && !client.is_aborted() && !wait(serving, Wait::Answers) {
            return false;
        }
    }
    true
}

/// Tries to hand the tunnel over, at a non-blocking read of `side` with `next`
/// below it.
pub(crate) fn attempt(
    serving: &Serving<'_, Handshake>,
    side: Side,
    next: &mut Next<'_>,
    out: &mut Brigade<'_>,
) -> Attempt {
    let tunnel = &serving.data.tunnel;
    if !tunnel.is_to_leave.get() {
        return Attempt::GoOn;
    }
    let (Some(client), Some(origin)) = (serving.request.connection(), serving.origin) else {
        return Attempt::GoOn;
    };
    if let Err((why, text)) = allowed(client, origin) {
        fall_back(serving, why, &text);
        return Attempt::GoOn;
    }
    let mut emptied = [false; 2];
    // No output is pending: the request and the 101 were flushed, as is all that OpenSSL answers while
    // it is read, and core's filter writes what is flushed to its end or aborts the connection.
    loop {
        if client.is_aborted() || origin.is_aborted() {
            fall_back(serving, Fallback::Ended, &HasEnded);
            return Attempt::GoOn;
        }
        // Before anything is taken: what is taken must be able to go on.
        let descriptors = match Descriptors::of(client, origin) {
            Ok(descriptors) => descriptors,
            Err(error) => {
                let message = NoDescriptor { error: &error };
                log::request(serving.request, &message);
                fall_back(serving, Fallback::Descriptors, &message);
                return Attempt::GoOn;
            }
        };
        tunnel.draining.set(true);
        let decrypted = decrypted(serving, side, next, out, [client, origin], &mut emptied);
        tunnel.draining.set(false);
        match decrypted {
            Decrypted::All => return take(serving, client, origin, descriptors),
            Decrypted::NotNow(side) => {
                if !wait(serving, Wait::Message(side)) {
                    return Attempt::Leave;
                }
            }
            Decrypted::Ended => {
                fall_back(serving, Fallback::Ended, &HasEnded);
                return Attempt::GoOn;
            }
        }
    }
}

fn allowed(client: Connection<'_>, origin: Connection<'_>) -> Result<(), (Fallback, String)> {
    if client.is_secondary() {
        return Err((Fallback::Http2, IsStream.to_string()));
    }
    if !child::has_relay() {
        return Err((Fallback::NoRelay, NoRelayHere.to_string()));
    }
    for (c, side) in [(client, Side::Client), (origin, Side::Origin)] {
        let whose = &side.name();
        let of_tls = |why: &dyn fmt::Display| (Fallback::Tls, TlsOf { whose, why }.to_string());
        if let Some(name) = c.unknown_filter(is_passive) {
            let text = HasFilter { whose, filter: &name };
            return Err((Fallback::Filter, text.to_string()));
        }
        if c.has_filter(TLS_FILTER) && !tls::is_on(c) {
            return Err(of_tls(&NotOfModSsl));
        }
        tls::is_takeable(c).map_err(|why| of_tls(&why))?;
    }
    Ok(())
}

enum Decrypted {
    /// Nothing is left in mod_ssl's filters.
    All,
    /// A message of TLS's own is not complete: its SSL cannot be taken over before.
    NotNow(Side),
    /// A side ended or failed.
    Ended,
}

/// Takes what mod_ssl has decrypted and not yet passed on, which one read of each TLS side
/// brings: first of the one that the loop is reading, which gets what was taken of it if the
/// hand-over is not to be. What goes wrong is read on by the loop. A side of `emptied`, of client
/// and back end, is not read again: that would be more of what its peer sends.
fn decrypted(
    serving: &Serving<'_, Handshake>,
    side: Side,
    next: &mut Next<'_>,
    out: &mut Brigade<'_>,
    [client, origin]: [Connection<'_>; 2],
    emptied: &mut [bool; 2],
) -> Decrypted {
    for of in [side, side.other()] {
        let [of_client, of_origin] = &mut *emptied;
        let (c, emptied) =
            if of == Side::Client { (client, of_client) } else { (origin, of_origin) };
        if !tls::is_on(c) || *emptied {
            continue;
        }
        let ahead = serving.data.tunnel.ahead(of);
        let mut bytes = ahead.bytes.borrow_mut();
        // A peer may have sent any number of messages of TLS's own, each of which may have to be
        // answered, at the pace at which it takes the answers. One is enough: the others go along as
        // they came.
        tls::clear_auto_retry(c);
        // The filter that is being read is not entered again.
        let result = if of == side {
            let read = Read { mode: Mode::ReadBytes, block: false, bytes: CHUNK_BYTES };
            next.read(out, read).and_then(|()| out.drain_into(&mut bytes))
        } else {
            c.read_available(&mut bytes, CHUNK_BYTES)
        };
        tls::set_auto_retry(c);
        match result {
            Ok(()) => {}
            Err(why) if why.is_again() => {}
            // TLS ended and TCP did not: the loop would not come back for that, but the
            // relay's session has kept it.
            Err(why) if why.is_eof() && !c.is_readable() => {}
            Err(why) => {
                ahead.end.set(Some(why));
                return Decrypted::Ended;
            }
        }
        if tls::is_within_message(c) {
            return Decrypted::NotNow(of);
        }
        *emptied = true;
    }
    // Reading may have had something to say, or the 101 was not taken.
    if client.is_aborted() || origin.is_aborted() {
        return Decrypted::Ended;
    }
    Decrypted::All
}

/// Duplicates of both sockets. They have TCP_NODELAY: httpd sets it on its listeners, and mod_proxy
/// on each connection.
struct Descriptors {
    client: OwnedFd,
    origin: OwnedFd,
}

impl Descriptors {
    fn of(client: Connection<'_>, origin: Connection<'_>) -> io::Result<Self> {
        let gone = || io::Error::other("the connection has no socket");
        let duplicate = |c: Connection<'_>| -> io::Result<OwnedFd> {
            failpoint::check!("handover.duplicate")?;
            let socket = c.socket().ok_or_else(gone)?;
            descriptors::duplicate(socket.fd().ok_or_else(gone)?)
        };
        Ok(Self { client: duplicate(client)?, origin: duplicate(origin)? })
    }
}

/// Gives both sockets to the relay, as soon as httpd has closed its own.
fn take(
    serving: &Serving<'_, Handshake>,
    client: Connection<'_>,
    origin: Connection<'_>,
    descriptors: Descriptors,
) -> Attempt {
    let handshake = serving.data;
    let r = serving.request;
    let place = failpoint::check!("handover.place").ok().and_then(|()| admission::take_place(r));
    let Some(mut place) = place else {
        fall_back(serving, Fallback::NoRelay, &NoPlace);
        return Attempt::GoOn;
    };
    let (id, peer) = (r.log_id(), origin.peer().text());
    let mut record = TunnelRecord::new(&id, &r.client().text(), &peer);
    record.keep_entries(place.take_client_entry(), backends::take_entry(r));
    let listing = handshake.tunnel.listing.take();
    if let Some(listing) = listing {
        listing.to_relay();
    }
    record.keep_listing(listing);
    log::request(r, &HandedOver { tunnel: &record });
    own_slot::count_handed_over();
    r.end_redirected_silently();
    // From here on there is no way back: httpd reads these sockets no more.
    let read_ahead = handshake.tunnel.ahead(Side::Client).bytes.borrow().len();
    note_lines(r, client, access_line::at_begin(id.into(), peer), read_ahead);
    failpoint::step!("handover.taken");
    let [from_client, to_client_tls] = unread(handshake, Side::Client, client);
    let [from_origin, to_origin_tls] = unread(handshake, Side::Origin, origin);
    let meeting = Meeting::new(Waiting {
        client: None,
        origin: None,
        ahead: [from_client, from_origin],
        is_websocket: handshake.offer.is_websocket(),
        rules: handshake.rules.get(),
        error: None,
        record: Some(record),
        place: Some(place),
    });
    let arrive = |side| Meeting::arrive(&meeting, side);
    origin.hand_over(descriptors.origin, to_origin_tls, arrive(Side::Origin));
    client.hand_over(descriptors.client, to_client_tls, arrive(Side::Client));
    // Or mod_proxy would send close_notify. The client's connection is aborted
    // when it is closed: until then its state goes into the access log.
    origin.abort();
    Attempt::Leave
}

/// The request is about to be logged: its lines in the access logs are kept for the tunnel's end,
/// unless the configuration wants them now. `read_ahead` bytes of the tunnel have passed httpd's filters,
/// where mod_logio counts; those that are in core's did not.
fn note_lines(r: Request<'_>, client: Connection<'_>, values: Values, read_ahead: usize) {
    let when = DirConfig::of(r).access_log();
    let noted = match when {
        AccessLog::Start => Noted::written(values),
        // With TLS httpd has counted other bytes than these.
        _ => {
            let read_ahead = if tls::is_on(client) { 0 } else { read_ahead as u64 };
            Noted::kept(values, when == AccessLog::Both, read_ahead)
        }
    };
    client.note_tunnel(r, noted);
}

/// What httpd has read of a side: bytes for the other side, and ciphertext for its TLS.
fn unread(handshake: &Handshake, side: Side, c: Connection<'_>) -> [Vec<u8>; 2] {
    let mut bytes = handshake.tunnel.ahead(side).bytes.take();
    let raw = c.take_unread();
    if tls::is_on(c) {
        return [bytes, raw];
    }
    bytes.extend_from_slice(&raw);
    [bytes, Vec::new()]
}
