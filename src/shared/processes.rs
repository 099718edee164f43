//! What the protocols ask of the system. It is passed in: tests have processes of their own.

use std::sync::atomic::AtomicU32;

/// The processes of the system.
pub trait Processes: Sync {
    /// The process that asks.
    fn own(&self) -> u32;

    /// Whether there is such a process, be it one that has ended and is not reaped. It is cheap.
    fn exists(&self, pid: u32) -> bool;

    /// Whether there is one that has not ended.
    fn runs(&self, pid: u32) -> bool;

    /// Seconds of a clock that all of them have and nobody sets (CLOCK_MONOTONIC). It is cheap.
    fn seconds(&self) -> u32;

    /// A process is gone that did not give its slot back, and the relayed tunnels are with it that are
    /// listed as its own.
    fn gone(&self, _pid: u32, _tunnels: usize) {}

    /// Wakes whoever waits for a change of this word, in any process (futex(2)).
    fn wake(&self, word: &AtomicU32);
}
