//! Comma-separated lists in header values (RFC 9110, section 5.6.1).

use memchr::memchr;

/// The members of a `#element` list, trimmed of spaces and tabs, empty ones
/// left out as RFC 9110, section 5.6.1.2 asks of a recipient.
///
/// Only for lists whose members hold no quoted comma: `Connection`, `Upgrade`,
/// `Sec-WebSocket-Protocol` and `Sec-WebSocket-Extensions` (RFC 6455, section
/// 9.1: a quoted value must still be a token).
pub fn members(value: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut rest = Some(value);
    std::iter::from_fn(move || {
        let value = rest?;
        match memchr(b',', value) {
            Some(comma) => {
                rest = Some(&value[comma + 1..]);
                Some(&value[..comma])
            }
            None => {
                rest = None;
                Some(value)
            }
        }
    })
    .map(trim)
    .filter(|member| !member.is_empty())
}

/// Whether a list names `token`, in any case.
#[must_use]
pub fn has_token(value: &[u8], token: &[u8]) -> bool {
    value.eq_ignore_ascii_case(token)
        || members(value).any(|member| member.eq_ignore_ascii_case(token))
}

/// `value` without the optional white space (RFC 9110, section 5.6.3) around it.
#[must_use]
pub fn trim(value: &[u8]) -> &[u8] {
    let is_ows = |byte: &u8| matches!(byte, b' ' | b'\t');
    let start = value.iter().position(|b| !is_ows(b)).unwrap_or(value.len());
    let end = value.iter().rposition(|b| !is_ows(b)).map_or(start, |at| at + 1);
    &value[start..end]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(value: &str) -> Vec<&str> {
        members(value.as_bytes()).map(|m| std::str::from_utf8(m).unwrap()).collect()
    }

    #[test]
    fn members_are_trimmed_and_empty_ones_left_out() {
        assert_eq!(list("keep-alive, Upgrade"), ["keep-alive", "Upgrade"]);
        assert_eq!(list(" \t a\t,, ,b , "), ["a", "b"]);
        assert_eq!(list(""), [""; 0]);
        assert_eq!(list(" , ,\t"), [""; 0]);
        assert_eq!(list("a b"), ["a b"]);
    }

    #[test]
    fn tokens_match_whole_and_in_any_case() {
        assert!(has_token(b"keep-alive,\tUPGRADE", b"upgrade"));
        assert!(!has_token(b"NoUpgradePlease", b"upgrade"));
        assert!(!has_token(b"upgrade2, x-upgrade", b"upgrade"));
        assert!(!has_token(b"", b"upgrade"));
    }
}
