//! What is tested of sessions in OpenSSL, with those that have left it.
#![allow(clippy::duplicate_mod, reason = "each file is a test of its own too")]

#[path = "fair.rs"]
mod fair;
#[path = "memory.rs"]
mod memory;
#[path = "parts.rs"]
mod parts;
#[path = "relayed.rs"]
mod relayed;
#[path = "session.rs"]
mod session;
#[path = "syscalls.rs"]
mod syscalls;
