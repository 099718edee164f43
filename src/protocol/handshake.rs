//! What a right `101` is (RFC 6455, section 4.1; RFC 9110, section 7.8).

use std::borrow::Cow;
use std::fmt;
use std::mem::MaybeUninit;

use memchr::memchr_iter;
use messages::{
    BareLf, MalformedFields, NoKey, Wrong, WrongAccept, WrongConnection, WrongExtension,
    WrongProtocol, WrongUpgrade, WrongVersion,
};

use crate::extensions::name;
use crate::head::{MAX_FIELDS, any_pair};
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
    /// `Sec-WebSocket-Extensions` as it is sent on, all lines joined with commas.
    pub extensions: Option<Vec<u8>>,
    /// The section says which there may be: whatever the rigour, others must not come back.
    pub extensions_are_ruled: bool,
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
pub struct Wrong101 {
    why: String,
    is_forgivable: bool,
}

impl Wrong101 {
    /// Whether [`Rigour::Lenient`] passes it.
    #[must_use]
    pub fn is_forgivable(&self) -> bool {
        self.is_forgivable
    }
}

impl fmt::Display for Wrong101 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        Wrong { what: &self.why }.fmt(f)
    }
}

impl std::error::Error for Wrong101 {}

/// How much of RFC 6455 a `101` must keep to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Rigour {
    /// All of it.
    #[default]
    Strict,
    /// What is wrong is told, and passes.
    Lenient,
    /// Nobody looks.
    Off,
}

/// A `101` that may pass.
#[derive(Debug, PartialEq, Eq)]
pub struct Right101<'h> {
    /// Its head, as the client is to see it.
    pub head: Cow<'h, [u8]>,
    /// What [`Rigour::Strict`] would have refused it for.
    pub forgiven: Option<Wrong101>,
    /// Its `Sec-WebSocket-Extensions`, all lines joined with commas.
    pub extensions: Cow<'h, [u8]>,
    /// Its `Sec-WebSocket-Protocol`; empty without.
    pub subprotocol: Cow<'h, [u8]>,
}

impl Right101<'_> {
    /// The names of the extensions that the tunnel has.
    pub fn extensions(&self) -> impl Iterator<Item = &[u8]> {
        members(&self.extensions).map(name)
    }
}

/// Checks a `101` head that [`crate::head::inspect`] found clean, and returns it
/// without `Content-Length` and `Transfer-Encoding`, which a 1xx must not have
/// (RFC 9110, sections 8.6 and 6.4.1). `rigour` is about the Sec-WebSocket-* fields alone: the
/// lines, `Upgrade` and `Connection` say whether there is a tunnel at all.
///
/// # Errors
/// The first thing wrong with it.
pub fn check<'h>(head: &'h [u8], offer: &Offer, rigour: Rigour) -> Result<Right101<'h>, Wrong101> {
    let wrong = |why: String| Err(Wrong101 { why, is_forgivable: false });
    if !head.starts_with(b"HTTP/1.1 ") {
        return wrong(WrongVersion.to_string());
    }
    if any_pair(head, |one, next| (one != b'\r') & (next == b'\n')) {
        return wrong(BareLf.to_string());
    }
    let mut fields = [const { MaybeUninit::uninit() }; MAX_FIELDS];
    let mut response = httparse::Response::new(&mut []);
    // Folded lines and spaces before a colon are refused by default.
    let parser = httparse::ParserConfig::default();
    let parsed = parser.parse_response_with_uninit_headers(&mut response, head, &mut fields);
    if let Err(error) = parsed {
        return wrong(MalformedFields { error: &error }.to_string());
    }
    let fields = Fields(response.headers);

    let upgrade = fields.joined("Upgrade");
    if !trim(&upgrade).eq_ignore_ascii_case(&offer.token) {
        let (seen, expected) = (fields.seen("Upgrade"), quoted(&offer.token));
        return wrong(WrongUpgrade { seen: &seen, expected: &expected }.to_string());
    }
    if !has_token(&fields.joined("Connection"), b"upgrade") {
        return wrong(WrongConnection { seen: &fields.seen("Connection") }.to_string());
    }
    if offer.is_websocket() && offer.extensions_are_ruled {
        check_extensions(&fields, offer)
            .map_err(|wrong| Wrong101 { is_forgivable: false, ..wrong })?;
    }
    let forgiven = match rigour {
        _ if !offer.is_websocket() => None,
        Rigour::Strict => check_websocket(&fields, offer).map(|()| None)?,
        Rigour::Lenient => check_websocket(&fields, offer).err(),
        Rigour::Off => None,
    };
    let extensions = fields.joined("Sec-WebSocket-Extensions");
    let subprotocol = fields.joined("Sec-WebSocket-Protocol");
    let frames = |field: &httparse::Header<'_>| is_framing(field.name.as_bytes());
    let head = match fields.0.iter().any(frames) {
        true => without_framing(head).into(),
        false => head.into(),
    };
    Ok(Right101 { head, forgiven, extensions, subprotocol })
}

/// Whether a header would frame a body.
fn is_framing(name: &[u8]) -> bool {
    name.eq_ignore_ascii_case(b"Content-Length") || name.eq_ignore_ascii_case(b"Transfer-Encoding")
}

/// The rules of RFC 6455, section 4.1, points 4 to 6 of what the client does
/// with the server's response.
fn check_websocket(fields: &Fields, offer: &Offer) -> Result<(), Wrong101> {
    let wrong = |why: String| Err(Wrong101 { why, is_forgivable: true });
    let Some(accept) = &offer.accept else {
        return wrong(NoKey.to_string());
    };
    let mut answers = fields.named("Sec-WebSocket-Accept");
    match (answers.next(), answers.next()) {
        (Some(seen), None) if trim(seen) == accept => {}
        _ => {
            let (seen, expected) = (fields.seen("Sec-WebSocket-Accept"), quoted(accept));
            return wrong(WrongAccept { seen: &seen, expected: &expected }.to_string());
        }
    }

    let offered = offer.protocols.as_deref().unwrap_or_default();
    // An empty field chooses nothing, as none does: back ends that copy the client's offer send it.
    let mut chosen =
        fields.named("Sec-WebSocket-Protocol").filter(|value| members(value).next().is_some());
    match (chosen.next(), chosen.next()) {
        (None, _) => {}
        (Some(one), None) if members(offered).any(|name| name == trim(one)) => {}
        _ => {
            let (seen, offered) = (fields.seen("Sec-WebSocket-Protocol"), quoted(offered));
            return wrong(WrongProtocol { seen: &seen, offered: &offered }.to_string());
        }
    }

    check_extensions(fields, offer)
}

/// The last of them: each extension must have been offered.
fn check_extensions(fields: &Fields, offer: &Offer) -> Result<(), Wrong101> {
    let offered = offer.extensions.as_deref().unwrap_or_default();
    for extension in members(&fields.joined("Sec-WebSocket-Extensions")) {
        if !members(offered).any(|o| name(o).eq_ignore_ascii_case(name(extension))) {
            let (seen, offered) = (quoted(extension), quoted(offered));
            let why = WrongExtension { seen: &seen, offered: &offered }.to_string();
            return Err(Wrong101 { why, is_forgivable: true });
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
            extensions_are_ruled: false,
        }
    }

    const RIGHT: &str = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\
        Connection: Upgrade\r\nSec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n";

    fn answer(more: &str) -> Result<String, String> {
        checked(&format!("{RIGHT}{more}\r\n"))
    }

    fn checked(head: &str) -> Result<String, String> {
        check(head.as_bytes(), &offer(), Rigour::Strict)
            .map(|right| String::from_utf8(right.head.into_owned()).unwrap())
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
    fn what_was_agreed_on_is_told() {
        let agreed = |more: &str| {
            let head = format!("{RIGHT}{more}\r\n");
            let right = check(head.as_bytes(), &offer(), Rigour::Strict).expect("it is right");
            let extensions: Vec<_> = right.extensions().map(<[u8]>::to_vec).collect();
            (extensions, right.subprotocol.into_owned())
        };
        assert_eq!(agreed(""), (vec![], vec![]));
        let more = "Sec-WebSocket-Extensions: X-A; b=c,permessage-deflate\r\n\
            Sec-WebSocket-Extensions: x-a\r\nSec-WebSocket-Protocol: chat\r\n";
        let names = [&b"X-A"[..], b"permessage-deflate", b"x-a"].map(<[u8]>::to_vec);
        assert_eq!(agreed(more), (names.to_vec(), b"chat".to_vec()));
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
        let wrong = check(head.as_bytes(), &keyless, Rigour::Strict).unwrap_err();
        assert!(wrong.to_string().contains("without Sec-"));
    }

    #[test]
    fn lenient_passes_what_strict_refuses_and_tells_it() {
        let keyless = Offer { accept: None, ..offer() };
        let bare = "HTTP/1.1 101 x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n";
        let odd = format!("{RIGHT}Sec-WebSocket-Protocol: CHAT\r\n\r\n");
        let more = format!("{RIGHT}Sec-WebSocket-Extensions: x-b\r\n\r\n");
        for (head, offer) in
            [(bare, keyless), (bare, offer()), (odd.as_str(), offer()), (more.as_str(), offer())]
        {
            let head = head.as_bytes();
            let strict = check(head, &offer, Rigour::Strict).unwrap_err();
            assert!(strict.is_forgivable());
            let lenient = check(head, &offer, Rigour::Lenient).unwrap();
            assert_eq!((lenient.head.as_ref(), lenient.forgiven), (head, Some(strict)));
            let off = check(head, &offer, Rigour::Off).unwrap();
            assert_eq!((off.head.as_ref(), off.forgiven), (head, None));
        }
    }

    #[test]
    fn nobody_passes_an_extension_that_the_section_left_out() {
        let ruled = Offer { extensions: None, extensions_are_ruled: true, ..offer() };
        let odd = format!("{RIGHT}Sec-WebSocket-Extensions: permessage-deflate\r\n\r\n");
        for rigour in [Rigour::Strict, Rigour::Lenient, Rigour::Off] {
            let wrong = check(odd.as_bytes(), &ruled, rigour).unwrap_err();
            assert!(!wrong.is_forgivable());
            assert!(check(format!("{RIGHT}\r\n").as_bytes(), &ruled, rigour).is_ok());
        }
    }

    #[test]
    fn a_right_101_has_nothing_to_forgive() {
        let head = format!("{RIGHT}\r\n");
        let right = check(head.as_bytes(), &offer(), Rigour::Lenient).unwrap();
        assert_eq!(right.forgiven, None);
    }

    #[test]
    fn nobody_passes_what_is_no_tunnel() {
        for rigour in [Rigour::Strict, Rigour::Lenient, Rigour::Off] {
            for (from, to) in [
                (": websocket", ": h2c"),
                ("Connection: Upgrade", "Connection: close"),
                ("HTTP/1.1", "HTTP/1.0"),
                ("Connection: Upgrade\r\n", "Connection: Upgrade\n"),
                ("Connection: Upgrade", "Connection:\r\n Upgrade"),
            ] {
                let head = format!("{RIGHT}\r\n").replace(from, to);
                let wrong = check(head.as_bytes(), &offer(), rigour).expect_err(&head);
                assert!(!wrong.is_forgivable());
            }
        }
    }

    #[test]
    fn an_empty_subprotocol_is_none() {
        let none = Offer { protocols: None, ..offer() };
        let empty = Offer { protocols: Some(Vec::new()), ..offer() };
        for offer in [offer(), none, empty] {
            for value in ["", "  ", ",", " , "] {
                let head = format!("{RIGHT}Sec-WebSocket-Protocol:{value}\r\n\r\n");
                let right = check(head.as_bytes(), &offer, Rigour::Strict).unwrap();
                assert_eq!(right.head.as_ref(), head.as_bytes());
            }
        }
    }

    #[test]
    fn other_tokens_have_no_websocket_rules() {
        let other = Offer { token: b"foo".to_vec(), ..Offer::default() };
        let head = b"HTTP/1.1 101 x\r\nConnection: upgrade\r\nUpgrade: foo\r\n\r\n";
        assert_eq!(check(head, &other, Rigour::Strict).unwrap().head.as_ref(), head);
    }

    #[test]
    fn what_a_message_shows_is_printable_and_bounded() {
        let long = [0xff; 300];
        let shown = quoted(&long);
        assert!(shown.is_ascii() && shown.len() < 420 && shown.ends_with("...\""));
        let whole = [b'x'; 100];
        assert_eq!(quoted(&whole).len(), whole.len() + 2);
    }
}
