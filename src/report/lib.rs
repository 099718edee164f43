//! What the status handler is asked, and what it answers. Text in, text out: httpd, shared memory
//! and the clock are the caller's, who fills in the plain structs of [`view`].
//!
//! All text may be a client's, and hostile: it is bytes until it is shown, and each way of showing
//! it escapes what its readers would take for something else.

#![cfg_attr(
    not(test),
    warn(clippy::cast_possible_truncation, clippy::cast_possible_wrap, clippy::cast_sign_loss)
)]
#![forbid(unsafe_code)]

pub mod accept;
mod bad;
pub mod filter;
pub mod form;
pub mod html;
pub mod json;
pub mod metrics;
pub mod query;
pub mod ready;
#[cfg(test)]
mod samples;
mod sums;
mod text;
mod time;
mod urlencoded;
pub mod view;

pub use bad::Bad;
