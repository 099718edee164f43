//! A request, from its arrival to the hand-over of its tunnel to the relay.

pub mod admission;
pub mod backends;
pub mod breach;
pub mod decision;
pub mod expiry;
pub mod handler;
pub mod handover;
pub mod handshake;
pub mod head;
pub mod meeting;
pub mod origin;
pub mod reservation;
pub mod stream;
pub mod tunnel;
pub mod worker_tunnel;
