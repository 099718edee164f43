//! No panic crosses into C.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};

/// Set by the first panic in this process; see [`poisoned`].
static POISONED: AtomicBool = AtomicBool::new(false);

/// Runs the body of a function that C calls. If it panics, httpd gets `failed`, the panic's text is
/// in the error log (httpd's stderr), and the module takes no further requests in this process:
/// state that a panic may have left half changed is not trusted again.
pub(crate) fn guard<T>(failed: T, body: impl FnOnce() -> T) -> T {
    match catch_unwind(AssertUnwindSafe(body)) {
        Ok(value) => value,
        Err(_) => {
            POISONED.store(true, Ordering::Relaxed);
            failed
        }
    }
}

/// Whether an entry from C has panicked in this process.
pub(crate) fn poisoned() -> bool {
    POISONED.load(Ordering::Relaxed)
}
