//! When a tunnel expires, as the variable says it.

use std::time::Duration;

/// Sixteen digits are 300 million years.
const MAX_DIGITS: usize = 16;

/// The time since 1970 that a text means: seconds since then, or `+` and seconds from `now` on. `None`
/// if it is neither.
#[must_use]
pub fn parse(text: &[u8], now: Duration) -> Option<Duration> {
    let (digits, since) = match text.strip_prefix(b"+") {
        Some(digits) => (digits, now),
        None => (text, Duration::ZERO),
    };
    if digits.len() > MAX_DIGITS || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let seconds = str::from_utf8(digits).ok()?.parse().ok()?;
    since.checked_add(Duration::from_secs(seconds))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read() {
        let now = Duration::from_millis(1_000_500);
        let seconds = |text: &str| parse(text.as_bytes(), now);
        assert_eq!(seconds("1764417600"), Some(Duration::from_secs(1_764_417_600)));
        assert_eq!(seconds("0"), Some(Duration::ZERO));
        assert_eq!(seconds("+60"), Some(Duration::from_millis(1_060_500)));
        assert!(seconds("9999999999999999").is_some());
        for text in [
            "",
            "+",
            "-1",
            "++1",
            "1.5",
            "1e3",
            " 1",
            "1 ",
            "0x10",
            "soon",
            "10000000000000000",
            "\u{661}",
        ] {
            assert_eq!(seconds(text), None, "{text}");
        }
    }
}
