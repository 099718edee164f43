//! An origin: what a page of one site is told from another's by (RFC 6454).

use std::fmt;
use std::net::{Ipv4Addr, Ipv6Addr};

/// The longest Origin that is looked at: a name of 253 bytes, with room for any scheme and a port.
const MAX_BYTES: usize = 512;

/// An origin: what a page of one site is told from another's by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Origin {
    /// In lower case.
    scheme: String,
    host: Host,
    /// The scheme's own, where it was not said.
    port: Option<u16>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Host {
    /// Some schemes have none: `file://`.
    None,
    /// In lower case, without a dot at the end.
    Name(String),
    V4(Ipv4Addr),
    V6(Ipv6Addr),
}

impl Origin {
    /// The origin of this text: scheme, host and port, and nothing behind them.
    #[must_use]
    pub fn parse(text: &[u8]) -> Option<Self> {
        let text = str::from_utf8(text).ok().filter(|text| text.len() <= MAX_BYTES)?;
        let (scheme, rest) = text.split_once("://")?;
        if !is_scheme(scheme) {
            return None;
        }
        let scheme = scheme.to_ascii_lowercase();
        if rest.is_empty() {
            // Other schemes without a host are nobody's origin.
            return (scheme == "file").then_some(Self { scheme, host: Host::None, port: None });
        }
        let (host, port) = split_port(rest)?;
        Some(Self { host: Host::parse(host)?, port: port.or(default_port(&scheme)), scheme })
    }

    /// The origin of these parts, as a server knows them of itself. `port` is the scheme's own if it
    /// is `None`.
    #[must_use]
    pub fn of(scheme: &str, host: &[u8], port: Option<u16>) -> Option<Self> {
        let host = str::from_utf8(host).ok()?;
        let host = match host.parse::<Ipv6Addr>() {
            // httpd has it without brackets.
            Ok(address) => Host::V6(address),
            Err(_) => Host::parse(host)?,
        };
        let scheme = scheme.to_ascii_lowercase();
        Some(Self { host, port: port.or(default_port(&scheme)), scheme })
    }

    /// Whether its host is a name, not an address.
    #[must_use]
    pub fn is_named(&self) -> bool {
        matches!(self.host, Host::Name(_))
    }

    /// Whether it is `above` but for exactly one more label in front of the host.
    #[must_use]
    pub fn is_below(&self, above: &Self) -> bool {
        let (Host::Name(above_name), Host::Name(name)) = (&above.host, &self.host) else {
            return false;
        };
        above.scheme == self.scheme
            && above.port == self.port
            && name.split_once('.').is_some_and(|(_, rest)| rest == above_name)
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://", self.scheme)?;
        match &self.host {
            Host::None => {}
            Host::Name(name) => f.write_str(name)?,
            Host::V4(address) => write!(f, "{address}")?,
            Host::V6(address) => write!(f, "[{address}]")?,
        }
        match self.port {
            Some(port) if self.port != default_port(&self.scheme) => write!(f, ":{port}"),
            _ => Ok(()),
        }
    }
}

/// RFC 3986, section 3.1.
fn is_scheme(scheme: &str) -> bool {
    scheme.starts_with(|first: char| first.is_ascii_alphabetic())
        && scheme.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"+-.".contains(&byte))
}

fn default_port(scheme: &str) -> Option<u16> {
    match scheme {
        "http" | "ws" => Some(80),
        "https" | "wss" => Some(443),
        _ => None,
    }
}

/// Host, and port if there is one.
fn split_port(text: &str) -> Option<(&str, Option<u16>)> {
    let end = match text.strip_prefix('[') {
        Some(inner) => inner.find(']')? + 2,
        None => text.find(':').unwrap_or(text.len()),
    };
    let (host, port) = text.split_at(end);
    match port.strip_prefix(':') {
        None => port.is_empty().then_some((host, None)),
        // As browsers write it: no sign, no zero in front.
        Some(digits) if digits.starts_with(|first: char| matches!(first, '1'..='9')) => {
            Some((host, Some(digits.parse().ok()?)))
        }
        Some(_) => None,
    }
}

impl Host {
    fn parse(text: &str) -> Option<Self> {
        if let Some(inner) = text.strip_prefix('[') {
            return inner.strip_suffix(']')?.parse().ok().map(Self::V6);
        }
        // The root's dot changes nothing about whose name it is.
        let name = text.strip_suffix('.').unwrap_or(text);
        if name.len() > 253 || !name.split('.').all(is_label) {
            return None;
        }
        let last = name.rsplit('.').next().unwrap_or_default();
        if last.bytes().all(|byte| byte.is_ascii_digit()) {
            // Never a name, whatever is in front of it.
            return name.parse().ok().map(Self::V4);
        }
        Some(Self::Name(name.to_ascii_lowercase()))
    }
}

/// A label as browsers write it: names with other letters are in Punycode by then.
fn is_label(label: &str) -> bool {
    matches!(label.len(), 1..=63)
        && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Option<String> {
        Origin::parse(text.as_bytes()).map(|origin| origin.to_string())
    }

    #[test]
    fn origins_are_normalised() {
        for (text, expected) in [
            ("https://example.com", "https://example.com"),
            ("HTTPS://EXAMPLE.com:443", "https://example.com"),
            ("http://example.com:80", "http://example.com"),
            ("http://example.com:443", "http://example.com:443"),
            ("https://example.com.", "https://example.com"),
            ("https://xn--bcher-kva.example", "https://xn--bcher-kva.example"),
            ("https://a_b.example", "https://a_b.example"),
            ("http://127.0.0.1:8080", "http://127.0.0.1:8080"),
            ("http://[::1]:8080", "http://[::1]:8080"),
            ("http://[0:0:0:0:0:0:0:1]", "http://[::1]"),
            ("file://", "file://"),
            ("chrome-extension://abcdef", "chrome-extension://abcdef"),
            ("capacitor://localhost", "capacitor://localhost"),
        ] {
            assert_eq!(parse(text).as_deref(), Some(expected), "{text}");
        }
    }

    #[test]
    fn what_is_no_origin_is_refused() {
        for text in [
            "",
            "null",
            "example.com",
            "https:example.com",
            "https:/example.com",
            "https://",
            "https:///",
            "https://example.com/",
            "https://example.com/path",
            "https://example.com?x",
            "https://example.com#x",
            "https://example.com\\",
            "https://user@example.com",
            "https://user:pass@example.com",
            "https://example.com:",
            "https://example.com:0",
            "https://example.com:0443",
            "https://example.com:+443",
            "https://example.com:65536",
            "https://example.com:443:443",
            "https://example..com",
            "https://.example.com",
            "https://example.com..",
            "https://.",
            "https://*.example.com",
            "https://exa mple.com",
            "https://example.com%00",
            "https://b\u{fc}cher.example",
            "https://[::1",
            "https://::1",
            "https://[::1]x",
            "https://[fe80::1%eth0]",
            "https://[example.com]",
            "https://1.2.3",
            "https://1.2.3.256",
            "https://01.2.3.4",
            "https://0x7f.1",
            "https://example.1",
            "1https://example.com",
            "://example.com",
            "https://https://example.com",
        ] {
            assert_eq!(parse(text), None, "{text}");
        }
        assert_eq!(Origin::parse(b"https://example.com\0"), None);
        assert_eq!(Origin::parse(b"https://ex\xffmple.com"), None);
        assert_eq!(parse(&format!("https://{}.com", "a".repeat(64))), None);
        // A name has 253 bytes at the most.
        let longest = format!("https://{}.com", ["a"; 125].join("."));
        assert_eq!(longest.len(), "https://".len() + 253);
        assert_eq!(parse(&longest).as_ref(), Some(&longest));
        assert_eq!(parse(&format!("{longest}x")), None);
        assert_eq!(parse(&format!("https://{}", "a.".repeat(1_000_000))), None);
    }

    #[test]
    fn the_own_origin_is_told_in_parts() {
        let of = |scheme, host: &str, port| {
            Origin::of(scheme, host.as_bytes(), port).map(|own| own.to_string())
        };
        assert_eq!(of("https", "Example.com", None).as_deref(), Some("https://example.com"));
        assert_eq!(of("https", "e.com", Some(443)).as_deref(), Some("https://e.com"));
        assert_eq!(of("http", "e.com", Some(443)).as_deref(), Some("http://e.com:443"));
        assert_eq!(of("http", "::1", Some(8080)).as_deref(), Some("http://[::1]:8080"));
        assert_eq!(of("http", "[::1]", None).as_deref(), Some("http://[::1]"));
        assert_eq!(of("http", "", None), None);
        assert_eq!(of("http", "a/b", None), None);
    }
}
