//! Tunnels that one order ends, each at an instant of its own: peers that have to come back are not
//! to do so together.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use tokio::time::{Sleep, sleep_until};

/// When the tunnels of a thread are ended. One timer for all of them, and no memory unless there
/// is an order that takes its time.
#[derive(Debug, Default)]
pub(crate) struct Spread {
    /// The order that goes on.
    order: RefCell<Option<Spreading>>,
    timer: RefCell<Option<Pin<Box<Sleep>>>>,
}

#[derive(Debug)]
struct Spreading {
    until: Instant,
    /// When each tunnel's time comes, by the number of its task; none once it has come.
    at: Vec<Option<Instant>>,
    /// The same in the order of time.
    due: BTreeSet<(Instant, usize)>,
}

impl Spreading {
    /// Times for these tasks, as far from each other as there is room for, in an order of chance.
    fn add_all(&mut self, tasks: impl Iterator<Item = usize>, now: Instant) {
        let mut tasks: Vec<_> = tasks.map(|task| (crate::socket::random(), task)).collect();
        tasks.sort_unstable();
        // Other processes have others: they are not to begin together.
        let first = random_part();
        let each = self.until.saturating_duration_since(now).div_f64(tasks.len().max(1) as f64);
        for (number, (_, task)) in tasks.into_iter().enumerate() {
            self.set(task, now + each.mul_f64(number as f64 + first));
        }
    }

    /// A time for this task: any that is left.
    fn add(&mut self, task: usize, now: Instant) {
        let left = self.until.saturating_duration_since(now);
        if !left.is_zero() {
            self.set(task, now + left.mul_f64(random_part()));
        }
    }

    fn set(&mut self, task: usize, at: Instant) {
        if task >= self.at.len() {
            self.at.resize(task + 1, None);
        }
        self.at[task] = Some(at);
        self.due.insert((at, task));
    }

    fn forget(&mut self, task: usize) {
        if let Some(at) = self.at.get_mut(task).and_then(Option::take) {
            self.due.remove(&(at, task));
        }
    }
}

/// From 0 to 1.
fn random_part() -> f64 {
    f64::from(u32::from_ne_bytes(crate::socket::random())) / f64::from(u32::MAX)
}

impl Spread {
    /// An order that is to be carried out within so long, on these tasks and on all that come
    /// meanwhile. It takes the place of the one before.
    pub(crate) fn begin(&self, within: Duration, tasks: impl Iterator<Item = usize>) {
        let now = Instant::now();
        let mut order = (!within.is_zero()).then(|| Spreading {
            until: now + within,
            at: Vec::new(),
            due: BTreeSet::new(),
        });
        if let Some(order) = &mut order {
            order.add_all(tasks, now);
        }
        *self.order.borrow_mut() = order;
    }

    /// The order is carried out.
    pub(crate) fn end(&self) {
        *self.order.borrow_mut() = None;
        *self.timer.borrow_mut() = None;
    }

    /// A task joins those that the order is for.
    pub(crate) fn join(&self, task: usize) {
        if let Some(order) = &mut *self.order.borrow_mut() {
            order.add(task, Instant::now());
        }
    }

    /// The task is done.
    pub(crate) fn forget(&self, task: usize) {
        if let Some(order) = &mut *self.order.borrow_mut() {
            order.forget(task);
        }
    }

    /// Whether the order's time has not come for this task.
    pub(crate) fn is_waiting(&self, task: usize) -> bool {
        let order = self.order.borrow();
        order.as_ref().is_some_and(|order| order.at.get(task).is_some_and(Option::is_some))
    }

    /// Ready with the number of the next task whose time has come.
    pub(crate) fn poll_due(&self, cx: &mut Context<'_>) -> Poll<usize> {
        let mut order = self.order.borrow_mut();
        let Some(order) = &mut *order else {
            return Poll::Pending;
        };
        let Some((at, task)) = order.due.first().copied() else {
            return Poll::Pending;
        };
        let mut timer = self.timer.borrow_mut();
        let timer = timer.get_or_insert_with(|| Box::pin(sleep_until(at.into())));
        if timer.deadline() != at.into() {
            timer.as_mut().reset(at.into());
        }
        if timer.as_mut().poll(cx).is_pending() {
            return Poll::Pending;
        }
        order.forget(task);
        Poll::Ready(task)
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::Spread;

    const HOUR: Duration = Duration::from_secs(3600);

    #[test]
    fn times_are_spread_evenly() {
        let spread = Spread::default();
        let begin = Instant::now();
        spread.begin(HOUR, 0..2000);
        let mut tenths = [0; 10];
        for (at, _) in &spread.order.borrow().as_ref().expect("an order").due {
            let part = (*at - begin).as_secs_f64() / HOUR.as_secs_f64();
            tenths[((part * 10.0) as usize).min(9)] += 1;
        }
        assert!(tenths.iter().all(|count| (199..=201).contains(count)), "{tenths:?}");
    }

    #[test]
    fn tasks_come_and_go_meanwhile() {
        let spread = Spread::default();
        spread.join(1);
        assert!(!spread.is_waiting(1), "there is no order");
        spread.begin(HOUR, [0, 5].into_iter());
        spread.join(7);
        for task in 0..10 {
            assert_eq!(spread.is_waiting(task), [0, 5, 7].contains(&task));
        }
        spread.forget(5);
        // The number is another task's now, with a time of its own.
        assert!(!spread.is_waiting(5));
        spread.join(5);
        assert!(spread.is_waiting(5));
        assert_eq!(spread.order.borrow().as_ref().expect("an order").due.len(), 3);
        spread.begin(Duration::ZERO, [0, 5, 7].into_iter());
        assert!(!spread.is_waiting(7), "another order has no time to give");
    }

    #[test]
    fn who_comes_when_the_time_is_over_does_not_wait() {
        let spread = Spread::default();
        spread.begin(Duration::from_nanos(1), [0].into_iter());
        std::thread::sleep(Duration::from_millis(1));
        spread.join(3);
        assert!(!spread.is_waiting(3));
    }
}
