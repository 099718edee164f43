//! What the tunnels of a relay thread share with each other and with it.

use std::cell::{Cell, RefCell, RefMut};
use std::num::NonZeroU64;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{
    AtomicBool, AtomicUsize,
    Ordering::{Relaxed, Release},
};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use shared::Counters;

use crate::buffers::{Clock, ThreadBuffers};
use crate::end::{Ending, Order};
use crate::keepalive::KeepAlive;
use crate::ping::Pings;
use crate::pipe::Pipes;
use crate::probation::Probation;
use crate::seat::Seat;
use crate::settings::Settings;
use crate::spread::Spread;
use crate::tunnel::Tunnel;
use crate::watch::{Patience, Watch};

/// What other threads see of a relay thread.
#[derive(Debug, Default)]
pub(crate) struct Shared {
    pub alive: AtomicBool,
    /// Tunnels given to it that have neither ended nor been given back.
    pub load: AtomicUsize,
    /// How often it was asked whether it still runs, and how often it has answered.
    pub asked: AtomicUsize,
    pub answered: AtomicUsize,
}

/// What every tunnel of a thread is to do.
#[derive(Clone, Copy)]
pub(crate) enum TunnelCommand {
    Carry,
    /// Leave the thread as it is.
    Return,
    /// End in an orderly way, and wait for the peers for so long, or until the thread says
    /// [`Close`](Self::Close).
    End(Order, Option<u16>, Option<Duration>),
    /// Close now.
    Close(Order, Option<u16>),
}

/// What the tunnels of a thread share. Never leaves it.
pub(crate) struct Thread {
    pub counters: &'static Counters,
    pub keep_alive: Option<KeepAlive>,
    /// For how long a side may leave a message of TLS's own incomplete.
    pub message_timeout: Duration,
    shared: Arc<Shared>,
    /// Its number in the relay.
    number: usize,
    buffers: RefCell<ThreadBuffers>,
    command: Cell<TunnelCommand>,
    wakers: RefCell<Wakers>,
    pub probation: Probation,
    pub watch: Watch,
    pub pings: Pings,
    /// When the tunnels end, once they are told to.
    pub spread: Spread,
    /// The waker of the thread's own future, for when the last tunnel leaves.
    own: RefCell<Option<Waker>>,
    returned: RefCell<Vec<Tunnel>>,
}

/// The wakers of the thread's tasks, by their numbers: none before a task was polled.
#[derive(Default)]
struct Wakers {
    by_number: Vec<Option<Waker>>,
    /// Numbers that can be given out again.
    free: Vec<usize>,
}

impl Wakers {
    fn registered(&self) -> usize {
        self.by_number.len() - self.free.len()
    }

    /// The numbers of all tasks.
    fn numbers(&self) -> impl Iterator<Item = usize> {
        let mut is_taken = vec![true; self.by_number.len()];
        self.free.iter().for_each(|free| is_taken[*free] = false);
        is_taken.into_iter().enumerate().filter_map(|(number, is_taken)| is_taken.then_some(number))
    }
}

impl Thread {
    pub(crate) fn new(
        shared: Arc<Shared>,
        number: usize,
        counters: &'static Counters,
        settings: &Settings,
    ) -> Rc<Self> {
        Rc::new(Thread {
            counters,
            keep_alive: settings.keep_alive,
            message_timeout: settings.message_timeout,
            shared,
            number,
            buffers: RefCell::new(ThreadBuffers {
                buffer: vec![0; settings.buffer_size.max(4096)].into_boxed_slice(),
                pipes: Pipes::new(settings.lowest_descriptor),
                clock: Clock::default(),
            }),
            command: Cell::new(TunnelCommand::Carry),
            wakers: RefCell::default(),
            probation: Probation::new(settings.probation),
            pings: Pings::new(),
            spread: Spread::default(),
            watch: Watch::new(settings.keep_alive.map(KeepAlive::patience)),
            own: RefCell::default(),
            returned: RefCell::default(),
        })
    }

    pub(crate) fn buffers(&self) -> RefMut<'_, ThreadBuffers> {
        self.buffers.borrow_mut()
    }

    /// The time of this poll of a task.
    pub(crate) fn now(&self) -> Instant {
        self.buffers.borrow_mut().clock.now()
    }

    /// What the task with this number is to do.
    pub(crate) fn command(&self, task: usize) -> TunnelCommand {
        match self.command.get() {
            TunnelCommand::End(..) if self.spread.is_waiting(task) => TunnelCommand::Carry,
            command => command,
        }
    }

    /// Gives a task its number.
    pub(crate) fn register(&self) -> usize {
        let mut wakers = self.wakers.borrow_mut();
        let number = wakers.free.pop().unwrap_or_else(|| {
            wakers.by_number.push(None);
            wakers.by_number.len() - 1
        });
        self.spread.join(number);
        number
    }

    /// Where the task with this number is.
    pub(crate) fn seat(&self, task: usize) -> Seat {
        Seat { thread: self.number, task }
    }

    /// Has the task with this number polled.
    pub(crate) fn wake(&self, task: usize) {
        if let Some(Some(waker)) = self.wakers.borrow().by_number.get(task) {
            waker.wake_by_ref();
        }
    }

    /// Keeps the waker of the task with this number.
    pub(crate) fn keep_waker(&self, task: usize, waker: &Waker) {
        if let Some(place) = self.wakers.borrow_mut().by_number.get_mut(task) {
            *place = Some(waker.clone());
        }
    }

    /// Has the task with this number polled in the next round of checks, and returns the present one.
    pub(crate) fn watch(&self, task: usize) -> u32 {
        if self.watch.add(task)
            && let Some(own) = &*self.own.borrow()
        {
            own.wake_by_ref();
        }
        self.watch.round()
    }

    /// Has the task with this number polled at that time, or before; see [`Pings::schedule`].
    pub(crate) fn schedule_ping(
        &self,
        task: usize,
        at: Instant,
        entry: Option<NonZeroU64>,
    ) -> NonZeroU64 {
        let (entry, is_first) = self.pings.schedule(task, at, entry);
        if is_first && let Some(own) = &*self.own.borrow() {
            own.wake_by_ref();
        }
        entry
    }

    /// The limits for a check, if that round is over.
    pub(crate) fn watched_since(&self, round: u32) -> Option<Patience> {
        self.watch.patience().filter(|_| self.watch.round() != round)
    }

    /// The task with this number is done: the number is free.
    pub(crate) fn unregister(&self, task: usize) {
        self.spread.forget(task);
        let mut wakers = self.wakers.borrow_mut();
        let waker = wakers.by_number.get_mut(task).and_then(Option::take);
        wakers.free.push(task);
        let empty = wakers.registered() == 0;
        if empty {
            // The memory that very many tunnels needed is given back.
            *wakers = Wakers::default();
            if let Ok(mut buffers) = self.buffers.try_borrow_mut() {
                buffers.pipes.close_spare();
            }
        }
        drop(wakers);
        // Not under the borrow: it may be the task's last reference.
        drop(waker);
        if empty && let Some(own) = &*self.own.borrow() {
            own.wake_by_ref();
        }
    }

    /// A tunnel has ended, and its record was told: a process may exit when none is left.
    pub(crate) fn settle(&self) {
        self.shared.load.fetch_sub(1, Release);
    }

    /// Accounts for a tunnel that goes back to who gave it.
    pub(crate) fn give_back(&self, tunnel: Tunnel) {
        failpoint::step!("relay.return");
        self.shared.load.fetch_sub(1, Relaxed);
        self.counters.count_returned();
        self.returned.borrow_mut().push(tunnel);
    }

    /// The tunnels that were given back.
    pub(crate) fn take_returned(&self) -> Vec<Tunnel> {
        self.returned.take()
    }

    /// Answers whether the thread still runs.
    pub(crate) fn report_alive(&self) {
        self.shared.answered.fetch_add(1, Relaxed);
    }

    /// Tunnels that come from now on are carried as usual.
    pub(crate) fn carry_on(&self) {
        self.command.set(TunnelCommand::Carry);
        self.spread.end();
    }

    /// Every tunnel of this thread is to end, and those that come are.
    pub(crate) fn end_all(&self, how: Ending) {
        let is_spread = !how.spread.is_zero();
        self.spread.begin(how.spread, self.wakers.borrow().numbers());
        // Those that end together are closed together.
        let linger = is_spread.then_some(how.linger);
        self.command_all(TunnelCommand::End(how.order, how.code, linger));
    }

    fn is_empty(&self) -> bool {
        self.wakers.borrow().registered() == 0
    }

    /// What every tunnel of this thread is to do from now on.
    pub(crate) fn command_all(&self, command: TunnelCommand) {
        self.command.set(command);
        for waker in self.wakers.borrow().by_number.iter().flatten() {
            waker.wake_by_ref();
        }
    }

    /// Keeps the waker of the thread's own future.
    pub(crate) fn keep_own_waker(&self, cx: &Context<'_>) {
        let mut own = self.own.borrow_mut();
        if !own.as_ref().is_some_and(|own| own.will_wake(cx.waker())) {
            *own = Some(cx.waker().clone());
        }
    }

    /// Ready when no tunnel is left.
    pub(crate) fn poll_empty(&self, cx: &mut Context<'_>) -> Poll<()> {
        self.keep_own_waker(cx);
        if self.is_empty() { Poll::Ready(()) } else { Poll::Pending }
    }
}
