//! The configuration as it was read: directives and the sections around them.

use std::borrow::Cow;
use std::ffi::{CStr, c_char};

use super::sys;

/// One directive of the configuration's files.
pub struct Directive {
    /// Its name, as the administrator spelt it.
    pub name: Cow<'static, str>,
    /// What stands behind it.
    pub arguments: Cow<'static, str>,
    /// Which virtual host it stands in, if in one.
    pub vhost: Option<usize>,
    /// Its file and line.
    pub place: String,
}

/// All directives, in the order of the files. In the parent, while the configuration is checked.
pub fn directives() -> Vec<Directive> {
    let mut found = Vec::new();
    // SAFETY: httpd's own list of what it has just read; nobody changes it meanwhile.
    walk(unsafe { (&raw const sys::ap_conftree).read() }, None, &mut found);
    found
}

fn walk(mut at: *const sys::ap_directive_t, vhost: Option<usize>, found: &mut Vec<Directive>) {
    // SAFETY: NULL, or a directive that lives as long as the configuration.
    while let Some(directive) = unsafe { at.as_ref() } {
        let name = text(directive.directive);
        let is_vhost = name.eq_ignore_ascii_case("<VirtualHost");
        let within = if is_vhost { Some(at.addr()) } else { vhost };
        found.push(Directive {
            arguments: text(directive.args),
            vhost,
            place: format!("{}:{}", text(directive.filename), directive.line_num),
            name,
        });
        // As deep as sections are nested.
        walk(directive.first_child, within, found);
        at = directive.next;
    }
}

fn text(text: *const c_char) -> Cow<'static, str> {
    if text.is_null() {
        return Cow::Borrowed("");
    }
    // SAFETY: NUL-terminated; copied, since it goes with the configuration.
    Cow::Owned(unsafe { CStr::from_ptr(text) }.to_string_lossy().into_owned())
}
