//! What the filters of the two connections know of an open tunnel, while it is in its worker thread.

use std::cell::{Cell, RefCell};
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use os::process;
use relay::{Breach, By, Close, Deadline, Guard, Limit, Rules, Tracker};

use crate::ffi::apr_status::Status;
use crate::ffi::brigade::Brigade;
use crate::processes::alarm::Alarm;
use crate::processes::listing::Listing;

/// Which of the two connections.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Side {
    /// To the client.
    Client,
    /// To the back end.
    Origin,
}

impl Side {
    /// What the log calls it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Client => "client",
            Self::Origin => "back end",
        }
    }

    /// The other one.
    pub(crate) fn other(self) -> Self {
        match self {
            Self::Client => Self::Origin,
            Self::Origin => Self::Client,
        }
    }
}

/// The frames of both directions.
pub(crate) struct Frames {
    from_client: Direction,
    from_origin: Direction,
    /// For the bytes of one read.
    scratch: Vec<u8>,
}

/// The frames that one side sends.
struct Direction {
    guard: Option<Guard>,
    tracker: Tracker,
}

impl Frames {
    /// For a tunnel with these rules; none if no rule looks at frames, or has a Close frame sent, and
    /// nobody else `closes` it.
    pub(crate) fn new(rules: &Rules, closes: bool) -> Option<Box<Self>> {
        let guards = [By::Client, By::Backend].map(|sender| Guard::new(rules, sender));
        if guards.iter().all(Option::is_none) && !rules.has_deadline() && !closes {
            return None;
        }
        let [client, origin] = guards;
        Some(Box::new(Self {
            from_client: Direction { guard: client, tracker: Tracker::client_to_backend() },
            from_origin: Direction { guard: origin, tracker: Tracker::backend_to_client() },
            scratch: Vec::new(),
        }))
    }

    fn of(&mut self, side: Side) -> &mut Direction {
        match side {
            Side::Client => &mut self.from_client,
            Side::Origin => &mut self.from_origin,
        }
    }
}

impl Direction {
    /// Takes note of bytes that are about to be carried, and says how many of them may be.
    fn allow(&mut self, bytes: &[u8]) -> (usize, Option<Breach>) {
        let refused = self.guard.as_mut().and_then(|guard| guard.check(bytes).err());
        let allowed = refused.map_or(bytes.len(), |refused| refused.allowed);
        self.tracker.feed(&bytes[..allowed]);
        (allowed, refused.map(|refused| refused.breach))
    }

    /// A Close frame behind what was carried, if one can stand there.
    fn close(&self, code: u16, reason: &str) -> Vec<u8> {
        if self.tracker.at_boundary() { self.tracker.close_frame(code, reason) } else { Vec::new() }
    }
}

/// What the filters know of an open tunnel.
#[derive(Default)]
pub(crate) struct Tunnel {
    client: Ahead,
    origin: Ahead,
    /// It is to be handed over, at the next read that allows it.
    pub is_to_leave: Cell<bool>,
    /// Reads are being passed on: a hand-over empties mod_ssl's filters.
    pub draining: Cell<bool>,
    /// When it has to have left, or to have been found unable to.
    pub leaves_by: Cell<Option<Instant>>,
    /// It has not, and is ended.
    pub is_late: Cell<bool>,
    /// The timeout of the back end's socket, while the loop is shown another.
    pub origin_timeout: Cell<Option<Duration>>,
    /// When the back end switched protocols.
    pub began: Cell<Option<Instant>>,
    /// The side that came to its end first.
    pub ended_first: Cell<Option<Side>>,
    /// What the back end's connection was like when it was closed.
    pub closed: RefCell<Option<Closed>>,
    /// Its frames, if a rule looks at them.
    pub frames: RefCell<Option<Box<Frames>>>,
    /// The side that has sent what a rule does not allow, and what that was.
    pub broken: Cell<Option<(Side, Breach)>>,
    /// When it ends, whatever goes on in it.
    pub deadline: Cell<Option<Deadline>>,
    /// Wakes the loop then.
    pub alarm: RefCell<Option<Alarm>>,
    /// That time has come.
    pub over: Cell<Option<Limit>>,
    /// How others see it, until it ends or leaves.
    pub listing: Cell<Option<Listing>>,
    /// An administrator has it closed like this.
    pub ordered: RefCell<Option<Close>>,
    /// A stream of HTTP/2 has what came with the 101.
    pub caught_up: Cell<bool>,
}

/// What was read of a connection: ahead of the loop, and by it.
#[derive(Default)]
pub(crate) struct Ahead {
    /// The bytes that the loop has still to get.
    pub bytes: RefCell<Vec<u8>>,
    /// What the read after them answered.
    pub end: Cell<Option<Status>>,
    /// How many bytes the loop has got, or went past it.
    pub passed: Cell<u64>,
    /// What the loop's last read answered, if the side has come to its end.
    pub over: Cell<Option<Status>>,
}

/// The back end's connection as its pool is cleared, which is before the request is over.
pub(crate) struct Closed {
    /// Its address.
    pub peer: String,
    /// A write to it has failed.
    pub is_aborted: bool,
}

impl Ahead {
    /// So many bytes of it went to the other side past the loop.
    pub(crate) fn count(&self, bytes: usize) {
        self.passed.set(self.passed.get() + bytes as u64);
    }
}

impl Tunnel {
    /// What was read of one side.
    pub(crate) fn ahead(&self, side: Side) -> &Ahead {
        match side {
            Side::Client => &self.client,
            Side::Origin => &self.origin,
        }
    }

    /// A read by the loop has its answer.
    pub(crate) fn note(&self, side: Side, out: &mut Brigade<'_>, result: Result<(), Status>) {
        let of = self.ahead(side);
        let bytes = if result.is_ok() { out.length() } else { 0 };
        of.passed.set(of.passed.get() + bytes);
        if bytes > 0 {
            self.show();
        }
        if let Err(end) = result
            && !end.is_again()
            && of.over.get().is_none()
        {
            of.over.set(Some(end));
            self.ended_first.set(self.ended_first.get().or(Some(side)));
        }
    }

    /// Whether it is to end, whatever its sides want.
    pub(crate) fn is_ending(&self) -> bool {
        self.broken.get().is_some() || self.over.get().is_some() || self.ordered.borrow().is_some()
    }

    /// The messages that `side` has sent, of text and of other bytes, if its frames are looked at.
    pub(crate) fn messages(&self, side: Side) -> Option<[u64; 2]> {
        self.frames.borrow_mut().as_mut()?.of(side).tracker.messages_by_kind()
    }

    /// The code of the Close frame that `side` has sent, likewise.
    pub(crate) fn close_code(&self, side: Side) -> Option<u16> {
        self.frames.borrow_mut().as_mut()?.of(side).tracker.close_code()
    }

    /// Has others see what went through it so far.
    fn show(&self) {
        let Some(activity) = self.listing.get().and_then(Listing::activity) else { return };
        for (count, side) in activity.bytes.iter().zip([Side::Client, Side::Origin]) {
            count.store(self.ahead(side).passed.get(), Relaxed);
        }
        for (counts, side) in activity.messages.iter().zip([Side::Client, Side::Origin]) {
            for (count, messages) in counts.iter().zip(self.messages(side).into_iter().flatten()) {
                count.store(messages, Relaxed);
            }
        }
        activity.last.store(process::seconds(), Relaxed);
    }

    /// Looks at bytes that `side` has sent, before they go on. What no rule allows is cut off.
    /// `false` if something was: see [`breach::end`](crate::request::breach::end).
    pub(crate) fn allow(&self, side: Side, bytes: &mut Vec<u8>) -> bool {
        let mut frames = self.frames.borrow_mut();
        let Some(frames) = &mut *frames else { return true };
        let (allowed, breach) = frames.of(side).allow(bytes);
        bytes.truncate(allowed);
        if let Some(breach) = breach {
            self.broken.set(Some((side, breach)));
        }
        breach.is_none()
    }

    /// The same of what a read has answered.
    pub(crate) fn allow_read(&self, side: Side, out: &mut Brigade<'_>) -> bool {
        let mut frames = self.frames.borrow_mut();
        let Some(all) = &mut *frames else { return true };
        let mut bytes = std::mem::take(&mut all.scratch);
        drop(frames);
        bytes.clear();
        // Memory that cannot be read is for the loop to find out.
        let is_allowed = out.copy_into(&mut bytes).is_err() || self.allow(side, &mut bytes);
        if !is_allowed {
            out.clear();
            out.append(&bytes);
        }
        if let Some(frames) = &mut *self.frames.borrow_mut() {
            frames.scratch = bytes;
        }
        is_allowed
    }

    /// A Close frame behind what `side` has sent, if a rule looks at its frames and one can stand there.
    pub(crate) fn close_behind(&self, side: Side, code: u16) -> Vec<u8> {
        let mut frames = self.frames.borrow_mut();
        let ordered = self.ordered.borrow();
        let reason = ordered.as_ref().map_or("", Close::reason);
        frames.as_mut().map(|frames| frames.of(side).close(code, reason)).unwrap_or_default()
    }
}
