//! Relays bytes between the two sides of tunnels for as long as they live.
//!
//! A [`Relay`] is a set of threads, each with a single-threaded runtime. A [`Tunnel`] given to it
//! by [`Relay::adopt`] is pinned to one of them and costs, while no byte flows, two registered
//! descriptors and a small task without a buffer. Its [`Record`] is told how it ended.
//!
//! Nothing happens before [`Relay::start`]: no thread, no static with a lifetime of its own, no
//! thread-local with a destructor.

#![cfg_attr(
    not(test),
    warn(clippy::cast_possible_truncation, clippy::cast_possible_wrap, clippy::cast_sign_loss)
)]

mod budget;
mod buffers;
mod bytes;
mod carried;
mod cause;
mod close;
mod end;
mod ending;
mod flow;
mod frames;
mod freeze;
mod guard;
mod incomplete;
mod inline;
mod keepalive;
mod pace;
mod ping;
mod pipe;
mod probation;
mod rules;
mod runtime;
mod seat;
mod serve;
mod settings;
mod side;
pub mod socket;
mod spread;
mod stream;
mod task;
mod thread;
mod timers;
mod tls;
mod tunnel;
mod watch;

pub use budget::Budget;
pub use close::Close;
pub use end::{AsAny, By, End, Ending, Order, Progress, Record};
pub use frames::Tracker;
pub use freeze::{FROZEN_VERSION, Frozen, ThawTls};
pub use guard::{Breach, Guard, Refused};
pub use inline::end_inline;
pub use keepalive::KeepAlive;
pub use pipe::DESCRIPTORS_OF_PIPES;
pub use rules::{Deadline, GOING_AWAY, Limit, Rules, Strict};
pub use runtime::{Relay, spawn_lasting};
pub use settings::Settings;
pub use shared::{Activity, Counters, Why};
pub use side::Side;
pub use tls::Tls;
pub use tunnel::Tunnel;
