//! One slot for each child and drain process, in memory that outlives reloads. A process that dies
//! takes its gauges with it.

use std::sync::atomic::AtomicU64 as Count;
use std::sync::atomic::Ordering::Relaxed;

use crate::collector::Collector;
use crate::counters::Counts;
use crate::mapping::Shareable;
use crate::processes::Processes;
use crate::register::Register;
use crate::sighting::Sighting;
use crate::slot::{Owner, Slot};
use crate::slot_number::SlotNumber;
use crate::sync::AtomicU32;
use crate::tally::Tally;

/// More processes than this go uncounted.
#[cfg(not(loom))]
const SLOTS: usize = 4096;
#[cfg(loom)]
const SLOTS: usize = 3;

const _: () = assert!(SLOTS < 1 << SlotNumber::BITS);

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
    pub(crate) clients: Tally,
    /// Tunnels by back end.
    pub(crate) backends: Tally,
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

    /// Whether no other configuration has begun since.
    pub fn is_current(self) -> bool {
        self.memory.generation.load(Relaxed) == self.generation
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
        let own = Owner::of(self.processes.own());
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
        self.clear(slot, Owner::of(self.processes.own()));
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
        slot.free();
        Some(relayed)
    }

    /// The sum of one count over all processes, dead ones included.
    pub fn total(self, of: impl Fn(&Counts) -> &Count) -> u64 {
        let living = self.sum(|slot| of(&slot.counts).load(Relaxed));
        // Behind that, which clears the slots of dead ones.
        living.wrapping_add(of(&self.memory.retired).load(Relaxed))
    }

    /// Relayed tunnels open, in all processes.
    pub fn open(self) -> u64 {
        self.sum(|slot| slot.counts.relay.open.load(Relaxed))
    }

    /// The sum of a figure over all processes that live. It wraps: what is in a slot comes from a child.
    pub fn sum(self, of: impl Fn(&Slot) -> u64) -> u64 {
        wrapping_sum(self.processes().map(of))
    }
}

/// A sum that wraps.
pub fn wrapping_sum(figures: impl Iterator<Item = u64>) -> u64 {
    figures.fold(0, u64::wrapping_add)
}

#[cfg(all(test, not(loom)))]
mod tests {
    use std::sync::Mutex;
    use std::sync::atomic::AtomicU32 as Word;

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
        assert!(slot.replace(Owner::of(100), Owner::clearing(101)));
        assert_eq!(slot.living_pid(), None);
        // By one that is there: it is left alone.
        assert_eq!(shared.processes().count(), 0);
        assert_eq!(slot.owner(), Owner::clearing(101));
        // By one that was killed meanwhile.
        assert!(slot.replace(Owner::clearing(101), Owner::clearing(200)));
        assert_eq!(shared.processes().count(), 0);
        assert_eq!((slot.pid(), slot.living_pid()), (0, None));
        assert_eq!(memory.retired.handed_over.load(Relaxed), 3);
        assert_eq!(*world.0.lock().expect("no panic"), [(200, 0)]);
    }

    /// Whatever a child writes into its slot.
    #[test]
    fn figures_of_processes_are_added_up() {
        let (memory, world) = (memory(), World::default());
        let shared = Shared::new(&memory, None, &world, 1);
        for threads in [1, u64::MAX, 3] {
            shared.claim().expect("a slot").counts.relay.threads.store(threads, Relaxed);
        }
        assert_eq!(shared.sum(|slot| slot.counts.relay.threads.load(Relaxed)), 3);
    }

    #[test]
    fn version_and_size_are_told_by_the_layout() {
        assert_eq!(Memory::LAYOUT & u64::from(u32::MAX), size_of::<Memory>() as u64);
        assert_eq!(Memory::LAYOUT >> 32, 13);
    }
}
