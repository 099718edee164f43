//! What the module asks of the Linux kernel: processes and signals, descriptors, their limits and
//! how they pass from process to process. Knows nothing of httpd.
//!
//! Some of it is for one kind of process only:
//!
//! | Where | What may run there |
//! |---|---|
//! | a signal handler | [`signal_safe`] and [`poll`]: system calls alone, no lock, no memory |
//! | a process that was just forked | the same, and the methods of [`forked::Forked`] |
//! | anywhere | all else |
//!
//! Descriptors are owned ([`OwnedFd`](std::os::fd::OwnedFd)) or borrowed
//! ([`BorrowedFd`](std::os::fd::BorrowedFd)); their numbers appear in no signature.

#![cfg_attr(
    not(test),
    warn(clippy::cast_possible_truncation, clippy::cast_possible_wrap, clippy::cast_sign_loss)
)]

pub mod asked;
mod closing;
pub mod descriptors;
pub mod fdpass;
pub mod forked;
pub mod futex;
pub mod line_pipe;
pub mod locks;
pub mod log_file;
pub mod mark;
pub mod packets;
pub mod poll;
pub mod process;
pub mod room;
pub mod signal_safe;
mod signals;
pub mod stop;
pub mod threads;

pub use signals::{Notice, Notices, StopSignals, sigterm};
