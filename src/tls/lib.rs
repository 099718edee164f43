//! TLS sessions taken over from the server that made them, for the relay to go on with.
//!
//! OpenSSL (1.1.1 or 3.x) is not linked: every function is looked up, by [`Library`], in the very
//! libssl that the former owner of the sessions uses. A process may hold another one, and where
//! there is no owner of sessions there need not be any.
//!
//! A [`Context`] is what is made once per process; [`Session::take_over`] makes of an `SSL *` a
//! [`Session`] that the relay can carry: no callback of the former owner is called any more, and
//! its I/O goes through a BIO of this crate's own.

#![cfg_attr(
    not(test),
    warn(clippy::cast_possible_truncation, clippy::cast_possible_wrap, clippy::cast_sign_loss)
)]

mod algorithms;
mod bio;
mod callbacks;
mod context;
mod derive;
mod evp;
mod follower;
mod frozen;
mod kdf;
mod keylog;
mod leave;
mod library;
mod native;
mod native_symbols;
mod outgoing;
mod pkey;
mod proof;
mod reason;
mod self_test;
mod session;
mod symbols;
mod thread;
mod trace;
mod tracing;
mod wire;

pub use context::Context;
pub use frozen::FROZEN_VERSION;
pub use leave::{Taken, take_over};
pub use library::{Error, Library};
pub use native::Native;
pub use reason::Reason;
pub use records::wipe;
pub use session::Session;
pub use symbols::{Ssl, SslCtx};
