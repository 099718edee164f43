//! The protocols in every order of their accesses (loom), and with a process that dies before any of
//! its stores. ci/test runs them with two interruptions of a process at the most; with three, which
//! takes hours: `RUSTFLAGS="--cfg loom" LOOM_MAX_PREEMPTIONS=3 cargo test -p shared --release --lib`.

mod counts;
mod register;
mod slots;

use std::sync::atomic::AtomicU32;
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};

use loom::sync::atomic::AtomicBool;
use loom::sync::{Arc, Mutex};
use loom::thread;

use crate::activity::Order;
use crate::entry::About;
use crate::labels::{By, Direction, Reason};
use crate::names::Name;
use crate::processes::Processes;
use crate::register::Register;
use crate::registry::{Place, Registry};
use crate::role::Sent;
use crate::series::Metric;
use crate::slot::Slot;
use crate::slots::{Memory, Shared};
use crate::sync::dies_after;
use crate::tally::{Full, TallyEntry};
use crate::tally_words::TallyKey;
use crate::tunnel_entry::TunnelEntry;

struct World {
    memory: Memory,
    register: Option<Register>,
    registry: Registry,
    /// Of the processes 1 to 4.
    dead: [AtomicBool; 4],
    queue: Mutex<Vec<u32>>,
}

/// A process.
#[derive(Clone)]
struct Process {
    own: u32,
    world: Arc<World>,
}

impl Processes for Process {
    fn own(&self) -> u32 {
        self.own
    }

    fn exists(&self, pid: u32) -> bool {
        let dead = (pid as usize).checked_sub(1).and_then(|at| self.world.dead.get(at));
        dead.is_some_and(|dead| !dead.load(Acquire))
    }

    fn runs(&self, pid: u32) -> bool {
        self.exists(pid)
    }

    fn seconds(&self) -> u32 {
        0
    }

    fn wake(&self, _word: &AtomicU32) {}
}

impl Process {
    fn shared(&self) -> Shared<'_> {
        Shared::new(&self.world.memory, self.world.register.as_ref(), self, 1)
    }

    fn slot(&self) -> &Slot {
        self.shared().slot_of(self.own).expect("it has claimed one")
    }

    fn key(&self) -> TallyKey {
        self.shared().client_key(b"client")
    }

    fn count(&self) -> Option<TallyEntry> {
        self.count_within(usize::MAX).expect("no limit")
    }

    fn count_within(&self, most: usize) -> Result<Option<TallyEntry>, Full> {
        self.shared().count_client(self.key(), self.slot(), most)
    }

    fn open(&self) -> usize {
        self.shared().open_of_client(self.key())
    }

    fn clear_dead(&self) {
        self.shared().clear_dead();
    }

    fn die(&self) {
        self.world.dead[self.own as usize - 1].store(true, Release);
    }

    /// Does what `body` does, and dies: before the store after so many, or behind it.
    fn dies_after(&self, stores: u32, body: impl FnOnce(&Self)) {
        dies_after(stores, || body(self));
        self.die();
    }
}

/// Processes with the numbers from 1 on, and with slots.
fn processes<const N: usize>() -> [Process; N] {
    processes_of(None)
}

/// The same, with a register.
fn registered<const N: usize>() -> [Process; N] {
    processes_of(Some(Register::new()))
}

fn processes_of<const N: usize>(register: Option<Register>) -> [Process; N] {
    let world = Arc::new(World {
        memory: Memory::new(),
        register,
        registry: Registry::new(),
        dead: std::array::from_fn(|_| AtomicBool::new(false)),
        queue: Mutex::new(Vec::new()),
    });
    let mut own = 0;
    [(); N].map(|()| {
        own += 1;
        let process = Process { own, world: Arc::clone(&world) };
        process.shared().claim().expect("there is room");
        process
    })
}

fn model(body: impl Fn() + Sync + Send + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound.get_or_insert(2);
    builder.check(body);
}

/// The same for each number of stores that a process may live, up to so many.
fn for_each_death(stores: u32, body: impl Fn(u32) + Copy + Sync + Send + 'static) {
    (0..=stores).for_each(|stores| model(move || body(stores)));
}
