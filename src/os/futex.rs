//! Words in memory that processes share, of which one waits for what another stores (futex(2)).

use std::sync::atomic::AtomicU32;
use std::time::Duration;

use rustix::thread::futex::{self, Flags, Timespec};

/// Wakes whoever waits for a change of this word, in any process. It takes no lock and no memory.
pub fn wake(word: &AtomicU32) {
    // It fails for no address that is mapped.
    let _ = futex::wake(word, Flags::empty(), u32::MAX >> 1);
}

/// Waits until somebody wakes those who wait for this word, for at most so long. Not at all if it is
/// not `seen` any more. It may return before.
pub fn wait(word: &AtomicU32, seen: u32, timeout: Duration) {
    let timeout = Timespec::try_from(timeout).ok();
    // However it ends, the caller looks again.
    let _ = futex::wait(word, Flags::empty(), seen, timeout.as_ref());
}
