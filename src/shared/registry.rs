//! The places of drain processes of every build of the module: whoever stops the server, or bounds
//! them, must find those too whose other memory is laid out differently.
//!
//! A place says where to look for a process, and how old it is. Whether it lives, and which one it
//! is, the caller asks the kernel.

use std::sync::atomic::Ordering::{AcqRel, Acquire, Relaxed, Release};

use crate::mapping::Shareable;
use crate::processes::Processes;
use crate::sync::{AtomicU32, AtomicU64};

/// More than WSForwardMaxDrainProcesses can allow.
#[cfg(not(loom))]
const PLACES: usize = 2048;
#[cfg(loom)]
const PLACES: usize = 2;

/// All of the memory. Its layout never changes: builds of years meet in it.
#[repr(C)]
pub struct Registry {
    _pad: [AtomicU32; 2],
    places: [Entry; PLACES],
}

/// The place of one drain process.
#[repr(C)]
struct Entry {
    /// 0 is free. Before the fork it is the child's.
    pid: AtomicU32,
    _pad: AtomicU32,
    /// When it was taken, in microseconds of CLOCK_MONOTONIC.
    since: AtomicU64,
}

#[cfg(not(loom))]
const _: () = assert!(size_of::<Entry>() == 16 && size_of::<Registry>() == 8 + 2048 * 16);

// SAFETY: atomics only, repr(C) throughout, any bytes are valid.
unsafe impl Shareable for Registry {
    const LAYOUT: u64 = size_of::<Self>() as u64;
}

/// A place that this process has, or the one that it forks.
#[derive(Clone, Copy)]
pub struct Place<'a> {
    entry: &'a Entry,
    number: usize,
}

impl Registry {
    /// How many places there are.
    pub const PLACES: usize = PLACES;

    /// All free, where no mapping is at hand.
    #[cfg(loom)]
    pub(crate) fn new() -> Self {
        let entry =
            |_| Entry { pid: AtomicU32::new(0), _pad: AtomicU32::new(0), since: AtomicU64::new(0) };
        Self {
            _pad: std::array::from_fn(|_| AtomicU32::new(0)),
            places: std::array::from_fn(entry),
        }
    }

    /// A place for the process that this one is about to fork. From now on it counts.
    pub fn claim(&self, processes: &dyn Processes, now: u64) -> Option<Place<'_>> {
        let own = processes.own();
        let mut all = self.places.iter().enumerate();
        // To look whether a process lives takes longer than all of the free ones.
        let (number, entry) = all.find(|(_, entry)| entry.replace(0, own)).or_else(|| {
            self.places.iter().enumerate().find(|(_, entry)| entry.is_left(own, processes))
        })?;
        entry.since.store(now, Relaxed);
        Some(Place { entry, number })
    }

    /// How many places are taken: as many as live, or more.
    pub fn taken(&self) -> usize {
        self.places().count()
    }

    /// The places that are taken: the number of each, and since when.
    pub fn places(&self) -> impl Iterator<Item = (usize, u64)> {
        self.places
            .iter()
            .enumerate()
            .filter(|(_, entry)| entry.pid.load(Acquire) != 0)
            .map(|(number, entry)| (number, entry.since.load(Relaxed)))
    }
}

impl Place<'_> {
    /// Its number, below [`Registry::PLACES`].
    pub const fn number(self) -> usize {
        self.number
    }

    /// It is the forked process's. Parent and child of the fork both call this, since either may
    /// die first.
    pub fn pass(self, from: u32, to: u32) {
        self.entry.replace(from, to);
    }

    /// Gives it back, if it is that process's.
    pub fn release(self, pid: u32) {
        if self.entry.pid.load(Acquire) == pid {
            self.entry.since.store(0, Relaxed);
            self.entry.pid.store(0, Release);
        }
    }
}

impl Entry {
    fn replace(&self, of: u32, by: u32) -> bool {
        self.pid.compare_exchange(of, by, AcqRel, Relaxed).is_ok()
    }

    /// Whether whoever had it is gone without giving it back; it is `by`'s then.
    fn is_left(&self, by: u32, processes: &dyn Processes) -> bool {
        let pid = self.pid.load(Acquire);
        pid != by && !processes.runs(pid) && self.replace(pid, by)
    }
}
