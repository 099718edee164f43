//! The orderly end of a tunnel: both sides get what is kept for them and a Close frame, and have a
//! time to end too.

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

    /// Sends both sides what is kept for them and their Close frame, and waits until both have ended.
    pub(crate) fn poll_both_ended(&mut self, cx: &mut Context<'_>, thread: &Thread) -> Poll<Cause> {
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
