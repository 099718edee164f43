//! Tunnels under a script that a seed makes up: bytes in any pieces, short writes, interrupted
//! calls, half closes, resets at any byte, TLS records cut anywhere, time, orders, moves to another
//! process. Checked after every step: what comes out is what went in, in order; nothing is left
//! lying that could go on; no call is made over and over; each tunnel ends once, and is gone then.
//!
//! The relay is as it is elsewhere, threads and all: [`kernel`] is in the place of the system calls,
//! so that there is no seam in the relay for the sake of tests. By hand:
//! `SEEDS=100000 cargo test -p relay --release --test simulation`, `SEED=17 ...` for a single one.

// A static C library, as Rust links musl's, lets no other function stand in for its own.
#![cfg(target_env = "gnu")]

#[path = "../common/mod.rs"]
mod common;
mod kernel;
mod script;
mod toy_tls;

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicIsize, AtomicU64, Ordering::Relaxed};
use std::sync::mpsc::{Sender, channel};
use std::time::Duration;
use std::{iter, process, thread};

struct Counting;

static BYTES: AtomicIsize = AtomicIsize::new(0);

thread_local! {
    static IS_MAIN: Cell<Option<bool>> = const { Cell::new(None) };
}

/// The main thread is the test harness's, which has memory of its own.
fn count(bytes: isize) {
    let is_main = IS_MAIN.get().unwrap_or_else(|| {
        // SAFETY: two numbers of the kernel's.
        let is_main = unsafe { libc::getpid() == libc::gettid() };
        IS_MAIN.set(Some(is_main));
        is_main
    });
    if !is_main {
        BYTES.fetch_add(bytes, Relaxed);
    }
}

// SAFETY: everything is the system allocator's; counting changes nothing.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(layout.size() as isize);
        // SAFETY: as our caller's.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        count(-(layout.size() as isize));
        // SAFETY: as our caller's.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// The seed that runs, and how many steps of it there were.
static NOW: [AtomicU64; 2] = [const { AtomicU64::new(0) }; 2];

/// How long one step may take.
const PATIENCE: Duration = Duration::from_secs(60);

fn how_to_repeat(seed: u64) -> String {
    format!("SEED={seed} cargo test -p relay --test simulation -- --nocapture")
}

/// A step that does not come to its end is told too. It is not measured by the clock, which is the
/// simulation's.
fn watch(has_begun: &Sender<()>, waiting: libc::pid_t) {
    // A thread that waits for a channel for the first time makes what it keeps for that: it is to do so
    // now, and not within a script.
    let state = format!("/proc/self/task/{waiting}/stat");
    while !std::fs::read_to_string(&state).expect("the thread").contains(") S ") {
        thread::yield_now();
    }
    has_begun.send(()).expect("it is waited for");
    let see = || NOW.each_ref().map(|number| number.load(Relaxed));
    loop {
        let before = see();
        thread::sleep(PATIENCE);
        if see() == before {
            eprintln!("a step takes for ever: {}", how_to_repeat(before[0]));
            process::abort();
        }
    }
}

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().expect("a number"))
}

#[test]
fn whatever_happens_bytes_are_carried_and_tunnels_end_once() {
    let (sender, has_begun) = channel();
    // SAFETY: a number of the kernel's.
    let own = unsafe { libc::gettid() };
    thread::spawn(move || watch(&sender, own));
    has_begun.recv().expect("it begins");
    let seeds = match number("SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..number("SEEDS").unwrap_or(1000),
    };
    let is_told = number("SEED").is_some();
    let mut sums = script::Sums::default();
    // Twice the first one: after that, what is made once is made.
    for (turn, seed) in iter::once(seeds.start).chain(seeds).enumerate() {
        NOW[0].store(seed, Relaxed);
        let before = BYTES.load(Relaxed);
        let ran = catch_unwind(AssertUnwindSafe(|| script::run(seed, is_told, &mut sums)));
        let left = BYTES.load(Relaxed) - before;
        if ran.is_err() || left != 0 && turn > 0 {
            eprintln!("{left} bytes are left. To repeat it: {}", how_to_repeat(seed));
            // The relay thread may stand still, and would be waited for.
            process::exit(101);
        }
    }
    println!("{sums:?}");
}
