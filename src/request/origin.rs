//! WSForwardOrigin: whether a handshake may come from where it says.
//!
//! What counts is the Origin that the client sent: header directives may change or remove it for the
//! back end's sake.

use std::ffi::CStr;
use std::iter::successors;

use protocol::origin::Origin;
use protocol::origin_rule::{self, Denied};

use crate::config::DirConfig;
use crate::ffi::request::Request;

/// Where the client's Origin is kept while header directives do their work.
const NOTE: &CStr = c"wsforward-origin";
/// Before the value of the note: there was one.
const PRESENT: u8 = b'=';

/// Keeps what the client sent, before header directives see it. Of each request that may become one
/// of another section, by a redirect within the server.
pub(crate) fn keep(r: Request<'_>) {
    let (Some(headers), Some(notes)) = (r.headers_in(), r.notes()) else { return };
    let is_asked = || headers.get(c"Upgrade").is_some();
    if r.is_subrequest() || (DirConfig::of(r).origins().is_none() && !is_asked()) {
        return;
    }
    let note = match headers.get(c"Origin") {
        Some(origin) => [&[PRESENT], origin].concat(),
        None => Vec::new(),
    };
    notes.set(NOTE, &note);
}

/// The Origin that the client sent.
fn sent(r: Request<'_>) -> Option<&[u8]> {
    // A request that was redirected within the server has the headers of the first one, changed.
    let kept = successors(Some(r), |r| r.previous()).filter_map(|r| r.notes()?.get(NOTE)).last();
    match kept {
        Some(note) => note.strip_prefix(&[PRESENT]),
        None => r.headers_in()?.get(c"Origin"),
    }
}

/// Whether an upgrade request may come from where it says.
///
/// # Errors
/// Why not.
pub(crate) fn check(r: Request<'_>, config: &DirConfig<'_>) -> Result<(), Denied> {
    match config.origins() {
        Some(words) => origin_rule::check(words, sent(r), || own(r)),
        None => Ok(()),
    }
}

/// The origin of the site that the request is for.
fn own(r: Request<'_>) -> Option<Origin> {
    let site = r.site()?;
    Origin::of(site.scheme, site.host, site.port)
}
