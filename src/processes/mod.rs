//! The processes that carry relayed tunnels, and the lines that they log.

pub mod child;
mod collector;
pub mod drain;
pub mod errorlog;
mod keeper;
mod lines;
mod logger;
pub mod record;
