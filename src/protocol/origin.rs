//! Which origins a handshake may come from (RFC 6455, sections 4.1 and 10.2; RFC 6454, section 6).

use std::fmt;
use std::net::{Ipv4Addr, Ipv6Addr};

use messages::{
    OriginMalformed, OriginMissing, OriginNotListed, OriginNotOwn, OriginOwnUnknown, OriginTwice,
};

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

/// One word of WSForwardOrigin.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Word {
    Any,
    Same,
    Required,
    Null,
    Is(Origin),
    /// An origin whose host has exactly one more label in front.
    Below(Origin),
}

impl Word {
    fn parse(word: &str) -> Option<Self> {
        let named = [
            ("any", Self::Any),
            ("same", Self::Same),
            ("required", Self::Required),
            ("null", Self::Null),
        ];
        if let Some((_, word)) = named.into_iter().find(|(name, _)| name.eq_ignore_ascii_case(word))
        {
            return Some(word);
        }
        let Some((scheme, rest)) = word.split_once("://*.") else {
            return Origin::parse(word.as_bytes()).map(Self::Is);
        };
        let below = Origin::parse(format!("{scheme}://{rest}").as_bytes())?;
        matches!(below.host, Host::Name(_)).then_some(Self::Below(below))
    }

    fn allows(&self, origin: &Origin) -> bool {
        match self {
            Self::Is(one) => one == origin,
            Self::Below(one) => {
                let (Host::Name(above), Host::Name(name)) = (&one.host, &origin.host) else {
                    return false;
                };
                one.scheme == origin.scheme
                    && one.port == origin.port
                    && name.split_once('.').is_some_and(|(_, rest)| rest == above)
            }
            _ => false,
        }
    }
}

/// Whether these words can be WSForwardOrigin.
///
/// # Errors
/// The first word that cannot; none if there is no word.
pub fn check_words<'w>(words: &[&'w str]) -> Result<(), Option<&'w str>> {
    if words.is_empty() {
        return Err(None);
    }
    for word in words {
        let parsed = Word::parse(word).ok_or(Some(*word))?;
        // Beside others it would make them meaningless.
        if parsed == Word::Any && words.len() > 1 {
            return Err(Some(word));
        }
    }
    Ok(())
}

/// Whether words that passed [`check_words`], with spaces between them, ask for a look at the Origin.
#[must_use]
pub fn is_checked(words: &[u8]) -> bool {
    !words.eq_ignore_ascii_case(b"any")
}

/// Why a handshake is refused.
#[derive(Debug, PartialEq, Eq)]
pub struct Denied(String);

impl fmt::Display for Denied {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Whether a handshake with this Origin (all of its fields joined with commas; `None` without any)
/// passes these words. `own` is the origin of the request itself, if it has one.
///
/// # Errors
/// Why it does not.
pub fn check(
    words: &[u8],
    origin: Option<&[u8]>,
    own: impl FnOnce() -> Option<Origin>,
) -> Result<(), Denied> {
    let words = str::from_utf8(words).unwrap_or_default().split(' ').filter_map(Word::parse);
    let words: Vec<Word> = words.collect();
    let has = |word| words.contains(&word);
    if has(Word::Any) {
        return Ok(());
    }
    let Some(origin) = origin else {
        return if has(Word::Required) { Err(Denied(OriginMissing.to_string())) } else { Ok(()) };
    };
    let seen = Shown(origin);
    let not_listed = || Denied(OriginNotListed { seen: &seen }.to_string());
    // The only word: whatever it is. No word at all, which no configuration has, allows nothing.
    let is_any = !words.is_empty() && words.iter().all(|word| *word == Word::Required);
    if origin == b"null" {
        return if is_any || has(Word::Null) { Ok(()) } else { Err(not_listed()) };
    }
    if origin.iter().any(|byte| matches!(byte, b',' | b' ' | b'\t')) {
        return Err(Denied(OriginTwice { seen: &seen }.to_string()));
    }
    let Some(origin) = Origin::parse(origin) else {
        return Err(Denied(OriginMalformed { seen: &seen }.to_string()));
    };
    if is_any || words.iter().any(|word| word.allows(&origin)) {
        return Ok(());
    }
    if !has(Word::Same) {
        return Err(not_listed());
    }
    match own() {
        Some(own) if own == origin => Ok(()),
        Some(own) => Err(Denied(OriginNotOwn { seen: &seen, own: &own }.to_string())),
        None => Err(Denied(OriginOwnUnknown { seen: &seen }.to_string())),
    }
}

/// Printable and bounded, for a log line.
struct Shown<'a>(&'a [u8]);

impl fmt::Display for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const MOST: usize = 100;
        let more = if self.0.len() > MOST { "..." } else { "" };
        write!(f, "\"{}{more}\"", self.0[..self.0.len().min(MOST)].escape_ascii())
    }
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
        assert_eq!(parse(&format!("https://{}", "a.".repeat(1_000_000))), None);
    }

    fn own() -> Option<Origin> {
        Origin::of("https", b"www.example.com", None)
    }

    fn allows(words: &str, origin: &str) -> bool {
        check(words.as_bytes(), Some(origin.as_bytes()), own).is_ok()
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

    #[test]
    fn same_is_the_own_origin_and_no_other() {
        assert!(allows("same", "https://www.example.com"));
        assert!(allows("same", "https://WWW.example.com:443"));
        for other in [
            "http://www.example.com",
            "https://www.example.com:8443",
            "https://example.com",
            "https://evil.example",
            "https://www.example.com.evil.example",
            "https://www.example.com, https://www.example.com",
            "https://evil.example https://www.example.com",
            "https://www.example.com@evil.example",
            "https://www.example.com/",
            "null",
            "",
        ] {
            assert!(!allows("same", other), "{other}");
        }
        assert!(check(b"same", Some(b"https://a.example"), || None).is_err());
    }

    #[test]
    fn a_star_is_exactly_one_label() {
        let words = "https://*.example.com";
        assert!(allows(words, "https://a.example.com"));
        assert!(allows(words, "https://A.EXAMPLE.COM."));
        for other in [
            "https://example.com",
            "https://a.b.example.com",
            "https://evilexample.com",
            "https://a.example.com.evil.example",
            "http://a.example.com",
            "https://a.example.com:8443",
        ] {
            assert!(!allows(words, other), "{other}");
        }
        assert!(allows("https://*.example.com:8443", "https://a.example.com:8443"));
    }

    #[test]
    fn words_go_together() {
        let words = "same null https://other.example";
        assert!(allows(words, "null") && allows(words, "https://other.example"));
        assert!(allows(words, "https://www.example.com") && !allows(words, "https://x.example"));
        assert!(allows("required", "https://x.example") && allows("required", "null"));
        assert!(!allows("required", "x.example"));
        assert!(!allows("required same", "https://x.example"));
        assert!(allows("any", "anything, at all"));
        assert!(!allows("", "https://x.example") && !allows("", "null"));
        for (words, passes) in
            [("any", true), ("same", true), ("https://a.example", true), ("required same", false)]
        {
            assert_eq!(check(words.as_bytes(), None, own).is_ok(), passes, "{words}");
        }
    }

    #[test]
    fn words_are_checked() {
        for words in ["any", "SAME", "required", "null", "https://*.a.example:8443 same", "file://"]
        {
            let words: Vec<&str> = words.split(' ').collect();
            assert_eq!(check_words(&words), Ok(()));
        }
        for (words, wrong) in [
            ("any same", "any"),
            ("*", "*"),
            ("https://*", "https://*"),
            ("https://*.", "https://*."),
            ("https://a.*.example", "https://a.*.example"),
            ("https://*.*.example", "https://*.*.example"),
            ("https://*.0.0.1", "https://*.0.0.1"),
            ("https://*.[::1]", "https://*.[::1]"),
            ("same example.com", "example.com"),
            ("https://example.com/", "https://example.com/"),
        ] {
            let words: Vec<&str> = words.split(' ').collect();
            assert_eq!(check_words(&words), Err(Some(wrong)));
        }
        assert_eq!(check_words(&[]), Err(None));
    }

    #[test]
    fn what_the_log_shows_is_printable_and_bounded() {
        let hostile = [b"https://\x1b[2J\r\n".as_slice(), &[0xff; 1000]].concat();
        let shown = check(b"same", Some(&hostile), own).unwrap_err().to_string();
        assert!(shown.is_ascii() && shown.len() < 600 && !shown.contains(['\r', '\n', '\x1b']));
    }
}
