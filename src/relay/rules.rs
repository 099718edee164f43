//! The rules for an open tunnel.

use std::ops::Deref;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use shared::Why;

use crate::bytes::{Field, Reader};

/// The status code of a Close frame that says "going away" (RFC 6455 7.4.1).
pub const GOING_AWAY: u16 = 1001;
/// The one for who breaks a rule of the server.
const POLICY_VIOLATION: u16 = 1008;

/// Makes [`Rules`] of a list of them. Another rule is one more line here.
macro_rules! rules {
    ($($(#[doc = $doc:literal])+ $name:ident: $type:ty,)+) => {
        /// What holds for one tunnel for as long as it is open, wherever it is carried. A rule that
        /// is `None` is not set: a configuration lets an outer section decide, and the relay has its
        /// default.
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
        pub struct Rules {
            $($(#[doc = $doc])+ pub $name: Option<$type>,)+
        }

        impl Rules {
            /// None is set.
            const NONE: Self = Rules { $($name: None,)+ };

            /// How many bytes [`freeze`](Self::freeze) appends.
            pub(crate) const FROZEN_BYTES: usize = 0 $(+ <Option<$type> as Field>::BYTES)+;

            /// These rules; those not set are the ones of `outer`.
            #[must_use]
            pub fn or(self, outer: Self) -> Self {
                Rules { $($name: self.$name.or(outer.$name),)+ }
            }

            /// Appends all of them as bytes. A change of these is one of
            /// [`FROZEN_VERSION`](crate::FROZEN_VERSION).
            pub(crate) fn freeze(&self, out: &mut Vec<u8>) {
                $(self.$name.put(out);)+
            }

            /// The rules that [`freeze`](Self::freeze) was called on.
            pub(crate) fn thaw(from: &mut Reader<'_>) -> Option<Self> {
                Some(Rules { $($name: Field::take(from)?,)+ })
            }
        }
    };
}

rules! {
    /// How long no byte may move in either direction before the tunnel is ended. Zero is for ever;
    /// so is the relay's default.
    idle_timeout: Duration,
    /// How long a tunnel that a rule has ended waits for its peers to end too. By default
    /// [`Rules::DEFAULT_LINGER`].
    linger: Duration,
    /// The most payload bytes of a message of the client. Zero is no limit; so is the default.
    max_message_client: u64,
    /// The same of the back end.
    max_message_backend: u64,
    /// How long a side may say nothing before it is sent a Ping. Zero is for ever; so is the default.
    ping_interval: Duration,
    /// How long it may go on saying nothing then. By default as long.
    ping_timeout: Duration,
    /// How often its record is told how far it is while it is open. Zero is never; so is the default.
    report_interval: Duration,
    /// Whether what is not RFC 6455 ends the tunnel. By default it does not.
    strict: Strict,
    /// How long the tunnel may be open. Zero is for ever; so is the default.
    max_lifetime: Duration,
    /// When it ends whatever goes on in it, as time since 1970. By default never.
    expires: Duration,
    /// The most messages that the client may send in a second. Zero is no limit; so is the default.
    message_rate: u64,
    /// How many of them may come at once. By default as many as in a second.
    message_burst: u64,
    /// The most bytes that the client may send in a second. Zero is no limit; so is the default.
    bandwidth: u64,
}

/// The rules of an open tunnel. It costs little where none is set, as with most tunnels.
pub(crate) struct OwnRules(Option<Box<Rules>>);

impl From<Rules> for OwnRules {
    fn from(rules: Rules) -> Self {
        OwnRules((rules != Rules::NONE).then(|| Box::new(rules)))
    }
}

impl Deref for OwnRules {
    type Target = Rules;

    fn deref(&self) -> &Rules {
        self.0.as_deref().unwrap_or(&Rules::NONE)
    }
}

/// When a tunnel ends, whatever goes on in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Deadline {
    /// The time.
    pub at: Instant,
    /// Which rule says so.
    pub limit: Limit,
}

/// The rules that end a tunnel at a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Limit {
    /// [`Rules::max_lifetime`].
    Lifetime,
    /// [`Rules::expires`].
    Expired,
}

impl Limit {
    /// The status code of the Close frame for both sides (RFC 6455 7.4.1).
    pub fn code(self) -> u16 {
        match self {
            Self::Lifetime => GOING_AWAY,
            Self::Expired => POLICY_VIOLATION,
        }
    }
}

impl From<Limit> for Why {
    fn from(limit: Limit) -> Self {
        match limit {
            Limit::Lifetime => Self::Lifetime,
            Limit::Expired => Self::Expired,
        }
    }
}

/// WSForwardStrict, and what the extensions of a tunnel make of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Strict {
    /// Whatever comes is carried.
    Off = 0,
    /// RFC 6455, without extensions.
    On = 1,
    /// With permessage-deflate, which marks the first frames of messages by RSV1 (RFC 7692 6).
    Deflate = 2,
    /// With an extension that is not known here: it may define any reserved bit and opcode.
    Extended = 3,
}

impl Strict {
    /// What it is for a tunnel whose 101 names these extensions.
    #[must_use]
    pub fn with<'n>(self, names: impl Iterator<Item = &'n [u8]>) -> Self {
        names.fold(self, |strict, name| match strict {
            Self::On | Self::Deflate if name.eq_ignore_ascii_case(b"permessage-deflate") => {
                Self::Deflate
            }
            Self::Off => Self::Off,
            _ => Self::Extended,
        })
    }
}

/// A byte; 255 is none.
impl Field for Option<Strict> {
    const BYTES: usize = 1;

    fn put(&self, out: &mut Vec<u8>) {
        out.push(self.map_or(u8::MAX, |strict| strict as u8));
    }

    fn take(from: &mut Reader<'_>) -> Option<Self> {
        match from.u8()? {
            0 => Some(Some(Strict::Off)),
            1 => Some(Some(Strict::On)),
            2 => Some(Some(Strict::Deflate)),
            3 => Some(Some(Strict::Extended)),
            u8::MAX => Some(None),
            _ => None,
        }
    }
}

impl Rules {
    /// Time for an answer to a Close frame.
    pub const DEFAULT_LINGER: Duration = Duration::from_secs(2);

    /// The time without a byte after which the tunnel is ended; `None` if it never is.
    pub(crate) fn effective_idle_timeout(&self) -> Option<Duration> {
        self.idle_timeout.filter(|timeout| !timeout.is_zero())
    }

    /// Whether a tunnel with these rules has a [`deadline`](Self::deadline).
    pub fn has_deadline(&self) -> bool {
        self.expires.is_some() || self.max_lifetime.is_some_and(|time| !time.is_zero())
    }

    /// When a tunnel that began at `started` ends, by the clock as it is now.
    pub fn deadline(&self, started: Instant) -> Option<Deadline> {
        let lifetime = self.max_lifetime.filter(|time| !time.is_zero());
        let lifetime = lifetime.and_then(|time| started.checked_add(time));
        let expires = self.expires.and_then(|expires| {
            let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
            Instant::now().checked_add(expires.saturating_sub(now))
        });
        let limits = [(expires, Limit::Expired), (lifetime, Limit::Lifetime)];
        let deadlines =
            limits.into_iter().filter_map(|(at, limit)| Some(Deadline { at: at?, limit }));
        deadlines.min_by_key(|deadline| deadline.at)
    }

    /// How often the tunnel's record is told how far it is, if it is.
    pub(crate) fn effective_report_interval(&self) -> Option<Duration> {
        self.report_interval.filter(|interval| !interval.is_zero())
    }

    /// How long the tunnel waits for its peers when a rule has ended it.
    pub(crate) fn effective_linger(&self) -> Duration {
        self.linger.unwrap_or(Self::DEFAULT_LINGER)
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

    use shared::Why;

    use super::{Limit, OwnRules, Rules, Strict};
    use crate::bytes::Reader;

    #[test]
    fn an_inner_section_decides_before_an_outer_one() {
        let [one, two] = [1, 2].map(|n| Some(Duration::from_secs(n)));
        let inner = Rules { idle_timeout: Some(Duration::ZERO), ..Rules::default() };
        let outer = Rules { idle_timeout: one, linger: two, ..Rules::default() };
        let merged = inner.or(outer);
        assert_eq!(merged, Rules { idle_timeout: Some(Duration::ZERO), ..outer });
        assert_eq!(merged.effective_idle_timeout(), None);
        assert_eq!(Rules::default().or(outer), outer);
    }

    #[test]
    fn the_first_limit_ends_the_tunnel() {
        let (started, hour) = (Instant::now(), Duration::from_secs(3600));
        let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970");
        let limit = |max_lifetime, expires| {
            let rules = Rules { max_lifetime, expires, ..Rules::default() };
            assert_eq!(rules.has_deadline(), rules.deadline(started).is_some());
            rules.deadline(started).map(|deadline| deadline.limit)
        };
        assert_eq!(limit(None, None), None);
        assert_eq!(limit(Some(Duration::ZERO), None), None);
        assert_eq!(limit(Some(hour), None), Some(Limit::Lifetime));
        assert_eq!(limit(Some(hour), Some(now + hour / 2)), Some(Limit::Expired));
        assert_eq!(limit(Some(hour), Some(now + hour * 2)), Some(Limit::Lifetime));
        // It is over by now.
        let past = Rules { expires: Some(hour), ..Rules::default() }.deadline(started);
        assert!(past.is_some_and(|deadline| deadline.at <= Instant::now()));
    }

    #[test]
    fn each_limit_says_what_it_is() {
        let said = [Limit::Lifetime, Limit::Expired].map(|limit| (limit.code(), limit.into()));
        assert_eq!(said, [(1001, Why::Lifetime), (1008, Why::Expired)]);
    }

    #[test]
    fn what_is_zero_is_not_set() {
        let all = |time| Rules {
            idle_timeout: time,
            report_interval: time,
            max_lifetime: time,
            linger: time,
            ..Rules::default()
        };
        let effective = |time| {
            let rules = all(time);
            let times = [rules.effective_idle_timeout(), rules.effective_report_interval()];
            (times, rules.has_deadline(), rules.effective_linger())
        };
        let second = Duration::from_secs(1);
        assert_eq!(effective(None), ([None; 2], false, Rules::DEFAULT_LINGER));
        assert_eq!(effective(Some(Duration::ZERO)), ([None; 2], false, Duration::ZERO));
        assert_eq!(effective(Some(second)), ([Some(second); 2], true, second));
    }

    /// Most tunnels have none, and are to cost nothing for that.
    #[test]
    fn only_rules_that_are_set_take_memory() {
        let none = OwnRules::from(Rules::default());
        assert!(none.0.is_none() && *none == Rules::default());
        let rules = Rules { bandwidth: Some(1), ..Rules::default() };
        let set = OwnRules::from(rules);
        assert!(set.0.is_some() && *set == rules);
    }

    #[test]
    fn what_an_extension_may_do_is_not_refused() {
        let with =
            |strict: Strict, names: &[&str]| strict.with(names.iter().map(|name| name.as_bytes()));
        let (deflate, other) = ("Permessage-Deflate", "x-other");
        for names in [&[][..], &[deflate], &[other], &[deflate, other]] {
            assert_eq!(with(Strict::Off, names), Strict::Off);
        }
        for strict in [Strict::On, Strict::Deflate] {
            assert_eq!(with(strict, &[]), strict);
            assert_eq!(with(strict, &[deflate]), Strict::Deflate);
            assert_eq!(with(strict, &[deflate, deflate]), Strict::Deflate);
            for names in [&[other][..], &[deflate, other], &[other, deflate]] {
                assert_eq!(with(strict, names), Strict::Extended);
            }
        }
        assert_eq!(with(Strict::Extended, &[deflate]), Strict::Extended);
    }

    #[test]
    fn each_strictness_comes_back() {
        let all = [Strict::Off, Strict::On, Strict::Deflate, Strict::Extended];
        for strict in all.map(Some).into_iter().chain([None]) {
            let rules = Rules { strict, ..Rules::default() };
            let mut bytes = Vec::new();
            rules.freeze(&mut bytes);
            assert_eq!(Rules::thaw(&mut Reader(&bytes)), Some(rules));
            // It is the only byte of its kind.
            let at = bytes.iter().position(|byte| *byte != u8::MAX);
            if let Some(at) = at {
                bytes[at] = 4;
                assert_eq!(Rules::thaw(&mut Reader(&bytes)), None);
            }
        }
    }

    #[test]
    fn whatever_they_are_they_come_back() {
        let times = [None, Some(Duration::ZERO), Some(Duration::from_micros(7))];
        let numbers = [None, Some(0), Some(u64::MAX - 1)];
        for (at, idle_timeout) in times.into_iter().enumerate() {
            for linger in times {
                let rules = Rules {
                    idle_timeout,
                    linger,
                    max_message_client: numbers[at],
                    max_message_backend: numbers[2 - at],
                    ping_interval: linger,
                    ping_timeout: idle_timeout,
                    report_interval: idle_timeout,
                    strict: [None, Some(Strict::Off), Some(Strict::Extended)][at],
                    max_lifetime: linger,
                    expires: idle_timeout,
                    message_rate: numbers[at],
                    message_burst: numbers[2 - at],
                    bandwidth: numbers[at],
                };
                let mut bytes = Vec::new();
                rules.freeze(&mut bytes);
                assert_eq!(bytes.len(), Rules::FROZEN_BYTES);
                assert_eq!(Rules::thaw(&mut Reader(&bytes)), Some(rules));
            }
        }
        // A time that is too long for the bytes is still one.
        let mut bytes = Vec::new();
        Rules { idle_timeout: Some(Duration::MAX), ..Rules::default() }.freeze(&mut bytes);
        let thawed = Rules::thaw(&mut Reader(&bytes)).expect("rules");
        assert!(thawed.idle_timeout.is_some() && thawed.linger.is_none());
    }
}
