//! The open tunnel while mod_proxy's own loop runs it in the worker thread: from
//! its first read on it may be handed over to the relay.

use std::cell::{Cell, RefCell};
use std::time::Duration;

use crate::child;
use crate::ffi::brigade::Brigade;
use crate::ffi::connection::{Connection, Socket};
use crate::ffi::filter::{InputFilter, Kind, Layer, Mode, Next, Read};
use crate::ffi::scope::Serving;
use crate::ffi::status::Status;
use crate::ffi::tls;
use crate::handover::{self, Attempt};
use crate::handshake::{Handshake, Stage, current};
use crate::socket;

static CLIENT: Kind<ClientFilter> = Kind::new();

/// The longest wait that the loop's poll() can be asked for, in place of "for
/// ever": 24 days. With no timeout at all APR would make the socket block, and
/// not block, around every call.
const LONGEST: Duration = Duration::from_secs(24 * 24 * 60 * 60);

/// Makes the filter known to httpd.
pub fn register() {
    CLIENT.register(c"WSFORWARD_TUNNEL", Layer::AboveTls);
}

/// Which of the two connections.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// To the client.
    Client,
    /// To the back end.
    Origin,
}

impl Side {
    /// The other one.
    pub fn other(self) -> Self {
        match self {
            Self::Client => Self::Origin,
            Self::Origin => Self::Client,
        }
    }
}

/// What the filters know of an open tunnel.
#[derive(Default)]
pub struct Tunnel {
    client: Ahead,
    origin: Ahead,
    /// It is to be handed over, at the next read that allows it.
    pub is_to_leave: Cell<bool>,
    /// Reads are being passed on: a hand-over empties mod_ssl's filters.
    pub draining: Cell<bool>,
}

/// What was read of a connection ahead of the loop.
#[derive(Default)]
pub struct Ahead {
    /// The bytes.
    pub bytes: RefCell<Vec<u8>>,
    /// What the read after them answered.
    pub end: Cell<Option<Status>>,
}

impl Tunnel {
    /// What was read ahead of one side.
    pub fn ahead(&self, side: Side) -> &Ahead {
        match side {
            Side::Client => &self.client,
            Side::Origin => &self.origin,
        }
    }
}

/// A right 101 is about to be served: the loop will run with WSForwardIdleTimeout
/// instead of Timeout. It waits for the longer of the two sockets' timeouts.
pub fn begin(serving: &Serving<'_, Handshake>) {
    let idle = Some(serving.data.idle_timeout.unwrap_or(LONGEST).min(LONGEST));
    let Some(client) = serving.request.connection() else { return };
    for socket in sockets(serving) {
        let _ = socket.set_timeout(idle);
    }
    // Without it the tunnel works all the same, in its thread.
    let _ = CLIENT.add(client, ClientFilter);
    // The loop waits for the socket when a read says that nothing is there.
    for c in connections(serving) {
        tls::set_auto_retry(c);
    }
    handover::begin(serving);
}

/// The connections that are the tunnel's alone: a stream of HTTP/2 shares its own with others.
fn connections<'s>(
    serving: &Serving<'s, Handshake>,
) -> impl Iterator<Item = Connection<'s>> + use<'s> {
    let client = serving.request.connection().filter(|client| !client.is_secondary());
    client.into_iter().chain(serving.origin)
}

fn sockets<'s>(serving: &Serving<'s, Handshake>) -> impl Iterator<Item = Socket<'s>> + use<'s> {
    connections(serving).filter_map(Connection::socket)
}

/// The tunnel stays in its thread: one that may be silent for ever must not be one without a
/// peer. In the relay only those that last are asked for it, see record.rs.
pub fn stays(serving: &Serving<'_, Handshake>) {
    let Some(settings) = child::settings().keep_alive else { return };
    for socket in sockets(serving) {
        if let Some(fd) = socket.fd() {
            // What a kernel does not know of this it does without.
            let _ = socket::keep_alive(fd, settings);
        }
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
pub fn read(
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
    if !read.block && handover::attempt(serving, side, next, out) == Attempt::HandedOver {
        return Err(Status::ABORTED);
    }
    let ahead = tunnel.ahead(side);
    let mut bytes = ahead.bytes.borrow_mut();
    if !bytes.is_empty() {
        // All of it, even if that is more than was asked for: the loop comes back
        // when the socket has more, which it need not.
        out.append(&std::mem::take(&mut *bytes));
        return Ok(());
    }
    drop(bytes);
    let result = match ahead.end.get() {
        Some(end) => Err(end),
        None => next.read(out, read),
    };
    if result.is_err_and(|why| !why.is_again()) {
        // The loop carries this end: what comes after it is the loop's too.
        tunnel.is_to_leave.set(false);
    }
    let is_stream = serving.request.connection().is_some_and(|client| client.is_secondary());
    if result.is_err() && side == Side::Origin && is_stream && !result.is_err_and(Status::is_again)
    {
        return Err(Status::ABORTED);
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
