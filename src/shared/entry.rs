//! What stands in the register about one tunnel.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};

use crate::activity::Activity;
use crate::bits::{Bits, low_u32, low_u64};
use crate::names::Name;
use crate::slot_number::SlotNumber;
use crate::sync::{AtomicU64, fence};
use crate::text;
use crate::tunnel_entry::TunnelEntry;

/// What is kept of the texts of a tunnel, in all: an entry is five lines of the cache.
const TEXT_BYTES: usize = size_of::<u64>() * TEXT_WORDS;
const TEXT_WORDS: usize = if cfg!(loom) { 1 } else { 27 };
/// Of the log id, the user, the subprotocol and the path. The path has no more than the others leave.
const MOST_BYTES: [usize; 4] = [32, 64, 32, 128];

/// What is known of a tunnel when it opens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct About<'a> {
    /// The client's address.
    pub client: IpAddr,
    /// And its port.
    pub port: u16,
    /// The virtual host.
    pub vhost: Name,
    /// The back end.
    pub backend: Name,
    /// Whether the client's side has TLS.
    pub is_client_tls: bool,
    /// Whether the back end's side has TLS.
    pub is_backend_tls: bool,
    /// When it opened: microseconds since 1970.
    pub started_micros: u64,
    /// What ties it to the logs. As all texts it is from a client, or may be, and is cut.
    pub id: &'a [u8],
    /// Who the client is, if it said.
    pub user: &'a [u8],
    /// The subprotocol that was agreed on.
    pub subprotocol: &'a [u8],
    /// The path of the request.
    pub path: &'a [u8],
}

/// How far a tunnel is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    Free,
    Filling,
    Thread,
    Relay,
    Ending,
}

/// Whose an entry is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Owner(pub u64);

impl Owner {
    const LIFE: Bits = Bits { from: 0, count: 32 };
    const SLOT: Bits = Bits::above(Self::LIFE, SlotNumber::BITS);
    const PHASE: Bits = Bits::above(Self::SLOT, 3);

    pub const fn with(self, bits: Bits, value: u64) -> Self {
        Self(bits.set(self.0, value))
    }

    pub const fn life(self) -> u32 {
        Self::LIFE.get_u32(self.0)
    }

    pub const fn phase(self) -> Phase {
        match Self::PHASE.get(self.0) {
            1 => Phase::Filling,
            2 => Phase::Thread,
            3 => Phase::Relay,
            4 => Phase::Ending,
            _ => Phase::Free,
        }
    }

    pub const fn is_open(self) -> bool {
        matches!(self.phase(), Phase::Thread | Phase::Relay)
    }

    pub const fn in_phase(self, phase: Phase) -> Self {
        self.with(Self::PHASE, phase as u64)
    }

    pub const fn slot(self) -> Option<SlotNumber> {
        SlotNumber::of_mark(Self::SLOT.get(self.0))
    }

    pub const fn is_of(self, slot: SlotNumber) -> bool {
        Self::SLOT.get(self.0) == slot.mark()
    }

    pub const fn of(self, slot: SlotNumber) -> Self {
        self.with(Self::SLOT, slot.mark())
    }

    /// The next life begins. No life is 0.
    pub fn filling(self, slot: SlotNumber) -> Self {
        let life = self.life().wrapping_add(1).max(1);
        Self(0).with(Self::LIFE, u64::from(life)).of(slot).in_phase(Phase::Filling)
    }

    pub const fn freed(self) -> Self {
        Self(0).with(Self::LIFE, Self::LIFE.get(self.0))
    }
}

/// A tunnel.
#[repr(C)]
pub(crate) struct Entry {
    pub activity: Activity,
    started: AtomicU64,
    client: [AtomicU64; 2],
    /// See [`Marks`].
    marks: AtomicU64,
    /// Of the four texts, a byte each. Above them, when it opened: seconds of CLOCK_MONOTONIC.
    lengths: AtomicU64,
    text: [AtomicU64; TEXT_WORDS],
}

#[cfg(not(loom))]
const _: () = assert!(size_of::<Entry>() == 5 * 64);

/// What is short.
#[derive(Clone, Copy)]
struct Marks(u64);

impl Marks {
    const PORT: Bits = Bits { from: 0, count: 16 };
    const VHOST: Bits = Bits::above(Self::PORT, Name::BITS);
    const BACKEND: Bits = Bits::above(Self::VHOST, Name::BITS);
    const IS_IPV4: Bits = Bits::above(Self::BACKEND, 1);
    const IS_CLIENT_TLS: Bits = Bits::above(Self::IS_IPV4, 1);
    const IS_BACKEND_TLS: Bits = Bits::above(Self::IS_CLIENT_TLS, 1);

    fn new(about: &About<'_>) -> Self {
        Self(0)
            .with(Self::PORT, about.port)
            .with(Self::VHOST, about.vhost.number())
            .with(Self::BACKEND, about.backend.number())
            .with(Self::IS_IPV4, about.client.is_ipv4())
            .with(Self::IS_CLIENT_TLS, about.is_client_tls)
            .with(Self::IS_BACKEND_TLS, about.is_backend_tls)
    }

    fn with(self, bits: Bits, value: impl Into<u64>) -> Self {
        Self(bits.set(self.0, value.into()))
    }

    const fn number(self, bits: Bits) -> u16 {
        bits.get_u16(self.0)
    }

    const fn is(self, bits: Bits) -> bool {
        bits.get(self.0) == 1
    }
}

/// The texts of a tunnel, one behind the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Texts {
    lengths: [u8; 4],
    bytes: [u8; TEXT_BYTES],
}

impl Texts {
    fn new(about: &About<'_>) -> Self {
        let mut new = Self { lengths: [0; 4], bytes: [0; TEXT_BYTES] };
        let mut room = new.bytes.as_mut_slice();
        let texts = [about.id, about.user, about.subprotocol, about.path];
        for ((text, most), length) in texts.into_iter().zip(MOST_BYTES).zip(&mut new.lengths) {
            let text = text::cut(text, most.min(room.len()));
            let Some((to, rest)) = room.split_at_mut_checked(text.len()) else { break };
            to.copy_from_slice(text);
            *length = u8::try_from(text.len()).unwrap_or(u8::MAX);
            room = rest;
        }
        new
    }

    fn used(&self) -> usize {
        self.lengths.into_iter().map(usize::from).sum::<usize>().min(TEXT_BYTES)
    }

    /// One of them. Of lengths that nobody wrote what there is.
    fn get(&self, nth: usize) -> &[u8] {
        let lengths = || self.lengths.into_iter().map(usize::from);
        let (before, length) = (lengths().take(nth).sum(), lengths().nth(nth).unwrap_or(0));
        let rest = self.bytes.get(before..).unwrap_or_default();
        rest.get(..length).unwrap_or(rest)
    }
}

/// A tunnel that has an order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ordered {
    /// Which one it is.
    pub tunnel: TunnelEntry,
    /// Whether a relay carries it, and not a thread of httpd's.
    pub is_relayed: bool,
    /// Where in its relay it is, see [`Activity::seat`].
    pub seat: u32,
}

/// An open tunnel, as somebody else sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Listed {
    /// Which one it is.
    pub entry: TunnelEntry,
    /// The process that has it.
    pub pid: u32,
    /// Whether a relay carries it, and not a thread of httpd's.
    pub is_relayed: bool,
    /// The client's address.
    pub client: IpAddr,
    /// And its port.
    pub port: u16,
    /// The virtual host.
    pub vhost: Name,
    /// The back end.
    pub backend: Name,
    /// Whether the client's side has TLS.
    pub is_client_tls: bool,
    /// Whether the back end's side has TLS.
    pub is_backend_tls: bool,
    /// When it opened, by the clock as it was then: microseconds since 1970.
    pub started_micros: u64,
    /// The same by a clock that nobody sets: seconds of CLOCK_MONOTONIC.
    pub opened: u32,
    /// When something was delivered last: seconds of CLOCK_MONOTONIC.
    pub last: u32,
    /// Bytes delivered, up and down.
    pub bytes: [u64; 2],
    /// Messages delivered, up and down: of text, and of other bytes.
    pub messages: [[u64; 2]; 2],
    texts: Texts,
}

impl Listed {
    /// What ties it to the logs. As all texts it may be hostile, and is cut.
    pub fn id(&self) -> &[u8] {
        self.texts.get(0)
    }

    /// Who the client is. Empty if it did not say.
    pub fn user(&self) -> &[u8] {
        self.texts.get(1)
    }

    /// The subprotocol that was agreed on. Empty if there is none.
    pub fn subprotocol(&self) -> &[u8] {
        self.texts.get(2)
    }

    /// The path of the request.
    pub fn path(&self) -> &[u8] {
        self.texts.get(3)
    }
}

impl Entry {
    #[cfg(loom)]
    pub fn new() -> Self {
        Self {
            activity: Activity::new(),
            started: AtomicU64::new(0),
            client: std::array::from_fn(|_| AtomicU64::new(0)),
            marks: AtomicU64::new(0),
            lengths: AtomicU64::new(0),
            text: std::array::from_fn(|_| AtomicU64::new(0)),
        }
    }

    pub fn vhost(&self) -> Name {
        Name::from_number(Marks(self.marks.load(Acquire)).number(Marks::VHOST))
    }

    /// By the one that has just taken it.
    pub fn write(&self, about: &About<'_>, seconds: u32) {
        // Whoever reads some of what follows sees that it was taken.
        fence(Release);
        self.activity.begin(seconds);
        self.started.store(about.started_micros, Relaxed);
        let client = match about.client {
            IpAddr::V4(address) => u128::from(u32::from(address)),
            IpAddr::V6(address) => u128::from(address),
        };
        for (word, part) in self.client.iter().zip([client >> 64, client].map(low_u64)) {
            word.store(part, Relaxed);
        }
        self.marks.store(Marks::new(about).0, Relaxed);
        let texts = Texts::new(about);
        let [id, user, subprotocol, path] = texts.lengths;
        let lengths = u32::from_le_bytes([id, user, subprotocol, path]);
        self.lengths.store(u64::from(seconds) << 32 | u64::from(lengths), Relaxed);
        text::store(&self.text, texts.bytes.get(..texts.used()).unwrap_or_default());
    }

    /// What is there. Whoever reads looks at the owner before and afterwards.
    pub fn read(&self, entry: TunnelEntry, owner: Owner, pid: u32) -> Listed {
        let activity = &self.activity;
        let [high, low] = self.client.each_ref().map(|word| word.load(Acquire));
        let marks = Marks(self.marks.load(Acquire));
        let lengths = self.lengths.load(Acquire);
        let mut texts = Texts { lengths: low_u32(lengths).to_le_bytes(), bytes: [0; TEXT_BYTES] };
        let used = texts.used();
        text::load(&self.text, texts.bytes.get_mut(..used).unwrap_or_default());
        Listed {
            entry,
            pid,
            is_relayed: owner.phase() == Phase::Relay,
            client: if marks.is(Marks::IS_IPV4) {
                Ipv4Addr::from(low_u32(low)).into()
            } else {
                Ipv6Addr::from(u128::from(high) << 64 | u128::from(low)).into()
            },
            port: marks.number(Marks::PORT),
            vhost: Name::from_number(marks.number(Marks::VHOST)),
            backend: Name::from_number(marks.number(Marks::BACKEND)),
            is_client_tls: marks.is(Marks::IS_CLIENT_TLS),
            is_backend_tls: marks.is(Marks::IS_BACKEND_TLS),
            started_micros: self.started.load(Acquire),
            opened: low_u32(lengths >> 32),
            last: activity.last.load(Acquire),
            bytes: activity.bytes.each_ref().map(|count| count.load(Acquire)),
            messages: activity
                .messages
                .each_ref()
                .map(|way| way.each_ref().map(|count| count.load(Acquire))),
            texts,
        }
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    /// Who dies leaves an entry in any of them.
    #[test]
    fn an_owner_says_whose_it_is_and_how_far() {
        let [slot, other] = [0, 4095].map(SlotNumber);
        let filling = Owner(0).filling(slot);
        assert_eq!((filling.life(), filling.phase()), (1, Phase::Filling));
        for phase in [Phase::Free, Phase::Filling, Phase::Thread, Phase::Relay, Phase::Ending] {
            let owner = filling.in_phase(phase);
            assert_eq!((owner.phase(), owner.life(), owner.slot()), (phase, 1, Some(slot)));
            assert_eq!(owner.is_open(), matches!(phase, Phase::Thread | Phase::Relay));
            let moved = owner.of(other);
            assert_eq!((moved.phase(), moved.life(), moved.slot()), (phase, 1, Some(other)));
            assert!(moved.is_of(other) && !moved.is_of(slot));
            assert_eq!((moved.freed().phase(), moved.freed().life()), (Phase::Free, 1));
            assert_eq!(moved.freed().slot(), None);
        }
        // After the last life comes the first again.
        assert_eq!(Owner(u64::from(u32::MAX)).filling(slot).life(), 1);
    }
}
