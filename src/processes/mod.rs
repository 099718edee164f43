//! The processes that carry relayed tunnels, and the lines that they log.

mod access;
pub(crate) mod access_line;
pub(crate) mod alarm;
pub(crate) mod child;
mod collecting;
mod collector;
pub(crate) mod drain;
mod drain_process;
mod errorlog;
pub(crate) mod graceful_stop;
mod keeper;
pub(crate) mod line_kind;
mod line_queue;
mod lines;
pub(crate) mod listing;
mod logger;
pub(crate) mod memory;
mod orders;
pub(crate) mod own_slot;
pub(crate) mod parent;
mod plan;
pub(crate) mod ready;
pub(crate) mod record;
pub(crate) mod registry;
