//! The configuration as it was read: directives and the sections around them.

use std::borrow::Cow;
use std::ffi::{CStr, c_char};

use super::sys;

/// One directive of the configuration's files.
pub struct Directive {
    /// Its name, as the administrator spelt it.
    pub name: String,
    /// What stands behind it.
    pub arguments: String,
    /// Which virtual host it stands in, if in one.
    pub vhost: Option<usize>,
    /// Its file and line.
    pub place: String,
}

/// The directives of these names, in the order of the files. In the parent, while the
/// configuration is checked.
pub fn directives(names: &[&str]) -> Vec<Directive> {
    let mut found = Vec::new();
    // SAFETY: httpd's own list of what it has just read; nobody changes it meanwhile.
    walk(unsafe { (&raw const sys::ap_conftree).read() }, None, names, &mut found);
    found
}

fn walk(
    mut at: *const sys::ap_directive_t,
    vhost: Option<usize>,
    names: &[&str],
    found: &mut Vec<Directive>,
) {
    // SAFETY: NULL, or a directive that lives as long as the configuration.
    while let Some(directive) = unsafe { at.as_ref() } {
        let name = text(&directive.directive);
        let is_vhost = name.eq_ignore_ascii_case("<VirtualHost");
        let within = if is_vhost { Some(at.addr()) } else { vhost };
        // A copy of the few that are asked for: httpd's own go with the configuration.
        if names.iter().any(|wanted| name.eq_ignore_ascii_case(wanted)) {
            found.push(Directive {
                name: name.into_owned(),
                arguments: text(&directive.args).into_owned(),
                vhost,
                place: format!("{}:{}", text(&directive.filename), directive.line_num),
            });
        }
        // As deep as sections are nested.
        walk(directive.first_child, within, names, found);
        at = directive.next;
    }
}

/// A text of the directive that is borrowed.
fn text(text: &*const c_char) -> Cow<'_, str> {
    if text.is_null() {
        return Cow::Borrowed("");
    }
    // SAFETY: NUL-terminated, and as old as the directive that has it.
    unsafe { CStr::from_ptr(*text) }.to_string_lossy()
}
