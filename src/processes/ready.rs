//! Whether this server wants more tunnels: a load balancer asks, and stops to send some before the
//! listeners are closed.

use std::ffi::{CStr, OsStr};
use std::fs;
use std::os::unix::ffi::OsStrExt;

use os::process;

use crate::processes::memory;

/// The file is looked for no more often, in microseconds.
const INTERVAL_MICROS: u64 = 1_000_000;

/// Whether the file of WSForwardReadyFile is there. It is looked for once a second by whoever asks first, and
/// all processes go by that: a load balancer asks one of them, and sends clients to all.
pub(crate) fn is_there(file: &CStr) -> bool {
    let now = process::now();
    let seen = memory::shared().map(|shared| shared.ready_file());
    let recent = seen.and_then(|seen| seen.recent(now, INTERVAL_MICROS));
    recent.unwrap_or_else(|| {
        let look = || fs::metadata(OsStr::from_bytes(file.to_bytes()));
        let is_there = failpoint::check!("ready.look").and_then(|()| look()).is_ok();
        failpoint::step!("ready.note");
        if let Some(seen) = seen {
            seen.note(now, is_there);
        }
        is_there
    })
}
