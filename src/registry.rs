//! Drain processes of every build of this module: whoever stops the server, or bounds them, must
//! find those too whose other memory is laid out differently.
//!
//! Each has a place in shared memory, and holds the lock of the same number. Memory says where to look,
//! and which is the oldest. Who is there, and whether it lives, the kernel says: children can write to
//! memory, but take a lock for themselves alone.

use std::io;
use std::os::fd::BorrowedFd;
use std::sync::atomic::Ordering::{AcqRel, Acquire, Relaxed, Release};
use std::sync::atomic::{AtomicPtr, AtomicU32, AtomicU64, AtomicUsize};
use std::time::{Duration, Instant};

use os::descriptors::Place;
use os::{line_pipe, locks, process};

use crate::ffi::retained::{Shareable, retained, retained_descriptors};

/// More than WSForwardMaxDrainProcesses can allow.
const ENTRIES: usize = 2048;
/// The most that its automatic value allows: places stay for those of children that end together.
pub const MOST: usize = ENTRIES / 4 * 3;

/// All of the memory. Its layout never changes, other than by another key in [`create`].
#[repr(C)]
pub struct Registry {
    _pad: [AtomicU32; 2],
    entries: [Entry; ENTRIES],
}

/// The place of one drain process.
#[repr(C)]
pub struct Entry {
    /// 0 is free. Before the fork it is the child's.
    pid: AtomicU32,
    _pad: AtomicU32,
    /// When it was taken, by [`process::now`].
    since: AtomicU64,
}

// SAFETY: atomics only, repr(C) throughout, zero is valid: every entry is free.
unsafe impl Shareable for Registry {
    const LAYOUT: u64 = size_of::<Self>() as u64;
}

/// Where the memory is, in this process. Set in the parent for each configuration, before
/// children are made.
static REGISTRY: AtomicPtr<Registry> = AtomicPtr::new(std::ptr::null_mut());

/// The pipe for lines, its reading and its writing end: open in the parent, and so in all its
/// children. Set likewise, and not in shared memory: the parent reads of it.
static LINES: [Place; 2] = [const { Place::new() }; 2];

/// The file of the locks: open likewise.
static LOCKS: Place = Place::new();

/// The place of this process, if it is a drain process: it does not see its own lock.
static OWN: AtomicUsize = AtomicUsize::new(NOWHERE);
const NOWHERE: usize = usize::MAX;

/// Makes the memory, in the parent.
///
/// # Errors
/// It cannot be had.
pub fn create() -> io::Result<()> {
    let registry: &'static Registry = retained(c"mod_wsforward_drains_1")?;
    /// Of what goes through the pipe, and of the numbers of locks.
    const LAYOUT: u64 = 1;
    let lines = retained_descriptors(c"mod_wsforward_lines", LAYOUT, line_pipe::make)?;
    let [locks] =
        retained_descriptors(c"mod_wsforward_locks", LAYOUT, || locks::file().map(|one| [one]))?;
    LOCKS.set(locks);
    for (place, end) in LINES.iter().zip(lines) {
        place.set(end);
    }
    REGISTRY.store(std::ptr::from_ref(registry).cast_mut(), Relaxed);
    Ok(())
}

/// The memory, if there is any.
pub fn registry() -> Option<&'static Registry> {
    // SAFETY: NULL, or what `create` stored: a reference for ever.
    unsafe { REGISTRY.load(Relaxed).as_ref() }
}

/// The pipe for lines: its reading and its writing end.
pub fn lines() -> Option<[BorrowedFd<'static>; 2]> {
    let [read, write] = &LINES;
    Some([read.get()?, write.get()?])
}

/// The file of the locks. Whoever closes a descriptor of it loses the locks that it has.
pub fn lock_file() -> Option<BorrowedFd<'static>> {
    LOCKS.get()
}

/// A drain process that lives, as the kernel knows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Drain {
    /// Its process id.
    pub pid: u32,
    place: usize,
}

impl Drain {
    /// Asks it to end. Nobody else is signalled.
    pub fn terminate(self) {
        process::terminate(self.pid, || holder(self.place) == Some(self.pid));
    }
}

/// The process that holds the lock of a place.
fn holder(place: usize) -> Option<u32> {
    if OWN.load(Relaxed) == place {
        return Some(std::process::id());
    }
    locks::holder(lock_file()?, place)
}

impl Registry {
    /// A place for the process that this one is about to fork. From now on it counts.
    pub fn claim(&self) -> Option<&Entry> {
        let pid = std::process::id();
        // To look whether a process lives takes longer than all of the free ones.
        let free = self.entries.iter().find(|entry| entry.replace(0, pid));
        let entry = free.or_else(|| self.entries.iter().find(|entry| entry.is_left(pid)))?;
        entry.since.store(process::now(), Relaxed);
        Some(entry)
    }

    /// How many places are taken: as many as live, or more.
    pub fn taken(&self) -> usize {
        self.entries.iter().filter(|entry| entry.pid.load(Relaxed) != 0).count()
    }

    /// Those that live, the oldest first.
    pub fn drains(&self) -> Vec<Drain> {
        /// A look at all places takes milliseconds. A child that takes millions of locks can make each
        /// one slow: what is not found by then is not found.
        const PATIENCE: Duration = Duration::from_millis(500);
        let until = Instant::now() + PATIENCE;
        let mut found: Vec<(u64, Drain)> = self
            .entries
            .iter()
            .enumerate()
            .filter(|(_, entry)| entry.pid.load(Acquire) != 0)
            .take_while(|_| Instant::now() < until)
            .filter_map(|(place, entry)| {
                let pid = holder(place)?;
                Some((entry.since.load(Relaxed), Drain { pid, place }))
            })
            .collect();
        // Whoever holds several locks is one process.
        found.sort_unstable_by_key(|(since, drain)| (drain.pid, *since));
        found.dedup_by_key(|(_, drain)| drain.pid);
        found.sort_unstable_by_key(|(since, drain)| (*since, drain.pid));
        found.into_iter().map(|(_, drain)| drain).collect()
    }

    /// Takes the lock of a place, in the process that has it from now on and to its end.
    ///
    /// # Errors
    /// Nobody finds this process.
    pub fn hold(&self, entry: &Entry) -> io::Result<()> {
        let offset = std::ptr::from_ref(entry).addr() - self.entries.as_ptr().addr();
        let place = offset / size_of::<Entry>();
        locks::take(lock_file().ok_or(io::ErrorKind::NotFound)?, place)?;
        OWN.store(place, Relaxed);
        Ok(())
    }
}

impl Entry {
    fn replace(&self, of: u32, by: u32) -> bool {
        self.pid.compare_exchange(of, by, AcqRel, Relaxed).is_ok()
    }

    /// Whether whoever had it is gone without giving it back; it is `by`'s then.
    fn is_left(&self, by: u32) -> bool {
        let pid = self.pid.load(Acquire);
        pid != by && !process::runs(pid) && self.replace(pid, by)
    }

    /// It is the forked process's. To be said by both, of which either may end at any time.
    pub fn pass(&self, from: u32, to: u32) {
        self.replace(from, to);
    }

    /// Gives it back, and its lock before: the next one is to have both.
    pub fn release(&self, pid: u32) {
        let place = OWN.swap(NOWHERE, Relaxed);
        if let Some(file) = lock_file().filter(|_| place != NOWHERE) {
            locks::give_back(file, place);
        }
        if self.pid.load(Acquire) == pid {
            self.since.store(0, Relaxed);
            self.pid.store(0, Release);
        }
    }
}
