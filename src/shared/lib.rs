//! What the processes of a server know of each other, in memory that they share.

mod reasons;

pub use reasons::{Ends, Fallback, Fallbacks, Refusal, Refusals, Why};
