//! One direction of a tunnel.

use std::io;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use crate::budget::{Budget, give_way};
use crate::buffers::{Clock, ThreadBuffers};
use crate::bytes::{Reader, put_u64};
use crate::end::By;
use crate::frames::Tracker;
use crate::guard::{Breach, Guard};
use crate::pace::Pace;
use crate::pipe::{Pipe, Pipes};
use crate::rules::Rules;
use crate::stream::Stream;

/// What a read costs in a [`Budget`], however little it brings.
const READ_COST: usize = 4096;

/// A read that brings at least this much may be part of a flood.
const FLOOD_READ_BYTES: usize = 32 * 1024;
/// So many such reads in a row are a flood.
const FLOOD_READS: u8 = 2;

/// The most bytes that a frozen tunnel may have delivered.
const MAX_DELIVERED: u64 = u64::MAX / 2;

/// Which side failed, and how.
#[derive(Debug)]
pub(crate) enum Fault {
    /// Reading from the source.
    Source(io::Error),
    /// Writing to the sink.
    Sink(io::Error),
}

impl Fault {
    pub(crate) fn is_of_sink(&self) -> bool {
        matches!(self, Fault::Sink(_))
    }
}

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
    /// How many reads in a row brought [`FLOOD_READ_BYTES`], up to [`FLOOD_READS`].
    flood_reads: u8,
    /// As far as is known, the kernel splices these sockets.
    can_splice: bool,
}

/// Whether the kernel does not splice these sockets, is not allowed to, or has no memory for it.
/// Copying needs none of its own.
fn cannot_splice(error: &io::Error) -> bool {
    let errno = error.raw_os_error();
    matches!(errno, Some(libc::EINVAL | libc::ENOSYS | libc::EPERM | libc::EACCES | libc::ENOMEM))
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

    /// How many bytes [`freeze`](Self::freeze) appends besides those that are kept.
    pub(crate) const FROZEN_BYTES: usize =
        1 + 8 + Tracker::FROZEN_BYTES + 1 + Guard::FROZEN_BYTES + Pace::FROZEN_BYTES + 8;

    /// Its state as bytes. Without TLS: what that keeps is not among them. What is in a pipe
    /// neither: see [`gather`](Self::gather).
    pub(crate) fn freeze(&self, out: &mut Vec<u8>) {
        out.push(match self.stage {
            Stage::Open => 0,
            Stage::Ending => 1,
            Stage::Closing => 2,
            Stage::Ended => 3,
            Stage::Flushed => 4,
        });
        put_u64(out, self.delivered);
        self.frames.freeze(out);
        out.push(match self.breach {
            None => 0,
            Some(Breach::TooBig) => 1,
            Some(Breach::Protocol) => 2,
        });
        Guard::freeze(self.guard.as_deref(), out);
        Pace::freeze(self.pace.as_deref(), out);
        let kept = match self.kept.as_deref() {
            Some(Kept::Bytes { bytes, sent }) => &bytes[*sent..],
            _ => &[],
        };
        put_u64(out, kept.len() as u64);
        out.extend_from_slice(kept);
    }

    /// The direction that [`freeze`](Self::freeze) was called on, in a tunnel that began then and is
    /// so old.
    pub(crate) fn thaw(
        from: &mut Reader<'_>,
        rules: &Rules,
        sender: By,
        (started, age): (Instant, Duration),
    ) -> Option<Self> {
        let stage = match from.u8()? {
            0 => Stage::Open,
            1 => Stage::Ending,
            2 => Stage::Closing,
            3 => Stage::Ended,
            4 => Stage::Flushed,
            _ => return None,
        };
        // More would overflow what still comes, and nobody has carried so much.
        let delivered = from.u64().filter(|bytes| *bytes <= MAX_DELIVERED)?;
        let frames = Tracker::thaw(from)?;
        let breach = match from.u8()? {
            0 => None,
            1 => Some(Breach::TooBig),
            2 => Some(Breach::Protocol),
            _ => return None,
        };
        let guard = Guard::thaw(from, Self::guard(&frames, rules, sender))?;
        // It is one of a rule.
        if breach.is_some() && guard.is_none() {
            return None;
        }
        let pace = Pace::thaw(from, Self::pace(&frames, rules, sender, started), age)?;
        let length = usize::try_from(from.u64()?).ok()?;
        // The frames were followed when the bytes were read.
        let kept = from.bytes(length)?.to_vec();
        let mut flow = Flow {
            frames,
            guard: guard.map(Box::new),
            breach,
            pace: pace.map(Box::new),
            kept: None,
            delivered,
            arrived: 0,
            stage,
            flood_reads: 0,
            can_splice: true,
        };
        flow.keep(kept);
        Some(flow)
    }

    /// Bytes that the source has sent since it is carried here.
    pub(crate) fn arrived(&self) -> u64 {
        self.arrived
    }

    /// Whether the frames are not known.
    pub(crate) fn is_opaque(&self) -> bool {
        self.frames.is_opaque()
    }

    /// Sends the sink a Ping, if it takes one now and the source is between two frames. Says whether.
    pub(crate) fn ping(&mut self, cx: &mut Context<'_>, sink: &mut Stream) -> io::Result<bool> {
        if !self.is_open() || self.is_blocked(sink) || !self.frames.at_boundary() {
            return Ok(false);
        }
        let (frame, length) = self.frames.ping_frame();
        self.send(cx, sink, &frame[..length], false)?;
        // What TLS keeps of it goes out when there is room.
        if let Poll::Ready(Err(error)) = sink.poll_flush(cx) {
            return Err(error);
        }
        Ok(true)
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

    /// Moves bytes until the source has none, the sink takes none, or enough is done for one
    /// poll; carries the source's end. Registers the task for whatever it waits for. `other` is
    /// the direction from the sink to the source.
    pub(crate) fn pump(
        &mut self,
        cx: &mut Context<'_>,
        source: &mut Stream,
        sink: &mut Stream,
        buffers: &mut ThreadBuffers,
        other: &Flow,
    ) -> Result<(), Fault> {
        let mut budget = Budget::default();
        while !budget.is_spent() {
            match self.poll_flush(cx, sink, buffers) {
                Poll::Pending => return Ok(()),
                Poll::Ready(flushed) => flushed.map_err(Fault::Sink)?,
            }
            if self.stage != Stage::Open {
                return self.poll_end(cx, sink).map_err(Fault::Sink);
            }
            if self.breach.is_some() {
                return Ok(());
            }
            let Some(most) = self.room(buffers.buffer.len(), &mut buffers.clock) else {
                return Ok(());
            };
            let taken = if self.is_flood(most) && source.is_plain() && sink.is_plain() {
                self.poll_splice(cx, source, sink, most, &mut buffers.pipes)?
            } else {
                let buffer = &mut buffers.buffer[..most];
                self.poll_copy(cx, source, sink, buffer, &mut budget, other.has_closed())?
            };
            match taken {
                Poll::Pending => {
                    if budget.spent() < FLOOD_READ_BYTES {
                        self.flood_reads = 0;
                    }
                    return Ok(());
                }
                Poll::Ready(0) => self.stage = Stage::Ending,
                Poll::Ready(n) => {
                    self.charge(n, |pace| pace.age(buffers.clock.now()));
                    budget.charge(n + READ_COST);
                }
            }
        }
        give_way(cx);
        Ok(())
    }

    /// Carries what the source still has, unless it is held back, but not its end: the tunnel ends
    /// another way.
    pub(crate) fn carry_rest(
        &mut self,
        cx: &mut Context<'_>,
        source: &mut Stream,
        sink: &mut Stream,
        buffers: &mut ThreadBuffers,
    ) {
        let mut budget = Budget::default();
        while self.is_open()
            && self.breach.is_none()
            && !budget.is_spent()
            && matches!(self.poll_flush(cx, sink, buffers), Poll::Ready(Ok(())))
        {
            let Some(most) = self.room(buffers.buffer.len(), &mut buffers.clock) else {
                return;
            };
            match self.poll_copy(cx, source, sink, &mut buffers.buffer[..most], &mut budget, false)
            {
                Ok(Poll::Ready(n)) if n > 0 => {
                    self.charge(n, |pace| pace.age(buffers.clock.now()));
                    budget.charge(n + READ_COST);
                }
                _ => return,
            }
        }
    }

    /// Reads into the lent buffer, writes at once, and keeps what the sink does not take. Ready with
    /// how much was read. `answers`: a Close frame went the other way.
    fn poll_copy(
        &mut self,
        cx: &mut Context<'_>,
        source: &mut Stream,
        sink: &mut Stream,
        buffer: &mut [u8],
        budget: &mut Budget,
        answers: bool,
    ) -> Result<Poll<usize>, Fault> {
        let n = match source.poll_read(cx, buffer, budget).map_err(Fault::Source)? {
            Poll::Ready(n) if n > 0 => n,
            ended => return Ok(ended),
        };
        if n < FLOOD_READ_BYTES {
            self.flood_reads = 0;
        } else if self.flood_reads < FLOOD_READS {
            self.flood_reads += 1;
            if self.flood_reads == FLOOD_READS {
                source.set_nonblocking();
                sink.set_nonblocking();
            }
        }
        self.arrived += n as u64;
        let allowed = self.allow(&buffer[..n]);
        // Nothing but the end may come after the second Close frame. If it is there, both go on
        // together: that spares the peer and this thread a wake-up each.
        let is_last =
            answers && self.frames.has_closed() && self.breach.is_none() && source.has_ended();
        self.send(cx, sink, &buffer[..allowed], is_last).map_err(Fault::Sink)?;
        if is_last {
            self.stage = Stage::Ending;
        }
        Ok(Poll::Ready(n))
    }

    /// Moves at most `most` bytes of payload by way of a pipe. Ready with how much was taken.
    fn poll_splice(
        &mut self,
        cx: &mut Context<'_>,
        source: &mut Stream,
        sink: &mut Stream,
        most: usize,
        pipes: &mut Pipes,
    ) -> Result<Poll<usize>, Fault> {
        let Some(mut pipe) = pipes.take() else {
            self.flood_reads = 0;
            cx.waker().wake_by_ref();
            return Ok(Poll::Pending);
        };
        match source.poll_fill(cx, &mut pipe, most) {
            Poll::Ready(Ok(n)) if n > 0 => {
                self.arrived += n as u64;
                self.frames.skip(n as u64);
                if let Some(guard) = &mut self.guard {
                    guard.skip(n as u64);
                }
                self.send_from(cx, sink, pipe, pipes).map_err(Fault::Sink)?;
                return Ok(Poll::Ready(n));
            }
            Poll::Ready(Err(error)) if cannot_splice(&error) => {
                self.can_splice = false;
                cx.waker().wake_by_ref();
            }
            Poll::Ready(Err(error)) => return Err(Fault::Source(error)),
            Poll::Ready(Ok(_)) => return Ok(Poll::Ready(0)),
            Poll::Pending => {}
        }
        pipes.give_back(pipe);
        Ok(Poll::Pending)
    }

    /// Writes what is in a pipe at once and keeps what the sink does not take.
    fn send_from(
        &mut self,
        cx: &mut Context<'_>,
        sink: &mut Stream,
        mut pipe: Pipe,
        pipes: &mut Pipes,
    ) -> io::Result<()> {
        match sink.drain(cx, &mut pipe) {
            Ok(n) => self.delivered += n as u64,
            Err(error) if cannot_splice(&error) => {
                self.can_splice = false;
                return self.send(cx, sink, &pipe.take()?, false);
            }
            Err(error) => return Err(error),
        }
        if pipe.is_empty() {
            pipes.give_back(pipe);
        } else {
            self.kept = Some(Box::new(Kept::Piped(pipe)));
        }
        Ok(())
    }

    /// Whether so much comes, without a frame header to look at, that splicing is cheaper than
    /// copying.
    fn is_flood(&self, at_once: usize) -> bool {
        self.flood_reads == FLOOD_READS
            && self.can_splice
            && self.frames.skippable() >= at_once as u64
            && self.guard.as_ref().is_none_or(|guard| guard.skippable() >= at_once as u64)
    }

    /// Writes at once, perhaps with `more` to follow, and keeps what the sink does not take.
    fn send(
        &mut self,
        cx: &mut Context<'_>,
        sink: &mut Stream,
        bytes: &[u8],
        more: bool,
    ) -> io::Result<()> {
        let taken = sink.write(cx, bytes, more)?;
        self.delivered += taken as u64;
        if taken < bytes.len() {
            self.keep(bytes[taken..].to_vec());
        }
        Ok(())
    }

    /// Ready when nothing is kept, here or in the sink's TLS.
    fn poll_flush(
        &mut self,
        cx: &mut Context<'_>,
        sink: &mut Stream,
        buffers: &mut ThreadBuffers,
    ) -> Poll<io::Result<()>> {
        loop {
            ready!(sink.poll_flush(cx))?;
            let (n, is_all) = match self.kept.as_deref_mut() {
                None => return Poll::Ready(Ok(())),
                Some(Kept::Bytes { bytes, sent }) => {
                    // TLS takes all that it is given, so it is given no more than one read's
                    // worth.
                    let rest = &bytes[*sent..];
                    let most = rest.len().min(buffers.buffer.len());
                    let n = ready!(sink.poll_write(cx, &rest[..most]))?;
                    *sent += n;
                    (n, *sent == bytes.len())
                }
                Some(Kept::Piped(pipe)) => match ready!(sink.poll_drain(cx, pipe)) {
                    Ok(n) => (n, pipe.is_empty()),
                    Err(error) if cannot_splice(&error) => {
                        self.can_splice = false;
                        self.gather()?;
                        continue;
                    }
                    Err(error) => return Poll::Ready(Err(error)),
                },
            };
            self.delivered += n as u64;
            if is_all
                && let Some(kept) = self.kept.take()
                && let Kept::Piped(pipe) = *kept
            {
                buffers.pipes.give_back(pipe);
            }
        }
    }

    /// Reads what still comes from the source and forgets it, so that closing it later is no
    /// reset. `Ok(true)` when it has ended.
    pub(crate) fn discard(
        cx: &mut Context<'_>,
        source: &mut Stream,
        scratch: &mut [u8],
    ) -> io::Result<bool> {
        let mut budget = Budget::default();
        while !budget.is_spent() {
            match source.poll_read(cx, scratch, &mut budget)? {
                Poll::Pending => return Ok(false),
                Poll::Ready(0) => return Ok(true),
                Poll::Ready(n) => budget.charge(n + READ_COST),
            }
        }
        give_way(cx);
        Ok(false)
    }

    /// Carries the end to the sink, up to the FIN.
    fn poll_end(&mut self, cx: &mut Context<'_>, sink: &mut Stream) -> io::Result<()> {
        if self.stage == Stage::Ending {
            sink.close_notify();
            self.stage = Stage::Closing;
        }
        if self.stage == Stage::Closing && sink.poll_flush(cx)?.is_ready() {
            self.stage = Stage::Flushed;
        }
        Ok(())
    }
}
