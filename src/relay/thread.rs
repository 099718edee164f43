//! One relay thread: a single-threaded runtime and the tunnels pinned to it.

use std::cell::{Cell, RefCell, RefMut};
use std::future::{Future, poll_fn};
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{
    AtomicBool, AtomicUsize,
    Ordering::{Relaxed, Release},
};
use std::sync::mpsc::Sender;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use tokio::runtime::{Builder, LocalOptions, LocalRuntime};
use tokio::sync::mpsc::UnboundedReceiver;
use tokio::time::{Sleep, sleep_until};

use crate::counters::Counters;
use crate::end::{By, Order, Why};
use crate::pipe::Pipes;
use crate::runtime::Settings;
use crate::task::Task;
use crate::tunnel::Tunnel;
use crate::watch::{Patience, Watch};
use crate::young::Young;

/// What other threads see of a relay thread.
#[derive(Debug, Default)]
pub(crate) struct Shared {
    pub alive: AtomicBool,
    /// Tunnels given to it that have neither ended nor been given back.
    pub load: AtomicUsize,
    /// Times that it was asked whether it still runs, and times that it said so.
    pub asked: AtomicUsize,
    pub answered: AtomicUsize,
}

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

/// What every tunnel of a thread is to do.
#[derive(Clone, Copy)]
pub(crate) enum Command {
    Carry,
    /// Leave the thread as it is.
    Return,
    /// End in an orderly way.
    End(Order, Option<u16>),
    /// Close now.
    Close(Order, Option<u16>),
}

/// What a thread lends to the tunnel that is being polled.
pub(crate) struct Loan {
    /// What every read goes into.
    pub buffer: Box<[u8]>,
    pub pipes: Pipes,
}

/// What the tunnels of a thread share. Never leaves it.
pub(crate) struct Thread {
    pub counters: &'static Counters,
    /// How long an idle tunnel that was ended waits for its peers.
    pub linger: Duration,
    shared: Arc<Shared>,
    loan: RefCell<Loan>,
    command: Cell<Command>,
    seats: RefCell<Seats>,
    pub young: Young,
    watch: Watch,
    /// The waker of the thread's own future, for when the last tunnel leaves.
    own: RefCell<Option<Waker>>,
    returned: RefCell<Vec<Tunnel>>,
}

/// A seat for each task: its waker, once it was polled.
#[derive(Default)]
struct Seats {
    wakers: Vec<Option<Waker>>,
    free: Vec<usize>,
}

impl Seats {
    fn taken(&self) -> usize {
        self.wakers.len() - self.free.len()
    }
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

impl Thread {
    pub fn new(shared: Arc<Shared>, counters: &'static Counters, settings: &Settings) -> Rc<Self> {
        Rc::new(Thread {
            counters,
            linger: settings.linger,
            shared,
            loan: RefCell::new(Loan {
                buffer: vec![0; settings.buffer_size.max(4096)].into_boxed_slice(),
                pipes: Pipes::new(settings.lowest_descriptor),
            }),
            command: Cell::new(Command::Carry),
            seats: RefCell::default(),
            young: Young::new(settings.lasting),
            watch: Watch::new(settings.patience),
            own: RefCell::default(),
            returned: RefCell::default(),
        })
    }

    pub fn loan(&self) -> RefMut<'_, Loan> {
        self.loan.borrow_mut()
    }

    pub fn command(&self) -> Command {
        self.command.get()
    }

    /// Takes a seat for a task.
    pub fn sit(&self) -> usize {
        let mut seats = self.seats.borrow_mut();
        seats.free.pop().unwrap_or_else(|| {
            seats.wakers.push(None);
            seats.wakers.len() - 1
        })
    }

    /// Has the task polled that has this seat.
    fn wake(&self, seat: usize) {
        if let Some(Some(waker)) = self.seats.borrow().wakers.get(seat) {
            waker.wake_by_ref();
        }
    }

    /// Keeps the waker of the task that has this seat.
    pub fn keep_waker(&self, seat: usize, waker: &Waker) {
        if let Some(place) = self.seats.borrow_mut().wakers.get_mut(seat) {
            *place = Some(waker.clone());
        }
    }

    /// Has the task that has this seat polled in the next round, and says what round it is now.
    pub fn watch(&self, seat: usize) -> u32 {
        if self.watch.add(seat)
            && let Some(own) = &*self.own.borrow()
        {
            own.wake_by_ref();
        }
        self.watch.round()
    }

    /// With how much patience, if that round is over.
    pub fn watched_since(&self, round: u32) -> Option<Patience> {
        self.watch.patience().filter(|_| self.watch.round() != round)
    }

    /// Whether there are rounds at all.
    pub fn is_watching(&self) -> bool {
        self.watch.patience().is_some()
    }

    /// Frees a seat.
    pub fn leave(&self, seat: usize) {
        let mut seats = self.seats.borrow_mut();
        let waker = seats.wakers.get_mut(seat).and_then(Option::take);
        seats.free.push(seat);
        let empty = seats.taken() == 0;
        if empty {
            // What a crowd once needed is given back.
            *seats = Seats::default();
            if let Ok(mut loan) = self.loan.try_borrow_mut() {
                loan.pipes.close_spare();
            }
        }
        drop(seats);
        // Not under the borrow: it may be the task's last reference.
        drop(waker);
        if empty && let Some(own) = &*self.own.borrow() {
            own.wake_by_ref();
        }
    }

    /// A tunnel has ended, and its record was told: a process may end when there is none left.
    pub fn settle(&self) {
        self.shared.load.fetch_sub(1, Release);
    }

    /// Accounts for a tunnel that goes back to who gave it.
    pub fn give_back(&self, tunnel: Tunnel) {
        self.shared.load.fetch_sub(1, Relaxed);
        self.counters.count_returned();
        self.returned.borrow_mut().push(tunnel);
    }

    fn is_empty(&self) -> bool {
        self.seats.borrow().taken() == 0
    }

    fn order(&self, command: Command) {
        self.command.set(command);
        for waker in self.seats.borrow().wakers.iter().flatten() {
            waker.wake_by_ref();
        }
    }

    fn keep_own_waker(&self, cx: &Context<'_>) {
        let mut own = self.own.borrow_mut();
        if !own.as_ref().is_some_and(|own| own.will_wake(cx.waker())) {
            *own = Some(cx.waker().clone());
        }
    }

    fn carry(self: &Rc<Self>, mut adopted: Adopted) {
        if let Some(tunnel) = adopted.tunnel.take()
            && let Some(task) = Task::new(tunnel, Rc::clone(self))
        {
            tokio::task::spawn_local(task);
        }
    }

    /// Does as told, until told to stop.
    pub async fn serve(self: &Rc<Self>, messages: &mut UnboundedReceiver<Message>) {
        let mut ending: Option<Ending> = None;
        loop {
            match poll_fn(|cx| self.poll_event(cx, messages, ending.as_mut())).await {
                Event::Told(Some(Message::Adopt(adopted))) => self.carry(adopted),
                Event::Lasted(seat) => self.wake(seat),
                Event::Round(seats) => seats.into_iter().for_each(|seat| self.wake(seat)),
                Event::Told(Some(Message::Ask)) => {
                    self.shared.answered.fetch_add(1, Relaxed);
                }
                Event::Told(Some(Message::End { order, code, deadline, done })) => {
                    let mut waiting = ending.take().map(|ending| ending.done).unwrap_or_default();
                    waiting.push(done);
                    self.order(Command::End(order, code));
                    ending = Some(Ending {
                        order,
                        code,
                        deadline: Box::pin(sleep_until(deadline.into())),
                        done: waiting,
                    });
                }
                Event::Told(Some(Message::Stop)) => return self.stop(messages).await,
                #[cfg(test)]
                Event::Told(Some(Message::Die)) => panic!("the test told this thread to die"),
                // Nobody is left who could ask for the tunnels.
                Event::Told(None) => {
                    self.order(Command::Close(Order::Stop, None));
                    return poll_fn(|cx| self.poll_empty(cx)).await;
                }
                Event::Deadline => {
                    if let Some(ending) = &ending {
                        self.order(Command::Close(ending.order, ending.code));
                    }
                    poll_fn(|cx| self.poll_empty(cx)).await;
                }
                Event::AllLeft => {
                    self.command.set(Command::Carry);
                    for done in ending.take().map(|ending| ending.done).unwrap_or_default() {
                        // Whoever waited may have gone.
                        let _ = done.send(());
                    }
                }
            }
        }
    }

    fn poll_event(
        &self,
        cx: &mut Context<'_>,
        messages: &mut UnboundedReceiver<Message>,
        ending: Option<&mut Ending>,
    ) -> Poll<Event> {
        if let Poll::Ready(message) = messages.poll_recv(cx) {
            return Poll::Ready(Event::Told(message));
        }
        if let Poll::Ready(seat) = self.young.poll_lasted(cx) {
            return Poll::Ready(Event::Lasted(seat));
        }
        if let Poll::Ready(seats) = self.watch.poll_round(cx) {
            return Poll::Ready(Event::Round(seats));
        }
        let Some(ending) = ending else {
            self.keep_own_waker(cx);
            return Poll::Pending;
        };
        if self.poll_empty(cx).is_ready() {
            return Poll::Ready(Event::AllLeft);
        }
        ending.deadline.as_mut().poll(cx).map(|()| Event::Deadline)
    }

    fn poll_empty(&self, cx: &mut Context<'_>) -> Poll<()> {
        self.keep_own_waker(cx);
        if self.is_empty() { Poll::Ready(()) } else { Poll::Pending }
    }

    /// Has every tunnel given back, those still waiting to be carried too.
    async fn stop(&self, messages: &mut UnboundedReceiver<Message>) {
        messages.close();
        self.order(Command::Return);
        poll_fn(|cx| self.poll_empty(cx)).await;
        while let Some(message) = messages.recv().await {
            if let Message::Adopt(mut adopted) = message
                && let Some(tunnel) = adopted.tunnel.take()
            {
                self.give_back(tunnel);
            }
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
        runtime.block_on(thread.serve(&mut messages));
    }));
    shared.alive.store(false, Relaxed);
    counters.threads.fetch_sub(1, Relaxed);
    if served.is_err() {
        log::error!("a relay thread died; its tunnels are closed");
    }
    // Ends the tasks that are left, and tells their records.
    drop(runtime);
    drop(messages);
    thread.returned.take()
}

/// The runtime of a relay thread, to be made on that thread.
pub(crate) fn runtime() -> io::Result<LocalRuntime> {
    Builder::new_current_thread().enable_io().enable_time().build_local(LocalOptions::default())
}
