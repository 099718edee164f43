//! What `src/config.rs` needs of httpd, without httpd: the same names, as far as they are asked for.

/// `src/ffi/command.rs`.
pub(crate) mod command {
    use std::cell::RefCell;
    use std::ffi::{CStr, CString};
    use std::fmt::Display;
    use std::ops::RangeInclusive;
    use std::time::Duration;

    use super::section::SectionConfig;

    #[derive(Debug, Clone, Copy)]
    pub(crate) enum Context {
        Override,
        Directory,
        Section,
        Server,
    }

    pub(crate) struct Directive<C: SectionConfig> {
        pub(crate) name: &'static CStr,
        pub(crate) context: Context,
        pub(crate) usage: &'static CStr,
        pub(crate) set: for<'p> fn(&mut C::In<'p>, &Arguments<'p>) -> Result<(), String>,
    }

    /// What lives as long as the configuration.
    #[derive(Default)]
    pub(crate) struct Pool(RefCell<Vec<CString>>);

    impl Pool {
        fn text(&self, text: &str) -> &CStr {
            let text = CString::new(text).expect("values have no NUL");
            let start = text.as_ptr();
            self.0.borrow_mut().push(text);
            // SAFETY: it stays where it is until the pool is dropped, whoever moves the list.
            unsafe { CStr::from_ptr(start) }
        }
    }

    pub(crate) struct Arguments<'p> {
        pub(crate) values: Vec<&'p str>,
        pub(crate) pool: &'p Pool,
    }

    impl<'p> Arguments<'p> {
        pub(crate) fn all(&self) -> &[&'p str] {
            &self.values
        }

        pub(crate) fn one(&self, expected: &dyn Display) -> Result<&'p str, String> {
            match self.values[..] {
                [value] => Ok(value),
                _ => Err(not_allowed(&self.values, expected)),
            }
        }

        pub(crate) fn flag(&self) -> Result<bool, String> {
            let value = self.one(&"On or Off")?;
            match value.to_ascii_lowercase().as_str() {
                "on" => Ok(true),
                "off" => Ok(false),
                _ => Err(not_allowed(&[value], &"On or Off")),
            }
        }

        pub(crate) fn time(&self, least: Duration) -> Result<Duration, String> {
            let value = self.one(&"a time")?;
            time(value)
                .filter(|time| *time >= least)
                .ok_or_else(|| not_allowed(&[value], &"a time"))
        }

        pub(crate) fn number(&self, allowed: RangeInclusive<u32>) -> Result<u32, String> {
            number(self.one(&"a number")?, allowed)
        }

        pub(crate) fn path(&self) -> Result<&'p CStr, String> {
            self.one(&"a path").map(|path| self.pool.text(path))
        }

        pub(crate) fn keep(&self, text: &str) -> &'p [u8] {
            self.pool.text(text).to_bytes()
        }
    }

    /// As `ap_timeout_parameter_parse` reads it.
    pub(crate) fn time(text: &str) -> Option<Duration> {
        let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
        let (digits, unit) = text.split_at(end);
        let number: i64 = digits.parse().ok()?;
        let micros = match unit.to_ascii_lowercase().as_str() {
            "" => 1_000_000,
            unit if unit.starts_with('s') => 1_000_000,
            unit if unit.starts_with('h') => 3_600_000_000,
            unit if unit.starts_with("ms") => 1000,
            unit if unit.starts_with("mi") => 60_000_000,
            _ => return None,
        };
        number.checked_mul(micros)?.try_into().ok().map(Duration::from_micros)
    }

    pub(crate) fn number(text: &str, allowed: RangeInclusive<u32>) -> Result<u32, String> {
        let number = text.parse().ok().filter(|number| allowed.contains(number));
        number.ok_or_else(|| not_allowed(&[text], &"a number"))
    }

    pub(crate) fn not_allowed(values: &[&str], expected: &dyn Display) -> String {
        format!("\"{}\" is not allowed, expected {expected}", values.join(" "))
    }
}

/// `src/ffi/conftree.rs`.
pub(crate) mod conftree {
    pub(crate) struct Directive {
        pub(crate) name: String,
        pub(crate) arguments: String,
        pub(crate) vhost: Option<usize>,
        pub(crate) place: String,
    }
}

/// `src/ffi/request.rs`.
pub(crate) mod request {
    use std::marker::PhantomData;

    /// No request ever comes.
    pub(crate) struct Request<'p>(std::convert::Infallible, PhantomData<&'p ()>);
}

/// `src/ffi/role.rs`.
pub(crate) mod role {
    pub(crate) struct Parent;
}

/// `src/ffi/section.rs`.
pub(crate) mod section {
    use super::request::Request;

    pub(crate) trait SectionConfig: 'static {
        type In<'p>: Copy + Default;
        fn merge<'p>(base: &Self::In<'p>, over: &Self::In<'p>) -> Self::In<'p>;
    }

    pub(crate) fn config<C: SectionConfig>(_: Request<'_>) -> C::In<'_> {
        C::In::default()
    }
}

/// `src/ffi/server.rs`.
pub(crate) mod server {
    use std::ffi::CStr;

    pub(crate) fn is_loaded(_: &CStr) -> bool {
        true
    }
}

/// `src/ffi/tls.rs`.
pub(crate) mod tls {
    use super::role::Parent;

    pub(crate) fn why_not_native(_: &Parent) -> Option<String> {
        None
    }
}
