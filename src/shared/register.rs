//! Every open tunnel: whose it is, what it is, and what it does.
//!
//! A tunnel has an entry, which belongs to the slot of its process. One word of it, the *owner*, says
//! whose it is, how far it is, and which life of the entry this is. All changes are exchanges of
//! that word:
//!
//! 1. a free entry is taken, and a new life begins: *filling*
//! 2. it is written, and shown: *in a thread*
//! 3. it is *relayed*, and may go to other slots
//! 4. it is *ending*, and free again
//!
//! Its process may die between any two stores. Whoever clears the slot frees what belongs to it.
//! Whoever reads an entry looks at the owner before and afterwards: if it is the same, so was all the
//! rest.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::num::NonZeroU32;
use std::sync::atomic::Ordering::{AcqRel, Acquire, Relaxed, Release, SeqCst};

use crate::activity::{Activity, Order, OrderWord};
use crate::bits::Bits;
use crate::labels::{self, By, Direction, Opcode, Reason};
use crate::mapping::Shareable;
use crate::names::{Name, Names};
use crate::nonces::Nonces;
use crate::orders::{OrderNumber, OrderTexts};
use crate::series::{Metric, Series};
use crate::slot_number::SlotNumber;
use crate::slots::{Shared, Slot};
use crate::sync::{AtomicU32, AtomicU64, fence, somewhere};
use crate::text;

/// More tunnels than this are not listed, whatever the configuration says.
const ENTRIES: usize = if cfg!(loom) { 2 } else { 1 << 18 };

/// Owners that are in one line of the processor's cache.
const LINE: usize = if cfg!(loom) { 1 } else { 8 };

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

/// Where a tunnel is registered, as its owner knows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TunnelEntry {
    index: u32,
    life: NonZeroU32,
}

impl TunnelEntry {
    /// As bytes, for [`Self::thaw`]. Of none: all zero.
    pub fn freeze(entry: Option<Self>) -> [u8; 8] {
        entry.map_or([0; 8], |Self { index, life }| {
            (u64::from(index) << 32 | u64::from(life.get())).to_le_bytes()
        })
    }

    /// What became these bytes.
    pub fn thaw(bytes: [u8; 8]) -> Option<Self> {
        let word = u64::from_le_bytes(bytes);
        Some(Self { index: (word >> 32) as u32, life: NonZeroU32::new(word as u32)? })
    }

    pub(crate) const fn life(self) -> u32 {
        self.life.get()
    }

    const fn index(self) -> usize {
        self.index as usize
    }

    /// The one that has this owner, and whose process it is.
    fn of(index: usize, owner: Owner) -> Option<Self> {
        Some(Self { index: u32::try_from(index).ok()?, life: NonZeroU32::new(owner.life())? })
    }
}

/// How far a tunnel is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Free,
    Filling,
    Thread,
    Relay,
    Ending,
}

/// Whose an entry is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Owner(u64);

impl Owner {
    const LIFE: Bits = Bits { from: 0, count: 32 };
    const SLOT: Bits = Bits::above(Self::LIFE, SlotNumber::BITS);
    const PHASE: Bits = Bits::above(Self::SLOT, 3);

    const fn with(self, bits: Bits, value: u64) -> Self {
        Self(bits.set(self.0, value))
    }

    const fn life(self) -> u32 {
        Self::LIFE.get(self.0) as u32
    }

    const fn phase(self) -> Phase {
        match Self::PHASE.get(self.0) {
            1 => Phase::Filling,
            2 => Phase::Thread,
            3 => Phase::Relay,
            4 => Phase::Ending,
            _ => Phase::Free,
        }
    }

    const fn is_open(self) -> bool {
        matches!(self.phase(), Phase::Thread | Phase::Relay)
    }

    const fn in_phase(self, phase: Phase) -> Self {
        self.with(Self::PHASE, phase as u64)
    }

    const fn slot(self) -> Option<SlotNumber> {
        SlotNumber::of_mark(Self::SLOT.get(self.0))
    }

    const fn is_of(self, slot: SlotNumber) -> bool {
        Self::SLOT.get(self.0) == slot.mark()
    }

    const fn of(self, slot: SlotNumber) -> Self {
        self.with(Self::SLOT, slot.mark())
    }

    /// The next life begins. No life is 0.
    fn filling(self, slot: SlotNumber) -> Self {
        let life = self.life().wrapping_add(1).max(1);
        Self(0).with(Self::LIFE, u64::from(life)).of(slot).in_phase(Phase::Filling)
    }

    const fn freed(self) -> Self {
        Self(0).with(Self::LIFE, Self::LIFE.get(self.0))
    }
}

/// A tunnel.
#[repr(C)]
struct Entry {
    activity: Activity,
    started: AtomicU64,
    client: [AtomicU64; 2],
    /// See [`Marks`].
    marks: AtomicU64,
    /// Of the four texts, a byte each.
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
        bits.get(self.0) as u16
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
    /// When it opened: microseconds since 1970.
    pub started_micros: u64,
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
    fn new() -> Self {
        Self {
            activity: Activity::new(),
            started: AtomicU64::new(0),
            client: std::array::from_fn(|_| AtomicU64::new(0)),
            marks: AtomicU64::new(0),
            lengths: AtomicU64::new(0),
            text: std::array::from_fn(|_| AtomicU64::new(0)),
        }
    }

    fn vhost(&self) -> Name {
        Name::from_number(Marks(self.marks.load(Acquire)).number(Marks::VHOST))
    }

    /// By the one that has just taken it.
    fn write(&self, about: &About<'_>, seconds: u32) {
        // Whoever reads some of what follows sees that it was taken.
        fence(Release);
        self.activity.begin(seconds);
        self.started.store(about.started_micros, Relaxed);
        let client = match about.client {
            IpAddr::V4(address) => u128::from(u32::from(address)),
            IpAddr::V6(address) => u128::from(address),
        };
        for (word, part) in self.client.iter().zip([(client >> 64) as u64, client as u64]) {
            word.store(part, Relaxed);
        }
        self.marks.store(Marks::new(about).0, Relaxed);
        let texts = Texts::new(about);
        let [id, user, subprotocol, path] = texts.lengths;
        let lengths = [id, user, subprotocol, path, 0, 0, 0, 0];
        self.lengths.store(u64::from_le_bytes(lengths), Relaxed);
        text::store(&self.text, texts.bytes.get(..texts.used()).unwrap_or_default());
    }

    /// What is there. Whoever reads looks at the owner before and afterwards.
    fn read(&self, entry: TunnelEntry, owner: Owner, pid: u32) -> Listed {
        let activity = &self.activity;
        let [high, low] = [0, 1].map(|part| {
            self.client.get(part).map_or(0, |word: &AtomicU64| u128::from(word.load(Acquire)))
        });
        let client = high << 64 | low;
        let marks = Marks(self.marks.load(Acquire));
        let [id, user, subprotocol, path, ..] = self.lengths.load(Acquire).to_le_bytes();
        let mut texts = Texts { lengths: [id, user, subprotocol, path], bytes: [0; TEXT_BYTES] };
        let used = texts.used();
        text::load(&self.text, texts.bytes.get_mut(..used).unwrap_or_default());
        Listed {
            entry,
            pid,
            is_relayed: owner.phase() == Phase::Relay,
            client: if marks.is(Marks::IS_IPV4) {
                Ipv4Addr::from(client as u32).into()
            } else {
                Ipv6Addr::from(client).into()
            },
            port: marks.number(Marks::PORT),
            vhost: Name::from_number(marks.number(Marks::VHOST)),
            backend: Name::from_number(marks.number(Marks::BACKEND)),
            is_client_tls: marks.is(Marks::IS_CLIENT_TLS),
            is_backend_tls: marks.is(Marks::IS_BACKEND_TLS),
            started_micros: self.started.load(Acquire),
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

/// All of the memory: tunnels, and what is counted by name.
#[repr(C)]
pub struct Register {
    /// What is hashed with, so that nobody can choose texts that collide: random, made once.
    key: [AtomicU64; 2],
    /// How many entries may be taken.
    size: AtomicU32,
    /// No entry at or above this index was ever used.
    used: AtomicU32,
    vhosts: Names,
    backends: Names,
    order_texts: OrderTexts,
    pub(crate) nonces: Nonces,
    pub(crate) series: Series,
    /// An [`Owner`] for each entry: together, so that whoever looks for one finds many at once.
    owners: [AtomicU64; ENTRIES],
    entries: [Entry; ENTRIES],
}

// SAFETY: atomics only, repr(C) throughout, any bytes are valid.
unsafe impl Shareable for Register {
    const LAYOUT: u64 = labels::LAYOUT ^ (2 << 32 | size_of::<Self>() as u64);
}

const _: () = assert!(size_of::<Register>() < 1 << 32);

impl Register {
    /// More entries than this there cannot be.
    pub const MAX_SIZE: usize = ENTRIES;

    /// All free, where no mapping is at hand.
    #[cfg(loom)]
    pub(crate) fn new() -> Self {
        Self {
            key: std::array::from_fn(|_| AtomicU64::new(0)),
            size: AtomicU32::new(ENTRIES as u32),
            used: AtomicU32::new(0),
            vhosts: Names::new(),
            backends: Names::new(),
            order_texts: OrderTexts::new(),
            nonces: Nonces::new(),
            series: Series::new(),
            owners: std::array::from_fn(|_| AtomicU64::new(0)),
            entries: std::array::from_fn(|_| Entry::new()),
        }
    }

    /// A new configuration begins, which lists so many tunnels. In the parent, before children are
    /// made. `random` makes what is hashed with, the first time.
    ///
    /// # Errors
    /// Those of `random`.
    pub fn begin<E>(
        &self,
        size: usize,
        random: impl FnOnce() -> Result<[u64; 2], E>,
    ) -> Result<(), E> {
        if self.key() == [0; 2] {
            for (part, value) in self.key.iter().zip(random()?) {
                part.store(value, Relaxed);
            }
        }
        self.size.store(u32::try_from(size.min(ENTRIES)).unwrap_or(0), Relaxed);
        Ok(())
    }

    pub(crate) fn key(&self) -> [u64; 2] {
        self.key.each_ref().map(|part| part.load(Relaxed))
    }

    /// An entry for a new tunnel. It costs the same however many there are: where some in a hundred
    /// are free, one is found; of the last ones maybe not.
    fn take(&self, slot: SlotNumber) -> Option<(usize, Owner)> {
        /// Lines of owners that are looked at, among those that were used before.
        const FIRST: usize = 2;
        /// As many as this behind them.
        const BEHIND: usize = 8;
        /// Once all were: so many lines anywhere, which are all of a small register.
        const THEN: usize = 512;
        let size = (self.size.load(Relaxed) as usize).min(ENTRIES);
        let take = |index: usize| {
            let free = self.owner(index).filter(|owner| owner.phase() == Phase::Free)?;
            // Whoever looks for the entries of a dead process looks no further than this.
            if self.used() <= index {
                self.used.fetch_max(u32::try_from(index).ok()? + 1, AcqRel);
            }
            let filling = free.filling(slot);
            self.replace(index, free, filling).then_some((index, filling))
        };
        // Of one line of those below `end`: the nth that is looked at.
        let take_of_line = |nth: usize, end: usize| {
            let lines = end.div_ceil(LINE).max(1);
            let anywhere = || (somewhere(nth) % lines as u64) as usize;
            let from = LINE * if lines <= THEN { nth % lines } else { anywhere() };
            (from..end.min(from + LINE)).find_map(take)
        };
        let take_behind = || Some(self.used()).filter(|index| *index < size).and_then(take);
        let used = self.used().min(size);
        (0..FIRST)
            .find_map(|nth| take_of_line(nth, used))
            .or_else(|| (0..BEHIND).find_map(|_| take_behind()))
            .or_else(|| (0..THEN).find_map(|nth| take_of_line(nth, size)))
    }

    /// No entry at or above this index was ever used.
    fn used(&self) -> usize {
        (self.used.load(Acquire) as usize).min(ENTRIES)
    }

    fn owner(&self, index: usize) -> Option<Owner> {
        self.owners.get(index).map(|owner| Owner(owner.load(Acquire)))
    }

    fn replace(&self, index: usize, seen: Owner, by: Owner) -> bool {
        let exchange = |owner: &AtomicU64| owner.compare_exchange(seen.0, by.0, AcqRel, Acquire);
        self.owners.get(index).is_some_and(|owner| exchange(owner).is_ok())
    }

    /// A tunnel's entry, and whose it is now. `None` once it is not registered any more.
    fn find(&self, tunnel: TunnelEntry) -> Option<(&Entry, Owner)> {
        let is_its = |owner: &Owner| owner.life() == tunnel.life() && owner.is_open();
        let owner = self.owner(tunnel.index()).filter(is_its)?;
        Some((self.entries.get(tunnel.index())?, owner))
    }

    /// Replaces the owner of a tunnel, and says by what.
    fn change(&self, tunnel: TunnelEntry, by: impl Fn(Owner) -> Owner) -> Option<Owner> {
        /// Nobody changes it that often unless one means harm.
        const TRIES: usize = 16;
        (0..TRIES)
            .map_while(|_| self.find(tunnel).map(|(_, seen)| (seen, by(seen))))
            .find(|(seen, by)| self.replace(tunnel.index(), *seen, *by))
            .map(|(_, by)| by)
    }
}

impl<'a> Shared<'a> {
    /// The name of a virtual host.
    pub fn vhost_name(self, text: &[u8]) -> Name {
        self.register.map_or(Name::OTHER, |register| register.vhosts.name(register.key(), text))
    }

    /// The name of a back end.
    pub fn backend_name(self, text: &[u8]) -> Name {
        self.register.map_or(Name::OTHER, |register| register.backends.name(register.key(), text))
    }

    /// The virtual host that has a name.
    pub fn text_of_vhost(self, name: Name) -> Vec<u8> {
        self.register.map_or_else(Vec::new, |register| register.vhosts.text(name))
    }

    /// The back end that has a name.
    pub fn text_of_backend(self, name: Name) -> Vec<u8> {
        self.register.map_or_else(Vec::new, |register| register.backends.text(name))
    }

    /// Lists a tunnel that a thread carries, until [`Self::forget_tunnel`]. `None` if there is no
    /// room.
    pub fn register_tunnel(self, about: &About<'_>, slot: &Slot) -> Option<TunnelEntry> {
        let register = self.register?;
        let (index, filling) = register.take(self.number(slot)?)?;
        register.entries.get(index)?.write(about, self.processes.seconds());
        let is_shown = register.replace(index, filling, filling.in_phase(Phase::Thread));
        TunnelEntry::of(index, filling).filter(|_| is_shown)
    }

    /// Where a tunnel says what it does. Whoever has this carries the tunnel.
    pub fn activity(self, tunnel: TunnelEntry) -> Option<&'a Activity> {
        self.register?.find(tunnel).map(|(entry, _)| &entry.activity)
    }

    /// A tunnel goes from its thread to a relay.
    pub fn mark_relayed(self, tunnel: TunnelEntry) {
        if let Some(register) = self.register {
            register.change(tunnel, |owner| owner.in_phase(Phase::Relay));
        }
    }

    /// A tunnel goes to another process, whose slot it is. `None` if it is not listed any more: it
    /// was cleared with its former process.
    pub fn move_tunnel(self, tunnel: TunnelEntry, to: &Slot) -> Option<TunnelEntry> {
        let to = self.number(to)?;
        self.register?.change(tunnel, |owner| owner.of(to))?;
        // Whoever orders its end from now on sees whose it is, or the order is seen.
        fence(SeqCst);
        Some(tunnel)
    }

    /// A tunnel ended. Nothing happens if it was cleared with its process.
    pub fn forget_tunnel(self, tunnel: TunnelEntry) {
        let Some(register) = self.register else { return };
        if let Some(ending) = register.change(tunnel, |owner| owner.in_phase(Phase::Ending)) {
            self.end(register, tunnel.index(), ending);
        }
    }

    /// Frees an entry that is ending. What its tunnel did is counted from now on without it.
    fn end(self, register: &Register, index: usize, ending: Owner) {
        if let Some(entry) = register.entries.get(index) {
            let vhost = entry.vhost();
            let (bytes, messages) = entry.activity.take_counts();
            for ((direction, bytes), messages) in
                Direction::ALL.into_iter().zip(bytes).zip(messages)
            {
                self.count_some(Metric::Bytes { vhost, direction }, bytes);
                for (opcode, messages) in Opcode::ALL.into_iter().zip(messages) {
                    self.count_some(Metric::Messages { vhost, direction, opcode }, messages);
                }
            }
        }
        register.replace(index, ending, ending.freed());
    }

    fn count_some(self, metric: Metric, by: u64) {
        if by > 0 {
            self.count(metric, by);
        }
    }

    /// A tunnel ended with its process, which could not count that.
    fn count_left(self, register: &Register, index: usize) {
        if let Some(entry) = register.entries.get(index) {
            /// There was no Close frame (RFC 6455 7.1.5).
            const CODE: u16 = 1006;
            let (vhost, reason) = (entry.vhost(), Reason::PROCESS_ENDED);
            self.count(Metric::Closed { vhost, by: By::Us, reason, code: CODE }, 1);
        }
    }

    /// The process of a slot is gone, and so are its tunnels. One process at a time does this for a
    /// slot, again and again until one gets to the end.
    pub(crate) fn forget_tunnels_of(self, slot: SlotNumber) {
        let Some(register) = self.register else { return };
        for index in 0..register.used() {
            // It is changed under our eyes at most by one that moves it.
            for _ in 0..4 {
                let Some(owner) = register.owner(index).filter(|owner| owner.is_of(slot)) else {
                    break;
                };
                match owner.phase() {
                    Phase::Free => break,
                    Phase::Filling => {
                        register.replace(index, owner, owner.freed());
                    }
                    Phase::Ending => self.end(register, index, owner),
                    Phase::Thread | Phase::Relay => {
                        let ending = owner.in_phase(Phase::Ending);
                        if register.replace(index, owner, ending) {
                            self.count_left(register, index);
                            self.end(register, index, ending);
                        }
                    }
                }
            }
        }
    }

    /// All open tunnels that are listed.
    pub fn tunnels(self) -> impl Iterator<Item = Listed> + use<'a> {
        // Those of dead processes are cleared before.
        self.processes().for_each(drop);
        let all = self
            .register
            .into_iter()
            .flat_map(|register| (0..register.used()).map(move |index| (register, index)));
        all.filter_map(move |(register, index)| self.listed(register, index))
    }

    fn listed(self, register: &Register, index: usize) -> Option<Listed> {
        /// It is another's meanwhile: seldom, and hardly ever twice.
        const TRIES: usize = 4;
        for _ in 0..TRIES {
            let owner = register.owner(index).filter(|owner| owner.is_open())?;
            let pid = self.slot_at(owner.slot()?)?.living_pid()?;
            let entry = register.entries.get(index)?;
            let listed = entry.read(TunnelEntry::of(index, owner)?, owner, pid);
            if register.owner(index) == Some(owner) {
                return Some(listed);
            }
        }
        None
    }

    /// Orders a tunnel to end, with this code. `false` if it has ended, or has an order already.
    pub fn order_close(self, tunnel: &Listed, code: u16, number: OrderNumber) -> bool {
        self.try_order(tunnel.entry, Order { code, number }).is_some()
    }

    fn try_order(self, tunnel: TunnelEntry, order: Order) -> Option<()> {
        /// What was found changes only if another order is given, to a later tunnel.
        const TRIES: usize = 16;
        let register = self.register?;
        let word = OrderWord::new(tunnel.life(), order);
        for _ in 0..TRIES {
            let at = &register.entries.get(tunnel.index())?.activity.order;
            let seen = at.load(Acquire);
            // Behind that: if it is the same when it is replaced, no later tunnel is ordered.
            register.find(tunnel)?;
            if OrderWord(seen).is_for(tunnel.life()) {
                return None;
            }
            if at.compare_exchange(seen, word.0, AcqRel, Relaxed).is_ok() {
                // Whoever takes the tunnel over from now on sees the order, or is seen here.
                fence(SeqCst);
                let (_, owner) = register.find(tunnel)?;
                self.slot_at(owner.slot()?)?.raise_orders(self.processes);
                return Some(());
            }
        }
        None
    }

    /// The tunnels of a slot that have an order: which one, and its seat.
    pub fn ordered(self, slot: &Slot) -> impl Iterator<Item = (TunnelEntry, u32)> + use<'a> {
        let number = self.number(slot);
        let all = self.register.into_iter().zip(number).flat_map(|(register, number)| {
            (0..register.used()).map(move |index| (register, number, index))
        });
        all.filter_map(|(register, number, index)| {
            let owner = register.owner(index)?;
            let is_its = owner.is_open() && owner.is_of(number);
            let activity = &register.entries.get(index).filter(|_| is_its)?.activity;
            let is_ordered = OrderWord(activity.order.load(Acquire)).is_for(owner.life());
            let entry = TunnelEntry::of(index, owner).filter(|_| is_ordered)?;
            Some((entry, activity.seat.load(Acquire)))
        })
    }

    /// Keeps the text of an order: at most 123 bytes of the reason, and 64 of who it is. It is kept
    /// until 64 more have come.
    pub fn new_order(self, reason: &[u8], who: &[u8]) -> OrderNumber {
        let add = |register: &Register| register.order_texts.add(reason, who);
        self.register.map_or(OrderNumber(0), add)
    }

    /// The reason of an order, and whose it is.
    pub fn order_text(self, number: OrderNumber) -> Option<(Vec<u8>, Vec<u8>)> {
        self.register?.order_texts.get(number)
    }
}
