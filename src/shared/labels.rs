//! What is told apart in figures that have names, beside virtual hosts and back ends.

use crate::bits::low_u8;
use crate::reasons::{Ends, Refusal, Why};

/// An enum whose variants have names, for figures, and numbers, for memory.
macro_rules! labels {
    (
        $(#[$outer:meta])*
        pub enum $name:ident { $($(#[$inner:meta])* $variant:ident = $label:literal,)+ }
    ) => {
        $(#[$outer])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum $name {
            $($(#[$inner])* $variant,)+
        }

        impl $name {
            /// All of them.
            pub const ALL: [Self; [$($label),+].len()] = [$(Self::$variant),+];

            /// As figures have it.
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$variant => $label,)+
                }
            }

            pub(crate) const fn number(self) -> u64 {
                self as u64
            }

            pub(crate) fn from_number(number: u64) -> Option<Self> {
                Self::ALL.get(usize::try_from(number).ok()?).copied()
            }
        }
    };
}

labels! {
    /// Who ended a tunnel.
    pub enum By {
        /// The client.
        Client = "client",
        /// The back end.
        Backend = "backend",
        /// This side: an order, a timeout, a fault of the relay.
        Us = "server",
    }
}

labels! {
    /// Which way something goes.
    pub enum Direction {
        /// From the client to the back end.
        Up = "up",
        /// From the back end to the client.
        Down = "down",
    }
}

labels! {
    /// What a message is made of.
    pub enum Opcode {
        /// Text.
        Text = "text",
        /// Other bytes.
        Binary = "binary",
    }
}

labels! {
    /// How a handshake ended.
    pub enum Handshake {
        /// The back end switched protocols: a tunnel is open.
        Switched = "101",
        /// The back end answered something else.
        Answer = "answer",
        /// The back end switched protocols, and not as RFC 6455 wants it.
        Bad101 = "bad_101",
        /// The head of the answer was none.
        BadHead = "bad_head",
        /// There was no answer in time.
        Timeout = "timeout",
        /// Refused: WSForwardMaxTunnels is reached.
        Tunnels = "refused_max_tunnels",
        /// Refused: the limit of descriptors allows no more.
        Descriptors = "refused_descriptors",
        /// Refused: WSForwardMaxTunnelsPerClient is reached.
        Client = "refused_max_tunnels_per_client",
        /// Refused: WSForwardMaxTunnelsPerBackend is reached.
        Backend = "refused_max_tunnels_per_backend",
        /// Refused: no more fit the server's memory.
        Memory = "refused_memory",
        /// Refused: the time of WSFORWARD_EXPIRES has come already.
        Expired = "refused_expired",
        /// Refused: WSForwardReadyFile is absent.
        NotReady = "refused_not_ready",
        /// Refused: WSForwardOrigin does not allow its Origin.
        Origin = "origin",
        /// There was no answer: the back end was not reached, or hung up.
        Failed = "failed",
    }
}

impl From<Refusal> for Handshake {
    fn from(why: Refusal) -> Self {
        match why {
            Refusal::Tunnels => Self::Tunnels,
            Refusal::Descriptors => Self::Descriptors,
            Refusal::Client => Self::Client,
            Refusal::Backend => Self::Backend,
            Refusal::Memory => Self::Memory,
            Refusal::Expired => Self::Expired,
            Refusal::Origin => Self::Origin,
            Refusal::NotReady => Self::NotReady,
        }
    }
}

labels! {
    /// What has a duration.
    pub enum Timed {
        /// A tunnel, from its first byte to its end.
        Tunnel = "tunnel",
        /// A handshake, from the request to the answer.
        Handshake = "handshake",
    }
}

impl Timed {
    /// The bounds of the buckets, in microseconds. Behind the last one there is one more bucket.
    pub const fn bounds_micros(self) -> &'static [u64] {
        const MILLI: u64 = 1000;
        const SECOND: u64 = 1_000_000;
        match self {
            Self::Tunnel => &[
                SECOND,
                10 * SECOND,
                60 * SECOND,
                600 * SECOND,
                3600 * SECOND,
                21_600 * SECOND,
                86_400 * SECOND,
            ],
            Self::Handshake => &[
                5 * MILLI,
                10 * MILLI,
                25 * MILLI,
                50 * MILLI,
                100 * MILLI,
                250 * MILLI,
                500 * MILLI,
                SECOND,
                2500 * MILLI,
                5 * SECOND,
                10 * SECOND,
            ],
        }
    }
}

/// Why a tunnel ended: a [`Why`] without its text, or that its process did.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Reason(u8);

impl Reason {
    /// Its process ended first.
    pub const PROCESS_ENDED: Self = Self(u8::MAX);
    /// Not one of this build.
    const OTHER: Self = Self(254);

    /// As figures have it.
    pub fn name(self) -> &'static str {
        let known = Ends::EACH.get(usize::from(self.0)).map(|(name, _)| *name);
        known.unwrap_or(if self == Self::PROCESS_ENDED { "process-ended" } else { "other" })
    }

    pub(crate) const fn number(self) -> u64 {
        self.0 as u64
    }

    pub(crate) const fn from_number(number: u64) -> Self {
        Self(low_u8(number))
    }
}

impl From<&Why> for Reason {
    fn from(why: &Why) -> Self {
        let number = Ends::EACH.iter().position(|(name, _)| *name == why.name());
        number.and_then(|number| u8::try_from(number).ok()).map_or(Self::OTHER, Self)
    }
}

/// Another number if one of the names is another, or stands elsewhere: memory has their numbers.
pub(crate) const LAYOUT: u64 = {
    let mut layout = 0;
    let mut at = 0;
    while at < Ends::EACH.len() {
        layout = add(layout, Ends::EACH[at].0);
        at += 1;
    }
    let mut at = 0;
    while at < Handshake::ALL.len() {
        layout = add(layout, Handshake::ALL[at].name());
        at += 1;
    }
    layout
};

/// FNV-1a of a name, and of its end.
const fn add(layout: u64, name: &str) -> u64 {
    let mut layout = layout ^ 0xcbf2_9ce4_8422_2325;
    let mut at = 0;
    while at < name.len() {
        layout = (layout ^ name.as_bytes()[at] as u64).wrapping_mul(0x0100_0000_01b3);
        at += 1;
    }
    (layout ^ 0xff).wrapping_mul(0x0100_0000_01b3)
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn names_are_told_apart() {
        assert_ne!(add(add(0, "a"), "b"), add(add(0, "b"), "a"));
        assert_ne!(add(add(0, "a"), "b"), add(0, "ab"));
        assert_eq!(Reason::from(&Why::Error(5)).name(), "error");
        assert_eq!(Reason::from(&Why::Stopped).name(), "stopped");
        assert_eq!(Reason::PROCESS_ENDED.name(), "process-ended");
        assert_eq!(Reason(200).name(), "other");
        for label in Handshake::ALL {
            assert_eq!(Handshake::from_number(label.number()), Some(label));
        }
    }

    /// Builds with the same number share memory: the hash is that of all of them.
    #[test]
    fn every_name_counts_in_the_layout() {
        // FNV-1a as it is published, of "foobar".
        let foobar = 0x8594_4171_f739_67e8_u64;
        assert_eq!(add(0, "foobar"), (foobar ^ 0xff).wrapping_mul(0x0100_0000_01b3));
        assert_eq!(add(add(0, "a"), "b"), 0x0a42_97fe_ee2c_77ef);
        let names = Ends::EACH.iter().map(|(name, _)| *name);
        let names = names.chain(Handshake::ALL.iter().map(|label| label.name()));
        assert_eq!(LAYOUT, names.fold(0, add));
    }

    #[test]
    fn a_refused_handshake_is_named_after_the_refusal() {
        for (why, text) in [
            (Refusal::Tunnels, "max-tunnels"),
            (Refusal::Descriptors, "descriptors"),
            (Refusal::Client, "max-tunnels-per-client"),
            (Refusal::Backend, "max-tunnels-per-backend"),
            (Refusal::Memory, "memory"),
            (Refusal::Expired, "expired"),
            (Refusal::NotReady, "not-ready"),
        ] {
            assert_eq!(why.name(), text);
            assert_eq!(Handshake::from(why).name(), format!("refused_{}", text.replace('-', "_")));
        }
        assert_eq!(Handshake::from(Refusal::Origin).name(), "origin");
    }
}
