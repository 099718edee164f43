//! A tunnel as it is handed to the relay and given back by it.

use std::fmt;
use std::os::fd::{AsFd, BorrowedFd};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Instant;

use messages::RecordPanicked;
use shared::Why;

use crate::end::{By, End, Progress, Record};
use crate::flow::Flow;
use crate::frames::Tracker;
use crate::rules::{OwnRules, Rules};
use crate::side::{Side, Socket};

/// What a tunnel is apart from its sockets, wherever it lives.
pub(crate) struct TunnelState {
    /// From the client to the back end.
    pub up: Flow,
    /// From the back end to the client.
    pub down: Flow,
    pub record: Box<dyn Record>,
    pub rules: OwnRules,
    pub started: Instant,
    /// The side whose bytes ended first, and whether it said so as it should.
    pub first_end: Option<(By, bool)>,
    /// Who has the tunnel ended and why, once it is being ended.
    pub ending: Option<Box<(By, Why)>>,
}

impl TunnelState {
    /// Tells the record of the end. `settle` is where the tunnel stops to count as one that
    /// somebody has: whoever waits for that finds the record told.
    pub(crate) fn report(&mut self, by: By, why: Why, settle: impl FnOnce()) {
        let told = catch_unwind(AssertUnwindSafe(|| self.tell(by, why)));
        settle();
        let told = told.and_then(|()| catch_unwind(AssertUnwindSafe(|| self.record.settled())));
        if told.is_err() {
            log::error!("{RecordPanicked}");
        }
    }

    fn tell(&mut self, by: By, why: Why) {
        let Progress { bytes_up, bytes_down, duration, messages_up, messages_down } =
            self.progress();
        let end = End {
            bytes_up,
            bytes_down,
            duration,
            by,
            why,
            client_close: self.up.close_code(),
            backend_close: self.down.close_code(),
            messages_up,
            messages_down,
        };
        self.record.ended(&end);
    }

    /// How far it is.
    pub(crate) fn progress(&self) -> Progress {
        Progress {
            bytes_up: self.up.delivered(),
            bytes_down: self.down.delivered(),
            duration: self.started.elapsed(),
            messages_up: self.up.messages(),
            messages_down: self.down.messages(),
        }
    }
}

/// A tunnel: two sides whose bytes go to each other. Dropping one closes its descriptors and
/// tells nobody.
pub struct Tunnel {
    pub(crate) client: Socket,
    pub(crate) backend: Socket,
    pub(crate) state: TunnelState,
}

impl Tunnel {
    /// A tunnel between `client` and `backend`.
    ///
    /// `frames` follow the frames each direction carries, starting with `read_ahead`: client to
    /// back end, then back end to client. [`Tracker::opaque`] for what is not WebSocket.
    pub fn new(
        client: Side,
        backend: Side,
        frames: [Tracker; 2],
        rules: Rules,
        record: Box<dyn Record>,
    ) -> Self {
        let [up, down] = frames;
        let started = Instant::now();
        Tunnel {
            client: Socket { tls: client.tls, fd: client.fd, failed: false },
            backend: Socket { tls: backend.tls, fd: backend.fd, failed: false },
            state: TunnelState {
                up: Flow::new(up, client.read_ahead, &rules, By::Client, started),
                down: Flow::new(down, backend.read_ahead, &rules, By::Backend, started),
                record,
                rules: rules.into(),
                started,
                first_end: None,
                ending: None,
            },
        }
    }

    /// The descriptors: the client's, the back end's.
    pub fn descriptors(&self) -> [BorrowedFd<'_>; 2] {
        [self.client.fd.as_fd(), self.backend.fd.as_fd()]
    }

    /// Whether neither side speaks TLS.
    pub fn is_plain(&self) -> bool {
        self.client.tls.is_none() && self.backend.tls.is_none()
    }

    /// The record that the tunnel was made with, if it is an `R`.
    pub fn record<R: Record>(&mut self) -> Option<&mut R> {
        // Through the box: the box itself is of some type too.
        (*self.state.record).as_any_mut().downcast_mut()
    }

    /// Puts another record in the place of the tunnel's, and returns that.
    pub fn replace_record(&mut self, record: Box<dyn Record>) -> Box<dyn Record> {
        std::mem::replace(&mut self.state.record, record)
    }

    /// Ends the tunnel outside of a relay: tells its record and closes both sides.
    pub fn end(self, by: By, why: Why) {
        self.end_and(by, why, || {});
    }

    /// A copy of it goes on in a process forked from this one: closes both sides, and leaves all
    /// else as it is. TLS sessions would have something to say.
    pub fn leave_to_fork(self) {
        let Tunnel { client, backend, state } = self;
        std::mem::forget((client.tls, backend.tls, state));
    }

    /// Does what [`end`](Self::end) does, for one that counts until then.
    pub(crate) fn end_and(mut self, by: By, why: Why, settle: impl FnOnce()) {
        self.state.report(by, why, settle);
    }
}

impl fmt::Debug for Tunnel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tunnel")
            .field("client", &self.client.fd)
            .field("backend", &self.backend.fd)
            .finish_non_exhaustive()
    }
}
