//! The main loop of a relay thread: it takes commands and runs the tasks of its tunnels.

use std::future::{Future, poll_fn};
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering::{Relaxed, Release};
use std::sync::mpsc::Sender;
use std::task::{Context, Poll};
use std::time::Instant;

use messages::{TaskPanicked, ThreadDied};
use shared::{Counters, Why};
use tokio::runtime::{Builder, LocalOptions, LocalRuntime};
use tokio::sync::mpsc::UnboundedReceiver;
use tokio::time::{Sleep, sleep_until};

use crate::end::{By, Ending, Order};
use crate::settings::Settings;
use crate::task::Task;
use crate::thread::{Shared, Thread, TunnelCommand};
use crate::tunnel::Tunnel;

/// A tunnel on its way to its thread. If it never gets there, its record is told so.
pub(crate) struct Adopted {
    pub tunnel: Option<Tunnel>,
    pub shared: Arc<Shared>,
    pub counters: &'static Counters,
}

impl Drop for Adopted {
    fn drop(&mut self) {
        if let Some(tunnel) = self.tunnel.take() {
            self.counters.count_ended(&Why::ThreadDied);
            tunnel.end_and(By::Us, Why::ThreadDied, || {
                self.shared.load.fetch_sub(1, Release);
            });
        }
    }
}

/// What a thread is to do.
#[expect(clippy::large_enum_variant, reason = "most commands are of the largest kind")]
pub(crate) enum ThreadCommand {
    /// Carry this one.
    Adopt(Adopted),
    /// End every tunnel by the deadline, then say so.
    End { how: Ending, deadline: Instant, done: Sender<()> },
    /// Have the tasks with these numbers look at what they are ordered.
    Look(Vec<usize>),
    /// Say that the thread runs.
    Ask,
    /// Give every tunnel back and end.
    Stop,
    #[cfg(test)]
    Die,
}

/// All tunnels are being ended in an orderly way.
struct Shutdown {
    how: Ending,
    deadline: Pin<Box<Sleep>>,
    done: Vec<Sender<()>>,
}

#[expect(clippy::large_enum_variant, reason = "made once for each command, and never kept")]
enum Event {
    /// A command, or that no other will come.
    Command(Option<ThreadCommand>),
    /// The probation of the task with this number is over.
    ProbationOver(usize),
    /// The tasks with these numbers are to check their peers.
    Check(Vec<usize>),
    /// The tasks with these numbers are to look at what they are ordered.
    Look(Vec<usize>),
    /// The time has come to end the tunnel of the task with this number.
    EndDue(usize),
    /// A shutdown is complete: no tunnel is left.
    AllEnded,
    /// The time for a shutdown is over.
    Deadline,
}

/// So many tunnels begin to end at once, of those that are ordered to: each writes to both sides.
const LOOKS_AT_ONCE: usize = 16;

/// A panic ends this tunnel alone: it was not in its task yet, which has a guard of its own.
fn carry(thread: &Rc<Thread>, mut adopted: Adopted) {
    let begun = catch_unwind(AssertUnwindSafe(|| {
        failpoint::step!("relay.take");
        adopted.tunnel.take().and_then(|tunnel| Task::new(tunnel, Rc::clone(thread)))
    }));
    match begun {
        Ok(Some(task)) => drop(tokio::task::spawn_local(task)),
        Ok(None) => {}
        Err(_) => log::error!("{TaskPanicked}"),
    }
}

/// Carries out commands until one says stop.
pub(crate) async fn serve(thread: &Rc<Thread>, commands: &mut UnboundedReceiver<ThreadCommand>) {
    let mut shutdown: Option<Shutdown> = None;
    let mut looks = Vec::new();
    loop {
        match poll_fn(|cx| poll_event(thread, cx, commands, &mut looks, shutdown.as_mut())).await {
            Event::Command(Some(ThreadCommand::Adopt(adopted))) => carry(thread, adopted),
            Event::ProbationOver(task) | Event::EndDue(task) => thread.wake(task),
            Event::Check(tasks) => tasks.into_iter().for_each(|task| thread.wake(task)),
            Event::Command(Some(ThreadCommand::Look(tasks))) => looks.extend(tasks),
            Event::Look(tasks) => {
                tasks.into_iter().for_each(|task| thread.wake(task));
                // So that the others go on meanwhile.
                tokio::task::yield_now().await;
            }
            Event::Command(Some(ThreadCommand::Ask)) => thread.report_alive(),
            Event::Command(Some(ThreadCommand::End { how, deadline, done })) => {
                let mut waiting = shutdown.take().map(|shutdown| shutdown.done).unwrap_or_default();
                waiting.push(done);
                thread.end_all(how);
                shutdown = Some(Shutdown {
                    how,
                    deadline: Box::pin(sleep_until(deadline.into())),
                    done: waiting,
                });
            }
            Event::Command(Some(ThreadCommand::Stop)) => return stop(thread, commands).await,
            #[cfg(test)]
            Event::Command(Some(ThreadCommand::Die)) => panic!("the test told this thread to die"),
            // The relay was dropped: nobody is left to give the tunnels back to.
            Event::Command(None) => {
                thread.command_all(TunnelCommand::Close(Order::Stop, None));
                return poll_fn(|cx| thread.poll_empty(cx)).await;
            }
            Event::Deadline => {
                if let Some(shutdown) = &shutdown {
                    thread.command_all(TunnelCommand::Close(shutdown.how.order, shutdown.how.code));
                }
                poll_fn(|cx| thread.poll_empty(cx)).await;
            }
            Event::AllEnded => {
                thread.carry_on();
                for done in shutdown.take().map(|shutdown| shutdown.done).unwrap_or_default() {
                    // Whoever waited may have gone.
                    let _ = done.send(());
                }
            }
        }
    }
}

fn poll_event(
    thread: &Thread,
    cx: &mut Context<'_>,
    commands: &mut UnboundedReceiver<ThreadCommand>,
    looks: &mut Vec<usize>,
    shutdown: Option<&mut Shutdown>,
) -> Poll<Event> {
    if let Poll::Ready(command) = commands.poll_recv(cx) {
        return Poll::Ready(Event::Command(command));
    }
    if !looks.is_empty() {
        return Poll::Ready(Event::Look(
            looks.split_off(looks.len().saturating_sub(LOOKS_AT_ONCE)),
        ));
    }
    if let Poll::Ready(task) = thread.probation.poll_over(cx) {
        return Poll::Ready(Event::ProbationOver(task));
    }
    if let Poll::Ready(tasks) = thread.watch.poll_round(cx) {
        return Poll::Ready(Event::Check(tasks));
    }
    if let Poll::Ready(tasks) = thread.pings.poll_due(cx) {
        return Poll::Ready(Event::Check(tasks));
    }
    let Some(shutdown) = shutdown else {
        thread.keep_own_waker(cx);
        return Poll::Pending;
    };
    if thread.poll_empty(cx).is_ready() {
        return Poll::Ready(Event::AllEnded);
    }
    if let Poll::Ready(task) = thread.spread.poll_due(cx) {
        return Poll::Ready(Event::EndDue(task));
    }
    shutdown.deadline.as_mut().poll(cx).map(|()| Event::Deadline)
}

/// Has every tunnel given back, those still waiting to be carried too.
async fn stop(thread: &Thread, commands: &mut UnboundedReceiver<ThreadCommand>) {
    commands.close();
    thread.command_all(TunnelCommand::Return);
    poll_fn(|cx| thread.poll_empty(cx)).await;
    while let Some(command) = commands.recv().await {
        if let ThreadCommand::Adopt(mut adopted) = command
            && let Some(tunnel) = adopted.tunnel.take()
        {
            thread.give_back(tunnel);
        }
    }
}

/// The whole of a relay thread, which has this number. Returns the tunnels that it gives back.
pub(crate) fn run(
    runtime: LocalRuntime,
    (shared, number): (Arc<Shared>, usize),
    counters: &'static Counters,
    settings: &Settings,
    mut commands: UnboundedReceiver<ThreadCommand>,
) -> Vec<Tunnel> {
    let thread = Thread::new(Arc::clone(&shared), number, counters, settings);
    let served = catch_unwind(AssertUnwindSafe(|| {
        runtime.block_on(serve(&thread, &mut commands));
    }));
    shared.alive.store(false, Relaxed);
    counters.thread_ended();
    if served.is_err() {
        log::error!("{ThreadDied}");
    }
    // Ends the tasks that are left, and tells their records.
    drop(runtime);
    drop(commands);
    thread.take_returned()
}

/// The runtime of a relay thread, to be made on that thread.
pub(crate) fn runtime() -> io::Result<LocalRuntime> {
    Builder::new_current_thread().enable_io().enable_time().build_local(LocalOptions::default())
}
