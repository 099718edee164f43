//! The record layer of TLS after the handshake: 1.3 (RFC 8446), and 1.2 (RFC 5246) with the AEAD
//! ciphers of RFC 5288 and RFC 7905. Pure: no I/O, no handshake, and no cipher of its own. Those,
//! and HKDF, are given by a [`Crypto`].
//!
//! [`TrafficKeys`] are what somebody believes to be the keys of one direction. A record that the
//! direction is known to have carried proves them, and tells its number ([`TrafficKeys::prove`]).
//! Of what is [`Proved`] a [`Sender`] or a [`Receiver`] is made. None of these can be cloned, and
//! [`Sender::freeze`] consumes it: one owner at a time counts the records of a direction, so that
//! no nonce is used twice.
//!
//! Nothing here allocates for a record: what is received is opened where it lies, what is sent is
//! appended to the caller's buffer.

#![cfg_attr(
    not(test),
    warn(clippy::cast_possible_truncation, clippy::cast_possible_wrap, clippy::cast_sign_loss)
)]

mod alert;
mod crypto;
mod error;
mod frozen;
mod keys;
mod messages;
mod proof;
mod protection;
mod receiver;
mod record;
mod schedule;
mod sender;
mod suite;

pub use alert::Alert;
pub use crypto::{Crypto, CryptoError, OpenError};
pub use error::{Fatal, Reason, SealError};
pub use keys::{Keys, Secret, wipe};
pub use proof::{Opened, ProofError, Proved, TrafficKeys};
pub use receiver::{Content, Receiver};
pub use record::{HEADER_BYTES, MAX_RECORD_BYTES, MAX_TEXT_BYTES, record_bytes};
pub use sender::Sender;
pub use suite::{IV_BYTES, Role, Suite, TAG_BYTES, Version};
