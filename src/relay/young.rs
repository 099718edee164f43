//! Tunnels that are not known to last.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use tokio::time::{Sleep, sleep_until};

/// The young ones of a thread, numbered in the order in which they came. Most of those that are
/// short are gone before their time comes, so they are looked for by nobody.
#[derive(Debug)]
pub(crate) struct Young {
    /// How long is long.
    lasting: Duration,
    /// They are looked at this often, all whose time came since: where many tunnels end soon the
    /// thread would be woken for each of them otherwise.
    tick: Duration,
    since: Instant,
    /// When each has lasted, in ticks from `since`, and its seat.
    waiting: RefCell<VecDeque<(u32, u32)>>,
    /// The number of the last one.
    last: Cell<u64>,
    /// All up to this number have lasted.
    old: Cell<u64>,
    timer: RefCell<Option<Pin<Box<Sleep>>>>,
}

impl Young {
    pub fn new(lasting: Duration) -> Self {
        Young {
            lasting,
            tick: (lasting / 8).max(Duration::from_millis(1)),
            since: Instant::now(),
            waiting: RefCell::default(),
            last: Cell::new(0),
            old: Cell::new(0),
            timer: RefCell::default(),
        }
    }

    /// Numbers one that has this seat.
    pub fn add(&self, seat: usize) -> u64 {
        let due = (self.since.elapsed() + self.lasting).as_nanos() / self.tick.as_nanos() + 1;
        // With the default this number begins anew after fifty years.
        self.waiting.borrow_mut().push_back((due as u32, seat as u32));
        self.last.set(self.last.get() + 1);
        self.last.get()
    }

    /// Whether the one of this number has lasted.
    pub fn has_lasted(&self, number: u64) -> bool {
        number <= self.old.get()
    }

    /// Ready with the seat of the next that has lasted, or of whoever has it now.
    pub fn poll_lasted(&self, cx: &mut Context<'_>) -> Poll<usize> {
        let mut waiting = self.waiting.borrow_mut();
        let Some((due, seat)) = waiting.front().copied() else {
            return Poll::Pending;
        };
        let mut timer = self.timer.borrow_mut();
        let due = (self.since + self.tick * due).into();
        let timer = timer.get_or_insert_with(|| Box::pin(sleep_until(due)));
        if timer.deadline() != due {
            timer.as_mut().reset(due);
        }
        if timer.as_mut().poll(cx).is_pending() {
            return Poll::Pending;
        }
        waiting.pop_front();
        self.old.set(self.last.get() - waiting.len() as u64);
        if waiting.is_empty() {
            *waiting = VecDeque::new();
        }
        Poll::Ready(seat as usize)
    }
}
