//! Bytes as text that can be shown.

use std::borrow::Cow;

/// The bytes as text; what is not UTF-8 is replaced by U+FFFD.
pub(crate) fn lossy(bytes: &[u8]) -> Cow<'_, str> {
    String::from_utf8_lossy(bytes)
}

/// Whether a terminal or a browser may take it for more than a sign: control characters, line
/// separators, and what changes the direction of the text around it.
pub(crate) fn is_hidden(sign: char) -> bool {
    sign.is_control()
        || matches!(
            sign,
            '\u{061c}'
                | '\u{200b}'..='\u{200f}'
                | '\u{2028}'..='\u{202e}'
                | '\u{2060}'..='\u{206f}'
                | '\u{feff}'
        )
}

/// Whether these bytes can be shown as they are, and sent back unchanged by a browser.
pub(crate) fn is_plain(bytes: &[u8]) -> bool {
    str::from_utf8(bytes).is_ok_and(|text| !text.contains(is_hidden))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_utf_8_is_replaced() {
        assert_eq!(lossy(b"a\xffb"), "a\u{fffd}b");
        // As where a path was cut.
        assert_eq!(lossy("ü".as_bytes().split_at(1).0), "\u{fffd}");
    }

    #[test]
    fn what_hides_is_known() {
        for sign in ['\0', '\n', '\u{1b}', '\u{7f}', '\u{9b}', '\u{2028}', '\u{202e}', '\u{2066}'] {
            assert!(is_hidden(sign), "{sign:?}");
            assert!(!is_plain(sign.to_string().as_bytes()));
        }
        for sign in [' ', 'a', '<', 'ü', '漢', '\u{1f600}', '\u{fffd}'] {
            assert!(!is_hidden(sign), "{sign:?}");
        }
        assert!(is_plain("Jürgen".as_bytes()) && !is_plain(b"\xff"));
    }
}
