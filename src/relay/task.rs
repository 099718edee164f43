//! The task that carries one tunnel on a relay thread.

use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::rc::Rc;
use std::sync::atomic::Ordering::{Relaxed, Release, SeqCst};
use std::sync::atomic::fence;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use messages::TaskPanicked;
use shared::{Activity, Why};
use tokio::time::{Sleep, sleep_until};

use crate::budget::give_way;
use crate::buffers::ThreadBuffers;
use crate::close::Close;
use crate::end::By;
use crate::flow::{Fault, Flow};
use crate::keepalive::KeepAlive;
use crate::ping::{Due, Silences};
use crate::rules::{GOING_AWAY, Limit};
use crate::seat::Seat;
use crate::socket;
use crate::stream::Stream;
use crate::thread::{Thread, TunnelCommand};
use crate::tunnel::{Tunnel, TunnelState};
use crate::watch::{Silence, UnderWay, under_way};

/// Who ended the tunnel, and why.
struct Cause {
    by: By,
    why: Why,
}

/// How an orderly end begins.
struct Farewell<'a> {
    /// Of the Close frames for client and back end; without one there is none.
    codes: [Option<u16>; 2],
    /// What they say besides.
    reason: &'a str,
    /// How long the peers are waited for; without it until the thread says otherwise.
    linger: Option<Duration>,
}

/// The timer of a tunnel that has an idle timeout. Bytes do not reset it: when it fires, it is set
/// anew by the time at which the last ones went.
struct Idle {
    sleep: Pin<Box<Sleep>>,
    last: Instant,
    timeout: Duration,
}

impl Idle {
    fn new(timeout: Duration) -> Self {
        let last = Instant::now();
        Idle { sleep: Box::pin(sleep_until((last + timeout).into())), last, timeout }
    }

    /// Ready when nothing moved for the timeout.
    fn poll_expired(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        while self.sleep.as_mut().poll(cx).is_ready() {
            let due = self.last + self.timeout;
            if due <= Instant::now() {
                return Poll::Ready(());
            }
            self.sleep.as_mut().reset(due.into());
        }
        Poll::Pending
    }
}

/// When the record of a tunnel is told how far it is: at multiples of the interval since it began,
/// wherever it is carried then.
struct Reports {
    sleep: Pin<Box<Sleep>>,
    interval: Duration,
}

impl Reports {
    fn new(state: &TunnelState) -> Option<Self> {
        /// A century: no time overflows with it.
        const LONGEST: Duration = Duration::from_secs(100 * 365 * 24 * 3600);
        let interval = state.rules.effective_report_interval()?.min(LONGEST);
        let past = state.started.elapsed().as_nanos() % interval.as_nanos();
        let past = u64::try_from(past).map_or(Duration::ZERO, Duration::from_nanos);
        let next = Instant::now() + interval.saturating_sub(past);
        Some(Reports { sleep: Box::pin(sleep_until(next.into())), interval })
    }

    /// Whether it is time. One that comes late is not made up for.
    fn is_due(&mut self, cx: &mut Context<'_>) -> bool {
        let mut is_due = false;
        while self.sleep.as_mut().poll(cx).is_ready() {
            is_due = true;
            let now = Instant::now();
            let mut next = self.sleep.deadline().into_std() + self.interval;
            if next <= now {
                next = now + self.interval;
            }
            self.sleep.as_mut().reset(next.into());
        }
        is_due
    }
}

/// A tunnel with its sides registered on this thread.
struct Carried {
    client: Stream,
    backend: Stream,
    state: TunnelState,
    idle: Option<Box<Idle>>,
    /// When it ends whatever goes on in it.
    deadline: Option<Box<(Pin<Box<Sleep>>, Limit)>>,
    /// When its record is told how far it is; none if it is not.
    reports: Option<Box<Reports>>,
    /// None if nobody is sent Pings.
    pings: Option<Box<Silences>>,
    /// Wakes it when a client that was held back is read again. None before the first time.
    hold: Option<Pin<Box<Sleep>>>,
    /// Since when the client and the back end have not answered; none while both do.
    silence: Option<Box<[Silence; 2]>>,
    /// Where others see what goes on in it; none if nobody does.
    activity: Option<&'static Activity>,
}

/// What the peers of a tunnel have not acknowledged.
enum Unacknowledged {
    /// Nothing in either direction.
    Nothing,
    /// Something.
    Something,
    /// Something, for so long that the peer counts as gone.
    Gone(By),
}

/// The future of one tunnel. Completes when the tunnel has ended or was given back.
pub(crate) struct Task {
    carried: Option<Carried>,
    thread: Rc<Thread>,
    /// The number under which the thread keeps this task's waker; none once the task is done.
    number: Option<usize>,
    /// Whether it was polled, so that its waker is there.
    polled: bool,
    /// Its ticket for the end of its probation, until that has come.
    probation: Option<u64>,
    /// When it is to be looked at for silence; see [`Thread::schedule_ping`].
    ping_entry: Option<u64>,
    /// The round of checks after which it checks what its peers have not acknowledged.
    watched: Option<u32>,
}

impl Task {
    /// Registers both sides. If the kernel refuses a descriptor, the tunnel is ended and there is no
    /// task.
    pub(crate) fn new(tunnel: Tunnel, thread: Rc<Thread>) -> Option<Self> {
        let Tunnel { client, backend, mut state } = tunnel;
        let sides =
            Stream::new(client).map_err(|(_, error)| (By::Client, error)).and_then(|client| {
                Stream::new(backend)
                    .map(|backend| (client, backend))
                    .map_err(|(_, error)| (By::Backend, error))
            });
        match sides {
            Ok((client, backend)) => {
                // One that is ending lingers, as it did where it was before.
                let timeout = match state.ending {
                    Some(_) => Some(state.rules.effective_linger()),
                    None => state.rules.effective_idle_timeout(),
                };
                let idle = timeout.map(|timeout| Box::new(Idle::new(timeout)));
                // By the clock as it is here and now.
                let deadline = state.rules.deadline(state.started).map(|deadline| {
                    Box::new((Box::pin(sleep_until(deadline.at.into())), deadline.limit))
                });
                let reports = Reports::new(&state).filter(|_| state.ending.is_none());
                let is_opaque = state.up.is_opaque() || state.down.is_opaque();
                let is_quiet = state.ending.is_some() || is_opaque;
                let pings = Silences::new(&state.rules).filter(|_| !is_quiet);
                let activity = state.record.activity();
                let number = thread.register();
                Some(Task {
                    carried: Some(Carried {
                        client,
                        backend,
                        state,
                        idle,
                        deadline,
                        reports: reports.map(Box::new),
                        pings,
                        hold: None,
                        silence: None,
                        activity,
                    }),
                    number: Some(number),
                    probation: Some(thread.probation.add(number)),
                    thread,
                    polled: false,
                    ping_entry: None,
                    watched: None,
                })
            }
            Err((by, error)) => {
                report(&mut state, &thread, by, Why::from_error(&error));
                None
            }
        }
    }

    fn unregister(&mut self) {
        if let Some(number) = self.number.take() {
            if let Some(entry) = self.ping_entry.take() {
                self.thread.pings.forget(number, entry);
            }
            self.thread.unregister(number);
        }
    }

    /// Checks the peers if a round of checks has begun since the last time, and asks for the next one
    /// if there may be something to check. Returns the cause if a peer has answered nothing for too
    /// long.
    fn watch(&mut self) -> Option<Cause> {
        let (Some(carried), Some(number)) = (&mut self.carried, self.number) else {
            return None;
        };
        if let Some(round) = self.watched {
            let patience = self.thread.watched_since(round)?;
            self.watched = None;
            match carried.check_peers(patience.limit) {
                Unacknowledged::Nothing => return None,
                Unacknowledged::Something => {}
                Unacknowledged::Gone(by) => {
                    return Some(Cause { by, why: Why::Error(libc::ETIMEDOUT) });
                }
            }
        }
        if self.thread.is_watching() {
            self.watched = Some(self.thread.watch(number));
        }
        None
    }

    /// Has this task polled when it is time to look whether a side is silent.
    fn schedule_ping(&mut self) {
        if let (Some(carried), Some(number)) = (&self.carried, self.number)
            && let Some(pings) = carried.pings.as_ref().filter(|_| carried.state.ending.is_none())
        {
            let entry = self.thread.schedule_ping(number, pings.next(), self.ping_entry);
            self.ping_entry = Some(entry);
        }
    }

    fn finish(&mut self, cause: Cause) {
        if let Some(carried) = self.carried.take() {
            carried.leave_seat();
            let Carried { client, backend, mut state, .. } = carried;
            // A TLS session may be what panicked, and do so again.
            let closed = catch_unwind(AssertUnwindSafe(|| close(client, backend, &cause)));
            let why = if closed.is_ok() { cause.why } else { Why::Panic };
            report(&mut state, &self.thread, cause.by, why);
        }
        self.unregister();
    }
}

/// Closes both sides so that the peers see what kind of end it is.
fn close(mut client: Stream, mut backend: Stream, cause: &Cause) {
    match (&cause.why, cause.by) {
        // A TLS failure is told to the side it came from by an alert, to the other by a reset.
        (Why::Tls(_), By::Backend) => {
            backend.try_flush();
            client.reset_on_close();
        }
        (Why::Tls(_), By::Client | By::Us) => {
            client.try_flush();
            backend.reset_on_close();
        }
        (why, _) if why.is_abrupt() => {
            client.reset_on_close();
            backend.reset_on_close();
        }
        _ => {}
    }
}

/// Counts the end and tells the record.
fn report(state: &mut TunnelState, thread: &Thread, by: By, why: Why) {
    thread.counters.count_ended(&why);
    state.report(by, why, || thread.settle());
}

impl Future for Task {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let this = self.get_mut();
        let Some(carried) = &mut this.carried else {
            return Poll::Ready(());
        };
        if !this.polled {
            this.polled = true;
            if let Some(number) = this.number {
                this.thread.keep_waker(number, cx.waker());
                carried.take_seat(this.thread.seat(number));
            }
        }
        let thread = &*this.thread;
        if this.probation.is_some_and(|ticket| thread.probation.is_over(ticket)) {
            this.probation = None;
            if let Some(keep_alive) = thread.keep_alive {
                carried.turn_on(keep_alive);
            }
        }
        let command = thread.command(this.number);
        let polled = catch_unwind(AssertUnwindSafe(|| carried.poll(cx, thread, command)));
        match polled {
            Ok(Poll::Pending) => match this.watch() {
                None => {
                    this.schedule_ping();
                    return Poll::Pending;
                }
                Some(cause) => this.finish(cause),
            },
            Ok(Poll::Ready(Some(cause))) => this.finish(cause),
            Ok(Poll::Ready(None)) => {
                if let Some(carried) = this.carried.take() {
                    carried.leave_seat();
                    this.thread.give_back(carried.into_tunnel());
                }
                this.unregister();
            }
            Err(_) => {
                log::error!("{TaskPanicked}");
                this.finish(Cause { by: By::Us, why: Why::Panic });
            }
        }
        Poll::Ready(())
    }
}

impl Drop for Task {
    /// A task dropped with its tunnel was carried by a thread that died.
    fn drop(&mut self) {
        self.finish(Cause { by: By::Us, why: Why::ThreadDied });
    }
}

impl Carried {
    /// Ready with the cause when the tunnel has ended, with none when it is to be given back.
    fn poll(
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
                Poll::Pending if self.is_over(cx) => self.poll_ending(cx, thread),
                Poll::Pending => {
                    self.report_progress(cx);
                    match self.poll_pings(cx, thread) {
                        Poll::Pending if self.state.ending.is_none() => self.poll_idle(cx, thread),
                        other => other,
                    }
                }
                ready => ready,
            }
        } else {
            self.poll_ending(cx, thread)
        };
        cause.map(Some)
    }

    fn turn_on(&self, keep_alive: KeepAlive) {
        for side in [&self.client, &self.backend] {
            // What a kernel does not know of this it does without.
            let _ = keep_alive.turn_on(side.fd());
        }
    }

    /// Checks what both peers have not acknowledged.
    fn check_peers(&mut self, limit: Duration) -> Unacknowledged {
        let found = [under_way(self.client.fd()), under_way(self.backend.fd())];
        if !found.iter().any(|found| matches!(found, UnderWay::Unanswered(_))) {
            self.silence = None;
            let nothing = found == [UnderWay::Nothing; 2];
            return if nothing { Unacknowledged::Nothing } else { Unacknowledged::Something };
        }
        let silence = &mut **self.silence.get_or_insert_default();
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
        let (cause, delivered) =
            self.count(thread, |carried| carried.pump(cx, &mut thread.buffers()));
        // With TLS a byte counts as delivered once it is encrypted.
        let moved = delivered || self.client.kept() + self.backend.kept() < kept_before;
        // Nor is it silent if what its client says is not read yet.
        let is_held = self.state.up.held_until().is_some();
        if let Some(idle) = self.idle.as_mut().filter(|_| moved || is_held) {
            idle.last = Instant::now();
        }
        if cause.is_pending() { self.poll_hold(cx) } else { cause }
    }

    /// Has a client read again when it was held back for long enough. Whether it was reset is looked
    /// at whenever that begins.
    fn poll_hold(&mut self, cx: &mut Context<'_>) -> Poll<Cause> {
        let Some(until) = self.state.up.held_until() else {
            return Poll::Pending;
        };
        let is_new = self.hold.as_ref().is_none_or(|sleep| sleep.deadline() != until.into());
        let sleep = self.hold.get_or_insert_with(|| Box::pin(sleep_until(until.into())));
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
    fn count<T>(&mut self, thread: &Thread, carry: impl FnOnce(&mut Self) -> T) -> (T, bool) {
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
    fn take_seat(&self, seat: Seat) {
        if let Some(activity) = self.activity {
            self.show(activity);
            activity.seat.store(seat.to_word(), Release);
            // Whoever gives an order from now on sees the seat; who gave one before is heard.
            fence(SeqCst);
        }
    }

    /// Its activity is not this thread's any more.
    fn leave_seat(&self) {
        if let Some(activity) = self.activity {
            self.show(activity);
            activity.seat.store(0, Release);
        }
    }

    /// What it is ordered to say to its peers, if it is to end.
    fn ordered(&self) -> Option<Close> {
        let activity = self.activity?;
        let may_be = activity.order.load(Relaxed) != 0 && self.state.ending.is_none();
        may_be.then(|| self.state.record.ordered()).flatten()
    }

    fn pump(&mut self, cx: &mut Context<'_>, buffers: &mut ThreadBuffers) -> Poll<Cause> {
        let Carried { client, backend, state, .. } = self;
        if let Err(fault) = state.up.pump(cx, client, backend, buffers, &state.down) {
            if fault.is_of_sink() {
                // What it sent before it failed may still be there, and is for the other side.
                state.down.carry_rest(cx, backend, client, buffers);
            }
            return Poll::Ready(Cause::from_fault(fault, By::Client, By::Backend));
        }
        if state.first_end.is_none() && !state.up.is_open() {
            state.first_end = Some((By::Client, state.up.was_closed() || client.closed_cleanly()));
        }
        if let Err(fault) = state.down.pump(cx, backend, client, buffers, &state.up) {
            if fault.is_of_sink() {
                state.up.carry_rest(cx, client, backend, buffers);
            }
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

    /// Begins the end of a tunnel whose time has come.
    fn is_over(&mut self, cx: &mut Context<'_>) -> bool {
        let Some(deadline) = &mut self.deadline else { return false };
        let (sleep, limit) = &mut **deadline;
        let limit = *limit;
        if sleep.as_mut().poll(cx).is_pending() {
            return false;
        }
        self.deadline = None;
        self.begin_end(By::Us, limit.into(), [Some(limit.code()); 2]);
        true
    }

    /// Tells the record how far the tunnel is, if it is time for that.
    fn report_progress(&mut self, cx: &mut Context<'_>) {
        if self.reports.as_mut().is_some_and(|reports| reports.is_due(cx)) {
            let progress = self.state.progress();
            self.state.record.goes_on(&progress);
        }
    }

    /// Sends Pings to sides that have said nothing for the interval, and ends a tunnel of which one
    /// has not answered.
    fn poll_pings(&mut self, cx: &mut Context<'_>, thread: &Thread) -> Poll<Cause> {
        if self.pings.is_none() {
            return Poll::Pending;
        }
        match self.count(thread, |carried| carried.send_pings(cx)).0 {
            Ok(None) => Poll::Pending,
            Ok(Some(by)) => {
                self.begin_end(by, Why::PingTimeout, [Some(GOING_AWAY); 2]);
                self.poll_ending(cx, thread)
            }
            Err(cause) => Poll::Ready(cause),
        }
    }

    /// The same. Returns the side that has not answered.
    fn send_pings(&mut self, cx: &mut Context<'_>) -> Result<Option<By>, Cause> {
        let Carried { client, backend, state, pings: Some(pings), .. } = self else {
            return Ok(None);
        };
        let now = Instant::now();
        let mut gone = None;
        for at in 0..pings.sides.len() {
            let (from, to, sink) = match at {
                0 => (&mut state.up, &mut state.down, &mut *client),
                _ => (&mut state.down, &mut state.up, &mut *backend),
            };
            let by = pings.sides[at].by;
            if from.held_until().is_some() {
                pings.held_back(at, now);
            }
            match pings.note(at, from.arrived(), now) {
                Due::Nothing => {}
                // A side that has ended is not asked.
                Due::Gone | Due::Ping if !from.is_open() => pings.pinged(at, false, now),
                Due::Ping => match to.ping(cx, sink) {
                    Ok(is_sent) => pings.pinged(at, is_sent, now),
                    Err(error) => return Err(Cause::from_error(&error, by)),
                },
                Due::Gone => gone = gone.or(Some(by)),
            }
        }
        Ok(gone)
    }

    /// Begins the end of a tunnel of which a side has sent what a rule does not allow.
    fn is_broken(&mut self) -> bool {
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
    fn begin_end(&mut self, by: By, why: Why, codes: [Option<u16>; 2]) {
        let linger = Some(self.state.rules.effective_linger());
        self.begin_end_with(by, why, Farewell { codes, reason: "", linger });
    }

    /// The same, with all that can be said about it.
    fn begin_end_with(&mut self, by: By, why: Why, farewell: Farewell<'_>) {
        if self.state.ending.is_some() {
            return;
        }
        let Farewell { codes: [client, backend], reason, linger } = farewell;
        self.idle = linger.map(|linger| Box::new(Idle::new(linger)));
        self.state.ending = Some((by, why));
        self.state.up.end(backend, reason);
        self.state.down.end(client, reason);
    }

    /// Ready when both sides have ended, or have been waited for.
    fn poll_ending(&mut self, cx: &mut Context<'_>, thread: &Thread) -> Poll<Cause> {
        match self.poll_both_ended(cx, thread) {
            Poll::Pending => self.poll_linger(cx),
            ready => ready,
        }
    }

    /// Sends both sides what is kept for them and their Close frame, and waits until both have ended.
    fn poll_both_ended(&mut self, cx: &mut Context<'_>, thread: &Thread) -> Poll<Cause> {
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

    fn poll_linger(&mut self, cx: &mut Context<'_>) -> Poll<Cause> {
        let Some(idle) = &mut self.idle else {
            return Poll::Pending;
        };
        idle.poll_expired(cx).map(|()| self.end_cause())
    }

    fn end_cause(&self) -> Cause {
        let (by, why) = self.state.ending.clone().unwrap_or((By::Us, Why::Stopped));
        Cause { by, why }
    }

    fn into_tunnel(self) -> Tunnel {
        Tunnel {
            client: self.client.into_socket(),
            backend: self.backend.into_socket(),
            state: self.state,
        }
    }
}

impl Cause {
    fn from_error(error: &std::io::Error, by: By) -> Self {
        Cause { by, why: Why::from_error(error) }
    }

    fn from_fault(fault: Fault, source: By, sink: By) -> Self {
        match fault {
            Fault::Source(error) => Cause::from_error(&error, source),
            Fault::Sink(error) => Cause::from_error(&error, sink),
        }
    }
}
