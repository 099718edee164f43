//! Work that is only worth doing for tunnels that have lived for a while.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::future::Future;
use std::num::NonZeroU64;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use tokio::time::{Sleep, sleep_until};

/// Ticks in a probation.
const TICKS: u32 = 8;
const MIN_TICK: Duration = Duration::from_millis(1);

/// The tunnels of a thread that have not been carried for long yet, each with a ticket: they are
/// numbered in the order in which they came. Most short tunnels end before their time comes; their
/// entries are dropped when it does.
#[derive(Debug)]
pub(crate) struct Probation {
    length: Duration,
    /// Checked in ticks, so that the thread does not wake once per tunnel.
    tick: Duration,
    since: Instant,
    /// When the probation of each is over, in ticks from `since`, and the number of its task.
    waiting: RefCell<VecDeque<(u32, u32)>>,
    /// The ticket given out last.
    last: Cell<u64>,
    /// The probation of all up to this ticket is over.
    over: Cell<u64>,
    timer: RefCell<Option<Pin<Box<Sleep>>>>,
}

impl Probation {
    pub(crate) fn new(length: Duration) -> Self {
        Probation {
            length,
            tick: (length / TICKS).max(MIN_TICK),
            since: Instant::now(),
            waiting: RefCell::default(),
            last: Cell::new(0),
            over: Cell::new(0),
            timer: RefCell::default(),
        }
    }

    /// A ticket for the task with this number.
    #[expect(
        clippy::cast_possible_truncation,
        reason = "with the default the first begins anew after fifty years; of tasks there are fewer"
    )]
    pub(crate) fn add(&self, task: usize) -> NonZeroU64 {
        let due = (self.since.elapsed() + self.length).as_nanos() / self.tick.as_nanos() + 1;
        self.waiting.borrow_mut().push_back((due as u32, task as u32));
        let ticket = NonZeroU64::MIN.saturating_add(self.last.get());
        self.last.set(ticket.get());
        ticket
    }

    /// Whether the probation of the task with this ticket is over.
    pub(crate) fn is_over(&self, ticket: NonZeroU64) -> bool {
        ticket.get() <= self.over.get()
    }

    /// Ready with the number of the next task whose probation is over. If that task is done by now,
    /// the number may be another one's.
    pub(crate) fn poll_over(&self, cx: &mut Context<'_>) -> Poll<usize> {
        let mut waiting = self.waiting.borrow_mut();
        let Some((due, task)) = waiting.front().copied() else {
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
        self.over.set(self.last.get() - waiting.len() as u64);
        if waiting.is_empty() {
            *waiting = VecDeque::new();
        }
        Poll::Ready(task as usize)
    }
}

#[cfg(test)]
mod tests {
    use std::task::Waker;

    use super::*;

    #[test]
    fn each_is_over_in_its_turn() {
        let runtime = crate::serve::runtime().expect("a runtime");
        runtime.block_on(async {
            let cx = &mut Context::from_waker(Waker::noop());
            let length = Duration::from_secs(8);
            let mut probation = Probation::new(length);
            assert_eq!(probation.tick, Duration::from_secs(1));
            assert_eq!(Probation::new(Duration::ZERO).tick, MIN_TICK);
            assert!(probation.poll_over(cx).is_pending());
            let tickets = [7, 8].map(|task| probation.add(task));
            assert!(tickets.iter().all(|ticket| !probation.is_over(*ticket)));
            assert!(probation.poll_over(cx).is_pending());
            // Not before the length of it, and up to a tick later.
            assert!(probation.waiting.borrow().iter().all(|(due, _)| *due == 9));
            probation.since = probation.since.checked_sub(2 * length).expect("it runs for so long");
            let last = probation.add(9);
            assert_eq!(probation.poll_over(cx), Poll::Ready(7));
            assert_eq!(tickets.map(|ticket| probation.is_over(ticket)), [true, false]);
            assert_eq!(probation.poll_over(cx), Poll::Ready(8));
            assert!(probation.is_over(tickets[1]) && !probation.is_over(last));
            assert!(probation.poll_over(cx).is_pending());
            let timer = probation.timer.borrow().as_ref().map(|timer| timer.deadline().into_std());
            assert!(timer.is_some_and(|at| at >= Instant::now() + length / 2));
        });
    }
}
