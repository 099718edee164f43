//! One slot for each child and drain process, in memory that outlives reloads. A process that dies
//! takes its gauges with it.

use std::sync::atomic::AtomicU32 as Word;
use std::sync::atomic::AtomicU64 as Count;
use std::sync::atomic::Ordering::{AcqRel, Acquire, Relaxed, Release};

use crate::collector::Collector;
use crate::counters::Counts;
use crate::mapping::Shareable;
use crate::processes::Processes;
use crate::register::Register;
use crate::sighting::Sighting;
use crate::slot_number::SlotNumber;
use crate::sync::AtomicU32;
use crate::tally::{Full, Tally, TallyEntry, TallyKey};

/// More processes than this go uncounted.
#[cfg(not(loom))]
const SLOTS: usize = 4096;
#[cfg(loom)]
const SLOTS: usize = 3;

/// One process.
#[repr(C)]
pub struct Slot {
    /// An [`Owner`].
    owner: AtomicU32,
    /// Raised when some of its tunnels have got orders, and woken (a futex). The lowest bits are
    /// [`Deaf`].
    orders: Word,
    /// Upgrade requests admitted that are no tunnels yet (a gauge).
    pub reserved: Count,
    /// Tunnels that its limit of descriptors allows (a gauge).
    pub capacity: Count,
    /// What outlives the process in the totals.
    pub counts: Counts,
}

/// Whose a slot is, as it stands there. 0 is free.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Owner(u32);

impl Owner {
    const NOBODY: Self = Self(0);
    /// Process ids are below (PID_MAX_LIMIT, 2^22).
    const CLEARING: u32 = 1 << 31;

    /// A process that clears the slot.
    const fn clearing(pid: u32) -> Self {
        Self(pid | Self::CLEARING)
    }

    const fn is_clearing(self) -> bool {
        self.0 & Self::CLEARING != 0
    }

    const fn pid(self) -> u32 {
        self.0 & !Self::CLEARING
    }
}

const _: () = assert!(SLOTS < 1 << SlotNumber::BITS);

/// The tunnels of a process that nobody tells of orders, as bits.
struct Deaf;

impl Deaf {
    const RELAYED: u32 = 1;
    const IN_THREADS: u32 = 2;
    const ALL: u32 = Self::RELAYED | Self::IN_THREADS;

    const fn of(is_relayed: bool) -> u32 {
        if is_relayed { Self::RELAYED } else { Self::IN_THREADS }
    }
}

/// All of the memory.
#[repr(C)]
pub struct Memory {
    /// No slot at or above this index was ever used.
    used: AtomicU32,
    /// Raised by each configuration.
    generation: AtomicU32,
    /// Who empties the queue.
    pub(crate) collector: Collector,
    slots: [Slot; SLOTS],
    /// The counts of processes that ended.
    retired: Counts,
    /// Tunnels by client.
    clients: Tally,
    /// Tunnels by back end.
    backends: Tally,
    /// The file without which the server takes no new tunnels.
    ready_file: Sighting,
}

// SAFETY: atomics only, repr(C) throughout, any bytes are valid.
unsafe impl Shareable for Memory {
    const LAYOUT: u64 = 13 << 32 | size_of::<Self>() as u64;
}

const _: () = assert!(size_of::<Memory>() as u64 >> 32 == 0);

impl Memory {
    /// All free, where no mapping is at hand.
    #[cfg(loom)]
    pub(crate) fn new() -> Self {
        Self {
            used: AtomicU32::new(0),
            generation: AtomicU32::new(0),
            collector: Collector::new(),
            slots: std::array::from_fn(|_| Slot::new()),
            retired: Counts::new(),
            clients: Tally::new(),
            backends: Tally::new(),
            ready_file: Sighting::new(),
        }
    }

    /// A new configuration begins: its number. Once, in the parent, before children are made.
    /// `random` makes what addresses of clients, and names of back ends, are hashed with, the first
    /// time.
    ///
    /// # Errors
    /// Those of `random`.
    pub fn begin<E>(&self, random: impl Fn() -> Result<[u64; 2], E>) -> Result<u32, E> {
        self.clients.set_key_once(&random)?;
        self.backends.set_key_once(&random)?;
        Ok(self.generation.fetch_add(1, Relaxed).wrapping_add(1))
    }
}

/// The memory as a process sees it.
#[derive(Clone, Copy)]
pub struct Shared<'a> {
    pub(crate) memory: &'a Memory,
    pub(crate) register: Option<&'a Register>,
    pub(crate) processes: &'a dyn Processes,
    pub(crate) generation: u32,
}

impl<'a> Shared<'a> {
    /// In a process of the configuration with this number, see [`Memory::begin`].
    /// Without a register tunnels are not listed, and nothing is counted by name.
    pub const fn new(
        memory: &'a Memory,
        register: Option<&'a Register>,
        processes: &'a dyn Processes,
        generation: u32,
    ) -> Self {
        Self { memory, register, processes, generation }
    }

    /// The file without which the server takes no new tunnels, as somebody saw it last.
    pub const fn ready_file(self) -> &'a Sighting {
        &self.memory.ready_file
    }

    fn used(self) -> &'a [Slot] {
        let used = self.memory.used.load(Relaxed) as usize;
        self.memory.slots.get(..used).unwrap_or(&self.memory.slots)
    }

    /// The slots of all processes, dead ones too: asks nobody whether they live. What they have open
    /// is never less than what [`Self::processes`] have.
    pub fn slots(self) -> impl Iterator<Item = &'a Slot> {
        self.used().iter()
    }

    /// The slots of living processes. Those of dead ones are cleared, see [`Self::clear_dead`].
    pub fn processes(self) -> impl Iterator<Item = &'a Slot> {
        self.used().iter().filter(move |slot| {
            let owner = slot.owner();
            if owner.is_clearing() {
                // Whoever was at it may have been killed meanwhile.
                if !self.processes.exists(owner.pid()) {
                    self.bury(slot, owner);
                }
                return false;
            }
            owner != Owner::NOBODY
                && (self.processes.exists(owner.pid()) || !self.bury(slot, owner))
        })
    }

    /// Finds the processes that have died: what they had open is counted no more.
    pub fn clear_dead(self) {
        self.processes().for_each(drop);
    }

    /// A slot for this process.
    pub fn claim(self) -> Option<&'a Slot> {
        self.clear_dead();
        let own = Owner(self.processes.own());
        let free = |slot: &&Slot| slot.replace(Owner::NOBODY, own);
        let slot = self.memory.slots.iter().find(free)?;
        let end = self.number(slot)?.mark();
        self.memory.used.fetch_max(u32::try_from(end).unwrap_or(u32::MAX), Relaxed);
        Some(slot)
    }

    /// The slot of a process.
    pub fn slot_of(self, pid: u32) -> Option<&'a Slot> {
        self.used().iter().find(|slot| slot.pid() == pid)
    }

    /// `None` for a slot that is not in this memory.
    pub(crate) fn number(self, slot: &Slot) -> Option<SlotNumber> {
        let start = self.memory.slots.as_ptr().addr();
        let number = std::ptr::from_ref(slot).addr().checked_sub(start)? / size_of::<Slot>();
        u16::try_from(number).ok().filter(|_| number < SLOTS).map(SlotNumber)
    }

    /// The slot with a number.
    pub(crate) fn slot_at(self, number: SlotNumber) -> Option<&'a Slot> {
        self.memory.slots.get(usize::from(number.0))
    }

    /// Gives a slot back when its process, which is this one, ends.
    pub fn release(self, slot: &Slot) {
        self.clear(slot, Owner(self.processes.own()));
    }

    /// The same for a process that could not do it.
    fn bury(self, slot: &Slot, owner: Owner) -> bool {
        let cleared = self.clear(slot, owner);
        if let Some(relayed) = cleared {
            self.processes.gone(owner.pid(), relayed);
        }
        cleared.is_some()
    }

    /// Gives the slot of `owner` back: what it counted goes into the totals. Says how many relayed
    /// tunnels were listed as its own; `None` if somebody else is at it. Each step may be done again by
    /// another process, should this one be killed in the middle: at the worst one figure is missing
    /// from the totals then.
    fn clear(self, slot: &Slot, owner: Owner) -> Option<usize> {
        let number = self.number(slot)?;
        if !slot.replace(owner, Owner::clearing(self.processes.own())) {
            return None;
        }
        self.memory.clients.forget_all(number);
        self.memory.backends.forget_all(number);
        let relayed = self.register.map_or(0, |register| register.forget_all(number));
        self.memory.retired.absorb(&slot.counts);
        for gauge in [&slot.reserved, &slot.capacity] {
            gauge.store(0, Relaxed);
        }
        slot.orders.fetch_and(!Deaf::ALL, Relaxed);
        // Whoever takes it sees what was cleared before.
        slot.owner.store(Owner::NOBODY.0, Release);
        Some(relayed)
    }

    /// The sum of one count over all processes, dead ones included.
    pub fn total(self, of: impl Fn(&Counts) -> &Count) -> u64 {
        let living = self.processes().map(|slot| of(&slot.counts).load(Relaxed));
        let living = living.fold(0, u64::wrapping_add);
        // Behind that, which clears the slots of dead ones.
        living.wrapping_add(of(&self.memory.retired).load(Relaxed))
    }

    /// Relayed tunnels open, in all processes.
    pub fn open(self) -> u64 {
        let open = self.processes().map(|slot| slot.counts.relay.open.load(Relaxed));
        open.fold(0, u64::wrapping_add)
    }

    /// What a client is counted under.
    pub fn client_key(self, network: &[u8]) -> TallyKey {
        self.memory.clients.key(network)
    }

    /// Counted tunnels of a client, in all processes.
    pub fn open_of_client(self, client: TallyKey) -> usize {
        self.memory.clients.count(client)
    }

    /// Counts a tunnel of a client, until [`Self::forget_client`], if there are not `most` already.
    /// `None` if it cannot be counted.
    ///
    /// # Errors
    /// There are.
    pub fn count_client(
        self,
        client: TallyKey,
        slot: &Slot,
        most: usize,
    ) -> Result<Option<TallyEntry>, Full> {
        self.count_in(&self.memory.clients, client, slot, most)
    }

    fn count_in(
        self,
        tally: &Tally,
        key: TallyKey,
        slot: &Slot,
        most: usize,
    ) -> Result<Option<TallyEntry>, Full> {
        let Some(number) = self.number(slot) else { return Ok(None) };
        let count = || match tally.join(key, number) {
            Some((entry, tunnels)) if tunnels > most => {
                tally.leave(entry);
                Err(Full)
            }
            None if tally.count(key) >= most => Err(Full),
            joined => Ok(joined.map(|(entry, _)| entry)),
        };
        // Those of dead processes are not its own any more.
        count().or_else(|Full| {
            self.clear_dead();
            count()
        })
    }

    /// A tunnel whose client is counted by an entry goes to another process, whose slot it is.
    /// It is counted once all the while; anew if its former process has ended meanwhile.
    pub fn move_client(self, entry: TallyEntry, to: &Slot) -> Option<TallyEntry> {
        self.memory.clients.pass(entry, self.number(to)?)
    }

    /// Undoes [`Self::count_client`]. Nothing happens if the entry is another tunnel's by now: it
    /// was cleared with the process that it was counted for.
    pub fn forget_client(self, entry: TallyEntry) {
        self.memory.clients.leave(entry);
    }

    /// What a back end is counted under: its name.
    pub fn backend_key(self, name: &[u8]) -> TallyKey {
        self.memory.backends.key(name)
    }

    /// Counted tunnels of a back end, in all processes.
    pub fn open_of_backend(self, backend: TallyKey) -> usize {
        self.memory.backends.count(backend)
    }

    /// Counts a tunnel of a back end, until [`Self::forget_backend`], as [`Self::count_client`].
    ///
    /// # Errors
    /// It has `most` already.
    pub fn count_backend(
        self,
        backend: TallyKey,
        slot: &Slot,
        most: usize,
    ) -> Result<Option<TallyEntry>, Full> {
        self.count_in(&self.memory.backends, backend, slot, most)
    }

    /// As [`Self::move_client`], of what counts its back end.
    pub fn move_backend(self, entry: TallyEntry, to: &Slot) -> Option<TallyEntry> {
        self.memory.backends.pass(entry, self.number(to)?)
    }

    /// Undoes [`Self::count_backend`], as [`Self::forget_client`] does for clients.
    pub fn forget_backend(self, entry: TallyEntry) {
        self.memory.backends.leave(entry);
    }
}

#[cfg(not(loom))]
impl Default for Slot {
    fn default() -> Self {
        Self::new()
    }
}

impl Slot {
    /// A slot of no shared memory.
    #[cfg(not(loom))]
    pub const fn new() -> Self {
        Self {
            owner: AtomicU32::new(0),
            orders: Word::new(0),
            reserved: Count::new(0),
            capacity: Count::new(0),
            counts: Counts::new(),
        }
    }

    #[cfg(loom)]
    pub(crate) fn new() -> Self {
        Self {
            owner: AtomicU32::new(0),
            orders: Word::new(0),
            reserved: Count::new(0),
            capacity: Count::new(0),
            counts: Counts::new(),
        }
    }

    fn owner(&self) -> Owner {
        Owner(self.owner.load(Acquire))
    }

    fn replace(&self, of: Owner, by: Owner) -> bool {
        self.owner.compare_exchange(of.0, by.0, AcqRel, Relaxed).is_ok()
    }

    /// The slot of the child `from` becomes that of the drain process `to` forked from it. Both
    /// call this, of which either may end at any time: nobody finds the slot without a living
    /// process.
    pub fn become_drain(&self, from: u32, to: u32) {
        if self.replace(Owner(from), Owner(to)) {
            self.reserved.store(0, Relaxed);
            self.capacity.store(0, Relaxed);
            self.orders.fetch_and(!Deaf::ALL, Relaxed);
        }
    }

    /// Its process id, unless it is being cleared, or free.
    pub(crate) fn living_pid(&self) -> Option<u32> {
        let owner = self.owner();
        (owner != Owner::NOBODY && !owner.is_clearing()).then_some(owner.pid())
    }

    pub(crate) fn raise_orders(&self, processes: &dyn Processes) {
        self.orders.fetch_add(Deaf::ALL + 1, Release);
        processes.wake(&self.orders);
    }

    /// Nobody tells tunnels of this process what they are ordered: those of its relay, or those in
    /// threads. They are not ordered anything then.
    pub fn make_deaf(&self, is_relayed: bool) {
        self.orders.fetch_or(Deaf::of(is_relayed), Release);
    }

    pub(crate) fn hears(&self, is_relayed: bool) -> bool {
        self.orders.load(Acquire) & Deaf::of(is_relayed) == 0
    }

    /// What is raised for each order to one of its tunnels, and woken: a futex.
    pub const fn orders(&self) -> &Word {
        &self.orders
    }

    /// Whether it is in shared memory.
    pub fn is_shared(&self) -> bool {
        self.owner() != Owner::NOBODY
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.owner().0
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use std::sync::Mutex;

    use super::*;

    /// Of which the processes from 200 on are gone.
    #[derive(Default)]
    struct World(Mutex<Vec<(u32, usize)>>);

    impl Processes for World {
        fn own(&self) -> u32 {
            100
        }

        fn exists(&self, pid: u32) -> bool {
            pid < 200
        }

        fn runs(&self, pid: u32) -> bool {
            self.exists(pid)
        }

        fn seconds(&self) -> u32 {
            0
        }

        fn gone(&self, pid: u32, tunnels: usize) {
            self.0.lock().expect("no panic").push((pid, tunnels));
        }

        fn wake(&self, _: &Word) {}
    }

    fn memory() -> Box<Memory> {
        let mut memory = Box::<Memory>::new_uninit();
        // SAFETY: the whole of it is written, and it is atomics, for which zero is a value.
        unsafe {
            memory.as_mut_ptr().write_bytes(0, 1);
            memory.assume_init()
        }
    }

    #[test]
    fn a_slot_that_is_being_cleared_is_nobodys() {
        let (memory, world) = (memory(), World::default());
        let shared = Shared::new(&memory, None, &world, 1);
        let slot = shared.claim().expect("a slot");
        assert_eq!((slot.living_pid(), slot.pid()), (Some(100), 100));
        slot.counts.handed_over.store(3, Relaxed);
        slot.owner.store(Owner::clearing(101).0, Relaxed);
        assert_eq!(slot.living_pid(), None);
        // By one that is there: it is left alone.
        assert_eq!(shared.processes().count(), 0);
        assert_eq!(slot.owner.load(Relaxed), Owner::clearing(101).0);
        // By one that was killed meanwhile.
        slot.owner.store(Owner::clearing(200).0, Relaxed);
        assert_eq!(shared.processes().count(), 0);
        assert_eq!((slot.owner.load(Relaxed), slot.living_pid()), (0, None));
        assert_eq!(memory.retired.handed_over.load(Relaxed), 3);
        assert_eq!(*world.0.lock().expect("no panic"), [(200, 0)]);
    }

    #[test]
    fn version_and_size_are_told_by_the_layout() {
        assert_eq!(Memory::LAYOUT & u64::from(u32::MAX), size_of::<Memory>() as u64);
        assert_eq!(Memory::LAYOUT >> 32, 13);
    }
}
