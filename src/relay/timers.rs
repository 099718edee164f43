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
        /// A century: no time overflows with it.
        const LONGEST: Duration = Duration::from_secs(100 * 365 * 24 * 3600);
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
