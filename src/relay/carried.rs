//! A tunnel while a thread carries it: what one poll of its task does.

use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::Ordering::{Relaxed, Release, SeqCst};
use std::sync::atomic::fence;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use shared::{Activity, Why};
use tokio::time::{Sleep, sleep_until};

use crate::budget::give_way;
use crate::buffers::ThreadBuffers;
use crate::cause::{Cause, Farewell};
use crate::close::Close;
use crate::end::By;
use crate::keepalive::KeepAlive;
use crate::ping::Silences;
use crate::rules::{GOING_AWAY, Limit};
use crate::seat::Seat;
use crate::socket;
use crate::stream::Stream;
use crate::thread::{Thread, TunnelCommand};
use crate::timers::{Idle, Reports};
use crate::tunnel::{Tunnel, TunnelState};
use crate::watch::{Silence, UnderWay, under_way};

mod pings;

/// A tunnel with its sides registered on this thread.
pub(crate) struct Carried {
    pub client: Stream,
    pub backend: Stream,
    pub state: TunnelState,
    pub idle: Option<Box<Idle>>,
    /// None if nobody is sent Pings.
    pub pings: Option<Box<Silences>>,
    /// None before something of it is needed.
    pub seldom: Option<Box<Seldom>>,
    /// Where others see what goes on in it; none if nobody does.
    pub activity: Option<&'static Activity>,
}

/// What few tunnels need.
#[derive(Default)]
pub(crate) struct Seldom {
    /// When it ends whatever goes on in it.
    pub deadline: Option<(Pin<Box<Sleep>>, Limit)>,
    /// When its record is told how far it is; none if it is not.
    pub reports: Option<Reports>,
    /// Wakes it when a client that was held back is read again. None before the first time.
    hold: Option<Pin<Box<Sleep>>>,
    /// Since when the client and the back end have not answered; none while both do.
    silence: Option<[Silence; 2]>,
    /// When the client and the back end have to have completed a message of TLS's own; none while there
    /// is no part of one.
    pub incomplete: [Option<Pin<Box<Sleep>>>; 2],
}

impl Seldom {
    /// That of a tunnel that begins, if it needs any of it.
    pub(crate) fn new(
        deadline: Option<(Pin<Box<Sleep>>, Limit)>,
        reports: Option<Reports>,
    ) -> Option<Box<Self>> {
        let is_needed = deadline.is_some() || reports.is_some();
        is_needed.then(|| Box::new(Self { deadline, reports, ..Self::default() }))
    }
}

/// What the peers of a tunnel have not acknowledged.
pub(crate) enum Unacknowledged {
    /// Nothing in either direction.
    Nothing,
    /// Something.
    Something,
    /// Something, for so long that the peer counts as gone.
    Gone(By),
}

impl Carried {
    /// Ready with the cause when the tunnel has ended, with none when it is to be given back.
    pub(crate) fn poll(
        &mut self,
        cx: &mut Context<'_>,
        thread: &Thread,
        command: TunnelCommand,
    ) -> Poll<Option<Cause>> {
        match command {
            TunnelCommand::Carry => {}
            TunnelCommand::Return => {
                // What is in a pipe of this thread's goes with the tunnel too.
                let gathered = self.state.up.gather().and_then(|()| self.state.down.gather());
                return Poll::Ready(gathered.err().map(|error| Cause::from_error(&error, By::Us)));
            }
            TunnelCommand::End(order, code, linger) => {
                let farewell = Farewell { codes: [code; 2], reason: "", linger };
                self.begin_end_with(By::Us, order.into(), farewell);
            }
            TunnelCommand::Close(order, code) => {
                let farewell = Farewell { codes: [code; 2], reason: "", linger: None };
                self.begin_end_with(By::Us, order.into(), farewell);
                // What can be sent at once is sent, but nobody is waited for.
                let _ = self.poll_both_ended(cx, thread);
                return Poll::Ready(Some(self.end_cause()));
            }
        }
        if let Some(Close { code, reason }) = self.ordered() {
            let linger = Some(self.state.rules.effective_linger());
            let farewell = Farewell { codes: [Some(code); 2], reason: &reason, linger };
            self.begin_end_with(By::Us, Why::ClosedByAdmin, farewell);
        }
        self.client.recheck();
        self.backend.recheck();
        let cause = if self.state.ending.is_none() {
            match self.poll_carry(cx, thread) {
                Poll::Pending if self.is_broken() => self.poll_ending(cx, thread),
                Poll::Pending if self.is_left() => self.poll_ending(cx, thread),
                Poll::Pending if self.is_over(cx) => self.poll_ending(cx, thread),
                Poll::Pending => {
                    self.report_progress(cx);
                    match self.poll_pings(cx, thread) {
                        Poll::Pending if self.state.ending.is_none() => self.poll_idle(cx, thread),
                        other => other,
                    }
                }
                Poll::Ready(cause) => self.poll_failed(cx, thread, cause),
            }
        } else {
            self.poll_ending(cx, thread)
        };
        cause.map(Some)
    }

    pub(crate) fn turn_on(&self, keep_alive: KeepAlive) {
        for side in [&self.client, &self.backend] {
            // What a kernel does not know of this it does without.
            let _ = keep_alive.turn_on(side.fd());
        }
    }

    /// Checks what both peers have not acknowledged.
    pub(crate) fn check_peers(&mut self, limit: Duration) -> Unacknowledged {
        let found = [under_way(self.client.fd()), under_way(self.backend.fd())];
        if !found.iter().any(|found| matches!(found, UnderWay::Unanswered(_))) {
            if let Some(seldom) = &mut self.seldom {
                seldom.silence = None;
            }
            let nothing = found == [UnderWay::Nothing; 2];
            return if nothing { Unacknowledged::Nothing } else { Unacknowledged::Something };
        }
        let silence = self.seldom.get_or_insert_default().silence.get_or_insert_default();
        let now = Instant::now();
        for ((by, silence), found) in [By::Client, By::Backend].into_iter().zip(silence).zip(found)
        {
            if silence.note(found, now, limit) {
                return Unacknowledged::Gone(by);
            }
        }
        Unacknowledged::Something
    }

    /// Carries bytes both ways.
    fn poll_carry(&mut self, cx: &mut Context<'_>, thread: &Thread) -> Poll<Cause> {
        let kept_before = self.client.kept() + self.backend.kept();
        let (cause, delivered) = self.count(thread, |carried| {
            if carried.pings.is_none() {
                return carried.pump(cx, &mut thread.buffers());
            }
            let now = thread.now();
            carried.want_pings_along(cx, now);
            let cause = carried.pump(cx, &mut thread.buffers());
            carried.note_pings_along(now);
            cause
        });
        // With TLS a byte counts as delivered once it is encrypted.
        let moved = delivered || self.client.kept() + self.backend.kept() < kept_before;
        // Nor is it silent if what its client says is not read yet.
        let is_held = self.state.up.held_until().is_some();
        if let Some(idle) = self.idle.as_mut().filter(|_| moved || is_held) {
            idle.last = thread.now();
        }
        if cause.is_ready() {
            return cause;
        }
        match self.poll_incomplete(cx, thread.message_timeout) {
            Poll::Pending => self.poll_hold(cx),
            ready => ready,
        }
    }

    /// Has a client read again when it was held back for long enough. Whether it was reset is looked
    /// at whenever that begins.
    fn poll_hold(&mut self, cx: &mut Context<'_>) -> Poll<Cause> {
        let Some(until) = self.state.up.held_until() else {
            return Poll::Pending;
        };
        let hold = &mut self.seldom.get_or_insert_default().hold;
        let is_new = hold.as_ref().is_none_or(|sleep| sleep.deadline() != until.into());
        let sleep = hold.get_or_insert_with(|| Box::pin(sleep_until(until.into())));
        if is_new {
            sleep.as_mut().reset(until.into());
            if !self.state.down.is_blocked(&self.client)
                && let Poll::Ready(error) = self.client.poll_reset(cx)
            {
                return Poll::Ready(Cause::from_error(&error, By::Client));
            }
        }
        if sleep.as_mut().poll(cx).is_ready() {
            self.state.up.release();
            give_way(cx);
        }
        Poll::Pending
    }

    /// Counts what `carry` delivers, and says whether it was something.
    pub(crate) fn count<T>(
        &mut self,
        thread: &Thread,
        carry: impl FnOnce(&mut Self) -> T,
    ) -> (T, bool) {
        let up_before = self.state.up.delivered();
        let down_before = self.state.down.delivered();
        let result = carry(self);
        let up = self.state.up.delivered() - up_before;
        let down = self.state.down.delivered() - down_before;
        if up > 0 {
            thread.counters.bytes_up.fetch_add(up, Relaxed);
        }
        if down > 0 {
            thread.counters.bytes_down.fetch_add(down, Relaxed);
        }
        if up + down > 0
            && let Some(activity) = self.activity
        {
            self.show(activity);
            activity.last.store(socket::coarse_seconds(), Relaxed);
        }
        (result, up + down > 0)
    }

    /// Writes what went through it where others see it.
    fn show(&self, activity: &Activity) {
        for (at, flow) in [&self.state.up, &self.state.down].into_iter().enumerate() {
            activity.bytes[at].store(flow.delivered(), Relaxed);
            // What is no WebSocket any more has the messages that it had.
            if let Some([text, binary]) = flow.messages_by_kind() {
                activity.messages[at][0].store(text, Relaxed);
                activity.messages[at][1].store(binary, Relaxed);
            }
        }
    }

    /// From now on its orders are seen whenever it is polled, and others see where that is.
    pub(crate) fn take_seat(&self, seat: Seat) {
        if let Some(activity) = self.activity {
            self.show(activity);
            activity.seat.store(seat.to_word(), Release);
            // Whoever gives an order from now on sees the seat; who gave one before is heard.
            fence(SeqCst);
        }
    }

    /// Its activity is not this thread's any more.
    pub(crate) fn leave_seat(&self) {
        if let Some(activity) = self.activity {
            self.show(activity);
            activity.seat.store(0, Release);
        }
    }

    /// What it is ordered to say to its peers, if it is to end.
    fn ordered(&self) -> Option<Close> {
        let activity = self.activity?;
        let may_be = activity.order.load(Relaxed) != 0 && self.state.ending.is_none();
        let ordered = may_be.then(|| self.state.record.ordered()).flatten()?;
        failpoint::step!("relay.order");
        Some(ordered)
    }

    fn pump(&mut self, cx: &mut Context<'_>, buffers: &mut ThreadBuffers) -> Poll<Cause> {
        let Carried { client, backend, state, .. } = self;
        if let Err(fault) = state.up.pump(cx, client, backend, buffers, &state.down) {
            return Poll::Ready(Cause::from_fault(fault, By::Client, By::Backend));
        }
        if state.first_end.is_none() && !state.up.is_open() {
            state.first_end = Some((By::Client, state.up.was_closed() || client.closed_cleanly()));
        }
        if let Err(fault) = state.down.pump(cx, backend, client, buffers, &state.up) {
            return Poll::Ready(Cause::from_fault(fault, By::Backend, By::Client));
        }
        if state.first_end.is_none() && !state.down.is_open() {
            state.first_end =
                Some((By::Backend, state.down.was_closed() || backend.closed_cleanly()));
        }
        let mut is_gone = false;
        if state.first_end.is_some() && state.up.has_closed() && state.down.has_closed() {
            // Close frames went both ways and one side has hung up: nothing can come of the other,
            // and its connection is to be closed at once (RFC 6455 5.5.1).
            state.up.end(None, "");
            state.down.end(None, "");
            is_gone = state.up.pump(cx, client, backend, buffers, &state.down).is_err()
                | state.down.pump(cx, backend, client, buffers, &state.up).is_err();
        }
        if is_gone || state.up.is_ended() && state.down.is_ended() {
            let (by, clean) = state.first_end.unwrap_or((By::Us, true));
            let why = if clean { Why::Closed } else { Why::Truncated };
            return Poll::Ready(Cause { by, why });
        }
        state.up.finish(backend);
        state.down.finish(client);
        // Reading may have made a side's TLS answer after it was last flushed.
        for (by, side) in [(By::Client, client), (By::Backend, backend)] {
            if let Poll::Ready(Err(error)) = side.poll_flush(cx) {
                return Poll::Ready(Cause::from_error(&error, by));
            }
        }
        self.poll_resets(cx)
    }

    /// A side that is neither read nor waited for may still reset.
    fn poll_resets(&mut self, cx: &mut Context<'_>) -> Poll<Cause> {
        let TunnelState { up, down, .. } = &self.state;
        let up_blocked = up.is_blocked(&self.backend);
        let down_blocked = down.is_blocked(&self.client);
        if (!up.is_open() || up_blocked)
            && !down_blocked
            && let Poll::Ready(error) = self.client.poll_reset(cx)
        {
            return Poll::Ready(Cause::from_error(&error, By::Client));
        }
        if (!down.is_open() || down_blocked)
            && !up_blocked
            && let Poll::Ready(error) = self.backend.poll_reset(cx)
        {
            return Poll::Ready(Cause::from_error(&error, By::Backend));
        }
        Poll::Pending
    }

    fn poll_idle(&mut self, cx: &mut Context<'_>, thread: &Thread) -> Poll<Cause> {
        let Some(idle) = &mut self.idle else {
            return Poll::Pending;
        };
        if idle.poll_expired(cx).is_pending() {
            return Poll::Pending;
        }
        self.begin_end(By::Us, Why::IdleTimeout, [Some(GOING_AWAY); 2]);
        self.poll_ending(cx, thread)
    }

    /// Tells the record how far the tunnel is, if it is time for that.
    fn report_progress(&mut self, cx: &mut Context<'_>) {
        let reports = self.seldom.as_mut().and_then(|seldom| seldom.reports.as_mut());
        if reports.is_some_and(|reports| reports.is_due(cx)) {
            let progress = self.state.progress();
            self.state.record.goes_on(&progress);
        }
    }

    pub(crate) fn into_tunnel(self) -> Tunnel {
        Tunnel {
            client: self.client.into_socket(),
            backend: self.backend.into_socket(),
            state: self.state,
        }
    }
}
