//! The end of a tunnel in its worker thread, where mod_proxy's loop carries it, because a side has
//! sent what a rule does not allow, its time has come, or an administrator wants it. In the relay it is the relay that looks and ends.

use std::time::{Duration, Instant};

use os::poll;
use relay::{Close, GOING_AWAY, Rules};

use crate::ffi::apr_status::Status;
use crate::ffi::brigade::Brigade;
use crate::ffi::connection::{Connection, Socket};
use crate::ffi::filter::{Mode, Next, Read};
use crate::ffi::scope::Serving;
use crate::ffi::tls;
use crate::request::handshake::Handshake;
use crate::request::stream;
use crate::request::tunnel::Side;

/// What is asked of a connection at once.
const CHUNK_BYTES: usize = 64 * 1024;

/// How often a side is looked at that cannot be waited for.
const STEP: Duration = Duration::from_millis(20);

/// Ends a tunnel of which a side has sent what a rule does not allow, or whose time has come, at a
/// read of `reading` with `next` below it: both sides get what may still go on, which is in `out`
/// for the other side than `reading`, and their Close frame, and have the usual time to end too.
/// Says how the loop is to end.
pub(crate) fn end(
    serving: &Serving<'_, Handshake>,
    reading: Side,
    next: &mut Next<'_>,
    out: &mut Brigade<'_>,
) -> Status {
    let tunnel = &serving.data.tunnel;
    let (Some(client), Some(origin)) = (serving.request.connection(), serving.origin) else {
        return Status::ABORTED;
    };
    let ordered = tunnel.ordered.borrow().as_ref().map(Close::code);
    let code = |to: Side| match (tunnel.broken.get(), tunnel.over.get()) {
        (Some((sender, breach)), _) if to == sender => breach.code(),
        (None, Some(limit)) => limit.code(),
        (None, None) => ordered.unwrap_or(GOING_AWAY),
        _ => GOING_AWAY,
    };
    let until = Instant::now() + Rules::DEFAULT_LINGER;
    let left = || until.checked_duration_since(Instant::now()).filter(|left| !left.is_zero());
    let mut bytes = Vec::new();
    let _ = out.drain_into(&mut bytes);
    tunnel.draining.set(true);
    // The alarm shuts a side's socket for reading. If both ways were shut, TCP would answer what that
    // side still sends by a reset, and it might never see its Close.
    let may_be_shut = tunnel.alarm.borrow().as_ref().map(|alarm| match alarm.shuts_client() {
        true => Side::Client,
        false => Side::Origin,
    });
    for (c, from) in [(origin, Side::Client), (client, Side::Origin)] {
        let ahead = if from == reading { std::mem::take(&mut bytes) } else { Vec::new() };
        tunnel.ahead(from).count(ahead.len());
        let mut last = ahead;
        last.extend_from_slice(&tunnel.close_behind(from, code(from.other())));
        if let (Some(socket), Some(left)) = (own_socket(c), left()) {
            let _ = socket.set_timeout(Some(left));
        }
        // Whoever does not take it is not waited for.
        let _ = if last.is_empty() { Ok(()) } else { c.pass(&last) };
        if c.is_secondary() {
            stream::settle(c);
            let _ = c.pass_end();
        } else {
            tls::send_close_notify(c);
            let stays = may_be_shut == Some(from.other());
            if let Some(fd) = own_socket(c).as_ref().and_then(Socket::fd).filter(|_| !stays) {
                relay::socket::shutdown_write(fd);
            }
        }
    }
    let is_ended = |of: Side| {
        let socket = own_socket(if of == Side::Client { client } else { origin });
        let fd = socket.as_ref().and_then(Socket::fd).filter(|_| may_be_shut == Some(of));
        fd.and_then(relay::socket::peer_has_ended).unwrap_or(true)
    };
    let mut over = [false; 2];
    while let Some(left) = left() {
        let mut deaf = [false; 2];
        for ((over, deaf), (c, of)) in
            over.iter_mut().zip(&mut deaf).zip([(client, Side::Client), (origin, Side::Origin)])
        {
            let mut more = !*over;
            while more {
                bytes.clear();
                // The filter that is being read is not entered again.
                let result = if of == reading {
                    let read = Read { mode: Mode::ReadBytes, block: false, bytes: CHUNK_BYTES };
                    next.read(out, read).and_then(|()| out.drain_into(&mut bytes))
                } else {
                    c.read_available(&mut bytes, CHUNK_BYTES)
                };
                more = !bytes.is_empty() && Instant::now() < until;
                let is_end = result.is_err_and(|why| !why.is_again());
                *deaf = is_end && !is_ended(of);
                *over = is_end && !*deaf;
                more &= !is_end;
            }
        }
        if over == [true; 2] {
            break;
        }
        // Nothing says when a side has ended that is not read any more.
        let left = if deaf == [false; 2] { left } else { left.min(STEP) };
        let [client_quiet, origin_quiet] = [over[0] || deaf[0], over[1] || deaf[1]];
        wait(client, origin, [client_quiet, origin_quiet], left);
    }
    tunnel.draining.set(false);
    out.clear();
    Status::ABORTED
}

/// The socket of a connection that is the tunnel's alone.
fn own_socket(c: Connection<'_>) -> Option<Socket<'_>> {
    c.socket().filter(|_| !c.is_secondary())
}

/// Waits for something of those that are not quiet.
fn wait(client: Connection<'_>, origin: Connection<'_>, quiet: [bool; 2], left: Duration) {
    let sockets = [own_socket(client), own_socket(origin)];
    let [of_client, of_origin] = sockets.each_ref().map(|socket| socket.as_ref()?.fd());
    let of_client = of_client.or_else(|| client.input_signal());
    let [client_quiet, origin_quiet] = quiet;
    let of_client = of_client.filter(|_| !client_quiet);
    poll::wait([of_client, of_origin.filter(|_| !origin_quiet)], Some(left));
}
