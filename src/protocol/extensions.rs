//! Which extensions of WebSocket a client's offer may name (RFC 6455, section 9.1).

use crate::list::{members, trim};
use crate::upgrade::is_token;

/// What stands for every extension, and for none.
pub const ANY: &str = "any";
/// See [`ANY`].
pub const NONE: &str = "none";

/// Whether these words can be WSForwardExtensions.
///
/// # Errors
/// The first word that cannot; none if there is no word.
pub fn check_words<'w>(words: &[&'w str]) -> Result<(), Option<&'w str>> {
    if words.is_empty() {
        return Err(None);
    }
    let stands_alone = |word: &str| [ANY, NONE].iter().any(|one| word.eq_ignore_ascii_case(one));
    let is_wrong =
        |word: &&&str| !is_token(word.as_bytes()) || words.len() > 1 && stands_alone(word);
    words.iter().find(is_wrong).map_or(Ok(()), |word| Err(Some(*word)))
}

/// What is left of an offer (all of its fields joined with commas) for words that passed
/// [`check_words`], with spaces between them: each extension with its parameters as it was spelt, in
/// the client's order. `None` if nothing is left.
#[must_use]
pub fn allowed(offer: &[u8], words: &[u8]) -> Option<Vec<u8>> {
    if words.eq_ignore_ascii_case(ANY.as_bytes()) {
        return Some(offer.to_vec());
    }
    let is_allowed = |extension: &&[u8]| {
        let name = name(extension);
        // A comma within quotes, which no value may have, has cut this one in two.
        let is_whole = extension.iter().filter(|byte| **byte == b'"').count() % 2 == 0;
        is_whole
            && !words.eq_ignore_ascii_case(NONE.as_bytes())
            && words.split(|byte| *byte == b' ').any(|word| word.eq_ignore_ascii_case(name))
    };
    let left: Vec<&[u8]> = members(offer).filter(is_allowed).collect();
    (!left.is_empty()).then(|| left.join(&b", "[..]))
}

/// The name of an extension, without its parameters.
pub(crate) fn name(extension: &[u8]) -> &[u8] {
    trim(extension.split(|byte| *byte == b';').next().unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_named_is_left_out() {
        let offer =
            "permessage-deflate; client_max_window_bits, X-A; b=\"c\",x-b ,, permessage-deflate";
        for (words, left) in [
            ("any", Some(offer)),
            ("none", None),
            ("None", None),
            ("x-c", None),
            ("x-a", Some("X-A; b=\"c\"")),
            (
                "PERMESSAGE-DEFLATE x-b",
                Some("permessage-deflate; client_max_window_bits, x-b, permessage-deflate"),
            ),
        ] {
            let seen = allowed(offer.as_bytes(), words.as_bytes());
            assert_eq!(seen.as_deref(), left.map(str::as_bytes), "{words}");
        }
    }

    #[test]
    fn hostile_offers_smuggle_nothing() {
        for offer in [
            "",
            ",",
            ";",
            "x-a x-b",
            "x-a\tx-b",
            "x-a=1",
            "\"x-a\"",
            "x-b; y=\"1, x-a\"",
            "x-a; y=\"1, x-b\"",
            ";x-a",
            "x-b;x-a",
        ] {
            assert_eq!(allowed(offer.as_bytes(), b"x-a"), None, "{offer}");
        }
        assert_eq!(allowed(b"\xff, x-a; \xff", b"x-a").as_deref(), Some(&b"x-a; \xff"[..]));
    }

    #[test]
    fn words_are_checked() {
        assert_eq!(check_words(&["any"]), Ok(()));
        assert_eq!(check_words(&["permessage-deflate", "x-a"]), Ok(()));
        assert_eq!(check_words(&[]), Err(None));
        for words in
            [&["x-a", "any"][..], &["x-a", "None"], &["x-a", "a,b"], &["x-a", "a b"], &["x-a", ""]]
        {
            assert_eq!(check_words(words), Err(Some(words[1])));
        }
    }
}
