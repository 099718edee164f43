//! One handshake with a back end: what the handler, the connection hook and the
//! filters of the two connections know of it. All of them run in one thread,
//! within the handler's call.

use std::cell::{Cell, RefCell};
use std::ffi::CStr;
use std::time::{Duration, Instant};

use messages::MessageId;
use protocol::handshake::{Offer, Rigour};
use relay::Rules;

use crate::config::DirConfig;
use crate::ffi::connection::Connection;
use crate::ffi::request::Request;
use crate::ffi::scope::{Scope, Serving};
use crate::request::tunnel::Tunnel;

/// What makes mod_proxy_http take a fresh connection to the back end, on the
/// first request of a client's connection: `proxy-initial-not-pooled`.
pub(crate) const NOT_POOLED: &CStr = c"proxy-initial-not-pooled";

/// What mod_proxy_http notes of a request for which it awaits a 100 Continue.
pub(crate) const AWAITS_CONTINUE: &CStr = c"proxy-100-continue";

thread_local! {
    static CURRENT: Scope<Handshake> = const { Scope::new() };
}

/// How far a handshake has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stage {
    /// The back end has not answered yet.
    Waiting,
    /// The deadline passed.
    Late,
    /// The answer was refused.
    Refused,
    /// The back end answered, and did not switch.
    Answered,
    /// The back end switched protocols.
    Switched,
}

/// The state of one handshake.
pub(crate) struct Handshake {
    /// What the client asked for.
    pub offer: Offer,
    /// The back end: scheme, host and port, or the path of a socket.
    pub backend: Vec<u8>,
    /// The subprotocol that the back end chose.
    pub subprotocol: RefCell<Vec<u8>>,
    /// WSForwardCheck.
    pub rigour: Rigour,
    /// WSForwardHandshakeTimeout, if set.
    pub timeout: Option<Duration>,
    /// What holds for the open tunnel.
    pub rules: Cell<Rules>,
    /// WSForwardRelay.
    pub relay: bool,
    /// The open tunnel.
    pub tunnel: Tunnel,
    /// The count of requests that the client's connection had before this one.
    keepalives: i32,
    /// Whether mod_proxy_http is shown a count of 0 (see [`force_fresh_connection`]).
    shows_no_keepalives: Cell<bool>,
    /// The request has a body, for which the back end has to wait.
    has_body: bool,
    /// Its connection to the back end has served a request before.
    pub reused: Cell<bool>,
    /// The back end has sent a 100 Continue.
    pub continued: Cell<bool>,
    /// The time that the worker gives its back end.
    worker_timeout: Cell<Option<Duration>>,
    stage: Cell<Stage>,
    began: Instant,
    /// When the back end had answered.
    answered: Cell<Option<Instant>>,
    deadline: Cell<Option<Deadline>>,
    refusal: Cell<Option<MessageId>>,
}

/// When the back end's response head must be there.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Deadline {
    at: Instant,
    /// The time from the connection to the deadline.
    pub allowed: Duration,
}

impl Deadline {
    /// The time left; `None` if none is.
    pub(crate) fn left(&self) -> Option<Duration> {
        self.at.checked_duration_since(Instant::now()).filter(|left| !left.is_zero())
    }
}

impl Handshake {
    /// A handshake that has not begun.
    pub(crate) fn new(
        offer: Offer,
        backend: Vec<u8>,
        has_body: bool,
        config: &DirConfig<'_>,
        keepalives: i32,
    ) -> Self {
        Self {
            offer,
            backend,
            subprotocol: RefCell::default(),
            has_body,
            rigour: config.rigour(),
            timeout: config.handshake_timeout(),
            rules: Cell::new(config.rules()),
            relay: config.relay(),
            tunnel: Tunnel::default(),
            keepalives,
            shows_no_keepalives: Cell::new(false),
            reused: Cell::new(false),
            continued: Cell::new(false),
            worker_timeout: Cell::new(None),
            stage: Cell::new(Stage::Waiting),
            began: Instant::now(),
            answered: Cell::new(None),
            deadline: Cell::new(None),
            refusal: Cell::new(None),
        }
    }

    /// The back end has switched with these extensions, which may define reserved bits.
    pub(crate) fn negotiated<'n>(&self, extensions: impl Iterator<Item = &'n [u8]>) {
        let rules = self.rules.get();
        let strict = rules.strict.map(|strict| strict.with(extensions));
        self.rules.set(Rules { strict, ..rules });
    }

    /// How far it has come.
    pub(crate) fn stage(&self) -> Stage {
        self.stage.get()
    }

    /// It has come to `stage`.
    pub(crate) fn reach(&self, stage: Stage) {
        self.stage.set(stage);
        if matches!(stage, Stage::Answered | Stage::Switched) {
            self.answered.set(Some(Instant::now()));
        }
    }

    /// How long the back end took to answer, if it has.
    pub(crate) fn answered_after(&self) -> Option<Duration> {
        Some(self.answered.get()?.saturating_duration_since(self.began))
    }

    /// The back end has all that it was to be sent for now: the time that a client took for the
    /// body of its request is not the back end's.
    pub(crate) fn sent(&self) {
        if let (true, Some(deadline)) = (self.has_body, self.deadline.get()) {
            let at = Instant::now().checked_add(deadline.allowed);
            self.deadline.set(at.map(|at| Deadline { at, ..deadline }));
        }
    }

    /// The deadline, for as long as the back end has not answered.
    pub(crate) fn deadline(&self) -> Option<Deadline> {
        self.deadline.get().filter(|_| self.stage() == Stage::Waiting)
    }

    /// The time that was allowed, once there is a connection.
    pub(crate) fn allowed(&self) -> Option<Duration> {
        self.deadline.get().map(|deadline| deadline.allowed)
    }

    /// The deadline is set, by the setting or else by the socket's timeout.
    pub(crate) fn begin(&self, timeout: Option<Duration>) {
        self.worker_timeout.set(timeout);
        if let Some(allowed) = self.timeout.or(timeout) {
            let at = Instant::now().checked_add(allowed);
            self.deadline.set(at.map(|at| Deadline { at, allowed }));
        }
    }

    /// Whether a socket with this timeout waits by the worker's `ping=`: it is not the one of the connection.
    pub(crate) fn is_pinged(&self, timeout: Duration) -> bool {
        self.worker_timeout.get() != Some(timeout)
    }

    /// Ends the handshake for a reason that goes into the log.
    pub(crate) fn refuse(&self, stage: Stage, id: MessageId) {
        self.refusal.set(Some(id));
        self.reach(stage);
    }

    /// Why it was refused.
    pub(crate) fn refusal(&self) -> Option<MessageId> {
        self.refusal.get()
    }
}

/// Runs `serve` as the handshake of `request`.
pub(crate) fn enter<T>(
    request: Request<'_>,
    handshake: &Handshake,
    serve: impl FnOnce() -> T,
) -> T {
    CURRENT.with(|current| current.enter(request, handshake, serve))
}

/// The handshake that this thread is in, if any.
pub(crate) fn current<T>(see: impl for<'s> FnOnce(Serving<'s, Handshake>) -> T) -> Option<T> {
    CURRENT.with(|current| current.look(see))
}

/// The connection to the back end of the handshake that this thread is in.
pub(crate) fn set_origin(c: Connection<'_>) {
    Scope::set_origin(&CURRENT, c);
}

/// Makes mod_proxy_http take a fresh connection. A pooled one may have just been
/// closed by the back end, which would cost the client its handshake; there is
/// no retry. mod_proxy_http looks at the variable only while the client's
/// connection has served nothing, hence the count of 0.
pub(crate) fn force_fresh_connection(r: Request<'_>, handshake: &Handshake) {
    if let (Some(client), Some(env)) = (r.connection(), r.env()) {
        handshake.shows_no_keepalives.set(true);
        client.set_keepalives(0);
        env.set(NOT_POOLED, b"1");
    }
}

/// Undoes [`force_fresh_connection`], as soon as the connection is there: the count is in the
/// response's Keep-Alive.
pub(crate) fn restore_keepalive_count(r: Request<'_>, handshake: &Handshake) {
    if let (Some(client), Some(env)) = (r.connection(), r.env())
        && handshake.shows_no_keepalives.replace(false)
    {
        env.unset(NOT_POOLED);
        client.set_keepalives(client.keepalives() + handshake.keepalives);
    }
}

/// Whether a connection that was kept has a response head to come.
pub(crate) fn awaits_head(c: Connection<'_>) -> bool {
    let awaits = |serving: Serving<'_, Handshake>| {
        let handshake = serving.data;
        handshake.reused.get()
            && handshake.stage() == Stage::Waiting
            && serving.origin.is_some_and(|origin| origin == c)
    };
    current(awaits) == Some(true)
}

/// The back end asks the client to authenticate itself. With NTLM and Negotiate it is the
/// connection that is authenticated: it goes back to the pool, if mod_proxy_http finds nothing
/// against it, and the client's next handshake may have it.
pub(crate) fn keep_for_answer(serving: &Serving<'_, Handshake>) {
    let (Some(client), Some(origin)) = (serving.request.connection(), serving.origin) else {
        return;
    };
    if client.is_secondary() {
        return;
    }
    client.note_challenge(true);
    origin.may_be_kept();
    Scope::forget_origin(&CURRENT);
}

/// The connections that are the tunnel's alone: a stream of HTTP/2 shares its own with others.
pub(crate) fn connections<'s>(
    serving: &Serving<'s, Handshake>,
) -> impl Iterator<Item = Connection<'s>> + use<'s> {
    let client = serving.request.connection().filter(|client| !client.is_secondary());
    client.into_iter().chain(serving.origin)
}
