//! The task that carries one tunnel on a relay thread.

use std::future::Future;
use std::num::NonZeroU64;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::thread;

use messages::TaskPanicked;
use shared::{Activity, Why};
use tokio::time::sleep_until;

use crate::carried::{Carried, Seldom, Unacknowledged};
use crate::cause::Cause;
use crate::end::By;
use crate::ping::Silences;
use crate::side::Socket;
use crate::stream::Stream;
use crate::thread::Thread;
use crate::timers::{Idle, Reports};
use crate::tunnel::{Tunnel, TunnelState};

/// The future of one tunnel. Completes when the tunnel has ended or was given back.
// tokio has the memory of a task in steps of 128 bytes; with the features that the module builds it with,
// this is 512 with a Task of up to 408 (tests/allocations.rs).
pub(crate) struct Task {
    carried: Option<Carried>,
    thread: Rc<Thread>,
    /// The number under which the thread keeps this task's waker, until the task is done.
    number: usize,
    stage: Stage,
    /// Its ticket for the end of its probation, until that has come.
    probation: Option<NonZeroU64>,
    /// When it is to be looked at for silence; see [`Thread::schedule_ping`].
    ping_entry: Option<NonZeroU64>,
    /// The round of checks after which it checks what its peers have not acknowledged.
    watched: Option<u32>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Stage {
    New,
    /// It was polled, so that its waker is there.
    Polled,
    /// Its number is another's.
    Done,
}

impl Task {
    /// Registers both sides. If the kernel refuses a descriptor, the tunnel is ended and there is no
    /// task.
    pub(crate) fn new(tunnel: Tunnel, thread: Rc<Thread>) -> Option<Self> {
        let Tunnel { client, backend, mut state } = tunnel;
        // It has no task yet, whose guard keeps a panic from all others.
        let begun = catch_unwind(AssertUnwindSafe(|| begin(client, backend, &state)));
        let begun = begun.unwrap_or_else(|_| {
            log::error!("{TaskPanicked}");
            Err((By::Us, Why::Panic))
        });
        let Begun { sides: [client, backend], idle, seldom, pings, activity } = match begun {
            Ok(begun) => begun,
            Err((by, why)) => {
                report(&mut state, &thread, by, why);
                return None;
            }
        };
        let number = thread.register();
        Some(Task {
            carried: Some(Carried { client, backend, state, idle, pings, seldom, activity }),
            number,
            stage: Stage::New,
            probation: Some(thread.probation.add(number)),
            thread,
            ping_entry: None,
            watched: None,
        })
    }

    fn unregister(&mut self) {
        if std::mem::replace(&mut self.stage, Stage::Done) != Stage::Done {
            if let Some(entry) = self.ping_entry.take() {
                self.thread.pings.forget(self.number, entry);
            }
            self.thread.unregister(self.number);
        }
    }

    /// Checks the peers if a round of checks has begun since the last time, and asks for the next one
    /// if there may be something to check. Returns the cause if a peer has answered nothing for too
    /// long.
    fn watch(&mut self) -> Option<Cause> {
        let carried = self.carried.as_mut()?;
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
        if let Some(patience) = self.thread.watch.patience()
            && !carried.is_asked_within(patience.limit)
        {
            self.watched = Some(self.thread.watch(self.number));
        }
        None
    }

    /// Goes on when a peer counts as gone.
    fn poll_failed(
        &mut self,
        cx: &mut Context<'_>,
        cause: Cause,
    ) -> thread::Result<Poll<Option<Cause>>> {
        let Some(carried) = &mut self.carried else {
            return Ok(Poll::Ready(Some(cause)));
        };
        catch_unwind(AssertUnwindSafe(|| carried.poll_failed(cx, &self.thread, cause).map(Some)))
    }

    /// Has this task polled when it is time to look whether a side is silent.
    fn schedule_ping(&mut self) {
        if let Some(carried) = &self.carried
            && let Some(pings) = carried.pings.as_ref().filter(|_| carried.state.ending.is_none())
        {
            let entry = self.thread.schedule_ping(self.number, pings.next(), self.ping_entry);
            self.ping_entry = Some(entry);
        }
    }

    fn finish(&mut self, cause: Cause) {
        if let Some(carried) = self.carried.take() {
            carried.leave_seat();
            let is_told = carried.gone().is_some();
            let Carried { client, backend, mut state, .. } = carried;
            // A TLS session may be what panicked, and do so again.
            let closed = catch_unwind(AssertUnwindSafe(|| {
                failpoint::step!("relay.end");
                close(client, backend, &cause, is_told);
            }));
            let why = if closed.is_ok() { cause.why } else { Why::Panic };
            report(&mut state, &self.thread, cause.by, why);
        }
        self.unregister();
    }
}

/// What a tunnel has while it is carried, besides its state.
struct Begun {
    sides: [Stream; 2],
    idle: Option<Box<Idle>>,
    seldom: Option<Box<Seldom>>,
    pings: Option<Box<Silences>>,
    activity: Option<&'static Activity>,
}

/// Registers both sides, the client's and the back end's. If the kernel refuses a descriptor: whose, and
/// why.
fn begin(client: Socket, backend: Socket, state: &TunnelState) -> Result<Begun, (By, Why)> {
    let register = |socket, by| {
        failpoint::check!("relay.register").map_err(|error| (by, Why::from_error(&error)))?;
        Stream::new(socket).map_err(|(_, error)| (by, Why::from_error(&error)))
    };
    let sides = [register(client, By::Client)?, register(backend, By::Backend)?];
    // One that is ending lingers, as it did where it was before.
    let timeout = match state.ending {
        Some(_) => Some(state.rules.effective_linger()),
        None => state.rules.effective_idle_timeout(),
    };
    let is_opaque = state.up.is_opaque() || state.down.is_opaque();
    let is_quiet = state.ending.is_some() || is_opaque;
    // By the clock as it is here and now.
    let deadline = state.rules.deadline(state.started);
    let deadline =
        deadline.map(|deadline| (Box::pin(sleep_until(deadline.at.into())), deadline.limit));
    let reports = Reports::new(state).filter(|_| state.ending.is_none());
    Ok(Begun {
        sides,
        idle: timeout.map(|timeout| Box::new(Idle::new(timeout))),
        seldom: Seldom::new(deadline, reports),
        pings: Silences::new(&state.rules).filter(|_| !is_quiet),
        activity: state.record.activity(),
    })
}

/// Closes both sides so that the peers see what kind of end it is. `is_told`: one of them is gone, and the
/// other was given what that had sent, which may still be under way to it.
fn close(mut client: Stream, mut backend: Stream, cause: &Cause, is_told: bool) {
    match (&cause.why, cause.by) {
        (Why::Tls(_), By::Client | By::Backend) if is_told => {}
        (why, By::Client) if is_told && why.is_abrupt() => client.reset_on_close(),
        (why, By::Backend) if is_told && why.is_abrupt() => backend.reset_on_close(),
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
        if this.stage == Stage::New {
            this.stage = Stage::Polled;
            this.thread.keep_waker(this.number, cx.waker());
            carried.take_seat(this.thread.seat(this.number));
        }
        let thread = &*this.thread;
        if this.probation.is_some_and(|ticket| thread.probation.is_over(ticket)) {
            this.probation = None;
            if let Some(keep_alive) = thread.keep_alive {
                carried.turn_on(keep_alive);
            }
        }
        let command = thread.command(this.number);
        thread.buffers().clock.begin();
        let mut polled = catch_unwind(AssertUnwindSafe(|| {
            failpoint::step!("relay.carry");
            carried.poll(cx, thread, command)
        }));
        if matches!(polled, Ok(Poll::Pending))
            && let Some(cause) = this.watch()
        {
            polled = this.poll_failed(cx, cause);
        }
        match polled {
            Ok(Poll::Pending) => {
                this.schedule_ping();
                return Poll::Pending;
            }
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
