//! One handshake with a back end: what the handler, the connection hook and the
//! filters of the two connections know of it. All of them run in one thread,
//! within the handler's call.

use std::cell::Cell;
use std::time::{Duration, Instant};

use protocol::handshake::{Offer, Rigour};

use crate::config::DirConfig;
use crate::ffi::connection::{Connection, Socket};
use crate::ffi::log::Message;
use crate::ffi::request::Request;
use crate::ffi::scope::{Scope, Serving};
use crate::request::head;
use crate::request::worker_tunnel::Tunnel;

thread_local! {
    static CURRENT: Scope<Handshake> = const { Scope::new() };
}

/// How far a handshake has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
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
pub struct Handshake {
    /// What the client asked for.
    pub offer: Offer,
    /// WSForwardCheck.
    pub rigour: Rigour,
    /// WSForwardHandshakeTimeout, if set.
    pub timeout: Option<Duration>,
    /// WSForwardIdleTimeout, if set; 0 is for ever.
    pub idle_timeout: Option<Duration>,
    /// WSForwardRelay.
    pub relay: bool,
    /// The open tunnel.
    pub tunnel: Tunnel,
    /// The client connection's count of requests before this one, while it is
    /// hidden from mod_proxy_http (see handler.rs).
    pub keepalives: i32,
    /// Whether it is hidden.
    pub hidden: Cell<bool>,
    /// The request has a body, for which the back end has to wait.
    has_body: bool,
    /// Its connection to the back end has served a request before.
    pub reused: Cell<bool>,
    stage: Cell<Stage>,
    deadline: Cell<Option<Deadline>>,
    refusal: Cell<Option<Message>>,
}

/// When the back end's response head must be there.
#[derive(Debug, Clone, Copy)]
pub struct Deadline {
    at: Instant,
    /// The time from the connection to the deadline.
    pub allowed: Duration,
}

impl Deadline {
    /// The time left; `None` if none is.
    pub fn left(&self) -> Option<Duration> {
        self.at.checked_duration_since(Instant::now()).filter(|left| !left.is_zero())
    }
}

impl Handshake {
    /// A handshake that has not begun.
    pub fn new(offer: Offer, has_body: bool, config: &DirConfig, keepalives: i32) -> Self {
        Self {
            offer,
            has_body,
            rigour: config.rigour(),
            timeout: config.handshake_timeout(),
            idle_timeout: config.idle_timeout(),
            relay: config.relay(),
            tunnel: Tunnel::default(),
            keepalives,
            hidden: Cell::new(false),
            reused: Cell::new(false),
            stage: Cell::new(Stage::Waiting),
            deadline: Cell::new(None),
            refusal: Cell::new(None),
        }
    }

    /// How far it has come.
    pub fn stage(&self) -> Stage {
        self.stage.get()
    }

    /// It has come to `stage`.
    pub fn reach(&self, stage: Stage) {
        self.stage.set(stage);
    }

    /// The back end has all that it was to be sent for now: the time that a client took for the
    /// body of its request is not the back end's.
    pub fn sent(&self) {
        if let (true, Some(deadline)) = (self.has_body, self.deadline.get()) {
            let at = Instant::now().checked_add(deadline.allowed);
            self.deadline.set(at.map(|at| Deadline { at, ..deadline }));
        }
    }

    /// The deadline, for as long as the back end has not answered.
    pub fn deadline(&self) -> Option<Deadline> {
        self.deadline.get().filter(|_| self.stage() == Stage::Waiting)
    }

    /// The time that was allowed, once there is a connection.
    pub fn allowed(&self) -> Option<Duration> {
        self.deadline.get().map(|deadline| deadline.allowed)
    }

    /// The deadline is set, by the setting or else by the socket's timeout.
    fn begin(&self, timeout: Option<Duration>) {
        if let Some(allowed) = self.timeout.or(timeout) {
            let at = Instant::now().checked_add(allowed);
            self.deadline.set(at.map(|at| Deadline { at, allowed }));
        }
    }

    /// Ends the handshake for a reason that goes into the log.
    pub fn refuse(&self, stage: Stage, number: Message) {
        self.refusal.set(Some(number));
        self.reach(stage);
    }

    /// Why it was refused.
    pub fn refusal(&self) -> Option<Message> {
        self.refusal.get()
    }
}

/// Runs `serve` as the handshake of `request`.
pub fn enter<T>(request: Request<'_>, handshake: &Handshake, serve: impl FnOnce() -> T) -> T {
    CURRENT.with(|current| current.enter(request, handshake, serve))
}

/// The handshake that this thread is in, if any.
pub fn current<T>(see: impl for<'s> FnOnce(Serving<'s, Handshake>) -> T) -> Option<T> {
    CURRENT.with(|current| current.look(see))
}

/// A connection was made, and httpd has not yet read or written on it. If it is
/// the one of a handshake, its filters go on now: below TLS, so that the
/// deadline holds for a TLS handshake too, and above, for the head.
pub fn connected(c: Connection<'_>, socket: Socket<'_>) {
    let ours = current(|serving| {
        let handshake = serving.data;
        // mod_proxy has set the worker's timeout on the socket.
        handshake.begin(socket.timeout());
        // What mod_proxy_http had to find at the choice of the connection.
        crate::request::handler::unhide(serving.request, handshake);
    });
    if ours.is_some() {
        Scope::set_origin(&CURRENT, c);
        // Not back into the pool: an answer to an upgrade may be followed by bytes that are no
        // HTTP. Only a challenge needs it, see `keep_for_answer`.
        c.close_after_request();
        head::attach(c);
    }
}

/// A request was sent, and its response is about to be read. If it is a handshake's and went over
/// a connection that was kept, its filters go on now, where they are not on it already.
pub fn sent(response: Request<'_>) {
    let is_kept = current(|serving| serving.origin.is_none()) == Some(true);
    let (true, Some(c)) = (is_kept, response.connection()) else { return };
    if head::is_attached(c) {
        Scope::set_known_origin(&CURRENT, c);
    } else {
        Scope::set_origin(&CURRENT, c);
        head::attach(c);
        response.read_from_connection();
    }
    c.close_after_request();
    current(|serving| {
        serving.data.reused.set(true);
        serving.data.begin(c.socket().and_then(Socket::timeout));
    });
}

/// Whether a connection that was kept has a response head to come.
pub fn awaits_head(c: Connection<'_>) -> bool {
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
pub fn keep_for_answer(serving: &Serving<'_, Handshake>) {
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
