//! When the tunnels of a process end, and over which time.

use std::time::{Duration, Instant};

use os::process;
use relay::{Ending, Order};
use shared::Times;

/// How long peers get to answer a Close, when the server stops.
pub(super) const STOP_LINGER: Duration = Duration::from_millis(500);

/// How long no tunnel ends beyond the time for that, until the relay counts as one that hangs.
const GRACE: Duration = Duration::from_secs(5);

/// Tunnels are told to end at instants spread evenly from a beginning to an end.
#[derive(Clone, Copy, Debug)]
pub(super) struct Plan {
    begin: Instant,
    end: Instant,
    order: Order,
    /// How long the peers of each get to answer.
    linger: Duration,
    has_begun: bool,
    /// Once they should be gone: the fewest that were left, and when that was seen first.
    left: Option<(usize, Instant)>,
}

impl Plan {
    /// It has not begun.
    pub(super) fn new(begin: Instant, end: Instant, order: Order, linger: Duration) -> Self {
        Self { begin, end, order, linger, has_begun: false, left: None }
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
        Self { has_begun: false, left: None, ..self }
    }

    /// How to end all tunnels that there are, once it is time for that.
    pub(super) fn begin(&mut self, code: u16) -> Option<Ending> {
        let now = Instant::now();
        if self.has_begun || now < self.begin {
            return None;
        }
        self.has_begun = true;
        // Those that are told late have as much time.
        self.end = self.end.max(now);
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
        match self.left {
            _ if !self.has_begun => self.begin,
            None => self.end + self.linger,
            Some((_, since)) => since + GRACE,
        }
    }

    /// Whether the tunnels that are left are given up, `open` of them. All should be gone, but the relay
    /// may have thousands: for as long as there are fewer and fewer, it is at work.
    pub(super) fn is_given_up(&mut self, open: usize, now: Instant) -> bool {
        if !self.has_begun || now < self.end + self.linger {
            return false;
        }
        match self.left {
            Some((fewest, since)) if open >= fewest => since + GRACE <= now,
            _ => {
                self.left = Some((open, now));
                false
            }
        }
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

    use super::{GRACE, Plan};

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
        assert!(due.begin(1012).is_none());
        assert_eq!(due.next(), now + 2 * HOUR);
        // A tunnel came.
        assert!(due.again().begin(1012).is_some());
    }

    #[test]
    fn who_is_late_ends_them_at_once() {
        let now = Instant::now();
        let past = now.checked_sub(Duration::from_secs(10)).unwrap_or(now);
        let mut plan = Plan::new(past, past, Order::Stop, Duration::ZERO);
        assert!(!plan.is_given_up(9, now), "it has not begun");
        assert_eq!(plan.begin(1001).map(|how| how.spread), Some(Duration::ZERO));
        assert!(plan.next() >= now, "its peers get their time to answer");
    }

    #[test]
    fn tunnels_are_given_up_once_none_has_ended_for_a_while() {
        let now = Instant::now();
        let mut plan = Plan::new(now, now, Order::Stop, HOUR);
        assert!(plan.begin(1001).is_some());
        assert!(!plan.is_given_up(9, now + HOUR / 2), "it is not time");
        // The first look, however late it is: the process may have been frozen until then.
        let late = now + 3 * HOUR;
        assert!(!plan.is_given_up(9, late));
        assert_eq!(plan.next(), late + GRACE);
        assert!(!plan.is_given_up(8, late + GRACE));
        assert!(!plan.is_given_up(8, late + GRACE + GRACE / 2));
        assert!(plan.is_given_up(8, late + 2 * GRACE));
        // A tunnel came.
        let mut again = plan.again();
        assert!(again.begin(1001).is_some() && !again.is_given_up(9, late + 2 * GRACE));
    }
}
