//! Failpoints: named steps of the module at which a test has a fault happen, in a real httpd.
//!
//! ```
//! # fn adopt() -> std::io::Result<()> {
//! failpoint::step!("drain.closed"); // may panic, wait, or be killed
//! failpoint::check!("drain.fork")?; // may fail, too
//! # Ok(()) }
//! ```
//!
//! Without the feature `on` both are nothing: not even the names are in the module. With it, the
//! directory that `WSF_FAILPOINTS` names says what is to happen. A file `STEP@N` there has the Nth
//! process that comes to this step do what the file says, once: `error`, `panic`, `delay` or `kill`
//! (SIGKILL, to itself); and behind that, if only one kind of process is meant, `child` or `drain`.
//!
//! It is not the crate `fail`: that keeps what is armed behind a lock, in each process for itself. A
//! drain process is forked while other threads of its child may hold that lock, and would wait for it
//! for ever; and a fault that is to happen once would happen in each child. Here a step has no state:
//! whoever removes the file has the fault.

/// A step that cannot fail by itself.
#[cfg(not(feature = "on"))]
#[macro_export]
macro_rules! step {
    ($name:literal) => {};
}

/// A step that can fail: an `io::Result<()>`.
#[cfg(not(feature = "on"))]
#[macro_export]
macro_rules! check {
    ($name:literal) => {
        ::std::io::Result::<()>::Ok(())
    };
}

/// A step that cannot fail by itself.
#[cfg(feature = "on")]
#[macro_export]
macro_rules! step {
    ($name:literal) => {
        $crate::armed::step($name)
    };
}

/// A step that can fail: an `io::Result<()>`.
#[cfg(feature = "on")]
#[macro_export]
macro_rules! check {
    ($name:literal) => {
        $crate::armed::check($name)
    };
}

#[cfg(feature = "on")]
pub mod armed;
