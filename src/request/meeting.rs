//! The last step of the hand-over: httpd lets go of each of the two sockets in its own time. When
//! it has let go of both, the tunnel is the relay's.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, PoisonError};

use messages::{LeftOpenSsl, NotReleased, StaysInOpenSsl, TlsNotTaken};
use relay::{Rules, Side as RelaySide, Tls, Tracker};
use shared::TlsSession;
use tls::{Reason, Taken};

use crate::ffi::release::HandedOverTls;
use crate::processes::record::TunnelRecord;
use crate::processes::{child, own_slot};
use crate::request::reservation::Place;
use crate::request::tunnel::Side;

/// Where the two sides of a tunnel meet when httpd has let go of each.
pub(crate) struct Meeting(Mutex<Waiting>);

/// What is there of a tunnel until both sides are.
pub(crate) struct Waiting {
    /// The sides that httpd has let go of.
    pub client: Option<RelaySide>,
    pub origin: Option<RelaySide>,
    /// What was read of the client and of the back end.
    pub ahead: [Vec<u8>; 2],
    pub is_websocket: bool,
    pub rules: Rules,
    /// What went wrong with a side: the tunnel is lost, but not before the client's has come, with the lines
    /// of the access logs.
    pub error: Option<io::Error>,
    /// Until the tunnel begins, or is lost.
    pub record: Option<TunnelRecord>,
    /// Held until the relay counts the tunnel, and no longer: the tunnel would count twice.
    pub place: Option<Place>,
}

impl Meeting {
    /// Nobody has come yet.
    pub(crate) fn new(waiting: Waiting) -> Arc<Self> {
        Arc::new(Self(Mutex::new(waiting)))
    }

    fn keep_access_lines(&self, lines: Vec<u8>) {
        let mut waiting = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(record) = &mut waiting.record {
            record.keep_access_lines(lines);
        }
    }

    /// Counts a TLS session, and has it logged how it goes on.
    fn count_tls(&self, side: Side, taken: Taken) -> Box<dyn Tls> {
        let what = what_became(taken.reason());
        own_slot::count_tls_session(what);
        let waiting = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(record) = waiting.record.as_ref().filter(|_| what != TlsSession::Off) {
            match taken.reason() {
                None => record.tls_taken(&side.name(), &LeftOpenSsl),
                Some(why) => record.tls_taken(&side.name(), &StaysInOpenSsl { why: &why }),
            }
        }
        taken.into_tls()
    }

    /// What a side calls when httpd has let go of it.
    pub(crate) fn arrive(
        meeting: &Arc<Self>,
        side: Side,
    ) -> impl FnOnce(OwnedFd, HandedOverTls, Vec<u8>) + Send + use<> {
        let meeting = Arc::clone(meeting);
        move |fd, session: HandedOverTls, access_lines| {
            if side == Side::Client {
                meeting.keep_access_lines(access_lines);
            }
            let taken = failpoint::check!("handover.release").and_then(|()| session.transpose());
            let tls = taken.map(|taken| taken.map(|taken| meeting.count_tls(side, taken)));
            let mut waiting = meeting.0.lock().unwrap_or_else(PoisonError::into_inner);
            match tls {
                Ok(tls) => waiting.put(side, fd, tls),
                // The other side is closed with the meeting.
                Err(error) => waiting.error = Some(error),
            }
            waiting.start_if_complete();
        }
    }
}

/// How that is counted.
fn what_became(stays: Option<Reason>) -> TlsSession {
    match stays {
        None => TlsSession::Native,
        Some(Reason::Off) => TlsSession::Off,
        Some(Reason::Untraced) => TlsSession::Untraced,
        Some(Reason::Version) => TlsSession::Version,
        Some(Reason::Suite) => TlsSession::Suite,
        Some(Reason::Unfinished) => TlsSession::Unfinished,
        Some(Reason::Ended) => TlsSession::Ended,
        Some(Reason::NoRecord) => TlsSession::NoRecord,
        Some(Reason::LargeRecord) => TlsSession::LargeRecord,
        Some(Reason::Unproved) => TlsSession::Unproved,
        Some(Reason::Failed) => TlsSession::Failed,
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        match (self.record.take(), &self.error) {
            (Some(record), None) => record.lost(&NotReleased),
            (Some(record), Some(error)) => record.lost(&TlsNotTaken { error }),
            (None, _) => {}
        }
    }
}

impl Waiting {
    fn put(&mut self, side: Side, fd: OwnedFd, tls: Option<Box<dyn Tls>>) {
        let [from_client, from_origin] = &mut self.ahead;
        match side {
            Side::Client => {
                let read_ahead = std::mem::take(from_client);
                self.client = Some(RelaySide { fd, tls, read_ahead });
            }
            Side::Origin => {
                let read_ahead = std::mem::take(from_origin);
                self.origin = Some(RelaySide { fd, tls, read_ahead });
            }
        }
    }

    fn start_if_complete(&mut self) {
        if self.client.is_none() || self.origin.is_none() {
            return;
        }
        if let (Some(client), Some(origin), Some(record)) =
            (self.client.take(), self.origin.take(), self.record.take())
        {
            let frames = if self.is_websocket {
                [Tracker::client_to_backend(), Tracker::backend_to_client()]
            } else {
                [Tracker::opaque(), Tracker::opaque()]
            };
            let tunnel = relay::Tunnel::new(client, origin, frames, self.rules, Box::new(record));
            child::adopt(tunnel, &mut || self.place = None);
            self.place = None;
        }
    }
}
