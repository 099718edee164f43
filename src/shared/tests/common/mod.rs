//! Memory and processes for tests.
#![allow(dead_code, reason = "each test uses a part")]

use std::alloc::{Layout, alloc_zeroed, dealloc};
use std::collections::HashSet;
use std::ptr::NonNull;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

use shared::{About, Mapping, Memory, Name, Processes, Register, Shareable, Shared};

/// As much memory as a T needs, all zero, for ever.
pub fn mapping<T: Shareable>() -> (NonNull<u8>, Mapping) {
    let layout = Layout::from_size_align(size_of::<T>(), 4096).expect("a size");
    // SAFETY: the size is not 0.
    let start = NonNull::new(unsafe { alloc_zeroed(layout) }).expect("memory");
    // SAFETY: zero, never freed, and known to the test alone.
    (start, unsafe { Mapping::new(start, size_of::<T>(), T::LAYOUT) })
}

/// Frees what [`mapping`] allocated.
///
/// # Safety
/// Nobody uses it any more.
pub unsafe fn unmap<T: Shareable>(start: NonNull<u8>) {
    let layout = Layout::from_size_align(size_of::<T>(), 4096).expect("a size");
    // SAFETY: allocated in this layout; unused, by the caller's word.
    unsafe { dealloc(start.as_ptr(), layout) };
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
    seconds: AtomicU32,
    woken: AtomicU32,
    gone: Mutex<Vec<(u32, usize)>>,
}

impl World {
    /// From now on this is the process that asks.
    pub fn become_process(&self, pid: u32) {
        *self.own.lock().expect("no panic") = pid;
    }

    /// Lets time pass.
    pub fn wait(&self, seconds: u32) {
        self.seconds.fetch_add(seconds, Relaxed);
    }

    /// How often somebody was woken.
    pub fn woken(&self) -> u32 {
        self.woken.load(Relaxed)
    }

    /// The processes that were found gone, with the relayed tunnels of each.
    pub fn gone(&self) -> Vec<(u32, usize)> {
        self.gone.lock().expect("no panic").clone()
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

    fn seconds(&self) -> u32 {
        self.seconds.load(Relaxed)
    }

    fn gone(&self, pid: u32, tunnels: usize) {
        self.gone.lock().expect("no panic").push((pid, tunnels));
    }

    fn wake(&self, _word: &AtomicU32) {
        self.woken.fetch_add(1, Relaxed);
    }
}

/// Memory as process 100 sees it.
pub fn shared(world: &World) -> (NonNull<u8>, Shared<'_>) {
    let (start, mapping) = mapping::<Memory>();
    let memory = mapping.get::<Memory>().expect("it fits");
    let generation = memory.begin(|| Ok::<_, ()>([1, 2])).expect("numbers");
    world.become_process(100);
    (start, Shared::new(memory, None, world, generation))
}

/// The same with a register of so many entries, and where that is.
pub fn registered(world: &World, size: usize) -> (NonNull<u8>, &'static Register, Shared<'_>) {
    let (_, memory) = mapping::<Memory>();
    let memory = memory.get::<Memory>().expect("it fits");
    let generation = memory.begin(|| Ok::<_, ()>([1, 2])).expect("numbers");
    world.become_process(100);
    let (start, mapping) = mapping::<Register>();
    let register = mapping.get::<Register>().expect("it fits");
    register.begin(size, || Ok::<_, ()>([3, 4])).expect("numbers");
    (start, register, Shared::new(memory, Some(register), world, generation))
}

/// A tunnel.
pub fn about(vhost: Name, backend: Name) -> About<'static> {
    About {
        client: [192, 0, 2, 1].into(),
        port: 50_000,
        vhost,
        backend,
        is_client_tls: true,
        is_backend_tls: false,
        started_micros: 1_000_000,
        id: b"id",
        user: b"user",
        subprotocol: b"chat",
        path: b"/path",
    }
}
