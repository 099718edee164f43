//! The filters on the connection to a back end: the deadline below TLS, and
//! above it the head filter, which reads, bounds and checks a response head
//! before mod_proxy_http sees any of it.

use std::borrow::Cow;
use std::fmt::Display;

use memchr::memchr;
use messages::{
    BadHead, ClosedInHead, FailedInHead, Forgivable, Forgiven, HeadCut, HeadLate, Message,
    NotSwitched, QuotedByProxy, Wrong101,
};
use protocol::handshake::{Right101, check};
use protocol::head::{Scanner, inspect};

use crate::ffi::apr_status::Status;
use crate::ffi::brigade::Brigade;
use crate::ffi::connection::{Connection, Socket};
use crate::ffi::filter::{InputFilter, Kind, Layer, Loading, Mode, Next, Read};
use crate::ffi::log;
use crate::ffi::request::Request;
use crate::ffi::scope::Serving;
use crate::request::handshake::{
    self, AWAITS_CONTINUE, Handshake, Stage, awaits_head, current, keep_for_answer,
};
use crate::request::tunnel::Side;
use crate::request::worker_tunnel;
use crate::request::{admission, backends};

static DEADLINE: Kind<DeadlineFilter> = Kind::new();
static HEAD: Kind<HeadFilter> = Kind::new();

/// How much is asked of the connection at a time; core's socket buckets hold
/// 8000 bytes.
const CHUNK_BYTES: usize = 8192;

const CONTINUE: u16 = 100;
const SWITCHING_PROTOCOLS: u16 = 101;
/// 401 and 407, behind which the client comes again with its credentials.
const CHALLENGES: [u16; 2] = [401, 407];

/// Makes the filters known to httpd.
pub(crate) fn register(loading: &Loading) {
    DEADLINE.register(loading, c"WSFORWARD_DEADLINE", Layer::BelowTls);
    HEAD.register(loading, c"WSFORWARD_HEAD", Layer::AboveTls);
}

/// A connection was made, and httpd has not yet read or written on it. If it is
/// the one of a handshake, its filters go on now: below TLS, so that the
/// deadline holds for a TLS handshake too, and above, for the head.
pub(crate) fn connected(c: Connection<'_>, socket: Socket<'_>) {
    let ours = current(|serving| {
        // While an answer is passed on, what it includes (SSI) has connections of its own.
        if serving.data.stage() != Stage::Waiting {
            return false;
        }
        // mod_proxy has set the worker's timeout on the socket.
        serving.data.begin(socket.timeout());
        // What mod_proxy_http had to find at the choice of the connection.
        handshake::restore_keepalive_count(serving.request, serving.data);
        true
    });
    if ours == Some(true) {
        handshake::set_origin(c);
        // Not back into the pool: an answer to an upgrade may be followed by bytes that are no
        // HTTP. Only a challenge needs it, see `keep_for_answer`.
        c.close_after_request();
        attach(c);
    }
}

/// A request was sent, and its response is about to be read. If it is a handshake's and went over
/// a connection that was kept, its filters go on now, where they are not on it already.
pub(crate) fn request_sent(response: Request<'_>) {
    let is_kept = |serving: Serving<'_, Handshake>| {
        serving.origin.is_none() && serving.data.stage() == Stage::Waiting
    };
    let (true, Some(c)) = (current(is_kept) == Some(true), response.connection()) else { return };
    handshake::set_origin(c);
    if !is_attached(c) {
        attach(c);
        response.read_from_connection();
    }
    c.close_after_request();
    current(|serving| {
        serving.data.reused.set(true);
        serving.data.begin(c.socket().and_then(Socket::timeout));
    });
}

/// Puts the filters on the connection to a back end.
fn attach(origin: Connection<'_>) {
    // This fails only without memory or without registration; httpd aborts in both cases.
    let _ = DEADLINE.add(origin, DeadlineFilter);
    let _ = HEAD.add(origin, HeadFilter::default());
}

/// Whether they are there.
fn is_attached(origin: Connection<'_>) -> bool {
    origin.has_filter(c"wsforward_head")
}

/// Whether mod_proxy_http waits for a 100 Continue, because of the request's Expect or the worker's `ping=`.
fn awaits_continue(serving: &Serving<'_, Handshake>) -> bool {
    let asked = serving.request.notes().is_some_and(|notes| notes.get(AWAITS_CONTINUE).is_some());
    asked && !serving.data.continued.get()
}

/// Bounds each blocking read by the time that the handshake has left.
struct DeadlineFilter;

impl InputFilter for DeadlineFilter {
    fn read(
        &mut self,
        origin: Connection<'_>,
        next: &mut Next<'_>,
        out: &mut Brigade<'_>,
        read: Read,
    ) -> Result<(), Status> {
        let deadline = current(|serving| serving.data.deadline()).flatten();
        let (Some(deadline), Some(socket), true) = (deadline, origin.socket(), read.block) else {
            return next.read(out, read);
        };
        let result = match deadline.left() {
            None => Err(Status::TIMEUP),
            Some(left) => {
                let before = socket.timeout();
                // `ping=` of the worker: mod_proxy_http waits no longer than that for a 100 Continue.
                let is_pinged = |serving: Serving<'_, Handshake>| {
                    before.is_some_and(|before| before < left && serving.data.is_pinged(before))
                        && awaits_continue(&serving)
                };
                if current(is_pinged) == Some(true) {
                    return next.read(out, read);
                }
                socket.set_timeout(Some(left))?;
                let result = next.read(out, read);
                socket.set_timeout(before)?;
                result
            }
        };
        if result.is_err_and(Status::is_timeup) {
            current(|serving| serving.data.reach(Stage::Late));
        }
        result
    }
}

/// Reads response heads, checks them, and serves them. Behind the final one it
/// passes on what follows.
#[derive(Default)]
struct HeadFilter {
    /// What was read, from the first byte not yet served.
    bytes: Vec<u8>,
    scanner: Scanner,
    state: State,
    /// The back end is waited for.
    waits: bool,
}

/// What the bytes at the front are.
#[derive(Default, Clone, Copy)]
enum State {
    /// A head of which the end has not arrived.
    #[default]
    Collecting,
    /// A head of so many bytes, and what comes after it.
    Head { left: usize, then: Then },
    /// The body, or the tunnel.
    Rest,
    /// Nothing more is served.
    Ended,
}

#[derive(Clone, Copy)]
enum Then {
    AnotherHead,
    Rest,
    End,
}

impl InputFilter for HeadFilter {
    fn read(
        &mut self,
        origin: Connection<'_>,
        next: &mut Next<'_>,
        out: &mut Brigade<'_>,
        read: Read,
    ) -> Result<(), Status> {
        if read.mode == Mode::Init {
            return next.read(out, read);
        }
        if matches!(self.state, State::Rest) && awaits_head(origin) {
            self.state = State::Collecting;
            self.waits = false;
        }
        if !self.waits {
            self.waits = true;
            current(|serving| serving.data.sent());
        }
        while matches!(self.state, State::Collecting) {
            self.collect(next, out, read.block)?;
        }
        match self.state {
            State::Head { left, then } => {
                let served = serve(&self.bytes[..left], out, read);
                self.consume(served);
                self.state = match (left - served, then) {
                    (0, Then::AnotherHead) => State::Collecting,
                    (0, Then::Rest) => {
                        self.switched();
                        State::Rest
                    }
                    (0, Then::End) => State::Ended,
                    (left, then) => State::Head { left, then },
                };
                Ok(())
            }
            State::Rest if !self.bytes.is_empty() => {
                let served = serve(&self.bytes, out, read);
                self.consume(served);
                Ok(())
            }
            State::Rest => worker_tunnel::read(Side::Origin, origin, next, out, read),
            State::Collecting | State::Ended => Err(Status::EOF),
        }
    }
}

impl HeadFilter {
    /// Goes one step towards a complete head: judges it, or reads on.
    fn collect(
        &mut self,
        next: &mut Next<'_>,
        out: &mut Brigade<'_>,
        block: bool,
    ) -> Result<(), Status> {
        match self.scanner.end(&self.bytes) {
            Ok(Some(end)) => current(|serving| self.judge(end, &serving)).ok_or(Status::GENERAL),
            Ok(None) => {
                let before = self.bytes.len();
                let result =
                    next.read(out, Read { mode: Mode::ReadBytes, block, bytes: CHUNK_BYTES });
                let result = result.and_then(|()| out.drain_into(&mut self.bytes));
                match result {
                    Ok(()) if self.bytes.len() > before => Ok(()),
                    Err(why) if why.is_again() && !block => Err(why),
                    // An empty brigade is core's other way to say "nothing now".
                    Ok(()) if !block => Err(Status::AGAIN),
                    Ok(()) => self.cut(Status::EOF),
                    Err(why) => self.cut(why),
                }
            }
            Err(bad) => self.refuse(&BadHead { why: &bad }),
        }
    }

    /// Decides on the head of `end` bytes that was read.
    fn judge(&mut self, end: usize, serving: &Serving<'_, Handshake>) {
        let handshake = serving.data;
        let status = match inspect(&self.bytes[..end]) {
            Ok(status) => status,
            Err(bad) => {
                return self.refuse_by(serving, Stage::Refused, &BadHead { why: &bad });
            }
        };
        let (left, then) = match status.code {
            SWITCHING_PROTOCOLS => {
                match check(&self.bytes[..end], &handshake.offer, handshake.rigour) {
                    Ok(right) => {
                        handshake.negotiated(right.extensions());
                        handshake.subprotocol.replace(right.subprotocol.to_vec());
                        let Right101 { head, forgiven, .. } = right;
                        if let Some(wrong) = forgiven {
                            log::request(serving.request, &Forgiven { wrong: &wrong });
                        }
                        let left = head.len();
                        if let Cow::Owned(head) = head {
                            self.bytes.splice(..end, head);
                        }
                        handshake.reach(Stage::Switched);
                        worker_tunnel::begin(serving);
                        (left, Then::Rest)
                    }
                    Err(wrong) => {
                        let why: &dyn Display = match wrong.is_forgivable() {
                            true => &Forgivable { wrong: &wrong },
                            false => &wrong,
                        };
                        return self.refuse_by(serving, Stage::Refused, &Wrong101 { why });
                    }
                }
            }
            // mod_proxy_http refuses the tenth.
            code @ 100..200 => {
                handshake.continued.set(handshake.continued.get() || code == CONTINUE);
                // Behind this one it may send the body.
                self.waits = code != CONTINUE;
                (end, Then::AnotherHead)
            }
            code => {
                log::request(serving.request, &NotSwitched { status: &code });
                handshake.reach(Stage::Answered);
                // Its body may take as long as the client wants.
                admission::give_back(serving.request);
                backends::forget(serving.request);
                if CHALLENGES.contains(&status.code) {
                    keep_for_answer(serving);
                }
                (end, Then::Rest)
            }
        };
        self.scanner = Scanner::default();
        self.state = State::Head { left, then };
    }

    /// The connection ended, or failed, or was too slow, before a head was complete.
    fn cut(&mut self, why: Status) -> Result<(), Status> {
        let arrived = self.bytes.len();
        let is_stale = |handshake: &Handshake| {
            arrived == 0 && handshake.reused.get() && handshake.stage() == Stage::Waiting
        };
        // The back end had closed the connection meanwhile. mod_proxy_http knows that case, and
        // closes the client's, which may try again.
        if current(|serving| is_stale(serving.data)) == Some(true) {
            return Err(why);
        }
        // No 100 Continue has come in the time that is mod_proxy's own. mod_proxy_http answers 503, for which
        // the next member is tried. Whoever is late by WSForwardHandshakeTimeout is not to blame for that.
        let is_proxys = |serving: Serving<'_, Handshake>| {
            let is_late = serving.data.stage() == Stage::Late;
            awaits_continue(&serving) && !(is_late && serving.data.timeout.is_some())
        };
        if why.is_timeup() && current(is_proxys) == Some(true) {
            return Err(why);
        }
        let done = current(|serving| {
            let handshake = serving.data;
            if handshake.stage() == Stage::Late {
                let allowed = handshake.allowed().unwrap_or_default();
                let within: &dyn Display = &format_args!("{allowed:?}");
                self.refuse_by(&serving, Stage::Late, &HeadLate { within, bytes: &arrived });
            } else {
                let why: &dyn Display = match why.is_eof() {
                    true => &ClosedInHead { bytes: &arrived },
                    false => &FailedInHead { error: &why, bytes: &arrived },
                };
                self.refuse_by(&serving, Stage::Refused, &HeadCut { why });
            }
        });
        done.ok_or(why)
    }

    fn refuse(&mut self, message: &impl Message) -> Result<(), Status> {
        current(|serving| self.refuse_by(&serving, Stage::Refused, message)).ok_or(Status::GENERAL)
    }

    /// Has mod_proxy_http answer 502. It does so for a status line of another HTTP, which it
    /// quotes as if the back end had sent it, so the log has a line before that one which says
    /// what happened. For a failed read mod_proxy_http would log two lines that say less, and may
    /// close a client's connection without any answer (mod_proxy_http.c,
    /// ap_proxy_http_process_response).
    fn refuse_by<M: Message>(
        &mut self,
        serving: &Serving<'_, Handshake>,
        stage: Stage,
        message: &M,
    ) {
        serving.data.refuse(stage, M::ID);
        let line = QuotedByProxy { message };
        log::request_line(serving.request, M::LEVEL, M::ID, &line);
        self.bytes = format!("HTTP/9.9 502 {}: {message}\r\n", M::ID).into_bytes();
        self.state = State::Head { left: self.bytes.len(), then: Then::End };
    }

    /// The head is served. What follows a 101 belongs to the tunnel.
    fn switched(&mut self) {
        current(|serving| {
            if serving.data.stage() == Stage::Switched {
                let ahead = serving.data.tunnel.ahead(Side::Origin);
                ahead.bytes.replace(std::mem::take(&mut self.bytes));
            }
        });
    }

    fn consume(&mut self, served: usize) {
        self.bytes.drain(..served);
        if self.bytes.is_empty() {
            // An open tunnel keeps no buffer.
            self.bytes = Vec::new();
        }
    }
}

/// Answers a read from `bytes`, and says how many of them it took.
fn serve(bytes: &[u8], out: &mut Brigade<'_>, read: Read) -> usize {
    let length = match read.mode {
        Mode::GetLine => memchr(b'\n', bytes).map_or(bytes.len(), |at| at + 1),
        Mode::ReadBytes | Mode::Speculative => bytes.len().min(read.bytes),
        Mode::Exhaustive => bytes.len(),
        Mode::EatCrlf | Mode::Init => 0,
    };
    out.append(&bytes[..length]);
    if read.mode == Mode::Speculative { 0 } else { length }
}
