//! What an administrator sees of the tunnels: lines in mod_status's page, and a page of its own.

pub mod handler;
pub mod mod_status;
pub mod pages;
mod snapshot;
mod totals;
