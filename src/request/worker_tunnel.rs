//! The open tunnel while mod_proxy's own loop runs it in the worker thread: from
//! its first read on it may be handed over to the relay.

use std::time::{Duration, Instant};

use messages::{InThread, Message, TunnelEnded};
use relay::{By, End, Why};

use crate::ffi::apr_status::Status;
use crate::ffi::brigade::Brigade;
use crate::ffi::connection::{Connection, Socket};
use crate::ffi::filter::{InputFilter, Kind, Layer, Loading, Mode, Next, Read};
use crate::ffi::log;
use crate::ffi::noted::Noted;
use crate::ffi::request::Request;
use crate::ffi::scope::Serving;
use crate::ffi::tls;
use crate::processes::listing::{Listing, Opening};
use crate::processes::record::{EndLine, TunnelRecord};
use crate::processes::{access_line, alarm, child};
use crate::request::breach;
use crate::request::handover::{self, Attempt};
use crate::request::handshake::{Handshake, Stage, connections, current};
use crate::request::stream;
use crate::request::tunnel::{Closed, Frames, Side, Tunnel};

static CLIENT: Kind<ClientFilter> = Kind::new();

/// The longest wait that the loop's poll() can be asked for, instead of "for ever": 24 days. Without
/// any timeout APR would switch the socket between blocking and non-blocking around every call.
const LONGEST_WAIT: Duration = Duration::from_secs(24 * 24 * 60 * 60);

/// Makes the filter known to httpd.
pub(crate) fn register(loading: &Loading) {
    CLIENT.register(loading, c"WSFORWARD_TUNNEL", Layer::AboveTls);
}

/// A right 101 is about to be served: the tunnel begins.
pub(crate) fn begin(serving: &Serving<'_, Handshake>) {
    let Some(client) = serving.request.connection() else { return };
    let tunnel = &serving.data.tunnel;
    let now = Instant::now();
    tunnel.began.set(Some(now));
    // It begins for the client when the 101 is written: within httpd's Timeout.
    let allowed = client.socket().and_then(Socket::timeout).unwrap_or(LONGEST_WAIT);
    tunnel.leaves_by.set(now.checked_add(allowed));
    // Answers to requests before this one may be very long, and httpd would wait for each part
    // of them anew.
    if !client.is_secondary() && !handover::write_answers(serving, client) {
        return;
    }
    let rules = serving.data.rules.get();
    let frames = serving
        .data
        .offer
        .is_websocket()
        .then(|| Frames::new(&rules, child::settings().actions))
        .flatten();
    let is_guarded = frames.is_some() || rules.has_deadline();
    tunnel.frames.replace(frames);
    tunnel.deadline.set(rules.deadline(now));
    // Without it the tunnel works all the same in its thread, but nobody looks at its frames.
    if CLIENT.add(client, ClientFilter).is_err() && is_guarded {
        client.abort();
    }
    if let Some(pool) = serving.origin.and_then(Connection::pool) {
        pool.own(Closing);
    }
    tunnel.listing.set(list(serving, client));
    // The loop waits for the socket when a read says that nothing is there.
    for c in connections(serving) {
        tls::set_auto_retry(c);
    }
    handover::begin(serving);
    set_timeouts(serving);
}

/// Has others see the tunnel.
fn list(serving: &Serving<'_, Handshake>, client: Connection<'_>) -> Option<Listing> {
    let (r, handshake) = (serving.request, serving.data);
    Listing::open(&Opening {
        client: r.useragent_ip(),
        port: r.useragent_port(),
        vhost: &r.virtual_host(),
        backend: &handshake.backend,
        is_client_tls: tls::is_on(client),
        is_backend_tls: serving.origin.is_some_and(tls::is_on),
        id: &r.log_id(),
        user: r.user().unwrap_or_default(),
        subprotocol: &handshake.subprotocol.borrow(),
        path: r.path(),
        answered_after: handshake.answered_after(),
    })
}

/// The loop waits for the longer of the two sockets' timeouts: as httpd does, which is Timeout or
/// ProxyTimeout, unless WSForwardIdleTimeout is set. The client's socket never gets a longer one,
/// since the 101 is still to be written to it. A tunnel that is to leave stays only for what a
/// peer does, or for want of descriptors: then no longer than without WSForwardIdleTimeout.
fn set_timeouts(serving: &Serving<'_, Handshake>) {
    let Some(idle) = serving.data.rules.get().idle_timeout else { return };
    let Some(origin) = serving.origin.and_then(Connection::socket) else { return };
    let idle = Some(idle).filter(|idle| !idle.is_zero()).unwrap_or(LONGEST_WAIT).min(LONGEST_WAIT);
    let shorter = |timeout: Option<Duration>| timeout.unwrap_or(idle).min(idle);
    let tunnel = &serving.data.tunnel;
    let before = origin.timeout();
    let client = serving.request.connection().filter(|client| !client.is_secondary());
    let client = client.and_then(Connection::socket);
    let stock = client.and_then(Socket::timeout).max(before);
    if let Some(client) = client {
        let _ = client.set_timeout(Some(shorter(client.timeout())));
    }
    tunnel.origin_timeout.set(Some(shorter(before)));
    let shown = if tunnel.is_to_leave.get() { shorter(stock) } else { idle };
    let _ = origin.set_timeout(Some(shown));
}

/// The loop has begun and knows how long to wait for bytes: a write that has to wait is given up
/// as ever.
fn unset_timeout(serving: &Serving<'_, Handshake>) {
    if let Some(timeout) = serving.data.tunnel.origin_timeout.take()
        && let Some(origin) = serving.origin.and_then(Connection::socket)
    {
        let _ = origin.set_timeout(Some(timeout));
    }
}

/// Notes that.
struct Closing;

impl Drop for Closing {
    fn drop(&mut self) {
        current(|serving| {
            if let Some(origin) = serving.origin
                && !origin.is_handed_over()
            {
                let closed = Closed { peer: origin.peer().text(), is_aborted: origin.is_aborted() };
                serving.data.tunnel.closed.replace(Some(closed));
            }
        });
    }
}

/// mod_proxy's loop is left. If it ran the tunnel to its end, the line about that.
pub(crate) fn ended(r: Request<'_>, handshake: &Handshake) {
    let tunnel = &handshake.tunnel;
    let (Some(began), Some(client)) = (tunnel.began.get(), r.connection()) else { return };
    if client.is_handed_over() {
        return;
    }
    let closed = tunnel.closed.take();
    let (by, why) = how_it_ended(r, tunnel, client, closed.as_ref());
    let end = End {
        bytes_up: tunnel.ahead(Side::Client).passed.get(),
        bytes_down: tunnel.ahead(Side::Origin).passed.get(),
        duration: began.elapsed(),
        by,
        why,
        client_close: tunnel.close_code(Side::Client),
        backend_close: tunnel.close_code(Side::Origin),
        messages_up: tunnel.messages(Side::Client).map(|kinds| kinds.iter().sum()),
        messages_down: tunnel.messages(Side::Origin).map(|kinds| kinds.iter().sum()),
    };
    if let Some(listing) = tunnel.listing.take() {
        listing.end(&end);
    }
    let peer = closed.map_or_else(|| "unknown".to_owned(), |closed| closed.peer);
    let record = TunnelRecord::new(&r.log_id(), &r.client().text(), &peer);
    let values = access_line::at_end(r.log_id().into(), peer, end.clone());
    client.note_tunnel(r, Noted::written(values));
    let line = EndLine { record: &record, end: &end, more: &InThread };
    log::request_line(r, TunnelEnded::LEVEL, TunnelEnded::ID, &line);
}

/// Who ended a tunnel in its thread, and why: mod_proxy does not say what its loop returned.
fn how_it_ended(
    r: Request<'_>,
    tunnel: &Tunnel,
    client: Connection<'_>,
    closed: Option<&Closed>,
) -> (By, Why) {
    let sides = [(Side::Client, By::Client), (Side::Origin, By::Backend)];
    let over = |side| tunnel.ahead(side).over.get();
    if let Some((side, breach)) = tunnel.broken.get() {
        let by = if side == Side::Client { By::Client } else { By::Backend };
        return (by, breach.into());
    }
    if tunnel.ordered.borrow().is_some() {
        return (By::Us, Why::ClosedByAdmin);
    }
    if let Some(limit) = tunnel.over.get() {
        return (By::Us, limit.into());
    }
    if tunnel.is_late.get() {
        return (By::Us, Why::Error(libc::ETIMEDOUT));
    }
    for (side, by) in sides {
        if let Some(why) = over(side).filter(|why| !why.is_eof()) {
            let why = match why.errno() {
                Some(libc::ECONNRESET | libc::EPIPE | libc::ECONNABORTED) => Why::Reset,
                Some(errno) => Why::Error(errno),
                None => Why::Tls(why.to_string()),
            };
            return (by, why);
        }
    }
    let first = sides.into_iter().find(|(side, _)| tunnel.ended_first.get() == Some(*side));
    let are_both = sides.iter().all(|(side, _)| over(*side).is_some());
    // One end is enough for these.
    let is_one =
        client.is_secondary() || r.env().is_some_and(|env| env.get(c"proxy-nohalfclose").is_some());
    // It did not come to look again, since neither side took what it was sent.
    let is_ordered =
        || child::settings().actions && tunnel.listing.get().is_some_and(Listing::is_ordered);
    match first {
        Some((_, by)) if are_both || is_one => (by, Why::Closed),
        _ if is_ordered() => (By::Us, Why::ClosedByAdmin),
        _ if client.is_aborted() => (By::Client, Why::Reset),
        _ if closed.is_some_and(|closed| closed.is_aborted) => (By::Backend, Why::Reset),
        _ => (By::Us, Why::IdleTimeout),
    }
}

/// The filter on the client's connection, from the 101 on.
struct ClientFilter;

impl InputFilter for ClientFilter {
    fn read(
        &mut self,
        c: Connection<'_>,
        next: &mut Next<'_>,
        out: &mut Brigade<'_>,
        read: Read,
    ) -> Result<(), Status> {
        self::read(Side::Client, c, next, out, read)
    }
}

/// A read of one side, once the 101 or another final head was served.
pub(crate) fn read(
    side: Side,
    c: Connection<'_>,
    next: &mut Next<'_>,
    out: &mut Brigade<'_>,
    read: Read,
) -> Result<(), Status> {
    // From here on nothing may read by accident what the relay is to read.
    if c.is_handed_over() {
        return Err(Status::ABORTED);
    }
    let in_tunnel = current(|serving| {
        let handshake = serving.data;
        (handshake.stage() == Stage::Switched && read.mode == Mode::ReadBytes)
            .then(|| read_tunnel(&serving, side, next, out, read))
    });
    match in_tunnel.flatten() {
        Some(result) => result,
        None => next.read(out, read),
    }
}

/// Notes whether the tunnel's time has come, or an administrator has it closed. Until then an alarm
/// wakes the loop for that.
fn look_at_the_clock(serving: &Serving<'_, Handshake>) {
    let tunnel = &serving.data.tunnel;
    let (deadline, listing) = (tunnel.deadline.get(), tunnel.listing.get());
    let listing = listing.filter(|_| child::settings().actions);
    let Some(origin) = serving.origin.filter(|_| deadline.is_some() || listing.is_some()) else {
        return;
    };
    let is_set = || {
        let mut alarm = tunnel.alarm.borrow_mut();
        if alarm.is_none() {
            let client = serving.request.connection().filter(|client| !client.is_secondary());
            let client = client.and_then(Connection::socket);
            let origin = origin.socket();
            let origin = origin.as_ref().and_then(Socket::fd);
            *alarm = origin.and_then(|origin| {
                let client = client.as_ref().and_then(Socket::fd);
                let tunnel = listing.and_then(Listing::entry);
                alarm::set(deadline.map(|one| one.at), tunnel, origin, client).ok()
            });
            if alarm.is_some() && listing.is_some() {
                child::watch_orders();
            }
        }
        alarm.is_some()
    };
    let is_set = is_set();
    // Behind that: an order that comes from now on sets the alarm off.
    if let Some(close) = listing.and_then(Listing::ordered) {
        tunnel.ordered.replace(Some(close));
    }
    // One that nobody would end in time does not begin.
    if let Some(deadline) = deadline.filter(|one| one.at <= Instant::now() || !is_set) {
        tunnel.over.set(Some(deadline.limit));
    }
}

fn read_tunnel(
    serving: &Serving<'_, Handshake>,
    side: Side,
    next: &mut Next<'_>,
    out: &mut Brigade<'_>,
    read: Read,
) -> Result<(), Status> {
    let tunnel = &serving.data.tunnel;
    if tunnel.draining.get() {
        return next.read(out, read);
    }
    let client = serving.request.connection();
    // Some module may read the connection before the loop does.
    let is_in_loop = !read.block
        && (serving.request.reads_from_connection()
            || client.is_some_and(|client| client.is_secondary()));
    if is_in_loop {
        unset_timeout(serving);
        if handover::attempt(serving, side, next, out) == Attempt::Leave
            // The 101 was not taken: the loop would wait for the client to take it.
            || client.is_some_and(Connection::is_aborted)
        {
            return Err(Status::ABORTED);
        }
    }
    if side == Side::Client {
        stream::begin(serving);
    }
    if is_in_loop {
        look_at_the_clock(serving);
    }
    if tunnel.is_ending() {
        return Err(breach::end(serving, side, next, out));
    }
    let ahead = tunnel.ahead(side);
    let mut bytes = ahead.bytes.borrow_mut();
    if !bytes.is_empty() {
        // All of it, even if that is more than was asked for: the loop comes back
        // when the socket has more, which it need not.
        out.append(&std::mem::take(&mut *bytes));
        drop(bytes);
        if !tunnel.allow_read(side, out) {
            return Err(breach::end(serving, side, next, out));
        }
        tunnel.note(side, out, Ok(()));
        return Ok(());
    }
    drop(bytes);
    let result = match ahead.end.get() {
        Some(end) => Err(end),
        None => next.read(out, read),
    };
    if result.is_ok() && !tunnel.allow_read(side, out) {
        return Err(breach::end(serving, side, next, out));
    }
    tunnel.note(side, out, result);
    if result.is_err_and(|why| !why.is_again()) {
        // The loop carries this end: what comes after it is the loop's too.
        tunnel.is_to_leave.set(false);
    }
    if result.is_err_and(Status::is_eof) && stream::client(serving).is_some() {
        match side {
            Side::Client => ahead.end.set(Some(Status::EOF)),
            Side::Origin => return Err(stream::await_end(serving)),
        }
    }
    if result.is_err_and(Status::is_eof) {
        // The loop is about to shut the other socket down for writing. mod_ssl
        // would leave that side with a truncated TLS stream.
        let other = match side.other() {
            Side::Client => serving.request.connection().filter(|c| !c.is_secondary()),
            Side::Origin => serving.origin,
        };
        if let Some(other) = other {
            tls::send_close_notify(other);
        }
    }
    result
}
