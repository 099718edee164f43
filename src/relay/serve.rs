//! The life of a relay thread: what it is told, and what it does then.

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

use shared::Why;
use tokio::runtime::{Builder, LocalOptions, LocalRuntime};
use tokio::sync::mpsc::UnboundedReceiver;
use tokio::time::{Sleep, sleep_until};

use crate::counters::Counters;
use crate::end::{By, Order};
use crate::settings::Settings;
use crate::task::Task;
use crate::thread::{Command, Shared, Thread};
use crate::tunnel::Tunnel;

/// A tunnel on its way to its thread. If it never gets there, its record is told.
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

/// What a thread is told.
#[expect(clippy::large_enum_variant, reason = "most messages are of the largest kind")]
pub(crate) enum Message {
    /// Carry this one.
    Adopt(Adopted),
    /// End every tunnel by the deadline, then say so.
    End { order: Order, code: Option<u16>, deadline: Instant, done: Sender<()> },
    /// Say that the thread runs.
    Ask,
    /// Give every tunnel back and end.
    Stop,
    #[cfg(test)]
    Die,
}

/// An orderly end under way.
struct Ending {
    order: Order,
    code: Option<u16>,
    deadline: Pin<Box<Sleep>>,
    done: Vec<Sender<()>>,
}

#[expect(clippy::large_enum_variant, reason = "made once for each message, and never kept")]
enum Event {
    Told(Option<Message>),
    /// The tunnel that has this seat has lasted.
    Lasted(usize),
    /// Those that have these seats are to look what is under way.
    Round(Vec<usize>),
    AllLeft,
    Deadline,
}

fn carry(thread: &Rc<Thread>, mut adopted: Adopted) {
    if let Some(tunnel) = adopted.tunnel.take()
        && let Some(task) = Task::new(tunnel, Rc::clone(thread))
    {
        tokio::task::spawn_local(task);
    }
}

/// Does as told, until told to stop.
pub(crate) async fn serve(thread: &Rc<Thread>, messages: &mut UnboundedReceiver<Message>) {
    let mut ending: Option<Ending> = None;
    loop {
        match poll_fn(|cx| poll_event(thread, cx, messages, ending.as_mut())).await {
            Event::Told(Some(Message::Adopt(adopted))) => carry(thread, adopted),
            Event::Lasted(seat) => thread.wake(seat),
            Event::Round(seats) => seats.into_iter().for_each(|seat| thread.wake(seat)),
            Event::Told(Some(Message::Ask)) => thread.answer(),
            Event::Told(Some(Message::End { order, code, deadline, done })) => {
                let mut waiting = ending.take().map(|ending| ending.done).unwrap_or_default();
                waiting.push(done);
                thread.order(Command::End(order, code));
                ending = Some(Ending {
                    order,
                    code,
                    deadline: Box::pin(sleep_until(deadline.into())),
                    done: waiting,
                });
            }
            Event::Told(Some(Message::Stop)) => return stop(thread, messages).await,
            #[cfg(test)]
            Event::Told(Some(Message::Die)) => panic!("the test told this thread to die"),
            // Nobody is left who could ask for the tunnels.
            Event::Told(None) => {
                thread.order(Command::Close(Order::Stop, None));
                return poll_fn(|cx| thread.poll_empty(cx)).await;
            }
            Event::Deadline => {
                if let Some(ending) = &ending {
                    thread.order(Command::Close(ending.order, ending.code));
                }
                poll_fn(|cx| thread.poll_empty(cx)).await;
            }
            Event::AllLeft => {
                thread.carry_on();
                for done in ending.take().map(|ending| ending.done).unwrap_or_default() {
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
    messages: &mut UnboundedReceiver<Message>,
    ending: Option<&mut Ending>,
) -> Poll<Event> {
    if let Poll::Ready(message) = messages.poll_recv(cx) {
        return Poll::Ready(Event::Told(message));
    }
    if let Poll::Ready(seat) = thread.young.poll_lasted(cx) {
        return Poll::Ready(Event::Lasted(seat));
    }
    if let Poll::Ready(seats) = thread.watch.poll_round(cx) {
        return Poll::Ready(Event::Round(seats));
    }
    let Some(ending) = ending else {
        thread.keep_own_waker(cx);
        return Poll::Pending;
    };
    if thread.poll_empty(cx).is_ready() {
        return Poll::Ready(Event::AllLeft);
    }
    ending.deadline.as_mut().poll(cx).map(|()| Event::Deadline)
}

/// Has every tunnel given back, those still waiting to be carried too.
async fn stop(thread: &Thread, messages: &mut UnboundedReceiver<Message>) {
    messages.close();
    thread.order(Command::Return);
    poll_fn(|cx| thread.poll_empty(cx)).await;
    while let Some(message) = messages.recv().await {
        if let Message::Adopt(mut adopted) = message
            && let Some(tunnel) = adopted.tunnel.take()
        {
            thread.give_back(tunnel);
        }
    }
}

/// The life of a relay thread. Returns the tunnels given back.
pub(crate) fn run(
    runtime: LocalRuntime,
    shared: Arc<Shared>,
    counters: &'static Counters,
    settings: &Settings,
    mut messages: UnboundedReceiver<Message>,
) -> Vec<Tunnel> {
    let thread = Thread::new(Arc::clone(&shared), counters, settings);
    let served = catch_unwind(AssertUnwindSafe(|| {
        runtime.block_on(serve(&thread, &mut messages));
    }));
    shared.alive.store(false, Relaxed);
    counters.threads.fetch_sub(1, Relaxed);
    if served.is_err() {
        log::error!("a relay thread died; its tunnels are closed");
    }
    // Ends the tasks that are left, and tells their records.
    drop(runtime);
    drop(messages);
    thread.take_returned()
}

/// The runtime of a relay thread, to be made on that thread.
pub(crate) fn runtime() -> io::Result<LocalRuntime> {
    Builder::new_current_thread().enable_io().enable_time().build_local(LocalOptions::default())
}
