//! The configuration as it was read: directives and the sections around them.

use std::borrow::Cow;
use std::ffi::{CStr, c_char};
use std::fmt::Display;

use super::sys;

/// One directive of the configuration's files.
pub(crate) struct Directive {
    /// Its name, as the administrator spelt it.
    pub(crate) name: String,
    /// Its values, as they were written.
    pub(crate) arguments: String,
    /// Which virtual host it is in, if any: a number to compare.
    pub(crate) vhost: Option<usize>,
    /// The file and line at which that begins.
    pub(crate) vhost_place: Option<String>,
    /// What the innermost `<Location>` around it is for, as it was written.
    pub(crate) location: Option<String>,
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
        self.walk(&Around::default(), names, &mut found);
        found
    }

    fn walk(self, around: &Around<'_>, names: &[&str], found: &mut Vec<Directive>) {
        let mut at = self.0;
        while let Some(directive) = at {
            // SAFETY: the texts of a directive of the tree.
            let text = |text| unsafe { text_of(text) };
            // SAFETY: likewise.
            let place = |file, line| unsafe { place(file, line) };
            let name = text(directive.directive);
            let mut within = *around;
            if name.eq_ignore_ascii_case("<VirtualHost") {
                within = Around { vhost: Some(directive), location: None };
            } else if name.eq_ignore_ascii_case("<Location") {
                within.location = Some(directive);
            }
            // A copy of the few that are asked for: httpd's own go with the configuration.
            if names.iter().any(|wanted| name.eq_ignore_ascii_case(wanted)) {
                found.push(Directive {
                    name: name.into_owned(),
                    arguments: text(directive.args).into_owned(),
                    vhost: around.vhost.map(|vhost| std::ptr::from_ref(vhost).addr()),
                    vhost_place: around.vhost.map(|vhost| place(vhost.filename, vhost.line_num)),
                    location: around.location.map(|location| text(location.args).into_owned()),
                    place: place(directive.filename, directive.line_num),
                });
            }
            // SAFETY: NULL, or directives of the same tree.
            let (child, next) =
                unsafe { (directive.first_child.as_ref(), directive.next.as_ref()) };
            // This goes as deep as sections are nested.
            Tree(child).walk(&within, names, found);
            at = next;
        }
    }
}

/// The sections around a directive that say where it holds.
#[derive(Clone, Copy, Default)]
struct Around<'t> {
    vhost: Option<&'t sys::ap_directive_t>,
    location: Option<&'t sys::ap_directive_t>,
}

/// A file and a line of it.
///
/// # Safety
/// As for [`text_of`].
pub(super) unsafe fn place(file: *const c_char, line: impl Display) -> String {
    // SAFETY: by the caller.
    format!("{}:{line}", unsafe { text_of(file) })
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
