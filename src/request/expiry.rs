//! WSFORWARD_EXPIRES: when the tunnel of a request ends, as other modules say it.

use std::ffi::CString;
use std::iter::successors;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use protocol::expiry::parse;

use crate::ffi::request::Request;

/// What it is called.
const NAME: &str = "WSFORWARD_EXPIRES";
/// What each redirect within the server puts before the names of the variables that there were.
const REDIRECT: &str = "REDIRECT_";

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
pub(crate) fn of(r: Request<'_>) -> Result<Option<Duration>, NotOpen<'_>> {
    let Some(env) = r.env() else { return Ok(None) };
    let redirects = successors(r.previous(), |r| r.previous()).count();
    let name = |redirects| CString::new(REDIRECT.repeat(redirects) + NAME).ok();
    let text = (0..=redirects).find_map(|redirects| env.get(&name(redirects)?));
    let Some(text) = text else { return Ok(None) };
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    match parse(text, now) {
        Some(at) if at > now => Ok(Some(at)),
        Some(_) => Err(NotOpen::Past),
        None => Err(NotOpen::Wrong(text)),
    }
}
