//! What is wrong with a request.

use std::fmt;

/// How much of what was sent is repeated, in bytes.
const MAX_REPEATED_BYTES: usize = 40;

/// A request that is refused with 400. Its text is one line of ASCII that may be shown anywhere.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bad(String);

impl Bad {
    pub(crate) fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// `text`, then what was sent.
    pub(crate) fn with(text: &str, sent: &[u8]) -> Self {
        let (shown, more) = match sent.split_at_checked(MAX_REPEATED_BYTES) {
            Some((shown, rest)) if !rest.is_empty() => (shown, "..."),
            _ => (sent, ""),
        };
        Self(format!("{text}: \"{}\"{more}", shown.escape_ascii()))
    }
}

impl fmt::Display for Bad {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Bad {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_sent_is_escaped_and_cut() {
        assert_eq!(Bad::with("no", b"a\n\"\xff<").to_string(), r#"no: "a\n\"\xff<""#);
        let long = Bad::with("no", &[b'a'; 1000]).to_string();
        assert_eq!(long, format!("no: \"{}\"...", "a".repeat(MAX_REPEATED_BYTES)));
    }
}
