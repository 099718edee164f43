//! Drain processes of every build of this module: whoever stops the server, or bounds them, must
//! find those too whose other memory is laid out differently.
//!
//! Each has a place in shared memory, and holds the lock of the same number. Memory says where to look,
//! and which is the oldest. Who is there, and whether it lives, the kernel says: children can write to
//! memory, but take a lock for themselves alone.

use std::io;
use std::os::fd::BorrowedFd;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::atomic::{AtomicPtr, AtomicUsize};
use std::time::{Duration, Instant};

use os::{Notice, descriptors, line_pipe, locks, packets, process};
use shared::{Place, Registry, Says, Times};

use crate::ffi::retained::{retained, retained_descriptors};
use crate::ffi::role::Parent;
use crate::processes::memory::System;

/// The most that the automatic value of WSForwardMaxDrainProcesses allows: places stay for those of
/// children that end together.
pub(crate) const MAX_AUTOMATIC: usize = Registry::PLACES / 4 * 3;

/// Where the memory is, in this process. Set by [`create`], for each configuration.
static REGISTRY: AtomicPtr<Registry> = AtomicPtr::new(std::ptr::null_mut());

/// The pipe for lines, its reading and its writing end: open in the parent, and so in all its
/// children. Set likewise, and not in shared memory: the parent reads of it.
static LINES: [descriptors::Place; 2] = [const { descriptors::Place::new() }; 2];

/// The sockets for lines of access logs: open likewise.
static ACCESS_LINES: [descriptors::Place; 2] = [const { descriptors::Place::new() }; 2];

/// The file of the locks: open likewise.
static LOCKS: descriptors::Place = descriptors::Place::new();

/// The place of this process, if it is a drain process: it does not see its own lock.
static OWN: AtomicUsize = AtomicUsize::new(NOWHERE);
const NOWHERE: usize = usize::MAX;

/// Makes the memory. The server runs from here on: httpd has forgotten a graceful stop that it was asked for
/// while it restarted.
///
/// # Errors
/// It cannot be had.
pub(crate) fn create(_: &Parent) -> io::Result<()> {
    failpoint::check!("reload.registry")?;
    let registry: &Registry = retained(c"mod_wsforward_drains_1")?;
    // Nobody says that it stops between two configurations: there is no handler.
    registry.go_on();
    /// Of what goes through the pipe, and of the numbers of locks.
    const LAYOUT: u64 = 1;
    let lines = retained_descriptors(c"mod_wsforward_lines", LAYOUT, line_pipe::make)?;
    let [locks] =
        retained_descriptors(c"mod_wsforward_locks", LAYOUT, || locks::file().map(|one| [one]))?;
    let access = retained_descriptors(c"mod_wsforward_access_lines", LAYOUT, packets::pair)?;
    for (place, end) in ACCESS_LINES.iter().zip(access) {
        place.set(end);
    }
    LOCKS.set(locks);
    for (place, end) in LINES.iter().zip(lines) {
        place.set(end);
    }
    REGISTRY.store(std::ptr::from_ref(registry).cast_mut(), Relaxed);
    Ok(())
}

fn registry() -> Option<&'static Registry> {
    // SAFETY: NULL, or what `create` stored: a reference for ever.
    unsafe { REGISTRY.load(Relaxed).as_ref() }
}

/// The pipe for lines: its reading and its writing end.
pub(crate) fn lines() -> Option<[BorrowedFd<'static>; 2]> {
    let [read, write] = &LINES;
    Some([read.get()?, write.get()?])
}

/// The sockets for lines of access logs: that to receive from and that to send to.
pub(crate) fn access_lines() -> Option<[BorrowedFd<'static>; 2]> {
    let [receive, send] = &ACCESS_LINES;
    Some([receive.get()?, send.get()?])
}

/// The file of the locks. Whoever closes a descriptor of it loses the locks that it has.
pub(crate) fn lock_file() -> Option<BorrowedFd<'static>> {
    LOCKS.get()
}

/// A drain process that lives, as the kernel knows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Drain {
    /// Its process id.
    pub pid: u32,
    place: usize,
}

impl Drain {
    /// Tells it to end at once. Nobody else is signalled.
    pub(crate) fn terminate(self) {
        self.tell(Notice::End);
    }

    /// Tells it something. `false` if it is of a build that understands nothing but to end at once.
    pub(crate) fn tell(self, notice: Notice) -> bool {
        let is_understood = notice == Notice::End || self.says() != Says::Nothing;
        if is_understood {
            process::tell(self.pid, notice, || holder(self.place) == Some(self.pid));
        }
        is_understood
    }

    /// What it says of itself.
    pub(crate) fn says(self) -> Says {
        registry().map_or(Says::Nothing, |registry| registry.says(self.place, self.pid))
    }
}

/// The process that holds the lock of a place.
fn holder(place: usize) -> Option<u32> {
    if OWN.load(Relaxed) == place {
        return Some(std::process::id());
    }
    locks::holder(lock_file()?, place)
}

/// Whether there are places.
pub(crate) fn is_there() -> bool {
    registry().is_some()
}

/// A place for the process that this one is about to fork. From now on it counts.
pub(crate) fn claim() -> Option<Place<'static>> {
    registry()?.claim(&System, process::now())
}

/// How many places are taken: as many as live, or more.
pub(crate) fn taken() -> usize {
    registry().map_or(0, Registry::taken)
}

/// Those drain processes that live, the oldest first.
pub(crate) fn drains() -> Vec<Drain> {
    /// A look at all places takes milliseconds. A child that takes millions of locks can make each
    /// one slow: what is not found by then is not found.
    const LOOK_TIME: Duration = Duration::from_millis(500);
    let until = Instant::now() + LOOK_TIME;
    let mut found: Vec<(u64, Drain)> = registry()
        .into_iter()
        .flat_map(Registry::places)
        .take_while(|_| Instant::now() < until)
        .filter_map(|(place, since)| Some((since, Drain { pid: holder(place)?, place })))
        .collect();
    // Whoever holds several locks is one process.
    found.sort_unstable_by_key(|(since, drain)| (drain.pid, *since));
    found.dedup_by_key(|(_, drain)| drain.pid);
    // Of one that has ended somebody may yet have the descriptor by which the lock was taken.
    found.retain(|(_, drain)| process::runs(drain.pid));
    found.sort_unstable_by_key(|(since, drain)| (*since, drain.pid));
    found.into_iter().map(|(_, drain)| drain).collect()
}

/// The server stops gracefully, and says when tunnels end. For signal handlers too.
pub(crate) fn stop_gracefully(times: Times) {
    if let Some(registry) = registry() {
        registry.stop_gracefully(times);
    }
}

/// Whether it does, and when.
pub(crate) fn stops_gracefully() -> Option<Times> {
    registry()?.stops_gracefully()
}

/// Takes the lock of a place, in the process that has it from now on and to its end.
///
/// # Errors
/// Nobody finds this process.
pub(crate) fn hold(place: Place<'_>) -> io::Result<()> {
    locks::take(lock_file().ok_or(io::ErrorKind::NotFound)?, place.number())?;
    OWN.store(place.number(), Relaxed);
    place.say(std::process::id(), false);
    Ok(())
}

/// Gives a place back, if it is that process's, and its lock before: the next one is to have both.
pub(crate) fn release(place: Place<'_>, pid: u32) {
    let own = OWN.swap(NOWHERE, Relaxed);
    if let Some(file) = lock_file().filter(|_| own != NOWHERE) {
        locks::give_back(file, own);
    }
    place.release(pid);
}
