//! One direction of a tunnel.

use std::io;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use crate::buffers::{Clock, ThreadBuffers};
use crate::end::By;
use crate::frames::Tracker;
use crate::guard::{Breach, Guard};
use crate::pace::Pace;
use crate::pipe::Pipe;
use crate::rules::Rules;
use crate::stream::Stream;

mod carry;
mod frozen;

pub(crate) use carry::Fault;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// Bytes may come.
    Open,
    /// The source ended (or is to be read no more); what is kept still goes out.
    Ending,
    /// close_notify is on its way.
    Closing,
    /// All went out but the FIN.
    Flushed,
    /// A FIN went out.
    Ended,
}

/// Bytes that the sink did not take.
#[derive(Debug)]
enum Kept {
    Bytes { bytes: Vec<u8>, sent: usize },
    Piped(Pipe),
}

/// One direction: its bytes go from a source to a sink. It owns a buffer only while the sink
/// does not take them, and then the source is not read: memory is bounded by one read.
#[derive(Debug)]
pub(crate) struct Flow {
    frames: Tracker,
    /// None if no rule looks at frames.
    guard: Option<Box<Guard>>,
    /// What came that a rule does not allow: nothing more is read.
    breach: Option<Breach>,
    /// None if the source may send as fast as it likes.
    pace: Option<Box<Pace>>,
    kept: Option<Box<Kept>>,
    delivered: u64,
    /// Bytes that the source has sent since it is carried here.
    arrived: u64,
    stage: Stage,
    /// How many reads in a row brought much, up to as many as make a flood.
    flood_reads: u8,
    /// As far as is known, the kernel splices these sockets.
    can_splice: bool,
    along: Along,
}

/// What becomes of a Ping that may go to the sink before the next bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Along {
    /// There is none.
    Nothing,
    /// It waits for them.
    Wanted,
    /// It went with them.
    Sent,
}

impl Flow {
    /// The direction of what this side sends, whose next bytes are `kept`, of a tunnel that began
    /// then.
    pub(crate) fn new(
        frames: Tracker,
        kept: Vec<u8>,
        rules: &Rules,
        sender: By,
        started: Instant,
    ) -> Self {
        let guard = Self::guard(&frames, rules, sender);
        let pace = Self::pace(&frames, rules, sender, started);
        let mut flow = Flow {
            frames,
            guard: guard.map(Box::new),
            breach: None,
            pace: pace.map(Box::new),
            kept: None,
            delivered: 0,
            arrived: 0,
            stage: Stage::Open,
            flood_reads: 0,
            can_splice: true,
            along: Along::Nothing,
        };
        let mut kept = kept;
        let came = kept.len();
        kept.truncate(flow.allow(&kept));
        flow.charge(came, |_| Duration::ZERO);
        flow.keep(kept);
        flow
    }

    /// What looks at the frames of what this side sends, before any came.
    fn guard(frames: &Tracker, rules: &Rules, sender: By) -> Option<Guard> {
        Guard::new(rules, sender).filter(|_| !frames.is_foreign())
    }

    /// How fast this side may send, before anything came.
    fn pace(frames: &Tracker, rules: &Rules, sender: By, started: Instant) -> Option<Pace> {
        let is_limited = sender == By::Client;
        is_limited.then(|| Pace::new(rules, !frames.is_foreign(), started)).flatten()
    }

    /// Takes note of so many bytes that were read, and when in the life of the tunnel.
    fn charge(&mut self, bytes: usize, when: impl FnOnce(&Pace) -> Duration) {
        if let Some(pace) = &mut self.pace {
            let messages = self.guard.as_mut().map_or(0, |guard| guard.take_begun());
            let when = when(pace);
            pace.take(messages, bytes as u64, when);
        }
    }

    /// How many bytes may be read now, at most `most`. None while the source is held back.
    fn room(&mut self, most: usize, clock: &mut Clock) -> Option<usize> {
        let Some(pace) = &mut self.pace else {
            return Some(most);
        };
        let payload = self.guard.as_ref().map_or(0, |guard| guard.skippable());
        let room = pace.room(most as u64, payload, clock)?;
        Some(usize::try_from(room).unwrap_or(most))
    }

    /// Until when the source is held back, if it is.
    pub(crate) fn held_until(&self) -> Option<Instant> {
        self.pace.as_ref().filter(|_| self.is_open())?.held_until()
    }

    /// The time until which the source was held back has come.
    pub(crate) fn release(&mut self) {
        if let Some(pace) = &mut self.pace {
            pace.release();
        }
    }

    /// Takes note of the next bytes, and says how many of them may go on.
    fn allow(&mut self, bytes: &[u8]) -> usize {
        let mut allowed = bytes.len();
        if let Some(guard) = &mut self.guard
            && let Err(refused) = guard.check(bytes)
        {
            self.breach = Some(refused.breach);
            allowed = refused.allowed;
        }
        self.frames.feed(&bytes[..allowed]);
        allowed
    }

    /// What came that a rule does not allow.
    pub(crate) fn breach(&self) -> Option<Breach> {
        self.breach
    }

    /// Bytes that the source has sent since it is carried here.
    pub(crate) fn arrived(&self) -> u64 {
        self.arrived
    }

    /// Whether the frames are not known.
    pub(crate) fn is_opaque(&self) -> bool {
        self.frames.is_opaque()
    }

    /// Whether the sink can be sent a Ping now: it takes one, and the source is between two frames.
    pub(crate) fn can_ping(&self, sink: &Stream) -> bool {
        self.is_open() && !self.is_blocked(sink) && self.frames.at_boundary()
    }

    /// Has a Ping go to the sink with the next bytes, if some come in this poll and it can stand before
    /// them: one packet and one call less.
    pub(crate) fn ping_along(&mut self) {
        self.along = Along::Wanted;
    }

    /// Whether such a Ping went. If it did not, it waits no longer.
    pub(crate) fn take_pinged(&mut self) -> bool {
        std::mem::replace(&mut self.along, Along::Nothing) == Along::Sent
    }

    /// Sends the sink a Ping, if it can stand there now. Says whether all of it was sent: who has no room for it
    /// is not asked by it.
    pub(crate) fn ping(
        &mut self,
        cx: &mut Context<'_>,
        sink: &mut Stream,
        buffers: &mut ThreadBuffers,
    ) -> io::Result<bool> {
        if !self.can_ping(sink) {
            return Ok(false);
        }
        let (frame, length) = self.frames.ping_frame();
        let taken = sink.write(cx, &frame[..length], false)?;
        if taken == 0 {
            return Ok(false);
        }
        self.delivered += taken as u64;
        self.keep(frame[taken..length].to_vec());
        // The rest goes out when there is room, be it kept here or by TLS.
        match self.poll_flush(cx, sink, buffers) {
            Poll::Ready(flushed) => flushed.map(|()| true),
            Poll::Pending => Ok(false),
        }
    }

    /// Bytes that the sink took.
    pub(crate) fn delivered(&self) -> u64 {
        self.delivered
    }

    /// The status code of the Close frame that went this way.
    pub(crate) fn close_code(&self) -> Option<u16> {
        self.frames.close_code()
    }

    /// How many messages went this way; `None` if they are not known.
    pub(crate) fn messages(&self) -> Option<u64> {
        self.frames.messages()
    }

    /// The same of text, and of binary data.
    pub(crate) fn messages_by_kind(&self) -> Option<[u64; 2]> {
        self.frames.messages_by_kind()
    }

    /// Whether a Close frame was carried to the sink, after which nothing may come.
    pub(crate) fn has_closed(&self) -> bool {
        self.frames.has_closed() && self.kept.is_none()
    }

    /// Whether a whole Close frame came of the source: an end behind it cuts nothing off.
    pub(crate) fn was_closed(&self) -> bool {
        self.frames.has_closed()
    }

    /// Whether the source's end was carried to the sink, up to the FIN.
    pub(crate) fn is_ended(&self) -> bool {
        matches!(self.stage, Stage::Flushed | Stage::Ended)
    }

    /// Carries the FIN too, unless both sockets are about to be closed.
    pub(crate) fn finish(&mut self, sink: &Stream) {
        if self.stage == Stage::Flushed {
            sink.shutdown();
            self.stage = Stage::Ended;
        }
    }

    /// Whether bytes may still come from the source.
    pub(crate) fn is_open(&self) -> bool {
        self.stage == Stage::Open
    }

    /// Whether something waits for room in the sink.
    pub(crate) fn is_blocked(&self, sink: &Stream) -> bool {
        self.kept.is_some() || sink.kept() > 0
    }

    fn keep(&mut self, bytes: Vec<u8>) {
        if !bytes.is_empty() {
            self.kept = Some(Box::new(Kept::Bytes { bytes, sent: 0 }));
        }
    }

    /// Has nothing in a pipe: what is there is kept as bytes.
    pub(crate) fn gather(&mut self) -> io::Result<()> {
        if let Some(kept) = self.kept.take_if(|kept| matches!(**kept, Kept::Piped(_)))
            && let Kept::Piped(pipe) = *kept
        {
            self.keep(pipe.take()?);
        }
        Ok(())
    }

    /// Takes no more from the source: what is kept still goes to the sink, then a Close frame
    /// with the code `close` and the reason if it can stand there, then the end.
    pub(crate) fn end(&mut self, close: Option<u16>, reason: &str) {
        if self.stage != Stage::Open {
            return;
        }
        self.stage = Stage::Ending;
        let Some(code) = close.filter(|_| self.frames.at_boundary()) else {
            return;
        };
        // A pipe that cannot be read has lost what was before the frame.
        if self.gather().is_err() {
            return;
        }
        let frame = self.frames.close_frame(code, reason);
        match self.kept.as_deref_mut() {
            Some(Kept::Bytes { bytes, .. }) => bytes.extend_from_slice(&frame),
            _ => self.keep(frame),
        }
    }
}
