//! How fast a client may send: what is too fast is not read yet.

use std::time::{Duration, Instant};

use crate::buffers::Clock;
use crate::bytes::{Reader, micros, put_u64};
use crate::rules::Rules;

/// A message takes at least so many bytes (RFC 6455 5.2): two of header, four of masking key.
const MIN_MESSAGE_BYTES: u64 = 6;
/// What is saved up lasts at least this part of a second: timers are not exact.
const MIN_BURST_PART: u64 = 8;
/// Who is held back waits for what this part of a second allows, and is not woken for less.
const WAIT_PART: u64 = 8;
/// What was read before the rule could hold it back is waited for no longer.
const MAX_DEBT: Duration = Duration::from_secs(3600);
const NANOS: u64 = 1_000_000_000;

/// A token bucket. Times are those since the tunnel began.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Bucket {
    /// In a second; never zero.
    rate: u64,
    /// The most that is saved up.
    burst: u64,
    /// How long it takes until that is there.
    burst_time: Duration,
    /// When all of that is there again.
    full_at: Duration,
    /// So much is left for certain: what was left when that was asked, without what was taken since.
    certain: u64,
}

impl Bucket {
    /// None if there is no limit.
    fn new(rate: Option<u64>, burst: Option<u64>) -> Option<Self> {
        let rate = rate.filter(|rate| *rate > 0)?;
        let burst = burst.unwrap_or(rate).max(rate / MIN_BURST_PART).max(1);
        let burst_time = time_for(burst, rate);
        Some(Bucket { rate, burst, burst_time, full_at: Duration::ZERO, certain: 0 })
    }

    /// What is there.
    fn ask(&mut self, now: Duration) -> u64 {
        self.certain = self.left(now);
        self.certain
    }

    fn left(&self, now: Duration) -> u64 {
        if self.full_at <= now {
            return self.burst;
        }
        let free = self.burst_time.saturating_sub(self.full_at - now);
        let left = free.as_nanos() * u128::from(self.rate) / u128::from(NANOS);
        u64::try_from(left).unwrap_or(u64::MAX)
    }

    /// When enough is there for it to be worth while.
    fn next(&self) -> Duration {
        let wanted = (self.rate / WAIT_PART).min(self.burst / 2).max(1);
        let debt = self.burst_time.saturating_sub(time_for(wanted, self.rate));
        self.full_at.saturating_sub(debt)
    }

    fn take(&mut self, count: u64, now: Duration) {
        self.certain = self.certain.saturating_sub(count);
        let nanos = match count.checked_mul(NANOS) {
            Some(nanos) => nanos / self.rate,
            None => {
                let nanos = u128::from(count) * u128::from(NANOS) / u128::from(self.rate);
                u64::try_from(nanos).unwrap_or(u64::MAX)
            }
        };
        let at = self.full_at.max(now).saturating_add(Duration::from_nanos(nanos));
        self.full_at = at.min(now.saturating_add(self.longest()));
    }

    /// The longest time until it is full.
    fn longest(&self) -> Duration {
        self.burst_time.saturating_add(MAX_DEBT)
    }
}

/// How many bytes may be read where so many messages and bytes may come, and these are payload for sure:
/// no more messages begin in them than may.
fn room_of(messages: u64, bytes: u64, payload: u64) -> u64 {
    messages.saturating_mul(MIN_MESSAGE_BYTES).saturating_add(payload).min(bytes)
}

/// How long it takes until so much is there, not less.
fn time_for(count: u64, rate: u64) -> Duration {
    let nanos = (u128::from(count) * u128::from(NANOS)).div_ceil(u128::from(rate));
    Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
}

/// What a client may still send of messages and of bytes.
#[derive(Debug)]
pub(crate) struct Pace {
    /// When the tunnel began.
    started: Instant,
    messages: Option<Bucket>,
    bytes: Option<Bucket>,
    held_until: Option<Instant>,
}

impl Pace {
    /// For a tunnel that began then; none if no rule is set.
    pub(crate) fn new(rules: &Rules, is_websocket: bool, started: Instant) -> Option<Self> {
        let messages = Bucket::new(rules.message_rate, rules.message_burst);
        let messages = messages.filter(|_| is_websocket);
        let bytes = Bucket::new(rules.bandwidth, None);
        let is_set = messages.is_some() || bytes.is_some();
        is_set.then_some(Pace { started, messages, bytes, held_until: None })
    }

    /// How many bytes may be read now, at most `most`, of which these are payload for sure. None while
    /// the client is held back.
    #[inline]
    pub(crate) fn room(&mut self, most: u64, payload: u64, clock: &mut Clock) -> Option<u64> {
        // Without a look at the clock: most clients are far from what they may send.
        let certain = |bucket: Option<Bucket>| bucket.map_or(u64::MAX, |bucket| bucket.certain);
        let [messages, bytes] = [self.messages, self.bytes].map(certain);
        if self.held_until.is_none() && room_of(messages, bytes, payload) >= most {
            return Some(most);
        }
        self.room_at(payload, clock.now()).map(|room| room.min(most))
    }

    fn room_at(&mut self, payload: u64, at: Instant) -> Option<u64> {
        if self.held_until.is_some_and(|until| at < until) {
            return None;
        }
        self.held_until = None;
        let now = self.age(at);
        let bytes = self.bytes.as_mut().map_or(u64::MAX, |bucket| bucket.ask(now));
        let messages = self.messages.as_mut().map_or(u64::MAX, |bucket| bucket.ask(now));
        let room = room_of(messages, bytes, payload);
        if room > 0 {
            return Some(room);
        }
        let empty = [self.bytes.filter(|_| bytes == 0), self.messages.filter(|_| messages == 0)];
        let next = empty.iter().flatten().map(Bucket::next).max().unwrap_or_default();
        self.held_until = self.started.checked_add(next);
        None
    }

    /// Takes note of what was read when the tunnel was of this age.
    pub(crate) fn take(&mut self, messages: u64, bytes: u64, now: Duration) {
        if let Some(bucket) = &mut self.messages {
            bucket.take(messages, now);
        }
        if let Some(bucket) = &mut self.bytes {
            bucket.take(bytes, now);
        }
    }

    /// The age of the tunnel at that time.
    pub(crate) fn age(&self, now: Instant) -> Duration {
        now.saturating_duration_since(self.started)
    }

    /// Until when the client is held back; none if it is not.
    pub(crate) fn held_until(&self) -> Option<Instant> {
        self.held_until
    }

    /// That time has come.
    pub(crate) fn release(&mut self) {
        self.held_until = None;
    }

    /// How many bytes [`freeze`](Self::freeze) appends.
    pub(crate) const FROZEN_BYTES: usize = 2 * size_of::<u64>();

    /// How far it has come, as bytes: what it allows is in the rules.
    pub(crate) fn freeze(pace: Option<&Self>, out: &mut Vec<u8>) {
        let [messages, bytes] = pace.map_or([None; 2], |pace| [pace.messages, pace.bytes]);
        for bucket in [messages, bytes] {
            put_u64(out, bucket.map_or(0, |bucket| micros(bucket.full_at)));
        }
    }

    /// The pace that [`freeze`](Self::freeze) was called on, so long after it began; `pace` is what it
    /// was at the beginning, none if there is no rule.
    pub(crate) fn thaw(
        from: &mut Reader<'_>,
        mut pace: Option<Self>,
        age: Duration,
    ) -> Option<Option<Self>> {
        let [messages, bytes] = match &mut pace {
            Some(pace) => [pace.messages.as_mut(), pace.bytes.as_mut()],
            None => [None, None],
        };
        for bucket in [messages, bytes] {
            let full_at = Duration::from_micros(from.u64()?);
            match bucket {
                Some(bucket) if full_at <= age.saturating_add(bucket.longest()) => {
                    bucket.full_at = full_at;
                }
                // There is nothing that could have been used up.
                None if full_at.is_zero() => {}
                _ => return None,
            }
        }
        Some(pace)
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::{Bucket, MAX_DEBT, Pace, room_of};
    use crate::rules::Rules;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn a_burst_is_no_less_than_timers_need() {
        for (rate, burst, saved_up) in [
            (80, None, 80),
            (80, Some(200), 200),
            (80, Some(1), 10),
            (80, Some(0), 10),
            (4, Some(0), 1),
        ] {
            let bucket = Bucket::new(Some(rate), burst).expect("a limit");
            assert_eq!(bucket.left(Duration::ZERO), saved_up, "{rate} {burst:?}");
            assert_eq!(bucket.burst_time.as_secs_f64(), saved_up as f64 / rate as f64);
        }
    }

    #[test]
    fn who_waits_is_not_woken_for_little() {
        for (burst, millis) in [(None, 125), (Some(120), 75), (Some(1000), 125)] {
            let mut bucket = Bucket::new(Some(800), burst).expect("a limit");
            bucket.take(bucket.burst, Duration::ZERO);
            assert_eq!(bucket.next(), Duration::from_millis(millis), "{burst:?}");
        }
    }

    #[test]
    fn numbers_are_as_large_as_they_may_be() {
        let mut bucket = Bucket::new(Some(1 << 40), None).expect("a limit");
        bucket.take(1 << 40, Duration::ZERO);
        assert_eq!(bucket.full_at, SECOND);
        assert_eq!(bucket.left(SECOND / 2), 1 << 39);
    }

    #[test]
    fn no_more_messages_begin_in_what_is_read_than_may() {
        assert_eq!(room_of(2, 100, 5), 17);
        assert_eq!(room_of(2, 10, 5), 10);
        assert_eq!(room_of(0, 10, 0), 0);
        assert_eq!(room_of(u64::MAX, 10, u64::MAX), 10);
    }

    #[test]
    fn who_has_sent_all_is_held_back_until_there_is_more() {
        let started = Instant::now();
        let at = |millis| started + Duration::from_millis(millis);
        let rules = Rules { bandwidth: Some(800), message_rate: Some(8), ..Rules::default() };
        let mut pace = Pace::new(&rules, true, started).expect("rules");
        assert_eq!(pace.room_at(0, at(0)), Some(48));
        assert_eq!(pace.room_at(100, at(0)), Some(148));
        assert_eq!(pace.room_at(10_000, at(0)), Some(800));
        pace.take(2, 700, Duration::ZERO);
        assert_eq!([0, 1000].map(|payload| pace.room_at(payload, at(0))), [Some(36), Some(100)]);
        assert_eq!(pace.held_until(), None);
        pace.take(6, 100, Duration::ZERO);
        assert_eq!(pace.room_at(0, at(0)), None);
        assert_eq!(pace.held_until(), Some(at(125)));
        assert_eq!(pace.room_at(0, at(124)), None);
        assert_eq!(pace.room_at(1000, at(125)), Some(100));
        assert_eq!(pace.held_until(), None);
        // Bytes are left, and no message; then the other way round.
        pace.take(1, 0, Duration::from_millis(125));
        assert_eq!(pace.room_at(50, at(125)), Some(50));
        assert_eq!(pace.room_at(0, at(125)), None);
        assert_eq!(pace.held_until(), Some(at(250)));
        pace.release();
        assert_eq!(pace.held_until(), None);
        pace.take(0, 200, Duration::from_millis(250));
        assert_eq!(pace.room_at(1000, at(250)), None);
        assert_eq!(pace.held_until(), Some(at(375)));
        // What is not WebSocket has no messages.
        assert!(Pace::new(&Rules { bandwidth: None, ..rules }, false, started).is_none());
        let mut pace = Pace::new(&rules, false, started).expect("a rule");
        assert_eq!(pace.room_at(0, at(0)), Some(800));
    }

    #[test]
    fn there_is_one_as_soon_as_it_is_waited_for() {
        for rate in [1, 3, 7, 8, 1000, 1_000_003, u64::MAX - 1] {
            for burst in [None, Some(1), Some(2), Some(rate), Some(u64::MAX - 1)] {
                let mut bucket = Bucket::new(Some(rate), burst).expect("a limit");
                let begin = bucket.left(Duration::ZERO);
                assert!((1..=bucket.burst).contains(&begin), "{rate} {burst:?}: {begin}");
                bucket.take(begin, Duration::ZERO);
                assert!(bucket.left(bucket.next()) > 0, "{rate} {burst:?}");
            }
        }
        assert_eq!(Bucket::new(Some(0), Some(5)), None);
        assert_eq!(Bucket::new(None, None), None);
    }

    #[test]
    fn what_was_not_used_is_saved_up_to_the_burst() {
        let mut bucket = Bucket::new(Some(10), Some(20)).expect("a limit");
        assert_eq!(bucket.left(100 * SECOND), 20);
        bucket.take(20, 100 * SECOND);
        assert_eq!(bucket.left(100 * SECOND), 0);
        assert_eq!(bucket.left(101 * SECOND), 10);
        assert_eq!(bucket.left(200 * SECOND), 20);
    }

    #[test]
    fn a_debt_is_paid_first_and_is_bounded() {
        let mut bucket = Bucket::new(Some(10), Some(20)).expect("a limit");
        bucket.take(40, Duration::ZERO);
        assert_eq!(bucket.left(2 * SECOND), 0);
        assert_eq!(bucket.left(3 * SECOND), 10);
        bucket.take(u64::MAX, 3 * SECOND);
        assert_eq!(bucket.full_at, 5 * SECOND + MAX_DEBT);
    }
}
