//! Where the configuration has status pages, for those that link to them.

use std::fmt::Write;
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::ffi::conftree::Directive;
use crate::ffi::request::Request;

/// What sets a page's handler.
pub(crate) const DIRECTIVE: &str = "SetHandler";

/// One page.
struct Page {
    /// Where its virtual host begins in the configuration. `None` if it is in all of them.
    vhost_place: Option<String>,
    path: String,
}

/// Those of the configuration. Written by the parent, of which children have a copy.
static PAGES: Mutex<Vec<Page>> = Mutex::new(Vec::new());

fn pages() -> MutexGuard<'static, Vec<Page>> {
    PAGES.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Finds them.
pub(crate) fn find(handlers: &[Directive]) {
    let page = |set: &Directive| {
        let handler = set.arguments.trim().trim_matches(['"', '\'']);
        let path = path(set.location.as_deref()?).filter(|_| handler == "wsforward-status")?;
        Some(Page { vhost_place: set.vhost_place.clone(), path })
    };
    *pages() = handlers.iter().filter_map(page).collect();
}

/// Nothing is kept of them.
pub(crate) fn forget() {
    *pages() = Vec::new();
}

/// The path of a page that the virtual host of the request has, as it stands in a link.
pub(crate) fn link(r: Request<'_>) -> Option<String> {
    let place = r.virtual_host_place();
    let pages = pages();
    let is_here = |page: &&Page| page.vhost_place.as_ref() == Some(&place);
    let own = pages.iter().find(is_here);
    let page = own.or_else(|| pages.iter().find(|page| page.vhost_place.is_none()))?;
    let mut link = String::new();
    for byte in page.path.bytes() {
        // Writing to a String does not fail.
        let _ = match byte {
            b'/' | b'-' | b'.' | b'_' | b'~' | b'0'..=b'9' | b'A'..=b'Z' | b'a'..=b'z' => {
                link.write_char(char::from(byte))
            }
            _ => write!(link, "%{byte:02X}"),
        };
    }
    Some(link)
}

/// The path that a `<Location>` is for, if it is for one: it may also be for a pattern, or for the
/// paths of a proxy.
fn path(location: &str) -> Option<String> {
    let text = location.trim().trim_end_matches('>').trim().trim_matches(['"', '\'']);
    let is_path = text.starts_with('/') && !text.contains(['*', '?', '[', '\\']);
    // Two slashes would begin the name of a host.
    let path = format!("/{}", text.trim_start_matches('/'));
    is_path.then_some(path)
}

#[cfg(test)]
mod tests {
    use super::path;

    #[test]
    fn paths_and_no_patterns() {
        for (location, expected) in [
            (r#""/status">"#, Some("/status")),
            ("/a b>", Some("/a b")),
            ("'/status' >", Some("/status")),
            ("//host/>", Some("/host/")),
            (r#"~ "/status">"#, None),
            ("/st*>", None),
            ("/st?tus>", None),
            ("http://host/>", None),
            ("", None),
        ] {
            assert_eq!(path(location).as_deref(), expected, "{location}");
        }
    }
}
