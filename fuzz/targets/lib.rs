//! What is fuzzed. Each target is a function of any bytes that panics where a property does not
//! hold: `ci/fuzz` gives it bytes that libFuzzer makes up, `tests/kept.rs` those that were worth
//! keeping, on any toolchain.
//!
//! Most targets compare with a second implementation. It is strict and slow, written from the
//! RFCs by other means than the first: what one of them gets wrong the other most likely does not.

pub mod directives;
pub mod frames;
pub mod freeze;
pub mod handshake;
pub mod head;
pub mod origin;
pub mod records;
pub mod sessions;
pub mod shared;
pub mod status;
pub mod thaw;
pub mod upgrade;

mod carry;
mod direction;
mod input;
mod known;
mod libcrypto;
mod pair;
mod rules;
mod script;
mod stayed;
mod toy;
mod twins;

#[allow(dead_code, reason = "no request is served, and each target uses a part")]
mod ffi;
/// The module's own code that asks httpd for little.
#[allow(dead_code, missing_docs, unused_imports, reason = "as above")]
#[path = "../../src"]
mod module {
    pub(crate) mod config;
}
use module::config;

/// A target: any bytes.
pub type Target = fn(&[u8]);

/// All of them, by the names that they have in `fuzz_targets/`, `corpus/` and `crashes/`.
pub const ALL: [(&str, Target); 12] = [
    ("directives", directives::run),
    ("frames", frames::run),
    ("freeze", freeze::run),
    ("handshake", handshake::run),
    ("head", head::run),
    ("origin", origin::run),
    ("records", records::run),
    ("sessions", sessions::run),
    ("shared", shared::run),
    ("status", status::run),
    ("thaw", thaw::run),
    ("upgrade", upgrade::run),
];
