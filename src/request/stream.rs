//! The open tunnel of a client that speaks HTTP/2, a stream. mod_proxy's loop has no socket for
//! that side, but a pipe by which mod_http2 signals input, and does two things less than it does
//! between sockets (ap_proxy_tunnel_run): it looks at the back end only when more arrives there,
//! and tells the client of the back end's end only when the client has ended as well.

use std::os::fd::AsRawFd;
use std::time::{Duration, Instant};

use os::process;

use crate::ffi::apr_status::Status;
use crate::ffi::connection::Connection;
use crate::ffi::scope::Serving;
use crate::request::handshake::Handshake;
use crate::request::tunnel::Side;

/// How long a client has for the end of its side once the back end has ended. Browsers need no
/// more than a round trip; until then the tunnel holds one of mod_http2's threads.
const PATIENCE: Duration = Duration::from_secs(3);
/// What is read at once.
const CHUNK: usize = 64 * 1024;
/// How often the back end is read before the client has its turn: the loop's own number.
const MOST_READS: usize = 10_000;

/// The client of a tunnel, if it is a stream.
pub fn client<'s>(serving: &Serving<'s, Handshake>) -> Option<Connection<'s>> {
    serving.request.connection().filter(|client| client.is_secondary())
}

/// The loop begins. What came together with the 101, so that no socket has it any more, goes to
/// the client now: the loop would wait for what comes next.
pub fn begin(serving: &Serving<'_, Handshake>) {
    let tunnel = &serving.data.tunnel;
    let (false, Some(client)) = (tunnel.caught_up.replace(true), client(serving)) else { return };
    let Some(origin) = serving.origin else { return };
    let ahead = tunnel.ahead(Side::Origin);
    let mut bytes = ahead.bytes.take();
    // The filters below pass the reads on.
    tunnel.draining.set(true);
    for _ in 0..MOST_READS {
        let result = origin.read_available(&mut bytes, CHUNK);
        // If the client is gone the loop's next read of it says so.
        let is_passed = !bytes.is_empty() && client.pass(&bytes).is_ok();
        if is_passed {
            ahead.count(bytes.len());
        }
        match result {
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

/// The back end has ended its side. The client is told so, and what it sends until it ends its
/// own is passed on. Says how the loop is to end.
pub fn await_end(serving: &Serving<'_, Handshake>) -> Status {
    let tunnel = &serving.data.tunnel;
    let (Some(client), Some(origin)) = (client(serving), serving.origin) else {
        return Status::EOF;
    };
    let has_ended = tunnel.ahead(Side::Client).end.get().is_some();
    let until = Instant::now() + PATIENCE;
    // mod_http2 resets a stream whose client has not ended when its request is done.
    if has_ended || client.pass_end().is_err() {
        return Status::ABORTED;
    }
    let Some(signal) = client.input_signal() else { return Status::ABORTED };
    let mut bytes = Vec::new();
    let mut reads = true;
    tunnel.draining.set(true);
    while let Some(left) = until.checked_duration_since(Instant::now()) {
        let result = client.read_available(&mut bytes, CHUNK);
        // The end, or the client is gone.
        if result.is_err_and(|why| !why.is_again()) {
            break;
        }
        // The signal is for what comes after all was read.
        if bytes.is_empty() {
            let millis = i32::try_from(left.as_millis()).unwrap_or(i32::MAX).max(1);
            process::wait([signal.as_raw_fd()], millis);
            continue;
        }
        // Its back end may have closed, not only ended its side.
        let socket = origin.socket().filter(|_| reads);
        if let Some(socket) = socket {
            reads = socket.set_timeout(Some(left)).is_ok() && origin.pass(&bytes).is_ok();
            if reads {
                tunnel.ahead(Side::Client).count(bytes.len());
            }
        }
        bytes.clear();
    }
    tunnel.draining.set(false);
    // With an end of each side the loop would only shut down what is closed right after it.
    Status::ABORTED
}
