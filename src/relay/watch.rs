//! Peers that no longer acknowledge what they are sent.
//!
//! TCP's keepalive is silent while something is under way, and what TCP does then takes a quarter
//! of an hour. TCP_USER_TIMEOUT would end that sooner, but it counts a peer as gone that is there
//! and just does not read: its acknowledgements of window probes are no answer to it.

use std::cell::{Cell, RefCell};
use std::future::Future;
use std::os::fd::BorrowedFd;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use tokio::time::{Sleep, sleep};

use crate::socket::{is_awaited, tcp_info};

/// How long a peer may leave unanswered what TCP has sent it again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Patience {
    /// The time between two checks of a tunnel that waits for an acknowledgement.
    pub interval: Duration,
    /// After how long without an answer a peer counts as gone. This is found out up to an interval
    /// later.
    pub limit: Duration,
}

/// The tunnels of a thread whose peers may have something to acknowledge: all that were polled since
/// their last check. Idle tunnels are not checked.
#[derive(Debug)]
pub(crate) struct Watch {
    patience: Option<Patience>,
    /// The numbers of their tasks, a bit each: a task that ends leaves its number, and its bit, to another.
    tasks: RefCell<Vec<u64>>,
    /// How many rounds of checks there were. It wraps.
    round: Cell<u32>,
    timer: RefCell<Option<Pin<Box<Sleep>>>>,
}

/// Of a word of them.
const BITS: usize = u64::BITS as usize;

impl Watch {
    pub(crate) fn new(patience: Option<Patience>) -> Self {
        Watch {
            patience,
            tasks: RefCell::default(),
            round: Cell::new(0),
            timer: RefCell::default(),
        }
    }

    pub(crate) fn patience(&self) -> Option<Patience> {
        self.patience
    }

    pub(crate) fn round(&self) -> u32 {
        self.round.get()
    }

    /// Has the task with this number polled in the next round. True if it is the first, so that the
    /// thread has to be woken to set its timer.
    pub(crate) fn add(&self, task: usize) -> bool {
        let mut tasks = self.tasks.borrow_mut();
        let is_first = tasks.is_empty();
        let (at, bit) = (task / BITS, 1 << (task % BITS));
        if at >= tasks.len() {
            tasks.resize(at + 1, 0);
        }
        tasks[at] |= bit;
        is_first
    }

    /// Ready with the numbers of the tasks to be polled when a round begins.
    pub(crate) fn poll_round(&self, cx: &mut Context<'_>) -> Poll<Vec<usize>> {
        let Some(patience) = self.patience.filter(|_| !self.tasks.borrow().is_empty()) else {
            return Poll::Pending;
        };
        let mut timer = self.timer.borrow_mut();
        let sleep = timer.get_or_insert_with(|| Box::pin(sleep(patience.interval)));
        if sleep.as_mut().poll(cx).is_pending() {
            return Poll::Pending;
        }
        *timer = None;
        self.round.set(self.round.get().wrapping_add(1));
        let words = self.tasks.take().into_iter().enumerate();
        let tasks = words.flat_map(|(at, word)| {
            let is_in = move |bit: &usize| word >> bit & 1 != 0;
            (0..BITS).filter(is_in).map(move |bit| at * BITS + bit)
        });
        Poll::Ready(tasks.collect())
    }
}

/// What a socket has sent, or has to send, that its peer has not acknowledged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum UnderWay {
    /// Nothing, or nothing is known.
    Nothing,
    /// Something, and the peer has answered what was sent last, or may still do so.
    Awaited,
    /// Something that was sent again, or asked for again, without an answer. The last one of any
    /// kind came so long ago.
    Unanswered(Duration),
}

/// What was sent on this socket and not acknowledged.
pub(crate) fn under_way(fd: BorrowedFd<'_>) -> UnderWay {
    if !is_awaited(fd) {
        return UnderWay::Nothing;
    }
    match tcp_info(fd) {
        Ok(info) if info.tcpi_retransmits > 0 || info.tcpi_probes > 0 => {
            UnderWay::Unanswered(Duration::from_millis(info.tcpi_last_ack_recv.into()))
        }
        Ok(_) => UnderWay::Awaited,
        // A unix socket: its peer cannot go unnoticed.
        Err(_) => UnderWay::Nothing,
    }
}

/// Since when the peer of one socket has answered nothing.
#[derive(Debug, Default)]
pub(crate) struct Silence {
    since: Option<Instant>,
}

impl Silence {
    /// Takes note of what was found. True if the peer counts as gone.
    pub(crate) fn note(&mut self, under_way: UnderWay, now: Instant, limit: Duration) -> bool {
        /// How coarsely the kernel counts time.
        const STEP: Duration = Duration::from_millis(50);
        let UnderWay::Unanswered(last_answer) = under_way else {
            self.since = None;
            return false;
        };
        // It may have answered since, and be silent again.
        let known = self.since.filter(|since| last_answer + STEP >= now - *since);
        let since = *self.since.insert(known.unwrap_or(now));
        now - since >= limit
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use std::task::{Context, Poll, Waker};

    use super::{Patience, Silence, UnderWay, Watch};

    const LIMIT: Duration = Duration::from_secs(10);

    fn seconds(count: u64) -> Duration {
        Duration::from_secs(count)
    }

    /// However many tunnels come and go between two rounds, and have the same number.
    #[test]
    fn a_number_is_kept_once() {
        let runtime = crate::serve::runtime().expect("a runtime");
        runtime.block_on(async {
            let cx = &mut Context::from_waker(Waker::noop());
            let interval = Duration::from_millis(1);
            let watch = Watch::new(Some(Patience { interval, limit: LIMIT }));
            assert!(watch.poll_round(cx).is_pending());
            for round in 1..3 {
                assert!(watch.add(130), "it is the first");
                for _ in 0..1000 {
                    for task in [0, 130, 63, 64] {
                        assert!(!watch.add(task));
                    }
                }
                assert!(watch.poll_round(cx).is_pending());
                tokio::time::sleep(2 * interval).await;
                assert_eq!(watch.poll_round(cx), Poll::Ready(vec![0, 63, 64, 130]));
                assert_eq!(watch.round(), round);
            }
        });
    }

    #[test]
    fn a_peer_that_answers_nothing_is_gone() {
        let begin = Instant::now();
        let mut silence = Silence::default();
        for second in 0..10 {
            // It was idle for an hour before.
            let unanswered = UnderWay::Unanswered(seconds(3600 + second));
            assert!(!silence.note(unanswered, begin + seconds(second), LIMIT));
        }
        assert!(silence.note(UnderWay::Unanswered(seconds(3610)), begin + seconds(10), LIMIT));
    }

    #[test]
    fn a_peer_that_answers_now_and_then_is_there() {
        let begin = Instant::now();
        let mut silence = Silence::default();
        for second in 0..100 {
            // A probe is always on its way, and each is answered after nine seconds.
            let unanswered = UnderWay::Unanswered(seconds(second % 9));
            assert!(!silence.note(unanswered, begin + seconds(second), LIMIT), "{second}");
        }
        assert!(!silence.note(UnderWay::Awaited, begin + seconds(100), LIMIT));
        assert!(!silence.note(UnderWay::Unanswered(seconds(99)), begin + seconds(120), LIMIT));
    }
}
