//! Which tunnels are meant. What is asked for holds for all of them: nothing else is listed, and
//! nothing else is closed.

use std::net::IpAddr;

use crate::Bad;
use crate::urlencoded::append;
use crate::view::Tunnel;

/// Conditions, all of which must hold. None at all is every tunnel.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Filter {
    /// The log id, whole.
    pub id: Option<Vec<u8>>,
    /// The client's address, in its shortest form: IPv4 where it is mapped to IPv6.
    pub client: Option<IpAddr>,
    /// The user, whole.
    pub user: Option<Vec<u8>>,
    /// The back end, whole.
    pub backend: Option<Vec<u8>>,
    /// The virtual host, whole.
    pub vhost: Option<Vec<u8>>,
    /// At least so many seconds old.
    pub older: Option<u64>,
    /// Without a byte for at least so many seconds.
    pub idle: Option<u64>,
}

impl Filter {
    /// Whether it has no condition.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Whether the tunnel is meant.
    #[must_use]
    pub fn matches(&self, tunnel: &Tunnel<'_>) -> bool {
        let Self { id, client, user, backend, vhost, older, idle } = self;
        let is = |wanted: &Option<Vec<u8>>, found| {
            wanted.as_deref().is_none_or(|wanted| wanted == found)
        };
        is(id, tunnel.id)
            && client.is_none_or(|client| client == tunnel.client.to_canonical())
            && is(user, tunnel.user)
            && is(backend, tunnel.backend)
            && is(vhost, tunnel.vhost)
            && older.is_none_or(|seconds| tunnel.seconds >= seconds)
            && idle.is_none_or(|seconds| tunnel.idle_seconds >= seconds)
    }

    /// Whether a condition has this name.
    pub(crate) fn is_condition(name: &[u8]) -> bool {
        Self::default().set(name, b"") != Ok(false)
    }

    /// Takes in a condition that can be in a query or a form; `false` if none has this name.
    pub(crate) fn set(&mut self, name: &[u8], value: &[u8]) -> Result<bool, Bad> {
        match name {
            b"id" => text("id", &mut self.id, value)?,
            b"client" => once("client", &mut self.client, address(value)?)?,
            b"user" => text("user", &mut self.user, value)?,
            b"backend" => text("backend", &mut self.backend, value)?,
            b"vhost" => text("vhost", &mut self.vhost, value)?,
            b"older" => once("older", &mut self.older, number("older", value)?)?,
            b"idle" => once("idle", &mut self.idle, number("idle", value)?)?,
            _ => return Ok(false),
        }
        Ok(true)
    }

    /// Name and value of each condition.
    pub(crate) fn conditions(&self) -> Vec<(&'static str, Vec<u8>)> {
        let Self { id, client, user, backend, vhost, older, idle } = self;
        let number = |seconds: &Option<u64>| seconds.map(|seconds| seconds.to_string().into());
        [
            ("id", id.clone()),
            ("client", client.map(|client| client.to_string().into())),
            ("user", user.clone()),
            ("backend", backend.clone()),
            ("vhost", vhost.clone()),
            ("older", number(older)),
            ("idle", number(idle)),
        ]
        .into_iter()
        .filter_map(|(name, value)| value.map(|value| (name, value)))
        .collect()
    }

    /// As the fields of a query.
    #[must_use]
    pub fn to_query(&self) -> String {
        let mut query = String::new();
        for (name, value) in self.conditions() {
            append(&mut query, name, &value);
        }
        query
    }
}

/// Keeps a value that may be said once.
pub(crate) fn once<T>(name: &str, kept: &mut Option<T>, value: T) -> Result<(), Bad> {
    match kept.replace(value) {
        None => Ok(()),
        Some(_) => Err(Bad::new(format!("{name} is there twice"))),
    }
}

/// A text that is not empty: whoever sends `user=` most likely meant somebody.
fn text(name: &str, kept: &mut Option<Vec<u8>>, value: &[u8]) -> Result<(), Bad> {
    if value.is_empty() {
        return Err(Bad::new(format!("{name} is empty")));
    }
    once(name, kept, value.to_vec())
}

fn address(value: &[u8]) -> Result<IpAddr, Bad> {
    let address = str::from_utf8(value).ok().and_then(|text| text.parse::<IpAddr>().ok());
    let address = address.ok_or_else(|| Bad::with("client is no IP address", value))?;
    Ok(address.to_canonical())
}

/// Digits and nothing else.
pub(crate) fn number(name: &str, value: &[u8]) -> Result<u64, Bad> {
    Some(value)
        .filter(|value| value.iter().all(u8::is_ascii_digit))
        .and_then(|value| str::from_utf8(value).ok()?.parse().ok())
        .ok_or_else(|| Bad::with(&format!("{name} is no whole number"), value))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::samples::tunnel;

    fn filter(conditions: &[(&str, &str)]) -> Filter {
        let mut filter = Filter::default();
        for (name, value) in conditions {
            assert!(filter.set(name.as_bytes(), value.as_bytes()).unwrap());
        }
        filter
    }

    #[test]
    fn texts_are_compared_whole() {
        let tunnel = tunnel();
        for (name, right, wrong) in [
            ("id", "abc", ["ab", "abcd"]),
            ("user", "alice", ["alic", "Alice"]),
            ("vhost", "example.com:443", ["example.com", "example.com:4433"]),
            ("backend", "http://127.0.0.1:8080", ["127.0.0.1:8080", "http://127.0.0.1:8080/"]),
        ] {
            assert!(filter(&[(name, right)]).matches(&tunnel), "{name}");
            for wrong in wrong {
                assert!(!filter(&[(name, wrong)]).matches(&tunnel), "{name} {wrong}");
            }
        }
    }

    #[test]
    fn addresses_are_compared_as_such() {
        let with = |client: &str| Tunnel { client: client.parse().unwrap(), ..tunnel() };
        for same in ["192.0.2.7", "::ffff:192.0.2.7", "::ffff:c000:207", "0:0:0:0:0:FFFF:C000:0207"]
        {
            let filter = filter(&[("client", same)]);
            assert!(filter.matches(&with("192.0.2.7")), "{same}");
            assert!(filter.matches(&with("::ffff:192.0.2.7")), "{same}");
            assert!(!filter.matches(&with("192.0.2.70")), "{same}");
            assert!(!filter.matches(&with("::c000:207")), "{same}");
        }
        let long = filter(&[("client", "2001:DB8:0:0:0:0:0:1")]);
        assert!(long.matches(&with("2001:db8::1")) && !long.matches(&with("2001:db8::2")));
    }

    #[test]
    fn ages_are_at_least_what_was_asked_for() {
        let tunnel = Tunnel { seconds: 60, idle_seconds: 30, ..tunnel() };
        for (name, seconds, expected) in [
            ("older", "0", true),
            ("older", "60", true),
            ("older", "61", false),
            ("idle", "30", true),
            ("idle", "31", false),
            ("idle", "18446744073709551615", false),
        ] {
            assert_eq!(filter(&[(name, seconds)]).matches(&tunnel), expected, "{name}={seconds}");
        }
    }

    #[test]
    fn all_conditions_must_hold() {
        let tunnel = tunnel();
        assert!(Filter::default().is_empty() && Filter::default().matches(&tunnel));
        let right = [
            ("id", "abc"),
            ("client", "192.0.2.7"),
            ("user", "alice"),
            ("backend", "http://127.0.0.1:8080"),
            ("vhost", "example.com:443"),
            ("older", "1"),
            ("idle", "1"),
        ];
        let all = filter(&right);
        assert!(!all.is_empty() && all.matches(&tunnel));
        for at in 0..right.len() {
            let mut changed = right;
            changed[at].1 = match changed[at].0 {
                "older" | "idle" => "1000000",
                "client" => "192.0.2.8",
                _ => "x",
            };
            let changed = filter(&changed);
            assert!(!changed.is_empty() && !changed.matches(&tunnel), "{changed:?}");
        }
    }

    #[test]
    fn what_is_no_condition_is_refused() {
        for (name, value, text) in [
            ("client", "", r#"client is no IP address: """#),
            ("client", "localhost", r#"client is no IP address: "localhost""#),
            ("client", "192.0.2.0/24", r#"client is no IP address: "192.0.2.0/24""#),
            ("client", "192.0.2.7 ", r#"client is no IP address: "192.0.2.7 ""#),
            ("client", "[::1]", r#"client is no IP address: "[::1]""#),
            ("user", "", "user is empty"),
            ("id", "", "id is empty"),
            ("vhost", "", "vhost is empty"),
            ("backend", "", "backend is empty"),
            ("older", "", r#"older is no whole number: """#),
            ("older", "-1", r#"older is no whole number: "-1""#),
            ("older", "+1", r#"older is no whole number: "+1""#),
            ("idle", "1.5", r#"idle is no whole number: "1.5""#),
            ("idle", "1m", r#"idle is no whole number: "1m""#),
            ("idle", "\u{661}", r#"idle is no whole number: "\xd9\xa1""#),
            ("idle", "18446744073709551616", r#"idle is no whole number: "18446744073709551616""#),
        ] {
            let bad = Filter::default().set(name.as_bytes(), value.as_bytes()).unwrap_err();
            assert_eq!(bad.to_string(), text);
        }
        assert_eq!(Filter::default().set(b"path", b"/"), Ok(false));
    }

    #[test]
    fn a_condition_stands_once() {
        for name in ["id", "client", "user", "backend", "vhost", "older", "idle"] {
            let mut filter = Filter::default();
            let value: &[u8] = if name == "client" { b"::1" } else { b"1" };
            assert!(filter.set(name.as_bytes(), value).unwrap());
            let bad = filter.set(name.as_bytes(), value).unwrap_err();
            assert_eq!(bad.to_string(), format!("{name} is there twice"));
        }
    }

    #[test]
    fn it_is_a_query_again() {
        let filter =
            filter(&[("user", "a&b=c%<\u{202e}"), ("client", "::ffff:1.2.3.4"), ("idle", "7")]);
        assert_eq!(filter.to_query(), "client=1.2.3.4&user=a%26b%3Dc%25%3C%E2%80%AE&idle=7");
        assert_eq!(Filter::default().to_query(), "");
    }
}
