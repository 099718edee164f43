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
    /// When the tunnels of a server end that stops gracefully: see [`Times`]. 0 if it does not.
    times: AtomicU64,
    places: [Entry; PLACES],
}

/// The place of one drain process.
#[repr(C)]
struct Entry {
    /// 0 is free. Before the fork it is the child's.
    pid: AtomicU32,
    /// What that process says of itself, see [`Says`]. Builds that know nothing of it leave what
    /// there is.
    says: AtomicU32,
    /// When it was taken, in microseconds of CLOCK_MONOTONIC.
    since: AtomicU64,
}

#[cfg(not(loom))]
const _: () = assert!(size_of::<Entry>() == 16 && size_of::<Registry>() == 8 + 2048 * 16);

// SAFETY: atomics only, repr(C) throughout, any bytes are valid.
unsafe impl Shareable for Registry {
    const LAYOUT: u64 = size_of::<Self>() as u64;
}

/// From when on and until when the tunnels of a server end, in microseconds of CLOCK_MONOTONIC.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Times {
    /// The first tunnel ends.
    pub begin: u64,
    /// The last.
    pub end: u64,
}

impl Times {
    /// Both are in one word: in steps of an eighth of a second it takes them for centuries.
    const STEP: u64 = 125_000;

    fn pack(self) -> u64 {
        let steps = |time: u64| (time / Self::STEP).min(u64::from(u32::MAX));
        // 0 is nothing.
        steps(self.begin) << 32 | steps(self.end).max(1)
    }

    fn unpack(word: u64) -> Option<Self> {
        let [begin, end] = [word >> 32, word & u64::from(u32::MAX)].map(|steps| steps * Self::STEP);
        (word != 0).then_some(Self { begin, end })
    }
}

/// What a drain process says of itself: its process id, and whether it is ending. That it says
/// anything means that it takes orders other than SIGTERM.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Says {
    /// Nothing: it is of an older build, or has just begun.
    Nothing,
    /// It carries its tunnels on.
    Carrying,
    /// Its tunnels are being ended.
    Ending,
}

/// With the process id.
const IS_ENDING: u32 = 1 << 31;

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
            |_| Entry { pid: AtomicU32::new(0), says: AtomicU32::new(0), since: AtomicU64::new(0) };
        Self { times: AtomicU64::new(0), places: std::array::from_fn(entry) }
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

    /// The server stops gracefully. It takes no lock and no memory.
    pub fn stop_gracefully(&self, times: Times) {
        self.times.store(times.pack(), Release);
    }

    /// The server does not stop, whatever was said before.
    pub fn go_on(&self) {
        self.times.store(0, Release);
    }

    /// Whether it does, and when tunnels end then.
    pub fn stops_gracefully(&self) -> Option<Times> {
        Times::unpack(self.times.load(Acquire))
    }

    /// What the process `pid` says of itself, which has that place.
    pub fn says(&self, number: usize, pid: u32) -> Says {
        // Another process may have left it there.
        match self.places.get(number).map(|entry| entry.says.load(Relaxed)) {
            Some(says) if says == pid => Says::Carrying,
            Some(says) if says == pid | IS_ENDING => Says::Ending,
            _ => Says::Nothing,
        }
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

    /// The process `pid`, which has it, says that it takes orders, and whether it is ending.
    pub fn say(self, pid: u32, is_ending: bool) {
        self.entry.says.store(if is_ending { pid | IS_ENDING } else { pid }, Relaxed);
    }

    /// Gives it back, if it is that process's.
    pub fn release(self, pid: u32) {
        if self.entry.pid.load(Acquire) == pid {
            self.entry.since.store(0, Relaxed);
            self.entry.says.store(0, Relaxed);
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
