//! The WebSocket upgrade as bytes: what an upgrade request is ([`upgrade`]),
//! who may ask ([`origin_rule`]) and for what ([`extensions`]), where a response head
//! ends and whether it is clean ([`head`]), and what a right `101` is
//! ([`handshake`]). Pure: no I/O, no httpd, no allocation kept.

#![cfg_attr(
    not(test),
    warn(clippy::cast_possible_truncation, clippy::cast_possible_wrap, clippy::cast_sign_loss)
)]

pub mod backend;
pub mod expiry;
pub mod extensions;
pub mod handshake;
pub mod head;
pub mod list;
pub mod origin;
pub mod origin_rule;
pub mod upgrade;
