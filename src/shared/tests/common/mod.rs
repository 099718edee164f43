//! Memory and processes for tests.
#![allow(dead_code, reason = "each test uses a part")]

use std::alloc::{Layout, alloc_zeroed};
use std::collections::HashSet;
use std::ptr::NonNull;
use std::sync::Mutex;

use shared::{Mapping, Memory, Processes, Shareable, Shared};

/// As much memory as a T needs, all zero, for ever.
pub fn mapping<T: Shareable>() -> (NonNull<u8>, Mapping) {
    let layout = Layout::from_size_align(size_of::<T>(), 4096).expect("a size");
    // SAFETY: the size is not 0.
    let start = NonNull::new(unsafe { alloc_zeroed(layout) }).expect("memory");
    // SAFETY: zero, never freed, and known to the test alone.
    (start, unsafe { Mapping::new(start, size_of::<T>(), T::LAYOUT) })
}

/// Fills the memory of a T with bytes.
pub fn fill<T>(start: NonNull<u8>, mut byte: impl FnMut() -> u8) {
    for at in 0..size_of::<T>() {
        // SAFETY: within the memory, to which no thread writes meanwhile.
        unsafe { start.add(at).write_volatile(byte()) };
    }
}

/// What is in the memory of a T.
pub fn bytes<T>(start: NonNull<u8>) -> Vec<u8> {
    // SAFETY: as above.
    (0..size_of::<T>()).map(|at| unsafe { start.add(at).read_volatile() }).collect()
}

/// Processes of a test.
#[derive(Default)]
pub struct World {
    own: Mutex<u32>,
    dead: Mutex<HashSet<u32>>,
}

impl World {
    /// From now on this is the process that asks.
    pub fn become_process(&self, pid: u32) {
        *self.own.lock().expect("no panic") = pid;
    }

    pub fn kill(&self, pid: u32) {
        self.dead.lock().expect("no panic").insert(pid);
    }
}

impl Processes for World {
    fn own(&self) -> u32 {
        *self.own.lock().expect("no panic")
    }

    fn exists(&self, pid: u32) -> bool {
        pid < 1 << 22 && !self.dead.lock().expect("no panic").contains(&pid)
    }

    fn runs(&self, pid: u32) -> bool {
        self.exists(pid)
    }
}

/// Memory as process 100 sees it.
pub fn shared(world: &World) -> (NonNull<u8>, Shared<'_>) {
    let (start, mapping) = mapping::<Memory>();
    let memory = mapping.get::<Memory>().expect("it fits");
    let generation = memory.begin(|| Ok::<_, ()>([1, 2])).expect("numbers");
    world.become_process(100);
    (start, Shared::new(memory, world, generation))
}
