//! The configuration: its directives, and what they set.

pub(crate) mod advice;
pub(crate) mod bound;
mod directives;
mod section;
mod server;
mod values;

pub(crate) use self::directives::DIRECTIVES;
pub(crate) use self::section::DirConfig;
pub(crate) use self::server::{
    ClientPrefix, DEFAULTS, Settings, find_bound, is_used, reset, settings, uses_native_tls,
    uses_relay,
};
pub(crate) use self::values::AccessLog;

/// The directives that warnings about a configuration look at, see [`advice`].
pub(crate) const ADVISED: [&str; 5] =
    ["WSForward", "WSForwardRelay", "AllowOverride", "AllowOverrideList", "H2WebSockets"];
