//! No panic crosses into C: [`guard`] itself, called back by C, and that every entry has it. And
//! src/ffi, where C is, needs nothing of what is above it.
//! It is a file of its own because the module's symbols come from httpd, so that no test can link it.

use std::ffi::{c_int, c_void};
use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

#[path = "../src/ffi/guard.rs"]
mod guard;

use guard::{guard, poisoned};

static CALLS: AtomicUsize = AtomicUsize::new(0);
static DROPS: AtomicUsize = AtomicUsize::new(0);

/// Counts how often it is dropped.
struct Dropped;

impl Drop for Dropped {
    fn drop(&mut self) {
        DROPS.fetch_add(1, Relaxed);
    }
}

/// A callback of `qsort`: panics at its second call.
unsafe extern "C" fn compare(a: *const c_void, b: *const c_void) -> c_int {
    guard(-7, || {
        let _dropped = Dropped;
        assert!(CALLS.fetch_add(1, Relaxed) != 1, "the second call");
        // SAFETY: qsort passes two elements of the array of `i32`.
        let (a, b) = unsafe { (*a.cast::<i32>(), *b.cast::<i32>()) };
        c_int::from(a > b) - c_int::from(a < b)
    })
}

#[test]
fn a_panic_ends_at_the_guard_and_poisons_the_process() {
    assert_eq!(guard(1, || 2), 2);
    assert!(!poisoned());

    let mut numbers = [3, 1, 2, 5, 4];
    // SAFETY: the array, its length and the size of its elements; `compare` is for these.
    unsafe {
        libc::qsort(numbers.as_mut_ptr().cast(), numbers.len(), size_of::<i32>(), Some(compare));
    }
    // C went on with the value for a failure, and called again.
    let calls = CALLS.load(Relaxed);
    assert!(calls > 2, "{calls} calls");
    numbers.sort_unstable();
    assert_eq!(numbers, [1, 2, 3, 4, 5]);
    // The stack was unwound, by the panic too.
    assert_eq!(DROPS.load(Relaxed), calls);
    assert!(poisoned());

    // From another thread, and with what is no string.
    let seen = std::thread::spawn(|| guard("failed", || std::panic::panic_any(5)));
    assert_eq!(seen.join().expect("the panic ended at the guard"), "failed");
    // What comes after is served as before: who asks `poisoned` decides.
    assert_eq!(guard(1, || 2), 2);
    assert!(poisoned());
}

/// A store of a flag, for which httpd's signal handler may be waiting.
const CANNOT_PANIC: [&str; 1] = ["child_stopping"];

#[test]
fn every_entry_from_httpd_has_a_guard() {
    let mut entries = Vec::new();
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/ffi");
    for file in fs::read_dir(folder).expect("src/ffi is there") {
        let text = fs::read_to_string(file.expect("a file").path()).expect("it is text");
        for function in text.split("extern \"C\" fn ").skip(1) {
            let name = function.split(['(', '<']).next().unwrap_or_default().to_owned();
            let body = function.split("\n}\n").next().unwrap_or_default();
            assert!(
                body.contains("guard(") || CANNOT_PANIC.contains(&name.as_str()),
                "{name} has no guard"
            );
            entries.push(name);
        }
    }
    for name in ["scheme_handler", "pre_connection", "enter", "create"] {
        assert!(entries.iter().any(|entry| entry == name), "{name} is not among {entries:?}");
    }
}

#[test]
fn src_ffi_needs_nothing_above_it() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/ffi");
    for file in fs::read_dir(folder).expect("src/ffi is there") {
        let path = file.expect("a file").path();
        let text = fs::read_to_string(&path).expect("it is text");
        // Its files are side by side: `super::` alone leads to another one of them.
        for way_up in ["crate::", "super::super::"] {
            assert!(!text.contains(way_up), "{way_up} in {}", path.display());
        }
    }
}
