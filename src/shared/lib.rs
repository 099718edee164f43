//! What the processes of a server know of each other, in memory that they share: who is there and
//! what it counts ([`Shared`]), how many tunnels each client and each back end has, who takes in the
//! tunnels of others ([`Shared::leave`]), every open tunnel ([`Shared::tunnels`]), and where drain
//! processes are ([`Registry`]).
//!
//! The caller maps the memory ([`Mapping`]) and says what it knows of processes ([`Processes`]).
//! Any process may die between any two stores, and a process that means harm may write what it
//! likes: nothing here panics for it, waits, or goes on for ever.

#![cfg_attr(
    not(test),
    warn(clippy::cast_possible_truncation, clippy::cast_possible_wrap, clippy::cast_sign_loss)
)]

mod activity;
mod bits;
mod collector;
mod counters;
mod entry;
mod labels;
mod mapping;
mod message;
#[cfg(all(test, loom))]
mod model;
mod names;
mod nonces;
mod orders;
mod processes;
mod reasons;
mod register;
mod registry;
mod role;
mod series;
mod sighting;
mod slot;
mod slot_number;
mod slots;
mod sync;
mod tallies;
mod tally;
mod tally_words;
mod text;
mod tunnel_entry;
mod tunnels;

pub use activity::{Activity, Order};
pub use counters::{Counters, Counts};
pub use entry::{About, Listed, Ordered};
pub use labels::{By, Direction, Handshake, Opcode, Reason, Timed};
pub use mapping::{Mapping, Shareable};
pub use message::Message;
pub use names::Name;
pub use orders::OrderNumber;
pub use processes::Processes;
pub use reasons::{Ends, Fallback, Fallbacks, Refusal, Refusals, TlsSession, TlsSessions, Why};
pub use register::Register;
pub use registry::{Place, Registry, Says, Times};
pub use role::{Claim, Sent};
pub use series::Metric;
pub use sighting::Sighting;
pub use slot::Slot;
pub use slots::{Memory, Shared, wrapping_sum};
pub use tally::{Full, TallyEntry};
pub use tally_words::TallyKey;
pub use tunnel_entry::TunnelEntry;
