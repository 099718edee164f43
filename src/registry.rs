//! Drain processes of every build of this module: whoever stops the server, or bounds them, must
//! find those too whose other memory is laid out differently.

use std::io;
use std::os::fd::RawFd;
use std::sync::atomic::Ordering::{AcqRel, Acquire, Relaxed, Release};
use std::sync::atomic::{AtomicI32, AtomicPtr, AtomicU32, AtomicU64};

use crate::ffi::shared::{Shareable, retained, retained_pair};
use crate::process;

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
static LINES: [AtomicI32; 2] = [const { AtomicI32::new(-1) }; 2];

/// Makes the memory, in the parent.
///
/// # Errors
/// It cannot be had.
pub fn create() -> io::Result<()> {
    let registry: &'static Registry = retained(c"mod_wsforward_drains_1")?;
    /// Of what goes through the pipe.
    const LAYOUT: u64 = 1;
    let lines = retained_pair(c"mod_wsforward_lines", LAYOUT, process::lines)?;
    for (at, end) in LINES.iter().zip(lines) {
        at.store(end, Relaxed);
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
pub fn lines() -> Option<[RawFd; 2]> {
    let ends = LINES.each_ref().map(|end| end.load(Relaxed));
    ends.iter().all(|end| *end >= 0).then_some(ends)
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
    pub fn drains(&self) -> Vec<u32> {
        let mut found: Vec<(u64, u32)> = self
            .entries
            .iter()
            .map(|entry| (entry.since.load(Relaxed), entry.pid.load(Acquire)))
            .filter(|(_, pid)| *pid != 0 && process::is_drain(*pid))
            .collect();
        found.sort_unstable();
        found.into_iter().map(|(_, pid)| pid).collect()
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

    /// Gives it back.
    pub fn release(&self, pid: u32) {
        if self.pid.load(Acquire) == pid {
            self.since.store(0, Relaxed);
            self.pid.store(0, Release);
        }
    }
}
