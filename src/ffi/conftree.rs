//! The configuration as it was read: directives and the sections around them.

use std::borrow::Cow;
use std::ffi::{CStr, c_char};

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
pub(crate) struct Tree<'t>(Option<&'t sys::ap_directive_t>);

impl Tree<'_> {
    /// # Safety
    /// httpd keeps the tree, and does not change it, for at least as long as the result lives.
    pub(super) unsafe fn read() -> Self {
        // SAFETY: by the caller.
        Self(unsafe { (&raw const sys::ap_conftree).read().as_ref() })
    }

    /// The directives of these names, in the order of the files.
    pub(crate) fn directives(self, names: &[&str]) -> Vec<Directive> {
        let mut found = Vec::new();
        self.walk(None, names, &mut found);
        found
    }

    fn walk(self, vhost: Option<usize>, names: &[&str], found: &mut Vec<Directive>) {
        let mut at = self.0;
        while let Some(directive) = at {
            // SAFETY: the texts of a directive of the tree.
            let text = |text| unsafe { text_of(text) };
            let name = text(directive.directive);
            let is_vhost = name.eq_ignore_ascii_case("<VirtualHost");
            let within = if is_vhost { Some(std::ptr::from_ref(directive).addr()) } else { vhost };
            // A copy of the few that are asked for: httpd's own go with the configuration.
            if names.iter().any(|wanted| name.eq_ignore_ascii_case(wanted)) {
                found.push(Directive {
                    name: name.into_owned(),
                    arguments: text(directive.args).into_owned(),
                    vhost,
                    place: format!("{}:{}", text(directive.filename), directive.line_num),
                });
            }
            // SAFETY: NULL, or directives of the same tree.
            let (child, next) =
                unsafe { (directive.first_child.as_ref(), directive.next.as_ref()) };
            // This goes as deep as sections are nested.
            Tree(child).walk(within, names, found);
            at = next;
        }
    }
}

/// A text of httpd's; nothing if there is none.
///
/// # Safety
/// `text` is NULL, or NUL-terminated and lives at least as long as `'t`.
unsafe fn text_of<'t>(text: *const c_char) -> Cow<'t, str> {
    if text.is_null() {
        return Cow::Borrowed("");
    }
    // SAFETY: by the caller.
    unsafe { CStr::from_ptr(text) }.to_string_lossy()
}
