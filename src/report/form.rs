//! What a POST orders: the fields of a form.

use crate::Bad;
use crate::filter::{Filter, once};
use crate::urlencoded::fields;

/// The longest form that is read: more than all its fields can need.
pub const MAX_BYTES: usize = 16 * 1024;

/// What a Close frame leaves for a reason (RFC 6455 5.5).
const MAX_REASON_BYTES: usize = 123;
/// Going away.
const DEFAULT_CODE: u16 = 1001;

/// An order to close tunnels.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Form {
    /// What proves that it comes from the page; empty if it was not sent. Anything.
    pub nonce: String,
    /// The tunnels; never empty.
    pub filter: Filter,
    /// For their Close frames.
    pub code: u16,
    /// The same; may be empty, or hold any sign.
    pub reason: String,
}

impl Form {
    /// Reads a form as it came.
    ///
    /// # Errors
    /// If there is anything in it that is not known, or not right, or if no tunnels are named.
    /// A nonce that is missing is none: the answer to that is another one.
    pub fn parse(form: &[u8]) -> Result<Self, Bad> {
        let (mut action, mut nonce, mut code, mut reason) = (None, None, None, None);
        let mut filter = Filter::default();
        for field in fields(form) {
            let (name, value) = field?;
            let value = value.unwrap_or_default();
            match &*name {
                b"action" if value == b"close" => once("action", &mut action, ())?,
                b"action" => return Err(Bad::with("unknown action", &value)),
                b"nonce" => once("nonce", &mut nonce, value)?,
                b"code" => once("code", &mut code, close_code(&value)?)?,
                b"reason" => once("reason", &mut reason, close_reason(value)?)?,
                _ if filter.set(&name, &value)? => {}
                _ => return Err(Bad::with("unknown field", &name)),
            }
        }
        if action.is_none() {
            return Err(Bad::new("action is missing"));
        }
        if filter.is_empty() {
            return Err(Bad::new(
                "which tunnels? One of id, client, user, backend, vhost, older, idle is needed",
            ));
        }
        Ok(Self {
            nonce: String::from_utf8_lossy(&nonce.unwrap_or_default()).into_owned(),
            filter,
            code: code.unwrap_or(DEFAULT_CODE),
            reason: reason.unwrap_or_default(),
        })
    }
}

/// Whether a Content-Type is that of a form.
#[must_use]
pub fn is_form(content_type: &[u8]) -> bool {
    let end = content_type.iter().position(|byte| *byte == b';');
    let essence = content_type[..end.unwrap_or(content_type.len())].trim_ascii();
    essence.eq_ignore_ascii_case(b"application/x-www-form-urlencoded")
}

/// A code that a server may send (RFC 6455 7.4 and IANA's registry).
fn close_code(value: &[u8]) -> Result<u16, Bad> {
    let code = Some(value)
        .filter(|value| value.len() == 4 && value.iter().all(u8::is_ascii_digit))
        .and_then(|value| str::from_utf8(value).ok()?.parse().ok());
    match code {
        Some(code @ (1000 | 1001 | 1003 | 1007..=1014 | 3000..=4999)) => Ok(code),
        _ => Err(Bad::with("code is none of 1000, 1001, 1003, 1007 to 1014, 3000 to 4999", value)),
    }
}

fn close_reason(value: Vec<u8>) -> Result<String, Bad> {
    if value.len() > MAX_REASON_BYTES {
        return Err(Bad::new(format!("reason is longer than {MAX_REASON_BYTES} bytes")));
    }
    String::from_utf8(value).map_err(|wrong| Bad::with("reason is not UTF-8", wrong.as_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(form: &str) -> Result<Form, Bad> {
        Form::parse(form.as_bytes())
    }

    #[test]
    fn orders_are_read() {
        let form = parse("action=close&nonce=a-1&id=abc").unwrap();
        let filter = Filter { id: Some(b"abc".to_vec()), ..Filter::default() };
        assert_eq!(form, Form { nonce: "a-1".into(), filter, code: 1001, reason: String::new() });
        let form = parse(
            "reason=back+in+5%20min%2C+%C3%BC&code=1012&user=alice&older=3600&nonce=x&action=close",
        )
        .unwrap();
        assert_eq!((form.code, &*form.reason), (1012, "back in 5 min, ü"));
        assert_eq!(form.filter.to_query(), "user=alice&older=3600");
    }

    #[test]
    fn a_missing_nonce_is_no_fault_of_the_form() {
        for form in ["action=close&id=a", "action=close&id=a&nonce=", "action=close&id=a&nonce"] {
            assert_eq!(parse(form).unwrap().nonce, "");
        }
        assert_eq!(parse("action=close&id=a&nonce=%FF").unwrap().nonce, "\u{fffd}");
    }

    #[test]
    fn codes_are_those_that_a_server_may_send() {
        let is_allowed = |code: u32| {
            let form = parse(&format!("action=close&id=a&code={code}"));
            form.map(|form| assert_eq!(u32::from(form.code), code)).is_ok()
        };
        let allowed: Vec<u32> =
            (0..=5100).chain([65_535, 66_537]).filter(|code| is_allowed(*code)).collect();
        let mut expected = vec![1000, 1001, 1003];
        expected.extend(1007..=1014);
        expected.extend(3000..=4999);
        assert_eq!(allowed, expected);
    }

    #[test]
    fn reasons_are_as_long_as_a_close_frame_allows() {
        let with = |reason: &str| parse(&format!("action=close&id=a&reason={reason}"));
        assert_eq!(with(&"a".repeat(123)).unwrap().reason.len(), 123);
        assert_eq!(with("").unwrap().reason, "");
        assert_eq!(with("%0A%00").unwrap().reason, "\n\0");
        let long = with(&"a".repeat(124)).unwrap_err().to_string();
        assert_eq!(long, "reason is longer than 123 bytes");
        // Bytes, not letters.
        with(&"%C3%BC".repeat(61)).unwrap();
        with(&"%C3%BC".repeat(62)).unwrap_err();
        let wrong = with("%FF").unwrap_err().to_string();
        assert_eq!(wrong, r#"reason is not UTF-8: "\xff""#);
    }

    #[test]
    fn what_is_unknown_or_wrong_is_refused() {
        let which = "which tunnels? One of id, client, user, backend, vhost, older, idle is needed";
        let code = "code is none of 1000, 1001, 1003, 1007 to 1014, 3000 to 4999";
        for (form, text) in [
            ("", "action is missing"),
            ("id=a&nonce=x", "action is missing"),
            ("action=&id=a", r#"unknown action: """#),
            ("action=Close&id=a", r#"unknown action: "Close""#),
            ("action=drain&id=a", r#"unknown action: "drain""#),
            ("action=close&nonce=x", which),
            ("action=close&code=1000&reason=x", which),
            ("action=close&limit=1", r#"unknown field: "limit""#),
            ("action=close&id=a&path=%2F", r#"unknown field: "path""#),
            ("action=close&id=a&ID=a", r#"unknown field: "ID""#),
            ("action=close&id=a&", ""),
            ("action=close&id=", "id is empty"),
            ("action=close&user", "user is empty"),
            ("action=close&user=a&client=", r#"client is no IP address: """#),
            ("action=close&older=abc", r#"older is no whole number: "abc""#),
            ("action=close&id=a&idle=-1", r#"idle is no whole number: "-1""#),
            ("action=close&id=a&id=a", "id is there twice"),
            ("action=close&id=a&action=close", "action is there twice"),
            ("action=close&id=a&nonce=x&nonce=y", "nonce is there twice"),
            ("action=close&id=a&code=1000&code=1000", "code is there twice"),
            ("action=close&id=a&reason=&reason=", "reason is there twice"),
            ("action=close&id=a&code=", &format!("{code}: \"\"")),
            ("action=close&id=a&code=1005", &format!("{code}: \"1005\"")),
            ("action=close&id=a&code=01000", &format!("{code}: \"01000\"")),
            ("action=close&id=a&code=+1000", &format!("{code}: \" 1000\"")),
            ("action=close&id=%", r#"% without two hexadecimal digits: "%""#),
        ] {
            let bad = parse(form).err().map(|bad| bad.to_string());
            assert_eq!(bad.unwrap_or_default(), text, "{form}");
        }
    }

    #[test]
    fn forms_are_known_by_their_type() {
        for (content_type, expected) in [
            ("application/x-www-form-urlencoded", true),
            ("Application/X-WWW-Form-URLEncoded ; charset=UTF-8", true),
            ("application/x-www-form-urlencoded2", false),
            ("text/plain", false),
            ("multipart/form-data; boundary=x", false),
            ("", false),
        ] {
            assert_eq!(is_form(content_type.as_bytes()), expected, "{content_type}");
        }
    }
}
