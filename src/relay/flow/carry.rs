//! How a direction carries bytes: by copies or, in a flood, by a pipe.

use std::io;
use std::task::{Context, Poll, ready};

use super::{Along, Flow, Kept, Stage};
use crate::budget::{Budget, give_way};
use crate::buffers::ThreadBuffers;
use crate::frames::{HEADER_BYTES, PING_BYTES};
use crate::pipe::{Pipe, Pipes};
use crate::stream::Stream;

/// What a read costs in a [`Budget`], however little it brings.
const READ_COST: usize = 4096;

/// A read that brings at least this much may be part of a flood.
const FLOOD_READ_BYTES: usize = 32 * 1024;
/// So many such reads in a row are a flood.
const FLOOD_READS: u8 = 2;
/// Of a payload of which so much is still to come, splicing it costs less than copying it, with a read of
/// its own for the header before it.
const SPLICE_BYTES: usize = 32 * 1024;

/// Which side failed, and how.
#[derive(Debug)]
pub(crate) enum Fault {
    /// Reading from the source.
    Source(io::Error),
    /// Writing to the sink.
    Sink(io::Error),
}

/// Whether the kernel does not splice these sockets, is not allowed to, or has no memory for it.
/// Copying needs none of its own.
fn cannot_splice(error: &io::Error) -> bool {
    let errno = error.raw_os_error();
    matches!(errno, Some(libc::EINVAL | libc::ENOSYS | libc::EPERM | libc::EACCES | libc::ENOMEM))
}

impl Flow {
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
            let spliced = if self.is_flood(most) && source.is_plain() && sink.is_plain() {
                self.poll_splice(cx, source, sink, most, &mut buffers.pipes, &mut budget)?
            } else {
                None
            };
            let taken = match spliced {
                Some(taken) => taken,
                None => {
                    let buffer = &mut buffers.buffer[..most];
                    self.poll_copy(cx, source, sink, buffer, &mut budget, other.has_closed())?
                }
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

    /// Carries what is left of a source that is gone: what is kept, and what it sent before, unless it is
    /// held back. Ready when the sink has taken all of it, up to the FIN, or is gone too.
    ///
    /// Whether that was all nobody knows, unless a Close frame was there: so TLS does not say that it
    /// was, which would be a close_notify.
    pub(crate) fn poll_rest(
        &mut self,
        cx: &mut Context<'_>,
        source: &mut Stream,
        sink: &mut Stream,
        buffers: &mut ThreadBuffers,
    ) -> Poll<()> {
        let mut budget = Budget::default();
        loop {
            if budget.is_spent() {
                give_way(cx);
                return Poll::Pending;
            }
            match self.poll_flush(cx, sink, buffers) {
                Poll::Ready(Ok(())) => {}
                Poll::Ready(Err(_)) => break,
                Poll::Pending => return Poll::Pending,
            }
            if self.stage != Stage::Open {
                return match self.poll_end(cx, sink) {
                    Ok(()) if !self.is_ended() => Poll::Pending,
                    Ok(()) => Poll::Ready(()),
                    Err(_) => break,
                };
            }
            let most = self.room(buffers.buffer.len(), &mut buffers.clock);
            let taken = match most.filter(|_| self.breach.is_none()) {
                Some(most) => {
                    let buffer = &mut buffers.buffer[..most];
                    self.poll_copy(cx, source, sink, buffer, &mut budget, false)
                }
                None => Ok(Poll::Ready(0)),
            };
            match taken {
                Ok(Poll::Ready(n)) if n > 0 => {
                    self.charge(n, |pace| pace.age(buffers.clock.now()));
                    budget.charge(n + READ_COST);
                }
                Ok(Poll::Pending) if source.may_have_more() => return Poll::Pending,
                Err(Fault::Sink(_)) => break,
                _ if self.was_closed() => self.stage = Stage::Ending,
                _ => self.stage = Stage::Closing,
            }
        }
        self.give_up();
        Poll::Ready(())
    }

    /// Carries nothing more. The sink is told an end, if it can still be told anything.
    pub(crate) fn cut_off(&mut self, sink: &Stream) {
        if self.stage != Stage::Ended {
            sink.shutdown();
        }
        self.give_up();
    }

    /// The sink is gone: nothing of what is kept can get there.
    fn give_up(&mut self) {
        self.kept = None;
        self.stage = Stage::Ended;
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
        // A Ping that waits for these bytes goes right before them.
        let is_room = self.along == Along::Wanted && buffer.len() > PING_BYTES;
        let head = if is_room && self.frames.at_boundary() { PING_BYTES } else { 0 };
        let n = match source.poll_read(cx, &mut buffer[head..], budget).map_err(Fault::Source)? {
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
        let length = if head > 0 { self.put_ping(&mut buffer[..head]) } else { 0 };
        let allowed = self.allow(&buffer[head..head + n]);
        let has_ping = length > 0 && allowed > 0;
        let begin = if has_ping { head - length } else { head };
        // Nothing but the end may come after the second Close frame. If it is there, both go on
        // together: that spares the peer and this thread a wake-up each.
        let is_last =
            answers && self.frames.has_closed() && self.breach.is_none() && source.has_ended();
        self.send(cx, sink, &buffer[begin..head + allowed], is_last).map_err(Fault::Sink)?;
        if has_ping {
            // If it has to wait, it asks nobody: another one will.
            self.along = if self.is_blocked(sink) { Along::Nothing } else { Along::Sent };
        }
        if is_last {
            self.stage = Stage::Ending;
        }
        Ok(Poll::Ready(n))
    }

    /// Puts a Ping at the end of `room`, and returns its length in bytes.
    fn put_ping(&self, room: &mut [u8]) -> usize {
        let (ping, length) = self.frames.ping_frame();
        let begin = room.len() - length;
        room[begin..].copy_from_slice(&ping[..length]);
        length
    }

    /// Moves at most `most` bytes by way of a pipe: payload, and the header before it. Ready with how much
    /// was taken; `None` if bytes have to be copied, or a read has to tell whether there are any.
    fn poll_splice(
        &mut self,
        cx: &mut Context<'_>,
        source: &mut Stream,
        sink: &mut Stream,
        most: usize,
        pipes: &mut Pipes,
        budget: &mut Budget,
    ) -> Result<Option<Poll<usize>>, Fault> {
        let Some(mut pipe) = pipes.take() else {
            self.flood_reads = 0;
            return Ok(None);
        };
        let mut taken = 0;
        if self.skippable() == 0 {
            taken = match self.poll_header(cx, source, sink, &mut pipe, budget)? {
                Poll::Ready(n) if n > 0 => n,
                ended => {
                    pipes.give_back(pipe);
                    return Ok(Some(ended));
                }
            };
        }
        if !pipe.is_empty() || taken == 0 {
            let most = most - taken;
            let most = usize::try_from(self.skippable()).map_or(most, |bytes| bytes.min(most));
            match source.poll_fill(cx, &mut pipe, most) {
                Poll::Ready(Ok(n)) if n > 0 => {
                    self.arrived += n as u64;
                    self.frames.skip(n as u64);
                    if let Some(guard) = &mut self.guard {
                        guard.skip(n as u64);
                    }
                    taken += n;
                }
                Poll::Ready(Err(error)) if cannot_splice(&error) => self.can_splice = false,
                Poll::Ready(Err(error)) => {
                    // What came before goes on, as far as it gets.
                    if let Ok(header) = pipe.take() {
                        self.keep(header);
                    }
                    return Err(Fault::Source(error));
                }
                // Splicing begins anew behind what is read then.
                Poll::Ready(Ok(_)) => self.flood_reads = 0,
                Poll::Pending if taken == 0 => {
                    pipes.give_back(pipe);
                    return Ok(Some(Poll::Pending));
                }
                Poll::Pending => {}
            }
        }
        self.send_from(cx, sink, pipe, pipes).map_err(Fault::Sink)?;
        Ok((taken > 0).then_some(Poll::Ready(taken)))
    }

    /// Reads the next frame header alone, and puts it into the empty pipe if a payload follows that is to be
    /// spliced. All else is sent at once. Ready with how much was read.
    fn poll_header(
        &mut self,
        cx: &mut Context<'_>,
        source: &mut Stream,
        sink: &mut Stream,
        pipe: &mut Pipe,
        budget: &mut Budget,
    ) -> Result<Poll<usize>, Fault> {
        let mut header = [0; HEADER_BYTES];
        let n = match source.poll_read(cx, &mut header, budget).map_err(Fault::Source)? {
            Poll::Ready(n) if n > 0 => n,
            ended => return Ok(ended),
        };
        self.arrived += n as u64;
        let allowed = self.allow(&header[..n]);
        if allowed < n || !self.is_within_long() || pipe.put(&header[..n]).is_err() {
            self.send(cx, sink, &header[..allowed], false).map_err(Fault::Sink)?;
        }
        Ok(Poll::Ready(n))
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

    /// Whether so much comes that splicing is cheaper than copying: payload, or most probably the header of
    /// another long frame.
    fn is_flood(&self, at_once: usize) -> bool {
        self.flood_reads == FLOOD_READS
            && self.can_splice
            && (self.skippable() >= at_once.min(SPLICE_BYTES) as u64
                || at_once >= SPLICE_BYTES && (self.is_within_long() || self.is_behind_long()))
    }

    /// Whether what comes next is payload of a long frame.
    fn is_within_long(&self) -> bool {
        self.frames.last_length() >= SPLICE_BYTES as u64 && self.skippable() > 0
    }

    /// Whether what comes next is the header behind a long frame, no Ping waits to go before it, and no guard
    /// wants to see it in one piece with what comes before and behind.
    fn is_behind_long(&self) -> bool {
        self.frames.last_length() >= SPLICE_BYTES as u64
            && self.frames.at_boundary()
            && self.along != Along::Wanted
            && self.guard.is_none()
    }

    /// How many of the bytes that come next nobody has to look at.
    fn skippable(&self) -> u64 {
        let of_guard = self.guard.as_ref().map_or(u64::MAX, |guard| guard.skippable());
        self.frames.skippable().min(of_guard)
    }

    /// Writes at once, perhaps with `more` to follow, and keeps what the sink does not take.
    pub(super) fn send(
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
    pub(super) fn poll_flush(
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
