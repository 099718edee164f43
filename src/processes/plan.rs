//! When the tunnels of a process end, and over which time.

use std::time::{Duration, Instant};

use os::process;
use relay::{Ending, Order};
use shared::Times;

/// How long peers get to answer a Close, when the server stops.
pub(super) const STOP_LINGER: Duration = Duration::from_millis(500);

/// What the relay may take beyond its time, until it counts as one that hangs.
const GRACE: Duration = Duration::from_secs(1);

/// Tunnels are told to end at instants spread evenly from a beginning to an end.
#[derive(Debug)]
pub(super) struct Plan {
    begin: Instant,
    end: Instant,
    order: Order,
    /// How long the peers of each get to answer.
    linger: Duration,
    has_begun: bool,
}

impl Plan {
    /// It has not begun.
    pub(super) fn new(begin: Instant, end: Instant, order: Order, linger: Duration) -> Self {
        Self { begin, end, order, linger, has_begun: false }
    }

    /// That of a server that stops gracefully.
    pub(super) fn of_server(times: Times) -> Self {
        let now = (Instant::now(), process::now());
        let instant = |time: u64| now.0 + Duration::from_micros(time.saturating_sub(now.1));
        Self::new(instant(times.begin), instant(times.end), Order::Stop, STOP_LINGER)
    }

    /// The same for tunnels that came meanwhile. Those that are left get other instants, which
    /// are as even.
    pub(super) fn again(self) -> Self {
        Self { has_begun: false, ..self }
    }

    /// How to end all tunnels that there are, once it is time for that.
    pub(super) fn begin(&mut self, code: u16) -> Option<Ending> {
        let now = Instant::now();
        if self.has_begun || now < self.begin {
            return None;
        }
        self.has_begun = true;
        let spread = self.end.saturating_duration_since(now);
        Some(Ending { order: self.order, code: Some(code), spread, linger: self.linger })
    }

    /// How long it is until it begins, if it has not.
    pub(super) fn until_begin(&self) -> Option<Duration> {
        let left = self.begin.saturating_duration_since(Instant::now());
        (!self.has_begun).then_some(left)
    }

    /// When it is to be looked at next.
    pub(super) fn next(&self) -> Instant {
        if self.has_begun { self.given_up() } else { self.begin }
    }

    fn given_up(&self) -> Instant {
        self.end + self.linger + GRACE
    }

    /// Whether all tunnels should be gone.
    pub(super) fn is_over(&self) -> bool {
        self.has_begun && self.given_up() <= Instant::now()
    }

    /// Whether its last tunnel is told before that of another.
    pub(super) fn ends_before(&self, other: &Self) -> bool {
        self.end < other.end
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use relay::Order;

    use super::Plan;

    const HOUR: Duration = Duration::from_secs(3600);

    #[test]
    fn it_begins_once_and_in_time() {
        let now = Instant::now();
        let mut later = Plan::new(now + HOUR, now + 2 * HOUR, Order::Stop, HOUR);
        assert_eq!((later.begin(1001), later.next()), (None, now + HOUR));
        let mut due = Plan::new(now, now + HOUR, Order::DrainTimeout, HOUR);
        assert!(due.ends_before(&later) && !later.ends_before(&due));
        let how = due.begin(1012).expect("it is time");
        assert_eq!((how.order, how.code, how.linger), (Order::DrainTimeout, Some(1012), HOUR));
        assert!(how.spread <= HOUR && how.spread > HOUR / 2);
        assert!(due.begin(1012).is_none() && !due.is_over());
        assert!(due.next() > now + 2 * HOUR);
        // A tunnel came.
        assert!(due.again().begin(1012).is_some());
    }

    #[test]
    fn who_is_late_ends_them_at_once() {
        let now = Instant::now();
        let past = now.checked_sub(Duration::from_secs(10)).unwrap_or(now);
        let mut plan = Plan::new(past, past, Order::Stop, Duration::ZERO);
        assert!(!plan.is_over(), "it has not begun");
        assert_eq!(plan.begin(1001).map(|how| how.spread), Some(Duration::ZERO));
    }
}
