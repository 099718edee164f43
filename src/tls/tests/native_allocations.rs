//! Allocations for messages of sessions that have left OpenSSL.

#[path = "allocations.rs"]
mod allocations;
