//! WSFORWARD_EXPIRES: when the tunnel of a request ends, as other modules say it.

use std::ffi::CStr;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use protocol::expiry::parse;

use crate::ffi::table::Table;

/// What it is called, and by which name a request has it that was redirected within the server.
const NAMES: [&CStr; 2] = [c"WSFORWARD_EXPIRES", c"REDIRECT_WSFORWARD_EXPIRES"];

/// Why a request gets no tunnel.
pub(crate) enum NotOpen<'e> {
    /// The time has come already.
    Past,
    /// This is no time.
    Wrong(&'e [u8]),
}

/// The time since 1970 at which the tunnel is to end, if it is.
///
/// # Errors
/// There is to be none.
pub(crate) fn of<'e>(env: Table<'e>) -> Result<Option<Duration>, NotOpen<'e>> {
    let Some(text) = NAMES.iter().find_map(|name| env.get(name)) else { return Ok(None) };
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    match parse(text, now) {
        Some(at) if at > now => Ok(Some(at)),
        Some(_) => Err(NotOpen::Past),
        None => Err(NotOpen::Wrong(text)),
    }
}
