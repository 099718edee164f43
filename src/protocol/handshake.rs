//! What a right `101` is (RFC 6455, section 4.1; RFC 9110, section 7.8).

use std::borrow::Cow;
use std::fmt;
use std::mem::MaybeUninit;

use memchr::memchr_iter;

use crate::head::MAX_FIELDS;
use crate::list::{has_token, members, trim};
use crate::upgrade::WEBSOCKET;

/// What is appended to the key before it is hashed (RFC 6455, section 1.3).
pub const GUID: &[u8] = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11";

/// What the client asked for, against which a `101` is checked.
#[derive(Debug, Clone, Default)]
pub struct Offer {
    /// The token sent on in `Upgrade`.
    pub token: Vec<u8>,
    /// `Sec-WebSocket-Accept` as it must come back: base64(SHA-1(key + GUID)).
    /// `None` if the request had no key.
    pub accept: Option<Vec<u8>>,
    /// `Sec-WebSocket-Protocol`, all lines joined with commas.
    pub protocols: Option<Vec<u8>>,
    /// `Sec-WebSocket-Extensions`, all lines joined with commas.
    pub extensions: Option<Vec<u8>>,
}

impl Offer {
    /// Whether the token is RFC 6455's, so that its rules hold.
    #[must_use]
    pub fn is_websocket(&self) -> bool {
        self.token.eq_ignore_ascii_case(WEBSOCKET)
    }
}

/// Why a `101` is refused: what was expected, and what was seen.
#[derive(Debug, PartialEq, Eq)]
pub struct Wrong101(String);

impl fmt::Display for Wrong101 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "wrong 101: {}", self.0)
    }
}

impl std::error::Error for Wrong101 {}

/// Checks a `101` head that [`crate::head::inspect`] found clean, and returns it
/// without `Content-Length` and `Transfer-Encoding`, which a 1xx must not have
/// (RFC 9110, sections 8.6 and 6.4.1).
///
/// # Errors
/// The first thing wrong with it.
pub fn check<'h>(head: &'h [u8], offer: &Offer) -> Result<Cow<'h, [u8]>, Wrong101> {
    let wrong = |why: String| Err(Wrong101(why));
    if !head.starts_with(b"HTTP/1.1 ") {
        return wrong("its version is HTTP/1.0, expected HTTP/1.1".to_owned());
    }
    if memchr_iter(b'\n', head).any(|at| at == 0 || head[at - 1] != b'\r') {
        return wrong("a line ends with LF alone, expected CRLF".to_owned());
    }
    let mut fields = [const { MaybeUninit::uninit() }; MAX_FIELDS];
    let mut response = httparse::Response::new(&mut []);
    // Folded lines and spaces before a colon are refused by default.
    let parser = httparse::ParserConfig::default();
    let parsed = parser.parse_response_with_uninit_headers(&mut response, head, &mut fields);
    if let Err(error) = parsed {
        return wrong(format!("its header fields are malformed ({error})"));
    }
    let fields = Fields(response.headers);

    let upgrade = fields.joined("Upgrade");
    if !trim(&upgrade).eq_ignore_ascii_case(&offer.token) {
        return wrong(format!(
            "Upgrade is {}, expected {}",
            fields.seen("Upgrade"),
            quoted(&offer.token)
        ));
    }
    if !has_token(&fields.joined("Connection"), b"upgrade") {
        return wrong(format!(
            "Connection is {}, expected it to name \"upgrade\"",
            fields.seen("Connection")
        ));
    }
    if offer.is_websocket() {
        check_websocket(&fields, offer)?;
    }
    let frames = |field: &httparse::Header<'_>| is_framing(field.name.as_bytes());
    Ok(if fields.0.iter().any(frames) { without_framing(head).into() } else { head.into() })
}

/// Whether a header would frame a body.
fn is_framing(name: &[u8]) -> bool {
    name.eq_ignore_ascii_case(b"Content-Length") || name.eq_ignore_ascii_case(b"Transfer-Encoding")
}

/// The rules of RFC 6455, section 4.1, points 4 to 6 of what the client does
/// with the server's response.
fn check_websocket(fields: &Fields, offer: &Offer) -> Result<(), Wrong101> {
    let wrong = |why: String| Err(Wrong101(why));
    let Some(accept) = &offer.accept else {
        return wrong("it answers a request without Sec-WebSocket-Key".to_owned());
    };
    let mut answers = fields.named("Sec-WebSocket-Accept");
    match (answers.next(), answers.next()) {
        (Some(seen), None) if trim(seen) == accept => {}
        _ => {
            return wrong(format!(
                "Sec-WebSocket-Accept is {}, expected {}",
                fields.seen("Sec-WebSocket-Accept"),
                quoted(accept)
            ));
        }
    }

    let offered = offer.protocols.as_deref().unwrap_or_default();
    let mut chosen = fields.named("Sec-WebSocket-Protocol");
    match (chosen.next(), chosen.next()) {
        (None, _) => {}
        (Some(one), None) if members(offered).any(|name| name == trim(one)) => {}
        _ => {
            return wrong(format!(
                "Sec-WebSocket-Protocol is {}, offered were {}",
                fields.seen("Sec-WebSocket-Protocol"),
                quoted(offered)
            ));
        }
    }

    let offered = offer.extensions.as_deref().unwrap_or_default();
    let name = |extension: &[u8]| -> Vec<u8> {
        let name = extension.split(|byte| *byte == b';').next().unwrap_or_default();
        trim(name).to_ascii_lowercase()
    };
    for extension in members(&fields.joined("Sec-WebSocket-Extensions")) {
        if !members(offered).any(|o| name(o) == name(extension)) {
            return wrong(format!(
                "Sec-WebSocket-Extensions has {}, offered were {}",
                quoted(extension),
                quoted(offered)
            ));
        }
    }
    Ok(())
}

/// The head without the lines that would frame a body. Its lines end in CRLF
/// and are not folded: [`check`] saw to that.
fn without_framing(head: &[u8]) -> Vec<u8> {
    let mut kept = Vec::with_capacity(head.len());
    let mut from = 0;
    for at in memchr_iter(b'\n', head) {
        let line = &head[from..=at];
        let name = line.split(|byte| *byte == b':').next().unwrap_or_default();
        if !is_framing(name) {
            kept.extend_from_slice(line);
        }
        from = at + 1;
    }
    kept
}

struct Fields<'h, 'b>(&'h [httparse::Header<'b>]);

impl<'b> Fields<'_, 'b> {
    fn named(&self, name: &str) -> impl Iterator<Item = &'b [u8]> {
        self.0.iter().filter(move |field| field.name.eq_ignore_ascii_case(name)).map(|f| f.value)
    }

    /// All lines of one header as the one list they are (RFC 9110, section 5.3).
    fn joined(&self, name: &str) -> Cow<'b, [u8]> {
        let mut values = self.named(name);
        let first = values.next().unwrap_or_default();
        match values.next() {
            None => first.into(),
            Some(_) => self.named(name).collect::<Vec<_>>().join(&b","[..]).into(),
        }
    }

    /// The header as a message shows it.
    fn seen(&self, name: &str) -> String {
        match self.named(name).next() {
            None => "missing".to_owned(),
            Some(_) => quoted(&self.joined(name)),
        }
    }
}

/// Printable and bounded, for a log line.
fn quoted(value: &[u8]) -> String {
    const MOST: usize = 100;
    let more = if value.len() > MOST { "..." } else { "" };
    format!("\"{}{more}\"", value[..value.len().min(MOST)].escape_ascii())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn offer() -> Offer {
        Offer {
            token: b"WebSocket".to_vec(),
            accept: Some(b"s3pPLMBiTxaQ9kYGzzhZRbK+xOo=".to_vec()),
            protocols: Some(b"chat, superchat".to_vec()),
            extensions: Some(b"permessage-deflate; client_max_window_bits, x-a".to_vec()),
        }
    }

    const RIGHT: &str = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\
        Connection: Upgrade\r\nSec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n";

    fn answer(more: &str) -> Result<String, String> {
        checked(&format!("{RIGHT}{more}\r\n"))
    }

    fn checked(head: &str) -> Result<String, String> {
        check(head.as_bytes(), &offer())
            .map(|head| String::from_utf8(head.into_owned()).unwrap())
            .map_err(|wrong| wrong.to_string())
    }

    #[test]
    fn a_right_101_passes_unchanged() {
        for more in [
            "",
            "Set-Cookie: a=b\r\nSet-Cookie: c=d\r\nX-Custom: y\r\n",
            "Sec-WebSocket-Protocol: superchat\r\n",
            "Sec-WebSocket-Extensions: permessage-deflate; server_no_context_takeover\r\n",
            "Sec-WebSocket-Extensions: X-A\r\nSec-WebSocket-Extensions: permessage-deflate\r\n",
            "Connection: keep-alive\r\n",
        ] {
            assert_eq!(answer(more).unwrap(), format!("{RIGHT}{more}\r\n"));
        }
    }

    #[test]
    fn framing_headers_are_dropped() {
        let more = "Content-Length: 5\r\nX-Content-Length: 1\r\ntransfer-encoding: chunked\r\n";
        assert_eq!(answer(more).unwrap(), format!("{RIGHT}X-Content-Length: 1\r\n\r\n"));
    }

    #[test]
    fn each_fault_is_named() {
        let without = |name: &str| {
            let lines = RIGHT.split_inclusive("\r\n").filter(|line| !line.starts_with(name));
            lines.collect::<String>() + "\r\n"
        };
        let replaced = |from: &str, to: &str| format!("{RIGHT}\r\n").replace(from, to);
        for (head, why) in [
            (replaced("HTTP/1.1", "HTTP/1.0"), "version is HTTP/1.0, expected HTTP/1.1"),
            (without("Upgrade"), "Upgrade is missing, expected \"WebSocket\""),
            (replaced(": websocket", ": h2c"), "Upgrade is \"h2c\", expected \"WebSocket\""),
            (replaced(": websocket", ": websocket, x"), "Upgrade is \"websocket, x\""),
            (without("Connection"), "Connection is missing"),
            (replaced(": Upgrade", ": close"), "Connection is \"close\""),
            (without("Sec-WebSocket-Accept"), "Sec-WebSocket-Accept is missing"),
            (replaced("xOo=", "xOo"), "expected \"s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\""),
            (
                format!("{RIGHT}Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n"),
                "Sec-WebSocket-Accept is \"s3pPLMBiTxaQ9kYGzzhZRbK+xOo=,s3p",
            ),
            (format!("{RIGHT}Sec-WebSocket-Protocol: Chat\r\n\r\n"), "offered were \"chat, su"),
            (
                format!("{RIGHT}Sec-WebSocket-Protocol: chat, superchat\r\n\r\n"),
                "Sec-WebSocket-Protocol is \"chat, superchat\"",
            ),
            (
                format!("{RIGHT}Sec-WebSocket-Extensions: x-b\r\n\r\n"),
                "Sec-WebSocket-Extensions has \"x-b\"",
            ),
            (replaced("Upgrade: websocket\r\n", "Upgrade: websocket\n"), "LF alone"),
            (replaced("Connection: Upgrade", "Connection:\r\n Upgrade"), "malformed"),
            (replaced("Connection: Upgrade", "Connection : Upgrade"), "malformed"),
        ] {
            let seen = checked(&head).expect_err(&head);
            assert!(seen.contains(why), "{seen:?} should contain {why:?}");
        }
    }

    #[test]
    fn without_a_key_no_101_is_right() {
        let keyless = Offer { accept: None, ..offer() };
        let head = format!("{RIGHT}\r\n");
        assert!(check(head.as_bytes(), &keyless).unwrap_err().to_string().contains("without Sec-"));
    }

    #[test]
    fn other_tokens_have_no_websocket_rules() {
        let other = Offer { token: b"foo".to_vec(), ..Offer::default() };
        let head = b"HTTP/1.1 101 x\r\nConnection: upgrade\r\nUpgrade: foo\r\n\r\n";
        assert_eq!(check(head, &other).unwrap().as_ref(), head);
    }

    #[test]
    fn what_a_message_shows_is_printable_and_bounded() {
        let long = [0xff; 300];
        let shown = quoted(&long);
        assert!(shown.is_ascii() && shown.len() < 420 && shown.ends_with("...\""));
    }
}
