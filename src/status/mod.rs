//! What an administrator sees of the tunnels: lines in mod_status's page, and a page of its own.

pub(crate) mod handler;
pub(crate) mod mod_status;
pub(crate) mod pages;
mod snapshot;
mod totals;
