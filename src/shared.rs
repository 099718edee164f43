//! What all processes of the server know of each other: one slot for each child
//! and drain process, in memory that outlives reloads. A process that dies takes
//! its gauges with it.

use std::io;
use std::num::NonZeroU64;
use std::os::fd::BorrowedFd;
use std::sync::atomic::Ordering::{AcqRel, Relaxed, Release};
use std::sync::atomic::{AtomicPtr, AtomicU32, AtomicU64};

use os::descriptors::Place;
use os::fdpass;
use os::process::is_alive;
use relay::{Counters, FROZEN_VERSION};
use shared::{Fallbacks, Refusals};
use siphasher::sip::SipHasher13;

use crate::ffi::retained::{Shareable, retained, retained_descriptors};

/// More processes than this go uncounted.
const SLOTS: usize = 4096;
/// More tunnels than this are not limited by client.
const CLIENTS: usize = 1 << 17;

/// Bits of an entry of a client that say whose it is.
const SLOT_BITS: u32 = 13;
const SLOT_MASK: u64 = (1 << SLOT_BITS) - 1;
const _: () = assert!((SLOTS as u64) < SLOT_MASK);

/// With the id of a process: this one is clearing the slot. Ids are below (PID_MAX_LIMIT, 2^22).
const CLEARING: u32 = 1 << 31;

/// One process.
#[repr(C)]
pub struct Slot {
    /// 0 is free.
    pid: AtomicU32,
    _pad: AtomicU32,
    /// Upgrade requests admitted that are no tunnels yet (a gauge).
    pub reserved: AtomicU64,
    /// Tunnels that its limit of descriptors allows (a gauge).
    pub capacity: AtomicU64,
    /// What outlives the process in the totals.
    pub counts: Counts,
}

/// What is counted of a process, and of all that ended.
#[repr(C)]
pub struct Counts {
    /// The relay's own.
    pub relay: Counters,
    /// Tunnels handed over.
    pub handed_over: AtomicU64,
    /// Tunnels that stayed in their thread, by reason.
    pub fallen_back: Fallbacks,
    /// Upgrade requests refused, by reason.
    pub refused: Refusals,
    /// Lines that the error log did not take in time.
    pub lines_lost: AtomicU64,
}

/// All of the shared memory.
#[repr(C)]
pub struct Shared {
    /// No slot at or above this index was ever used.
    used: AtomicU32,
    /// Raised by each configuration.
    generation: AtomicU32,
    /// Who empties the queue; see processes/collector.rs.
    pub collector: AtomicU64,
    slots: [Slot; SLOTS],
    /// The counts of processes that ended.
    retired: Counts,
    /// What addresses of clients are hashed with, so that nobody can choose some that collide:
    /// random, made once by the parent.
    client_key: [AtomicU64; 2],
    /// One entry for each relayed tunnel whose client is counted: its network in the upper bits
    /// (hashed), the index of its slot + 1 in the lower [`SLOT_BITS`].
    clients: [AtomicU64; CLIENTS],
    /// No entry at or above this index was ever used.
    clients_used: AtomicU32,
    _pad2: AtomicU32,
}

// SAFETY: atomics only, repr(C) throughout (relay::Counters too), zero is valid:
// every slot and entry is free.
unsafe impl Shareable for Shared {
    // What is in the queue is part of it.
    const LAYOUT: u64 = 7 << 48 | (FROZEN_VERSION as u64) << 32 | size_of::<Self>() as u64;
}

/// Where the memory is, in this process. Set in the parent for each
/// configuration, before children are made.
static SHARED: AtomicPtr<Shared> = AtomicPtr::new(std::ptr::null_mut());

/// The configuration that this process was started with. Set likewise.
static GENERATION: AtomicU32 = AtomicU32::new(0);

/// The queue for tunnels that change their process, its receiving and its sending end: open in
/// the parent, and so in all its children. Set likewise.
static QUEUE: [Place; 2] = [const { Place::new() }; 2];

/// Makes the memory, in the parent.
///
/// # Errors
/// It cannot be had.
pub fn create() -> io::Result<()> {
    let shared: &'static Shared = retained(c"mod_wsforward_shared")?;
    let queue = retained_descriptors(c"mod_wsforward_queue", Shared::LAYOUT, fdpass::pair)?;
    for (place, end) in QUEUE.iter().zip(queue) {
        place.set(end);
    }
    if shared.client_key[0].load(Relaxed) == 0 {
        for part in &shared.client_key {
            part.store(random()?, Relaxed);
        }
    }
    GENERATION.store(shared.generation.fetch_add(1, Relaxed) + 1, Relaxed);
    SHARED.store(std::ptr::from_ref(shared).cast_mut(), Relaxed);
    Ok(())
}

/// A number that nobody can guess, never 0.
fn random() -> io::Result<u64> {
    let mut number = 0u64;
    while number == 0 {
        // SAFETY: writes no more than the size of the number.
        let got = unsafe { libc::getrandom((&raw mut number).cast(), size_of::<u64>(), 0) };
        if got < 0 {
            let error = io::Error::last_os_error();
            if error.kind() != io::ErrorKind::Interrupted {
                return Err(error);
            }
            number = 0;
        }
    }
    Ok(number)
}

/// The memory, if there is any.
pub fn shared() -> Option<&'static Shared> {
    // SAFETY: NULL, or what `create` stored: a reference for ever.
    unsafe { SHARED.load(Relaxed).as_ref() }
}

/// The queue for tunnels that change their process: its receiving and its sending end.
pub fn queue() -> Option<[BorrowedFd<'static>; 2]> {
    let [receive, send] = &QUEUE;
    Some([receive.get()?, send.get()?])
}

impl Shared {
    /// The number of the configuration that this process was started with.
    pub fn generation(&self) -> u32 {
        GENERATION.load(Relaxed)
    }

    fn used(&self) -> &[Slot] {
        &self.slots[..(self.used.load(Relaxed) as usize).min(SLOTS)]
    }

    /// The slots of living processes. Those of dead ones are cleared.
    pub fn processes(&self) -> impl Iterator<Item = &Slot> {
        self.used().iter().filter(|slot| {
            let pid = slot.pid.load(Relaxed);
            if pid & CLEARING != 0 {
                // Whoever was at it may have been killed meanwhile.
                if !is_alive(pid & !CLEARING) {
                    self.clear(slot, pid);
                }
                return false;
            }
            pid != 0 && (is_alive(pid) || !self.clear(slot, pid))
        })
    }

    /// A slot for this process.
    pub fn claim(&self) -> Option<&Slot> {
        // Those of crashed processes are cleared on the way.
        self.processes().for_each(drop);
        let pid = std::process::id();
        let free = |slot: &&Slot| slot.pid.compare_exchange(0, pid, AcqRel, Relaxed).is_ok();
        let slot = self.slots.iter().find(free)?;
        let end = u32::try_from(self.index(slot) + 1).unwrap_or(u32::MAX);
        self.used.fetch_max(end, Relaxed);
        Some(slot)
    }

    /// The slot of a process.
    pub fn slot_of(&self, pid: u32) -> Option<&Slot> {
        self.used().iter().find(|slot| slot.pid() == pid)
    }

    fn index(&self, slot: &Slot) -> usize {
        let offset = std::ptr::from_ref(slot).addr() - self.slots.as_ptr().addr();
        offset / size_of::<Slot>()
    }

    /// Gives the slot of `pid` back: what it counted goes into the totals. `false` if
    /// somebody else is at it. Each step may be done again by another process, should this one be
    /// killed in the middle: at the worst one figure is missing from the totals then.
    fn clear(&self, slot: &Slot, pid: u32) -> bool {
        let clearing = CLEARING | std::process::id();
        if slot.pid.compare_exchange(pid, clearing, AcqRel, Relaxed).is_err() {
            return false;
        }
        let mark = self.index(slot) as u64 + 1;
        for entry in self.clients() {
            let value = entry.load(Relaxed);
            if value & SLOT_MASK == mark {
                let _ = entry.compare_exchange(value, 0, Relaxed, Relaxed);
            }
        }
        self.retired.absorb(&slot.counts);
        for gauge in [&slot.reserved, &slot.capacity] {
            gauge.store(0, Relaxed);
        }
        // Whoever takes it sees what was cleared before.
        slot.pid.store(0, Release);
        true
    }

    /// The sum of one count over all processes, dead ones included.
    pub fn total(&self, of: impl Fn(&Counts) -> &AtomicU64) -> u64 {
        let living: u64 = self.processes().map(|slot| of(&slot.counts).load(Relaxed)).sum();
        living + of(&self.retired).load(Relaxed)
    }

    /// Relayed tunnels open, in all processes.
    pub fn open(&self) -> u64 {
        self.processes().map(|slot| slot.counts.relay.open.load(Relaxed)).sum()
    }

    fn clients(&self) -> &[AtomicU64] {
        &self.clients[..(self.clients_used.load(Relaxed) as usize).min(CLIENTS)]
    }

    /// What a client is counted under. Never 0.
    pub fn client_key(&self, network: &[u8]) -> u64 {
        let [one, two] = &self.client_key;
        let hasher = SipHasher13::new_with_keys(one.load(Relaxed), two.load(Relaxed));
        (hasher.hash(network) & !SLOT_MASK).max(1 << SLOT_BITS)
    }

    /// Counted tunnels of a client, in all processes.
    pub fn open_of_client(&self, client: u64) -> usize {
        let client = client >> SLOT_BITS;
        self.clients().iter().filter(|entry| entry.load(Relaxed) >> SLOT_BITS == client).count()
    }

    /// Counts a tunnel of a client, until [`Self::forget_client`].
    pub fn count_client(&self, client: u64, slot: &Slot) -> Option<ClientEntry> {
        let value = self.client_value(client, slot)?;
        let free = |entry: &AtomicU64| {
            entry.load(Relaxed) == 0
                && entry.compare_exchange(0, value.get(), Relaxed, Relaxed).is_ok()
        };
        let index = u32::try_from(self.clients.iter().position(free)?).ok()?;
        self.clients_used.fetch_max(index + 1, Relaxed);
        Some(ClientEntry { index, value })
    }

    fn client_value(&self, client: u64, slot: &Slot) -> Option<NonZeroU64> {
        NonZeroU64::new(client & !SLOT_MASK | (self.index(slot) as u64 + 1))
    }

    /// A tunnel whose client is counted by an entry goes to another process, whose slot it is.
    /// It is counted once all the while; anew if its former process has ended meanwhile.
    pub fn move_client(&self, from: ClientEntry, to: &Slot) -> Option<ClientEntry> {
        let (client, value) = (from.value.get(), self.client_value(from.value.get(), to)?);
        let entry = self.clients.get(from.index as usize)?;
        match entry.compare_exchange(client, value.get(), Relaxed, Relaxed) {
            Ok(_) => Some(ClientEntry { value, ..from }),
            Err(_) => self.count_client(client, to),
        }
    }

    /// Undoes [`Self::count_client`]. Nothing happens if the entry is another tunnel's by now: it
    /// was cleared with the process that it was counted for.
    pub fn forget_client(&self, entry: ClientEntry) {
        if let Some(at) = self.clients.get(entry.index as usize) {
            let _ = at.compare_exchange(entry.value.get(), 0, Relaxed, Relaxed);
        }
    }
}

/// Where the client of one tunnel is counted, and as what.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ClientEntry {
    index: u32,
    value: NonZeroU64,
}

impl ClientEntry {
    /// As bytes, for [`Self::thaw`]. Of none: all zero.
    pub fn freeze(entry: Option<Self>) -> [u8; 12] {
        let mut bytes = [0; 12];
        if let Some(Self { index, value }) = entry {
            bytes[..4].copy_from_slice(&index.to_le_bytes());
            bytes[4..].copy_from_slice(&value.get().to_le_bytes());
        }
        bytes
    }

    /// What became these bytes.
    pub fn thaw(bytes: [u8; 12]) -> Option<Self> {
        let (index, value) = bytes.split_first_chunk()?;
        let value = NonZeroU64::new(u64::from_le_bytes(value.try_into().ok()?))?;
        Some(Self { index: u32::from_le_bytes(*index), value })
    }
}

impl Slot {
    /// A slot of no shared memory.
    pub const fn new() -> Self {
        Self {
            pid: AtomicU32::new(0),
            _pad: AtomicU32::new(0),
            reserved: AtomicU64::new(0),
            capacity: AtomicU64::new(0),
            counts: Counts {
                relay: Counters::new(),
                handed_over: AtomicU64::new(0),
                fallen_back: Fallbacks::new(),
                refused: Refusals::new(),
                lines_lost: AtomicU64::new(0),
            },
        }
    }

    /// Gives the slot back when its process ends.
    pub fn release(&self) {
        if let Some(shared) = shared() {
            shared.clear(self, std::process::id());
        }
    }

    /// The slot of the child `from` becomes that of the drain process `to` forked from it. To be
    /// said by both, of which either may end at any time: nobody finds the slot without a living
    /// process.
    pub fn become_drain(&self, from: u32, to: u32) {
        if self.pid.compare_exchange(from, to, AcqRel, Relaxed).is_ok() {
            self.reserved.store(0, Relaxed);
            self.capacity.store(0, Relaxed);
        }
    }

    /// Whether it is in shared memory.
    pub fn is_shared(&self) -> bool {
        self.pid() != 0
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.pid.load(Relaxed)
    }
}

impl Counts {
    /// Moves the counts of a process that ended into the totals. Gauges go with it.
    fn absorb(&self, from: &Self) {
        for (to, from) in self.all().into_iter().zip(from.all()) {
            to.fetch_add(from.swap(0, Relaxed), Relaxed);
        }
        from.relay.open.store(0, Relaxed);
        from.relay.threads.store(0, Relaxed);
    }

    fn all(&self) -> Vec<&AtomicU64> {
        let relay = &self.relay;
        let mut all = vec![
            &relay.adopted,
            &relay.returned,
            &relay.ended,
            &relay.bytes_up,
            &relay.bytes_down,
            &self.handed_over,
            &self.lines_lost,
        ];
        all.extend(relay.ended_by.all());
        all.extend(self.fallen_back.all());
        all.extend(self.refused.all());
        all
    }
}
