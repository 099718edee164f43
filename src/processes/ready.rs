//! Whether this server wants more tunnels: a load balancer asks, and stops to send some before the
//! listeners are closed.

use std::ffi::{CStr, OsStr};
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;

use os::process;

/// For so many microseconds a file that was there is not looked for.
const INTERVAL_MICROS: u64 = 1_000_000;

/// Whether the file of WSForwardReadyFile is there. While it is, each process looks at most once a second. While it
/// is not, each request looks: once one process says that the server is ready, so do all others.
pub(crate) fn is_there(file: &CStr) -> bool {
    /// When it was seen last; 0 is never.
    static SEEN_AT: AtomicU64 = AtomicU64::new(0);
    let now = process::now().max(1);
    let last = SEEN_AT.load(Relaxed);
    if last != 0 && now.saturating_sub(last) < INTERVAL_MICROS {
        return true;
    }
    let is_there = fs::metadata(OsStr::from_bytes(file.to_bytes())).is_ok();
    if is_there {
        SEEN_AT.store(now, Relaxed);
    }
    is_there
}
