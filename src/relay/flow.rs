//! One direction of a tunnel.

use std::io;
use std::task::{Context, Poll};

use crate::frames::Tracker;
use crate::freeze::{Frozen, put_u64};
use crate::stream::Stream;

/// What one direction may move in one poll of its task, about; then a flood gives way. Bytes,
/// and [`READ_COST`] for each read.
const BUDGET: usize = 256 * 1024;
const READ_COST: usize = 4096;

/// Which side failed, and how.
#[derive(Debug)]
pub(crate) enum Fault {
    /// Reading from the source.
    Source(io::Error),
    /// Writing to the sink.
    Sink(io::Error),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// Bytes may come.
    Open,
    /// The source ended (or is to be read no more); what is kept still goes out.
    Ending,
    /// close_notify is on its way.
    Closing,
    /// A FIN went out.
    Ended,
}

/// Bytes that the sink did not take.
#[derive(Debug)]
struct Kept {
    bytes: Vec<u8>,
    sent: usize,
}

/// One direction: its bytes go from a source to a sink. It owns a buffer only while the sink
/// does not take them, and then the source is not read: memory is bounded by one read.
#[derive(Debug)]
pub(crate) struct Flow {
    frames: Tracker,
    kept: Option<Box<Kept>>,
    delivered: u64,
    stage: Stage,
}

impl Flow {
    /// A direction whose next bytes are `kept`.
    pub fn new(mut frames: Tracker, kept: Vec<u8>) -> Self {
        frames.feed(&kept);
        let mut flow = Flow { frames, kept: None, delivered: 0, stage: Stage::Open };
        flow.keep(kept);
        flow
    }

    /// Its state as bytes. Without TLS: what that keeps is not among them.
    pub fn freeze(&self, out: &mut Vec<u8>) {
        out.push(match self.stage {
            Stage::Open => 0,
            Stage::Ending => 1,
            Stage::Closing => 2,
            Stage::Ended => 3,
        });
        put_u64(out, self.delivered);
        self.frames.freeze(out);
        let kept = self.kept.as_ref().map_or(&[][..], |kept| &kept.bytes[kept.sent..]);
        put_u64(out, kept.len() as u64);
        out.extend_from_slice(kept);
    }

    /// The direction that [`freeze`](Self::freeze) was called on.
    pub fn thaw(from: &mut Frozen<'_>) -> Option<Self> {
        let stage = match from.u8()? {
            0 => Stage::Open,
            1 => Stage::Ending,
            2 => Stage::Closing,
            3 => Stage::Ended,
            _ => return None,
        };
        let delivered = from.u64()?;
        let frames = Tracker::thaw(from)?;
        let length = usize::try_from(from.u64()?).ok()?;
        // The frames were followed when the bytes were read.
        let kept = from.bytes(length)?.to_vec();
        let mut flow = Flow { frames, kept: None, delivered, stage };
        flow.keep(kept);
        Some(flow)
    }

    /// Bytes that the sink took.
    pub fn delivered(&self) -> u64 {
        self.delivered
    }

    /// The status code of the Close frame that went this way.
    pub fn close_code(&self) -> Option<u16> {
        self.frames.close_code()
    }

    /// Whether the source's end was carried to the sink.
    pub fn is_ended(&self) -> bool {
        self.stage == Stage::Ended
    }

    /// Whether bytes may still come from the source.
    pub fn is_open(&self) -> bool {
        self.stage == Stage::Open
    }

    /// Whether something waits for room in the sink.
    pub fn is_blocked(&self, sink: &Stream) -> bool {
        self.kept.is_some() || sink.has_kept()
    }

    fn keep(&mut self, bytes: Vec<u8>) {
        if !bytes.is_empty() {
            self.kept = Some(Box::new(Kept { bytes, sent: 0 }));
        }
    }

    /// Takes no more from the source: what is kept still goes to the sink, then a Close frame
    /// with `close` if it can stand there, then the end.
    pub fn end(&mut self, close: Option<u16>) {
        if self.stage != Stage::Open {
            return;
        }
        self.stage = Stage::Ending;
        let Some(code) = close.filter(|_| self.frames.at_boundary()) else {
            return;
        };
        let frame = self.frames.close_frame(code);
        match &mut self.kept {
            Some(kept) => kept.bytes.extend_from_slice(&frame),
            None => self.keep(frame),
        }
    }

    /// Moves bytes until the source has none, the sink takes none, or enough is done for one
    /// poll; carries the source's end. Registers the task for whatever it waits for.
    pub fn pump(
        &mut self,
        cx: &mut Context<'_>,
        source: &mut Stream,
        sink: &mut Stream,
        scratch: &mut [u8],
    ) -> Result<(), Fault> {
        let mut spent = 0;
        while spent < BUDGET {
            if self.poll_flush(cx, sink, scratch.len()).map_err(Fault::Sink)?.is_pending() {
                return Ok(());
            }
            if self.stage != Stage::Open {
                return self.poll_end(cx, sink).map_err(Fault::Sink);
            }
            match source.poll_read(cx, scratch).map_err(Fault::Source)? {
                Poll::Pending => return Ok(()),
                Poll::Ready(0) => self.stage = Stage::Ending,
                Poll::Ready(n) => {
                    self.forward(cx, sink, &scratch[..n]).map_err(Fault::Sink)?;
                    spent += n + READ_COST;
                }
            }
        }
        cx.waker().wake_by_ref();
        Ok(())
    }

    /// Writes `bytes` at once and keeps what the sink does not take.
    fn forward(&mut self, cx: &mut Context<'_>, sink: &mut Stream, bytes: &[u8]) -> io::Result<()> {
        self.frames.feed(bytes);
        let taken = sink.write(cx, bytes)?;
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
        most: usize,
    ) -> io::Result<Poll<()>> {
        loop {
            match sink.poll_flush(cx)? {
                Poll::Pending => return Ok(Poll::Pending),
                Poll::Ready(()) => {}
            }
            let Some(kept) = &mut self.kept else {
                return Ok(Poll::Ready(()));
            };
            // TLS takes all that it is given, so it is given no more than one read's worth.
            let rest = &kept.bytes[kept.sent..];
            match sink.poll_write(cx, &rest[..rest.len().min(most)])? {
                Poll::Pending => return Ok(Poll::Pending),
                Poll::Ready(n) => {
                    kept.sent += n;
                    self.delivered += n as u64;
                    if kept.sent == kept.bytes.len() {
                        self.kept = None;
                    }
                }
            }
        }
    }

    /// Reads what still comes from the source and forgets it, so that closing it later is no
    /// reset. `Ok(true)` when it has ended.
    pub fn discard(
        cx: &mut Context<'_>,
        source: &mut Stream,
        scratch: &mut [u8],
    ) -> io::Result<bool> {
        let mut spent = 0;
        while spent < BUDGET {
            match source.poll_read(cx, scratch)? {
                Poll::Pending => return Ok(false),
                Poll::Ready(0) => return Ok(true),
                Poll::Ready(n) => spent += n + READ_COST,
            }
        }
        cx.waker().wake_by_ref();
        Ok(false)
    }

    /// Carries the end to the sink: close_notify, then FIN.
    fn poll_end(&mut self, cx: &mut Context<'_>, sink: &mut Stream) -> io::Result<()> {
        if self.stage == Stage::Ending {
            sink.close_notify();
            self.stage = Stage::Closing;
        }
        if self.stage == Stage::Closing && sink.poll_flush(cx)?.is_ready() {
            sink.shutdown();
            self.stage = Stage::Ended;
        }
        Ok(())
    }
}
