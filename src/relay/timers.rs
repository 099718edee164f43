//! When something is due in a tunnel in which nothing else happens.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use tokio::time::{Sleep, sleep_until};

use crate::tunnel::TunnelState;

/// The timer of a tunnel that has an idle timeout. Bytes do not reset it: when it fires, it is set
/// anew by the time at which the last ones went.
pub(crate) struct Idle {
    sleep: Pin<Box<Sleep>>,
    pub last: Instant,
    timeout: Duration,
}

impl Idle {
    pub(crate) fn new(timeout: Duration) -> Self {
        let last = Instant::now();
        Idle { sleep: Box::pin(sleep_until((last + timeout).into())), last, timeout }
    }

    /// Ready when nothing moved for the timeout.
    pub(crate) fn poll_expired(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        while self.sleep.as_mut().poll(cx).is_ready() {
            let due = self.last + self.timeout;
            if due <= Instant::now() {
                return Poll::Ready(());
            }
            self.sleep.as_mut().reset(due.into());
        }
        Poll::Pending
    }
}

/// When the record of a tunnel is told how far it is: at multiples of the interval since it began,
/// wherever it is carried then.
pub(crate) struct Reports {
    sleep: Pin<Box<Sleep>>,
    interval: Duration,
}

impl Reports {
    pub(crate) fn new(state: &TunnelState) -> Option<Self> {
        /// More than a century: no time overflows with it.
        const LONGEST: Duration = Duration::from_secs(1 << 32);
        let interval = state.rules.effective_report_interval()?.min(LONGEST);
        let past = state.started.elapsed().as_nanos() % interval.as_nanos();
        let past = u64::try_from(past).map_or(Duration::ZERO, Duration::from_nanos);
        let next = Instant::now() + interval.saturating_sub(past);
        Some(Reports { sleep: Box::pin(sleep_until(next.into())), interval })
    }

    /// Whether it is time. One that comes late is not made up for.
    pub(crate) fn is_due(&mut self, cx: &mut Context<'_>) -> bool {
        let mut is_due = false;
        while self.sleep.as_mut().poll(cx).is_ready() {
            is_due = true;
            let now = Instant::now();
            let mut next = self.sleep.deadline().into_std() + self.interval;
            if next <= now {
                next = now + self.interval;
            }
            self.sleep.as_mut().reset(next.into());
        }
        is_due
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixStream;
    use std::task::Waker;

    use super::*;
    use crate::{End, Record, Rules, Side, Tracker, Tunnel};

    const HOUR: Duration = Duration::from_secs(3600);

    struct Nobody;

    impl Record for Nobody {
        fn ended(&mut self, _: &End) {}
    }

    fn with_timers(body: impl FnOnce(&mut Context<'_>)) {
        let runtime = crate::serve::runtime().expect("a runtime");
        runtime.block_on(async { body(&mut Context::from_waker(Waker::noop())) });
    }

    /// Timers go by a clock that begins with the machine.
    fn before(now: Instant, by: Duration) -> Instant {
        now.checked_sub(by).expect("the machine runs for so long")
    }

    #[test]
    fn what_moved_puts_the_end_off() {
        with_timers(|cx| {
            let now = Instant::now();
            assert!(Idle::new(HOUR).poll_expired(cx).is_pending());
            let over = || Box::pin(sleep_until(before(now, Duration::from_secs(1)).into()));
            let mut idle = Idle { sleep: over(), last: now, timeout: HOUR };
            assert!(idle.poll_expired(cx).is_pending());
            assert_eq!(idle.sleep.deadline().into_std(), now + HOUR);
            let timeout = Duration::from_millis(10);
            idle = Idle { sleep: over(), last: before(now, timeout), timeout };
            assert!(idle.poll_expired(cx).is_ready());
        });
    }

    #[test]
    fn reports_keep_their_times() {
        with_timers(|cx| {
            let (now, interval) = (Instant::now(), Duration::from_secs(10));
            let late_by = |late: Duration| Reports {
                sleep: Box::pin(sleep_until(before(now, late).into())),
                interval,
            };
            // A little late: the next one is not.
            let mut reports = late_by(interval / 4);
            assert!(reports.is_due(cx) && !reports.is_due(cx));
            assert_eq!(reports.sleep.deadline().into_std(), now + interval * 3 / 4);
            // Later than the next one would have been: those are not made up for.
            let mut reports = late_by(interval * 5 / 4);
            assert!(reports.is_due(cx) && !reports.is_due(cx));
            let next = reports.sleep.deadline().into_std();
            assert!(next >= now + interval && next <= Instant::now() + interval);
        });
    }

    #[test]
    fn reports_come_at_multiples_of_the_interval_since_the_beginning() {
        with_timers(|_| {
            let state = |report_interval| {
                let [a, b] = [(); 2].map(|()| UnixStream::pair().expect("pair").0);
                let [client, backend] = [a, b].map(|side| Side::plain(side.into()));
                let rules = Rules { report_interval, ..Rules::default() };
                let frames = [Tracker::opaque(), Tracker::opaque()];
                let mut state = Tunnel::new(client, backend, frames, rules, Box::new(Nobody)).state;
                state.started = before(state.started, Duration::from_secs(25));
                state
            };
            assert!(Reports::new(&state(None)).is_none());
            assert!(Reports::new(&state(Some(Duration::ZERO))).is_none());
            let state_ = state(Some(Duration::from_secs(10)));
            let next = Reports::new(&state_).expect("some").sleep.deadline().into_std();
            let third = state_.started + Duration::from_secs(30);
            assert!(next >= third && next < third + Duration::from_secs(1));
            // However long it is.
            let never = Reports::new(&state(Some(Duration::MAX))).expect("some");
            assert!(never.sleep.deadline().into_std() > Instant::now() + HOUR);
        });
    }
}
