//! A request, from its arrival to the hand-over of its tunnel to the relay.

pub(crate) mod admission;
pub(crate) mod backends;
pub(crate) mod breach;
pub(crate) mod decision;
pub(crate) mod expiry;
pub(crate) mod handler;
pub(crate) mod handover;
pub(crate) mod handshake;
pub(crate) mod head;
pub(crate) mod meeting;
pub(crate) mod origin;
pub(crate) mod reservation;
pub(crate) mod stream;
pub(crate) mod tunnel;
pub(crate) mod worker_tunnel;
