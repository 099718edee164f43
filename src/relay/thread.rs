//! What the tunnels of a relay thread share with each other and with it.

use std::cell::{Cell, RefCell, RefMut};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{
    AtomicBool, AtomicUsize,
    Ordering::{Relaxed, Release},
};
use std::task::{Context, Poll, Waker};

use crate::buffers::ThreadBuffers;
use crate::counters::Counters;
use crate::end::Order;
use crate::keepalive::KeepAlive;
use crate::pipe::Pipes;
use crate::settings::Settings;
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

/// What the tunnels of a thread share. Never leaves it.
pub(crate) struct Thread {
    pub counters: &'static Counters,
    pub keep_alive: Option<KeepAlive>,
    shared: Arc<Shared>,
    buffers: RefCell<ThreadBuffers>,
    command: Cell<Command>,
    seats: RefCell<Seats>,
    pub young: Young,
    pub watch: Watch,
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

impl Thread {
    pub fn new(shared: Arc<Shared>, counters: &'static Counters, settings: &Settings) -> Rc<Self> {
        Rc::new(Thread {
            counters,
            keep_alive: settings.keep_alive,
            shared,
            buffers: RefCell::new(ThreadBuffers {
                buffer: vec![0; settings.buffer_size.max(4096)].into_boxed_slice(),
                pipes: Pipes::new(settings.lowest_descriptor),
            }),
            command: Cell::new(Command::Carry),
            seats: RefCell::default(),
            young: Young::new(settings.probation),
            watch: Watch::new(settings.keep_alive.map(KeepAlive::patience)),
            own: RefCell::default(),
            returned: RefCell::default(),
        })
    }

    pub fn buffers(&self) -> RefMut<'_, ThreadBuffers> {
        self.buffers.borrow_mut()
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
    pub fn wake(&self, seat: usize) {
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
            if let Ok(mut buffers) = self.buffers.try_borrow_mut() {
                buffers.pipes.close_spare();
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

    /// The tunnels that were given back.
    pub fn take_returned(&self) -> Vec<Tunnel> {
        self.returned.take()
    }

    /// Says that the thread runs.
    pub fn answer(&self) {
        self.shared.answered.fetch_add(1, Relaxed);
    }

    /// Nothing is ordered any more.
    pub fn carry_on(&self) {
        self.command.set(Command::Carry);
    }

    fn is_empty(&self) -> bool {
        self.seats.borrow().taken() == 0
    }

    /// Has every tunnel do as it is told now.
    pub fn order(&self, command: Command) {
        self.command.set(command);
        for waker in self.seats.borrow().wakers.iter().flatten() {
            waker.wake_by_ref();
        }
    }

    /// Keeps the waker of the thread's own future.
    pub fn keep_own_waker(&self, cx: &Context<'_>) {
        let mut own = self.own.borrow_mut();
        if !own.as_ref().is_some_and(|own| own.will_wake(cx.waker())) {
            *own = Some(cx.waker().clone());
        }
    }

    /// Ready when no tunnel is left.
    pub fn poll_empty(&self, cx: &mut Context<'_>) -> Poll<()> {
        self.keep_own_waker(cx);
        if self.is_empty() { Poll::Ready(()) } else { Poll::Pending }
    }
}
