//! Pings to sides that say nothing.

use std::cell::{Cell, RefCell};
use std::collections::BTreeSet;
use std::future::Future;
use std::num::NonZeroU64;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use tokio::time::{Sleep, sleep_until};

use crate::end::By;
use crate::rules::Rules;

/// Tunnels whose time comes within so long are looked at together.
const TICK: Duration = Duration::from_millis(100);
/// A Ping goes up to this part of the interval before its time, by chance: tunnels that fell
/// silent together are not to be woken together.
const PHASES: u32 = 8;
/// How soon it is tried again where a Ping cannot stand, at least.
const MIN_RETRY: Duration = Duration::from_secs(1);

/// When the tunnels of a thread are to be looked at: one timer for all of them.
#[derive(Debug)]
pub(crate) struct Pings {
    since: Instant,
    /// The ticks from `since`, each with the number of its task.
    due: RefCell<BTreeSet<(NonZeroU64, usize)>>,
    /// All up to this tick were taken out.
    over: Cell<u64>,
    timer: RefCell<Option<Pin<Box<Sleep>>>>,
}

impl Pings {
    pub(crate) fn new() -> Self {
        Pings {
            since: Instant::now(),
            due: RefCell::default(),
            over: Cell::new(0),
            timer: RefCell::default(),
        }
    }

    /// When that tick is.
    fn time(&self, tick: NonZeroU64) -> Instant {
        // So many ticks are half a million years.
        self.since + TICK.saturating_mul(u32::try_from(tick.get()).unwrap_or(u32::MAX))
    }

    /// The first tick that is not before that time.
    fn tick(&self, at: Instant) -> u64 {
        let ticks = at.saturating_duration_since(self.since).as_nanos().div_ceil(TICK.as_nanos());
        u64::try_from(ticks).unwrap_or(u64::MAX)
    }

    /// Has the task looked at then, or before: `entry` is what this returned for it last. Also says
    /// whether the thread has to be woken to set its timer.
    pub(crate) fn schedule(
        &self,
        task: usize,
        at: Instant,
        entry: Option<NonZeroU64>,
    ) -> (NonZeroU64, bool) {
        let over = self.over.get();
        let next = NonZeroU64::MIN.saturating_add(over);
        let waiting = entry.filter(|entry| *entry >= next);
        // As a rule: what comes of a side only puts its time off.
        if let Some(entry) = waiting.filter(|entry| self.time(*entry) <= at) {
            return (entry, false);
        }
        let tick = NonZeroU64::new(self.tick(at)).map_or(next, |tick| tick.max(next));
        if let Some(entry) = waiting.filter(|entry| *entry <= tick) {
            return (entry, false);
        }
        let mut due = self.due.borrow_mut();
        if let Some(entry) = waiting {
            due.remove(&(entry, task));
        }
        due.insert((tick, task));
        (tick, due.first() == Some(&(tick, task)))
    }

    /// The task is done.
    pub(crate) fn forget(&self, task: usize, entry: NonZeroU64) {
        self.due.borrow_mut().remove(&(entry, task));
    }

    /// Ready with the numbers of the tasks whose time has come.
    pub(crate) fn poll_due(&self, cx: &mut Context<'_>) -> Poll<Vec<usize>> {
        let mut due = self.due.borrow_mut();
        let Some((first, _)) = due.first().copied() else {
            return Poll::Pending;
        };
        let mut timer = self.timer.borrow_mut();
        let at = self.time(first).into();
        let timer = timer.get_or_insert_with(|| Box::pin(sleep_until(at)));
        if timer.deadline() != at {
            timer.as_mut().reset(at);
        }
        if timer.as_mut().poll(cx).is_pending() {
            return Poll::Pending;
        }
        let later = due.split_off(&(first.saturating_add(1), 0));
        self.over.set(first.get());
        Poll::Ready(std::mem::replace(&mut *due, later).into_iter().map(|(_, task)| task).collect())
    }
}

/// What is known of the silence of one tunnel's sides.
#[derive(Debug)]
pub(crate) struct Silences {
    interval: Duration,
    timeout: Duration,
    /// Of the client and of the back end.
    pub sides: [Silence; 2],
    /// xorshift32.
    random: u32,
}

/// The silence of one side.
#[derive(Debug)]
pub(crate) struct Silence {
    pub by: By,
    /// Bytes that had come when something came last.
    arrived: u64,
    phase: Duration,
    /// It was sent a Ping, and nothing has come since.
    is_pinged: bool,
    /// When it is to be looked at again, if nothing comes.
    next: Instant,
}

/// What is to be done about a side.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Due {
    Nothing,
    Ping,
    Gone,
}

impl Silences {
    /// For a tunnel with these rules, if they want Pings.
    pub(crate) fn new(rules: &Rules) -> Option<Box<Self>> {
        let interval = rules.ping_interval.filter(|interval| !interval.is_zero())?;
        let now = Instant::now();
        let side =
            |by| Silence { by, arrived: 0, phase: Duration::ZERO, is_pinged: false, next: now };
        let mut silences = Silences {
            interval,
            timeout: rules.ping_timeout.unwrap_or(interval),
            sides: [By::Client, By::Backend].map(side),
            random: u32::from_ne_bytes(crate::socket::random()) | 1,
        };
        for at in 0..2 {
            silences.sides[at].phase = silences.phase();
            silences.held_back(at, now);
        }
        Some(Box::new(silences))
    }

    fn phase(&mut self) -> Duration {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 17;
        self.random ^= self.random << 5;
        (self.interval / PHASES).mul_f64(f64::from(self.random) / f64::from(u32::MAX))
    }

    /// Takes note of how many bytes have come of a side, and says what is due.
    pub(crate) fn note(&mut self, at: usize, arrived: u64, now: Instant) -> Due {
        if arrived != self.sides[at].arrived {
            self.sides[at].arrived = arrived;
            self.held_back(at, now);
        }
        let side = &self.sides[at];
        match side.is_pinged {
            _ if now < side.next => Due::Nothing,
            true => Due::Gone,
            false => Due::Ping,
        }
    }

    /// Whether a Ping may go to a side before its time, with something that goes there anyway: as early
    /// as one may by chance.
    pub(crate) fn is_near(&self, at: usize, now: Instant) -> bool {
        let side = &self.sides[at];
        !side.is_pinged && now + (self.interval / PHASES - side.phase) >= side.next
    }

    /// It may have something to say that is not read yet.
    pub(crate) fn held_back(&mut self, at: usize, now: Instant) {
        let side = &mut self.sides[at];
        side.is_pinged = false;
        side.next = now + (self.interval - side.phase);
    }

    /// It was sent a Ping, or could not be.
    pub(crate) fn pinged(&mut self, at: usize, is_sent: bool, now: Instant) {
        let phase = self.phase();
        let retry = (self.interval / PHASES).max(MIN_RETRY);
        let side = &mut self.sides[at];
        side.phase = phase;
        side.is_pinged = is_sent;
        side.next = now + if is_sent { self.timeout } else { retry };
    }

    /// The longest that a side may say nothing.
    pub(crate) fn longest(&self) -> Duration {
        self.interval.saturating_add(self.timeout)
    }

    /// When the tunnel is to be looked at again.
    pub(crate) fn next(&self) -> Instant {
        let [client, backend] = &self.sides;
        client.next.min(backend.next)
    }
}

#[cfg(test)]
mod tests {
    use std::task::{Context, Poll, Waker};
    use std::time::{Duration, Instant};

    use super::{Due, MIN_RETRY, PHASES, Pings, Silences, TICK};
    use crate::end::By;
    use crate::rules::Rules;

    const SECOND: Duration = Duration::from_secs(1);

    fn silences(interval: Duration, timeout: Option<Duration>) -> Silences {
        let rules =
            Rules { ping_interval: Some(interval), ping_timeout: timeout, ..Rules::default() };
        *Silences::new(&rules).expect("Pings")
    }

    #[test]
    fn who_says_nothing_is_asked_and_then_gone() {
        let interval = 32 * SECOND;
        let before = Instant::now();
        let mut silences = silences(interval, Some(10 * SECOND));
        assert_eq!([0, 1].map(|at| silences.sides[at].by), [By::Client, By::Backend]);
        for at in 0..2 {
            let asked = silences.sides[at].next;
            assert!(asked >= before + interval - interval / PHASES);
            assert!(asked <= Instant::now() + interval);
            assert_eq!(silences.note(at, 0, asked - Duration::from_nanos(1)), Due::Nothing);
            assert_eq!(silences.note(at, 0, asked), Due::Ping);
            silences.pinged(at, true, asked);
            assert_eq!(silences.note(at, 0, asked + 9 * SECOND), Due::Nothing);
            let over = asked + 10 * SECOND;
            assert_eq!(silences.note(at, 0, over), Due::Gone);
            // It has answered after all, and is asked again after the interval.
            assert_eq!(silences.note(at, 5, over), Due::Nothing);
            let again = over + (interval - silences.sides[at].phase);
            assert_eq!(silences.sides[at].next, again);
            assert_eq!(silences.note(at, 5, again), Due::Ping);
            // A Ping cannot stand there: that is no silence.
            silences.pinged(at, false, again);
            let soon = again + interval / PHASES;
            assert_eq!(silences.sides[at].next, soon);
            assert_eq!(silences.note(at, 5, soon), Due::Ping);
            // What it says is not read.
            silences.pinged(at, true, soon);
            silences.held_back(at, soon);
            assert_eq!(silences.note(at, 5, soon + interval), Due::Ping);
        }
        let [client, backend] = [0, 1].map(|at| silences.sides[at].next);
        assert_eq!(silences.next(), client.min(backend));
    }

    #[test]
    fn times_that_are_not_set_follow_from_the_interval() {
        assert!(Silences::new(&Rules::default()).is_none());
        let never = Rules { ping_interval: Some(Duration::ZERO), ..Rules::default() };
        assert!(Silences::new(&never).is_none());
        let mut silences = silences(SECOND, None);
        let now = Instant::now();
        silences.pinged(0, true, now);
        assert_eq!(silences.sides[0].next, now + SECOND);
        silences.pinged(1, false, now);
        assert_eq!(silences.sides[1].next, now + MIN_RETRY);
    }

    #[test]
    fn a_task_has_one_time() {
        let pings = Pings::new();
        let at = |ticks: u32| pings.since + TICK * ticks;
        let schedule = |task, at, entry| {
            let (entry, is_first) = pings.schedule(task, at, entry);
            (entry, entry.get(), is_first)
        };
        let due = || -> Vec<_> {
            pings.due.borrow().iter().map(|(tick, task)| (tick.get(), *task)).collect()
        };
        let (one, tick, is_first) = schedule(1, at(5), None);
        assert_eq!((tick, is_first), (5, true));
        let (two, tick, is_first) = schedule(2, at(7) + TICK / 2, None);
        assert_eq!((tick, is_first), (8, false));
        // Put off: it looks again when the time has come.
        assert_eq!(schedule(1, at(50), Some(one)), (one, 5, false));
        // Put forward.
        let (two, tick, is_first) = schedule(2, at(3), Some(two));
        assert_eq!((tick, is_first), (3, true));
        assert_eq!(schedule(2, at(3), Some(two)), (two, 3, false));
        assert_eq!(schedule(2, at(2) + TICK / 2, Some(two)), (two, 3, false));
        assert_eq!(due(), [(3, 2), (5, 1)]);
        pings.forget(2, two);
        assert_eq!(due(), [(5, 1)]);
        // What was taken out is not there any more, nor is its time.
        pings.over.set(5);
        assert_eq!(schedule(1, at(4), Some(one)).1, 6);
        assert_eq!(schedule(3, pings.since, None).1, 6);
        assert_eq!(schedule(4, at(6), None).1, 6);
    }

    #[test]
    fn those_whose_time_has_come_are_looked_at_together() {
        let runtime = crate::serve::runtime().expect("a runtime");
        runtime.block_on(async {
            let cx = &mut Context::from_waker(Waker::noop());
            let mut pings = Pings::new();
            pings.since = pings.since.checked_sub(SECOND).expect("the machine runs for so long");
            assert!(pings.poll_due(cx).is_pending());
            let at = |ticks: u32| pings.since + TICK * ticks;
            for (task, ticks) in [(1, 3), (2, 3), (3, 36_000)] {
                pings.schedule(task, at(ticks), None);
            }
            assert_eq!(pings.poll_due(cx), Poll::Ready(vec![1, 2]));
            assert!(pings.poll_due(cx).is_pending() && pings.over.get() == 3);
            let timer = pings.timer.borrow().as_ref().map(|timer| timer.deadline().into_std());
            assert_eq!(timer, Some(at(36_000)));
            // One that comes before.
            pings.schedule(4, at(5), None);
            assert_eq!(pings.poll_due(cx), Poll::Ready(vec![4]));
            assert_eq!(pings.due.borrow().len(), 1);
        });
    }

    /// Neither their first Pings nor later ones.
    #[test]
    fn tunnels_that_fell_silent_together_are_not_asked_together() {
        const TUNNELS: usize = 8000;
        const PARTS: usize = 8;
        let interval = Duration::from_secs(30);
        let rules = Rules { ping_interval: Some(interval), ..Rules::default() };
        let mut tunnels: Vec<_> =
            (0..TUNNELS).map(|_| Silences::new(&rules).expect("Pings")).collect();
        for round in 0..3 {
            for at in 0..2 {
                let mut parts = [0; PARTS];
                for silences in &mut tunnels {
                    let early = silences.sides[at].phase;
                    assert!(early <= interval / PHASES);
                    let part = early.as_secs_f64() / (interval / PHASES).as_secs_f64();
                    parts[((part * PARTS as f64) as usize).min(PARTS - 1)] += 1;
                    silences.pinged(at, true, Instant::now());
                }
                let even = TUNNELS / PARTS;
                let is_even = parts.iter().all(|part| (even * 3 / 4..even * 5 / 4).contains(part));
                assert!(is_even, "{round}, {at}: {parts:?}");
            }
        }
    }
}
