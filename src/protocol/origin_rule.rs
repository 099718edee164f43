//! Which origins a handshake may come from (RFC 6455, sections 4.1 and 10.2): the words of
//! WSForwardOrigin, and what they allow.

use std::fmt;

use messages::{
    OriginMalformed, OriginMissing, OriginNotListed, OriginNotOwn, OriginOwnUnknown, OriginTwice,
};

use crate::origin::Origin;

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
        below.is_named().then_some(Self::Below(below))
    }

    fn allows(&self, origin: &Origin) -> bool {
        match self {
            Self::Is(one) => one == origin,
            Self::Below(one) => origin.is_below(one),
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

    fn own() -> Option<Origin> {
        Origin::of("https", b"www.example.com", None)
    }

    fn allows(words: &str, origin: &str) -> bool {
        check(words.as_bytes(), Some(origin.as_bytes()), own).is_ok()
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
    fn only_any_asks_for_no_look() {
        assert!(!is_checked(b"any") && !is_checked(b"ANY"));
        assert!(is_checked(b"same") && is_checked(b"null") && is_checked(b""));
    }

    #[test]
    fn each_reason_says_what_was_seen() {
        let why = |words: &str, origin: Option<&str>, own: Option<Origin>| {
            let denied = check(words.as_bytes(), origin.map(str::as_bytes), || own);
            denied.expect_err(words).to_string()
        };
        let own = own();
        let seen = [
            why("https://a.example", Some("https://b.example"), None),
            why("same", Some("null"), own.clone()),
            why("same", Some("https://a.example, https://b.example"), own.clone()),
            why("same", Some("a.example"), own.clone()),
            why("same", Some("https://c.example"), own),
            why("same", Some("https://d.example"), None),
        ];
        for (text, shown) in seen.iter().zip([
            "\"https://b.example\"",
            "\"null\"",
            "\"https://a.example, https://b.example\"",
            "\"a.example\"",
            "\"https://c.example\"",
            "\"https://d.example\"",
        ]) {
            assert!(text.contains(shown), "{text} should contain {shown}");
        }
        assert!(seen[4].contains("https://www.example.com"), "{}", seen[4]);
        assert!(why("required", None, None).contains("Origin"));
        let [whole, cut] = [100, 101].map(|length| "x".repeat(length));
        assert!(why("same", Some(&whole), None).contains(&format!("\"{whole}\"")));
        assert!(why("same", Some(&cut), None).contains(&format!("\"{whole}...\"")));
    }

    #[test]
    fn what_the_log_shows_is_printable_and_bounded() {
        let hostile = [b"https://\x1b[2J\r\n".as_slice(), &[0xff; 1000]].concat();
        let shown = check(b"same", Some(&hostile), own).unwrap_err().to_string();
        assert!(shown.is_ascii() && shown.len() < 600 && !shown.contains(['\r', '\n', '\x1b']));
    }
}
