//! Whether this server wants more tunnels: a load balancer asks, and stops to send some before the
//! listeners are closed.

use std::ffi::{CStr, OsStr};
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use std::sync::atomic::{AtomicBool, AtomicU64};

use os::process;

/// Microseconds between two looks at the file.
const INTERVAL_MICROS: u64 = 1_000_000;

/// Whether the file of WSForwardReadyFile is there. Each process looks at most once a second.
pub fn is_there(file: &CStr) -> bool {
    /// When it was looked at last; 0 is never.
    static LOOKED_AT: AtomicU64 = AtomicU64::new(0);
    static WAS_THERE: AtomicBool = AtomicBool::new(false);
    let now = process::now().max(1);
    let last = LOOKED_AT.load(Acquire);
    if last != 0 && now.saturating_sub(last) < INTERVAL_MICROS {
        return WAS_THERE.load(Relaxed);
    }
    let is_there = fs::metadata(OsStr::from_bytes(file.to_bytes())).is_ok();
    WAS_THERE.store(is_there, Relaxed);
    // Behind that: nobody takes the answer of an older look for this one's.
    LOOKED_AT.store(now, Release);
    is_there
}
