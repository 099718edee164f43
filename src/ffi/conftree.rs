//! The configuration as it was read: directives and the sections around them.

use std::borrow::Cow;
use std::ffi::{CStr, c_char};
use std::marker::PhantomData;

use super::sys;

/// One directive of the configuration's files.
pub(crate) struct Directive {
    /// Its name, as the administrator spelt it.
    pub(crate) name: String,
    /// Its values, as they were written.
    pub(crate) arguments: String,
    /// Which virtual host it is in, if any: a number to compare.
    pub(crate) vhost: Option<usize>,
    /// Its file and line.
    pub(crate) place: String,
}

/// The files as httpd has just read them.
#[derive(Clone, Copy)]
pub(crate) struct Tree<'t>(*const sys::ap_directive_t, PhantomData<&'t ()>);

impl Tree<'_> {
    /// # Safety
    /// httpd keeps the tree, and does not change it, for at least as long as the result lives.
    pub(super) unsafe fn read() -> Self {
        // SAFETY: by the caller.
        Self(unsafe { (&raw const sys::ap_conftree).read() }, PhantomData)
    }

    /// The directives of these names, in the order of the files.
    pub(crate) fn directives(self, names: &[&str]) -> Vec<Directive> {
        let mut found = Vec::new();
        walk(self.0, None, names, &mut found);
        found
    }
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
        // This goes as deep as sections are nested.
        walk(directive.first_child, within, names, found);
        at = directive.next;
    }
}

/// One text of a directive.
fn text(text: &*const c_char) -> Cow<'_, str> {
    if text.is_null() {
        return Cow::Borrowed("");
    }
    // SAFETY: NUL-terminated, and lives as long as the directive that it belongs to.
    unsafe { CStr::from_ptr(*text) }.to_string_lossy()
}
