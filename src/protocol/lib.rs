//! The WebSocket upgrade as bytes: what an upgrade request is ([`upgrade`]),
//! where a response head ends and whether it is clean ([`head`]), and what a
//! right `101` is ([`handshake`]), and who may ask for one ([`origin`]). Pure: no I/O, no httpd, no allocation kept.

pub mod handshake;
pub mod head;
pub mod list;
pub mod origin;
pub mod upgrade;
