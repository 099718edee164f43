//! What is tested of sessions in OpenSSL, with those that have left it.

#[path = "fair.rs"]
mod fair;
#[path = "memory.rs"]
mod memory;
#[path = "relayed.rs"]
mod relayed;
#[path = "session.rs"]
mod session;
#[path = "syscalls.rs"]
mod syscalls;
