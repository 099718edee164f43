//! What is fuzzed. Each target is a function of any bytes that panics where a property does not
//! hold: `ci/fuzz` gives it bytes that libFuzzer makes up, `tests/kept.rs` those that were worth
//! keeping, on any toolchain.
//!
//! Most targets compare with a second implementation. It is strict and slow, written from the
//! RFCs by other means than the first: what one of them gets wrong the other most likely does not.

pub mod frames;
pub mod freeze;
pub mod handshake;
pub mod head;
pub mod thaw;
pub mod upgrade;

mod carry;
mod input;
mod rules;

/// A target: any bytes.
pub type Target = fn(&[u8]);

/// All of them, by the names that they have in `fuzz_targets/`, `corpus/` and `crashes/`.
pub const ALL: [(&str, Target); 6] = [
    ("frames", frames::run),
    ("freeze", freeze::run),
    ("handshake", handshake::run),
    ("head", head::run),
    ("thaw", thaw::run),
    ("upgrade", upgrade::run),
];
