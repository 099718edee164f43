//! What the protocols ask of the system. It is passed in: tests have processes of their own.

/// The processes of the system.
pub trait Processes: Sync {
    /// The process that asks.
    fn own(&self) -> u32;

    /// Whether there is such a process, be it one that has ended and is not reaped. It is cheap.
    fn exists(&self, pid: u32) -> bool;

    /// Whether there is one that has not ended.
    fn runs(&self, pid: u32) -> bool;
}
