//! The directives, in the form that httpd reads.

use std::ffi::{CStr, c_char, c_int, c_uint, c_void};
use std::fmt;
use std::marker::PhantomData;
use std::ops::RangeInclusive;
use std::time::Duration;

use super::guard::guard;
use super::pool::{Pool, c_string};
use super::section::{SectionConfig, stored};
use super::sys;

/// Where a directive may stand.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Context {
    /// Server, virtual host, directory, and .htaccess under AllowOverride FileInfo.
    Override,
    /// Server, virtual host, directory.
    Directory,
    /// Directories and the like only: what holds for one place must not hold for a whole server by
    /// mistake.
    Section,
    /// The server as a whole, outside of any section.
    Server,
}

impl Context {
    const fn bits(self) -> c_int {
        let directory = sys::RSRC_CONF | sys::ACCESS_CONF;
        match self {
            Self::Override => directory | sys::OR_FILEINFO,
            Self::Directory => directory,
            Self::Section => sys::ACCESS_CONF,
            Self::Server => sys::RSRC_CONF,
        }
    }
}

/// One directive: how it is spelt and what it does to the configuration of the section that it
/// stands in.
pub(crate) struct Directive<C: SectionConfig> {
    /// As users type it.
    pub(crate) name: &'static CStr,
    /// Where it may stand.
    pub(crate) context: Context,
    /// What it takes and what it is for; mod_info and error messages show this.
    pub(crate) usage: &'static CStr,
    /// Stores the values, or says what is allowed.
    pub(crate) set: for<'p> fn(&mut C::In<'p>, &Arguments<'p>) -> Result<(), String>,
}

/// The values of a directive. `'p` is the life of the configuration that it goes into.
pub(crate) struct Arguments<'p> {
    values: Vec<&'p str>,
    pool: Pool<'p>,
}

impl<'p> Arguments<'p> {
    /// All values.
    pub(crate) fn all(&self) -> &[&'p str] {
        &self.values
    }

    /// The value of a directive that takes exactly one. `expected` is for the message if it does
    /// not have one.
    pub(crate) fn one(&self, expected: &dyn fmt::Display) -> Result<&'p str, String> {
        match self.values[..] {
            [value] => Ok(value),
            _ => Err(not_allowed(&self.values, expected)),
        }
    }

    /// On or Off.
    pub(crate) fn flag(&self) -> Result<bool, String> {
        let expected = "On or Off";
        let value = self.one(&expected)?;
        match value {
            _ if value.eq_ignore_ascii_case("on") => Ok(true),
            _ if value.eq_ignore_ascii_case("off") => Ok(false),
            _ => Err(not_allowed(&[value], &expected)),
        }
    }

    /// A time of at least `least`, in httpd's syntax: seconds, or a number with a
    /// unit (ms, s, min, h).
    pub(crate) fn time(&self, least: Duration) -> Result<Duration, String> {
        let bound = if least.is_zero() { "" } else { " above 0" };
        let expected = format!("a time{bound} such as 30, 30s, 500ms or 5min");
        let value = self.one(&expected)?;
        time(value).filter(|time| *time >= least).ok_or_else(|| not_allowed(&[value], &expected))
    }

    /// A number in `allowed`.
    pub(crate) fn number(&self, allowed: RangeInclusive<u32>) -> Result<u32, String> {
        let value = self.one(&expected_number(&allowed))?;
        number(value, allowed)
    }

    /// The one value as the path of a file, taken from ServerRoot if it is relative.
    pub(crate) fn path(&self) -> Result<&'p CStr, String> {
        let expected = "the path of a file";
        let value = self.one(&expected)?;
        let text = c_string(value);
        // SAFETY: the pool is alive, and the text NUL-terminated.
        let path = unsafe { sys::ap_server_root_relative(self.pool.as_ptr(), text.as_ptr()) };
        if value.is_empty() || path.is_null() {
            return Err(not_allowed(&[value], &expected));
        }
        // SAFETY: NUL-terminated, in the pool that lives for `'p`, and nobody writes to it.
        Ok(unsafe { CStr::from_ptr(path) })
    }

    /// A copy of `text` that lives as long as the configuration.
    pub(crate) fn keep(&self, text: &str) -> &'p [u8] {
        self.pool.text(text.as_bytes())
    }
}

/// `text` as a time in httpd's syntax.
pub(crate) fn time(text: &str) -> Option<Duration> {
    // httpd reads a unit without a number as 0, and looks at the first letters of a unit alone: 1h30min as 1h.
    let unit = text.trim_start_matches(|digit: char| digit.is_ascii_digit());
    let is_unit = ["", "ms", "s", "mi", "min", "h"].contains(&unit);
    let is_right = is_unit && unit.len() < text.len();
    let text = c_string(text);
    let mut micros: sys::apr_interval_time_t = 0;
    // SAFETY: the strings are NUL-terminated, `micros` is ours.
    let rv =
        unsafe { sys::ap_timeout_parameter_parse(text.as_ptr(), &raw mut micros, c"s".as_ptr()) };
    let micros = u64::try_from(micros).ok().filter(|_| rv == 0 && is_right)?;
    Some(Duration::from_micros(micros))
}

/// `text` as a number in `allowed`.
pub(crate) fn number(text: &str, allowed: RangeInclusive<u32>) -> Result<u32, String> {
    let number = text.parse().ok().filter(|number| allowed.contains(number));
    number.ok_or_else(|| not_allowed(&[text], &expected_number(&allowed)))
}

fn expected_number(allowed: &RangeInclusive<u32>) -> String {
    format!("a number from {} to {}", allowed.start(), allowed.end())
}

/// The message about wrong values, or missing ones.
pub(crate) fn not_allowed(values: &[&str], expected: &dyn fmt::Display) -> String {
    if values.is_empty() {
        return format!("no value, expected {expected}");
    }
    format!("\"{}\" is not allowed, expected {expected}", values.join(" "))
}

/// httpd's command table: directives, and an entry that ends it.
pub(crate) struct Commands<C: SectionConfig, const N: usize>(
    [sys::command_rec; N],
    PhantomData<fn(C)>,
);

// SAFETY: its pointers lead to statics that are only read.
unsafe impl<C: SectionConfig, const N: usize> Sync for Commands<C, N> {}

impl<C: SectionConfig, const N: usize> Commands<C, N> {
    /// The table of these directives: `N` is one more than there are.
    pub(crate) const fn new<const M: usize>(directives: &'static [Directive<C>; M]) -> Self {
        assert!(N == M + 1, "one entry for each directive, and one for the end");
        let mut entries = [END; N];
        let mut at = 0;
        while at < M {
            entries[at] = entry(&directives[at]);
            at += 1;
        }
        Self(entries, PhantomData)
    }

    pub(super) const fn as_ptr(&'static self) -> *const sys::command_rec {
        self.0.as_ptr()
    }
}

const fn entry<C: SectionConfig>(directive: &'static Directive<C>) -> sys::command_rec {
    sys::command_rec {
        name: directive.name.as_ptr(),
        func: sys::cmd_func { raw_args: Some(set::<C>) },
        cmd_data: std::ptr::from_ref(directive).cast_mut().cast(),
        req_override: directive.context.bits(),
        // Of TAKE_ARGV httpd passes 64 values, and drops the rest (config.c, AP_MAX_ARGC).
        args_how: sys::RAW_ARGS,
        errmsg: directive.usage.as_ptr(),
    }
}

/// The entry that ends httpd's command table.
const END: sys::command_rec = sys::command_rec {
    name: std::ptr::null(),
    func: sys::cmd_func { raw_args: None },
    cmd_data: std::ptr::null_mut(),
    req_override: 0,
    args_how: sys::RAW_ARGS,
    errmsg: std::ptr::null(),
};

/// What `configtest` says if this module fails in a way that no directive can cause.
const BUG: &CStr = c"mod_wsforward: a bug in a directive";

/// The next word of a line, and moves on behind it. `None` at the end, as httpd's own config.c has it.
///
/// # Safety
/// `line` is NUL-terminated.
unsafe fn next_word<'p>(pool: Pool<'p>, line: &mut *const c_char) -> Option<&'p CStr> {
    // SAFETY: the caller's; the word is a NUL-terminated copy in the pool, and `line` stays within its text.
    let (word, rest) = unsafe {
        let word = CStr::from_ptr(sys::ap_getword_conf(pool.as_ptr(), line));
        (word, CStr::from_ptr(*line))
    };
    (!word.is_empty() || !rest.is_empty()).then_some(word)
}

/// What httpd calls for each directive of the table. NULL means success.
unsafe extern "C" fn set<C: SectionConfig>(
    parms: *mut sys::cmd_parms,
    config: *mut c_void,
    mut line: *const c_char,
) -> *const c_char {
    guard(BUG.as_ptr(), || {
        // SAFETY: httpd passes its own parms, whose info is `entry`'s cmd_data.
        let (parms, directive) = unsafe { (&*parms, &*(*parms).info.cast::<Directive<C>>()) };
        if matches!(directive.context, Context::Server) {
            let raw = std::ptr::from_ref(parms).cast_mut();
            // SAFETY: httpd's own parms; the answer is NULL or a message of its pool.
            let wrong = unsafe { sys::ap_check_cmd_context(raw, sys::GLOBAL_ONLY as c_uint) };
            if !wrong.is_null() {
                return wrong;
            }
        }
        // SAFETY: the pool that the configuration is in, which is used by this thread alone.
        let Some(pool) = (unsafe { Pool::from_raw(parms.pool) }) else { return BUG.as_ptr() };
        // SAFETY: httpd passes what `create` made in that pool, and uses it in this thread alone
        // until all of its directives are read.
        let config = unsafe { stored::<C>(config).map(|mut config| config.as_mut()) };
        let Some(config) = config else { return BUG.as_ptr() };
        let mut values = Vec::new();
        // SAFETY: httpd passes what stands behind the directive's name, NUL-terminated.
        while let Some(value) = unsafe { next_word(pool, &mut line) } {
            match value.to_str() {
                Ok(value) => values.push(value),
                Err(_) => return message(pool, directive.name, "a value is not valid UTF-8"),
            }
        }
        match (directive.set)(config, &Arguments { values, pool }) {
            Ok(()) => std::ptr::null(),
            Err(why) => message(pool, directive.name, &why),
        }
    })
}

fn message(pool: Pool<'_>, name: &CStr, why: &str) -> *const c_char {
    pool.copy(format!("{}: {why}", name.to_string_lossy()).as_bytes()).as_ptr()
}
