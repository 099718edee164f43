//! The processes that carry relayed tunnels, and the lines that they log.

mod access;
pub mod access_line;
pub mod alarm;
pub mod child;
mod collecting;
mod collector;
pub mod drain;
mod drain_process;
mod errorlog;
pub mod graceful_stop;
mod keeper;
pub mod line_kind;
mod line_queue;
mod lines;
pub mod listing;
mod logger;
pub mod memory;
mod orders;
pub mod own_slot;
pub mod parent;
mod plan;
pub mod ready;
pub mod record;
pub mod registry;
