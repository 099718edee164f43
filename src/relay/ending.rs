//! The orderly end of a tunnel: both sides get what is kept for them and a Close frame, and have a
//! time to end too. And its end when a side is gone: the other gets what that said before.

use std::future::Future;
use std::task::{Context, Poll};

use shared::Why;

use crate::carried::Carried;
use crate::cause::{Cause, Farewell};
use crate::end::By;
use crate::flow::Flow;
use crate::rules::GOING_AWAY;
use crate::stream::Stream;
use crate::thread::Thread;
use crate::timers::Idle;
use crate::tunnel::TunnelState;

impl Carried {
    /// Begins the end of a tunnel whose time has come.
    pub(crate) fn is_over(&mut self, cx: &mut Context<'_>) -> bool {
        let Some(seldom) = &mut self.seldom else { return false };
        let Some((sleep, limit)) = &mut seldom.deadline else { return false };
        let limit = *limit;
        if sleep.as_mut().poll(cx).is_pending() {
            return false;
        }
        seldom.deadline = None;
        self.begin_end(By::Us, limit.into(), [Some(limit.code()); 2]);
        true
    }

    /// Begins the end of a tunnel of which a side has sent what a rule does not allow.
    pub(crate) fn is_broken(&mut self) -> bool {
        let going_away = Some(GOING_AWAY);
        let (by, breach) = match (self.state.up.breach(), self.state.down.breach()) {
            (Some(breach), _) => (By::Client, breach),
            (None, Some(breach)) => (By::Backend, breach),
            (None, None) => return false,
        };
        let codes = match by {
            By::Client => [Some(breach.code()), going_away],
            By::Backend | By::Us => [going_away, Some(breach.code())],
        };
        self.begin_end(by, breach.into(), codes);
        true
    }

    /// Begins an orderly end, unless one has begun, with these codes for client and back end.
    pub(crate) fn begin_end(&mut self, by: By, why: Why, codes: [Option<u16>; 2]) {
        let linger = Some(self.state.rules.effective_linger());
        self.begin_end_with(by, why, Farewell { codes, reason: "", linger });
    }

    /// The same, with all that can be said about it.
    pub(crate) fn begin_end_with(&mut self, by: By, why: Why, farewell: Farewell<'_>) {
        if self.state.ending.is_some() {
            return;
        }
        let Farewell { codes: [client, backend], reason, linger } = farewell;
        self.idle = linger.map(|linger| Box::new(Idle::new(linger)));
        self.state.ending = Some(Box::new((by, why)));
        self.state.up.end(backend, reason);
        self.state.down.end(client, reason);
    }

    /// Ready when both sides have ended, or have been waited for.
    pub(crate) fn poll_ending(&mut self, cx: &mut Context<'_>, thread: &Thread) -> Poll<Cause> {
        match self.poll_both_ended(cx, thread) {
            Poll::Pending => self.poll_linger(cx),
            ready => ready,
        }
    }

    /// Goes on when a side may have failed. The other side may not have got all that the failed one said, and
    /// a reset would throw that away. Ready with the cause if nothing is under way, so that a reset can be
    /// forwarded as one, and for all other causes.
    pub(crate) fn poll_failed(
        &mut self,
        cx: &mut Context<'_>,
        thread: &Thread,
        cause: Cause,
    ) -> Poll<Cause> {
        let Cause { by, why } = &cause;
        if let Some(gone) = self.gone() {
            // Of who is gone that is no news.
            return if gone == *by { Poll::Pending } else { Poll::Ready(self.end_cause()) };
        }
        if *by == By::Us || !why.is_abrupt() || self.state.ending.is_some() {
            return Poll::Ready(cause);
        }
        let (from, lost, _) = self.with_gone(*by);
        // A write may have found the failure before a read found what came with it.
        lost.ask_again();
        // It was told of an end, or of a Close: no reset is to overtake that.
        let mut is_owed = !from.is_open();
        is_owed |= !self.poll_rest(cx, thread, *by);
        let (from, _, other) = self.with_gone(*by);
        is_owed |= from.was_closed() || other.is_awaited();
        if !is_owed {
            return Poll::Ready(cause);
        }
        self.begin_end_of_gone(cause);
        self.poll_ending(cx, thread)
    }

    /// Begins the end of a tunnel of which a side is gone without a failure: all that it said has gone on, and
    /// what is said to it finds nobody.
    pub(crate) fn is_left(&mut self) -> bool {
        let TunnelState { up, down, first_end, .. } = &self.state;
        let by = if self.client.is_gone() && up.is_ended() {
            By::Client
        } else if self.backend.is_gone() && down.is_ended() {
            By::Backend
        } else {
            return false;
        };
        let is_clean = first_end.is_none_or(|(_, is_clean)| is_clean);
        let why = if is_clean { Why::Closed } else { Why::Truncated };
        self.begin_end_of_gone(Cause { by, why });
        true
    }

    /// Begins the end of a tunnel of which a side is gone.
    fn begin_end_of_gone(&mut self, Cause { by, why }: Cause) {
        let Carried { client, backend, state, .. } = self;
        let (to, gone) = match by {
            By::Client => (&mut state.down, client),
            By::Backend | By::Us => (&mut state.up, backend),
        };
        // TLS that failed has an alert to send.
        gone.try_flush();
        to.cut_off(gone);
        // It may be there all the same, and go on sending (a unix socket that reads no more).
        gone.take_no_more();
        self.idle = Some(Box::new(Idle::new(self.state.rules.effective_linger())));
        self.state.ending = Some(Box::new((by, why)));
    }

    /// The side that is gone, if that is why the tunnel ends.
    pub(crate) fn gone(&self) -> Option<By> {
        let (by, why) = self.state.ending.as_deref()?;
        (why.is_abrupt() || matches!(why, Why::Closed | Why::Truncated)).then_some(*by)
    }

    /// What that side has sent, it, and the other side.
    fn with_gone(&mut self, by: By) -> (&mut Flow, &mut Stream, &mut Stream) {
        let Carried { client, backend, state, .. } = self;
        match by {
            By::Client => (&mut state.up, client, backend),
            By::Backend | By::Us => (&mut state.down, backend, client),
        }
    }

    /// Carries what is left of a side that is gone. True if the other has got all of it.
    fn poll_rest(&mut self, cx: &mut Context<'_>, thread: &Thread, by: By) -> bool {
        let (is_over, moved) = self.count(thread, |carried| {
            let (from, lost, other) = carried.with_gone(by);
            from.poll_rest(cx, lost, other, &mut thread.buffers()).is_ready()
        });
        // It is waited for as long as it takes something, of which there is not much.
        if moved
            && self.gone().is_some()
            && let Some(idle) = &mut self.idle
        {
            idle.last = thread.now();
        }
        is_over
    }

    /// Ready when the side that is left has got all that the one that is gone has sent, and has ended too.
    /// Until then it is read: bytes of it that nobody reads would make the close a reset.
    fn poll_other_ended(&mut self, cx: &mut Context<'_>, thread: &Thread, by: By) -> Poll<Cause> {
        let is_over = self.poll_rest(cx, thread, by);
        let (from, _, other) = self.with_gone(by);
        if is_over {
            from.finish(other);
        }
        let has_ended = Flow::discard(cx, other, &mut thread.buffers().buffer);
        let is_over = has_ended.map_or(true, |has_ended| has_ended && is_over);
        if is_over { Poll::Ready(self.end_cause()) } else { Poll::Pending }
    }

    /// Sends both sides what is kept for them and their Close frame, and waits until both have ended.
    pub(crate) fn poll_both_ended(&mut self, cx: &mut Context<'_>, thread: &Thread) -> Poll<Cause> {
        if let Some(by) = self.gone() {
            return self.poll_other_ended(cx, thread, by);
        }
        let (is_over, _) = self.count(thread, |carried| {
            let buffers = &mut *thread.buffers();
            let Carried { client, backend, state, .. } = carried;
            // A side that fails now is gone, which is all that is waited for.
            let mut is_gone =
                |flow: &mut Flow, other: &Flow, source: &mut Stream, sink: &mut Stream| {
                    let is_gone = flow.pump(cx, source, sink, buffers, other).is_err();
                    flow.finish(sink);
                    // One that has ended may still read what is kept for it.
                    let has_ended = Flow::discard(cx, sink, &mut buffers.buffer);
                    is_gone || has_ended.map_or(true, |has_ended| has_ended && flow.is_ended())
                };
            let client_gone = is_gone(&mut state.down, &state.up, backend, client);
            let backend_gone = is_gone(&mut state.up, &state.down, client, backend);
            client_gone && backend_gone
        });
        if is_over { Poll::Ready(self.end_cause()) } else { Poll::Pending }
    }

    pub(crate) fn poll_linger(&mut self, cx: &mut Context<'_>) -> Poll<Cause> {
        let Some(idle) = &mut self.idle else {
            return Poll::Pending;
        };
        idle.poll_expired(cx).map(|()| self.end_cause())
    }

    pub(crate) fn end_cause(&self) -> Cause {
        let ending = self.state.ending.as_deref().cloned();
        let (by, why) = ending.unwrap_or((By::Us, Why::Stopped));
        Cause { by, why }
    }
}
