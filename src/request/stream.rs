//! The open tunnel of an HTTP/2 client, which is a stream of its connection. For that side mod_proxy's
//! loop has a pipe by which mod_http2 signals input, and no socket. There are two things that it does
//! between sockets and not here (ap_proxy_tunnel_run): it looks at the back end only when more arrives
//! there, and it tells the client that the back end has closed only once the client has closed too.

use std::time::{Duration, Instant};

use os::poll;

use crate::ffi::apr_status::Status;
use crate::ffi::connection::Connection;
use crate::ffi::scope::Serving;
use crate::request::handshake::Handshake;
use crate::request::tunnel::Side;

/// How long a client may take to close its side once the back end has closed. Browsers need one round
/// trip; until then the tunnel holds one of mod_http2's threads.
const CLIENT_END_WAIT: Duration = Duration::from_secs(3);
/// How long mod_http2 gets to send what was written before. If it finds the end while it is still
/// sending, it takes the signal for the end as one for more output, and resets the stream at once
/// (h2_stream_on_output_change).
const SETTLE_TIME: Duration = Duration::from_millis(10);
/// What is read at once.
const CHUNK_BYTES: usize = 64 * 1024;
/// How many reads of the back end are passed on before it is the client's turn: as many as in the loop.
const MAX_READS: usize = 10_000;

/// The client of a tunnel, if it is a stream.
pub(crate) fn client<'s>(serving: &Serving<'s, Handshake>) -> Option<Connection<'s>> {
    serving.request.connection().filter(|client| client.is_secondary())
}

/// The loop begins. What came together with the 101 is no longer in a socket, and goes to the client
/// now: the loop would not see it before more comes.
pub(crate) fn begin(serving: &Serving<'_, Handshake>) {
    let tunnel = &serving.data.tunnel;
    let (false, Some(client)) = (tunnel.caught_up.replace(true), client(serving)) else { return };
    let Some(origin) = serving.origin else { return };
    let ahead = tunnel.ahead(Side::Origin);
    let mut bytes = ahead.bytes.take();
    // The filters below pass the reads on.
    tunnel.draining.set(true);
    for _ in 0..MAX_READS {
        let result = origin.read_available(&mut bytes, CHUNK_BYTES);
        let is_allowed = tunnel.allow(Side::Origin, &mut bytes);
        // If the client is gone the loop's next read of it says so.
        let is_passed = !bytes.is_empty() && client.pass(&bytes).is_ok();
        if is_passed {
            ahead.count(bytes.len());
        }
        match result {
            _ if !is_allowed => break,
            Ok(()) if is_passed => bytes.clear(),
            Ok(()) => break,
            Err(why) if why.is_again() => break,
            Err(why) => {
                ahead.end.set(Some(why));
                break;
            }
        }
    }
    tunnel.draining.set(false);
}

/// Gives mod_http2 time to send what was written before, see [`SETTLE_TIME`].
pub(crate) fn settle(client: Connection<'_>) {
    if let Some(signal) = client.input_signal() {
        poll::wait([Some(signal)], Some(SETTLE_TIME));
    }
}

/// The back end has ended its side. The client is told so, and what it sends until it ends its
/// own is passed on. Says how the loop is to end.
pub(crate) fn await_end(serving: &Serving<'_, Handshake>) -> Status {
    let tunnel = &serving.data.tunnel;
    let (Some(client), Some(origin)) = (client(serving), serving.origin) else {
        return Status::EOF;
    };
    let has_ended = tunnel.ahead(Side::Client).end.get().is_some();
    let until = Instant::now() + CLIENT_END_WAIT;
    let Some(signal) = client.input_signal().filter(|_| !has_ended) else {
        return Status::ABORTED;
    };
    settle(client);
    // mod_http2 resets a stream whose client has not ended when its request is done.
    if client.pass_end().is_err() {
        return Status::ABORTED;
    }
    let mut bytes = Vec::new();
    let mut reads = true;
    tunnel.draining.set(true);
    while let Some(left) = until.checked_duration_since(Instant::now()) {
        let result = client.read_available(&mut bytes, CHUNK_BYTES);
        // The end, or the client is gone.
        if result.is_err_and(|why| !why.is_again()) {
            break;
        }
        // The signal is for what comes after all was read.
        if bytes.is_empty() {
            poll::wait([Some(signal)], Some(left));
            continue;
        }
        let is_allowed = tunnel.allow(Side::Client, &mut bytes);
        // Its back end may have closed, not only ended its side.
        let socket = origin.socket().filter(|_| reads);
        if let Some(socket) = socket {
            reads = socket.set_timeout(Some(left)).is_ok() && origin.pass(&bytes).is_ok();
            if reads {
                tunnel.ahead(Side::Client).count(bytes.len());
            }
        }
        if !is_allowed {
            break;
        }
        bytes.clear();
    }
    tunnel.draining.set(false);
    // With an end of each side the loop would only shut down what is closed right after it.
    Status::ABORTED
}
