//! What counts as an upgrade request (RFC 9110, sections 7.6.1 and 7.8;
//! RFC 6455, section 4.2.1).

use std::fmt;

use messages::{HasBody, NotGet, NotInConnection, NotInProtocols, TooOldForUpgrade};

use crate::list::{has_token, members, trim};

/// The Upgrade token of RFC 6455.
pub const WEBSOCKET: &[u8] = b"websocket";

/// What the decision looks at, in the client's request as the server's header
/// directives left it. Repeated headers are joined with commas.
#[derive(Debug, Clone, Copy, Default)]
pub struct Request<'a> {
    /// The method is GET.
    pub is_get: bool,
    /// HTTP/1.1 or later (1.0 has no Upgrade, RFC 9110, section 7.8).
    pub is_http_1_1: bool,
    /// Connection.
    pub connection: Option<&'a [u8]>,
    /// Upgrade.
    pub upgrade: Option<&'a [u8]>,
    /// Content-Length.
    pub content_length: Option<&'a [u8]>,
    /// Transfer-Encoding.
    pub transfer_encoding: Option<&'a [u8]>,
}

impl Request<'_> {
    /// Whether there is a body, however short, or something that could be one.
    #[must_use]
    pub fn has_body(&self) -> bool {
        let empty = |length: &[u8]| {
            let length = trim(length);
            !length.is_empty() && length.iter().all(|digit| *digit == b'0')
        };
        self.transfer_encoding.is_some() || self.content_length.is_some_and(|l| !empty(l))
    }
}

/// Why a request is not taken as an upgrade request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NotUpgrade {
    /// No Upgrade header: an ordinary request.
    NotAsked,
    /// HTTP/1.0 or older.
    Version,
    /// `Connection` does not name `upgrade`.
    Connection,
    /// No token in `Upgrade` is allowed here.
    Token,
    /// WebSocket by another method than GET.
    Method,
    /// WebSocket with a body.
    Body,
}

impl NotUpgrade {
    /// Whether nobody may switch protocols for such a request (RFC 9110, section 7.8): an
    /// HTTP/1.0 client could not be told, and an Upgrade that `Connection` does not name was
    /// passed on by something that does not know that a tunnel may follow.
    #[must_use]
    pub fn is_for_nobody(self) -> bool {
        matches!(self, Self::Version | Self::Connection)
    }
}

impl fmt::Display for NotUpgrade {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            // Never logged: it is an ordinary request.
            Self::NotAsked => f.write_str("it has no Upgrade header"),
            Self::Version => TooOldForUpgrade.fmt(f),
            Self::Connection => NotInConnection.fmt(f),
            Self::Token => NotInProtocols.fmt(f),
            Self::Method => NotGet.fmt(f),
            Self::Body => HasBody.fmt(f),
        }
    }
}

/// The one Upgrade token that goes on to the back end, as the client spelt it:
/// the first in the client's order of preference that `allowed` (a list split
/// at white space) holds. WebSocket is a GET without a body (RFC 6455, section 4.1); other
/// protocols have their own rules (`docker exec` posts JSON).
///
/// # Errors
/// Why the request is not to be upgraded.
pub fn decide<'a>(request: &Request<'a>, allowed: &[u8]) -> Result<&'a [u8], NotUpgrade> {
    let upgrade = request.upgrade.ok_or(NotUpgrade::NotAsked)?;
    if !request.is_http_1_1 {
        return Err(NotUpgrade::Version);
    }
    if !request.connection.is_some_and(|list| has_token(list, b"upgrade")) {
        return Err(NotUpgrade::Connection);
    }
    let fits = |token: &[u8]| match () {
        () if !token.eq_ignore_ascii_case(WEBSOCKET) => Ok(()),
        () if !request.is_get => Err(NotUpgrade::Method),
        () if request.has_body() => Err(NotUpgrade::Body),
        () => Ok(()),
    };
    // As it nearly always is: one token, and the only one allowed.
    if upgrade.eq_ignore_ascii_case(allowed) && !allowed.iter().any(u8::is_ascii_whitespace) {
        return fits(upgrade).map(|()| upgrade);
    }
    let mut why = NotUpgrade::Token;
    for token in members(upgrade) {
        if allowed.split(u8::is_ascii_whitespace).any(|name| name.eq_ignore_ascii_case(token)) {
            match fits(token) {
                Ok(()) => return Ok(token),
                Err(unfit) => why = unfit,
            }
        }
    }
    Err(why)
}

/// Whether a header must stay although the client's `Connection` names it.
///
/// RFC 9110, section 7.6.1 has a proxy remove the headers named there. An odd
/// client that names the handshake's own headers would only break its own
/// handshake: they are end-to-end by RFC 6455, so they stay.
#[must_use]
pub fn is_handshake_header(name: &[u8]) -> bool {
    const PREFIX: &[u8] = b"sec-websocket-";
    name.eq_ignore_ascii_case(b"host")
        || name.eq_ignore_ascii_case(b"origin")
        || name.get(..PREFIX.len()).is_some_and(|head| head.eq_ignore_ascii_case(PREFIX))
}

/// Whether `token` can be an Upgrade protocol name of this module:
/// `token ["/" token]` (RFC 9110, section 7.8).
#[must_use]
pub fn is_protocol(name: &[u8]) -> bool {
    let mut parts = name.split(|byte| *byte == b'/');
    parts.by_ref().take(2).all(is_token) && parts.next().is_none()
}

/// RFC 9110, section 5.6.2.
pub(crate) fn is_token(text: &[u8]) -> bool {
    !text.is_empty() && text.iter().all(is_tchar)
}

/// As above.
fn is_tchar(byte: &u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(byte)
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    const ASKING: Request = Request {
        is_get: true,
        is_http_1_1: true,
        connection: Some(b"Upgrade"),
        upgrade: Some(b"websocket"),
        content_length: None,
        transfer_encoding: None,
    };

    #[test]
    fn a_websocket_handshake_is_upgraded_as_spelt() {
        assert_eq!(decide(&ASKING, WEBSOCKET), Ok(&b"websocket"[..]));
        let odd = Request {
            upgrade: Some(b"WebSocket"),
            connection: Some(b"keep-alive ,\tuPGRADE"),
            content_length: Some(b"0"),
            ..ASKING
        };
        assert_eq!(decide(&odd, WEBSOCKET), Ok(&b"WebSocket"[..]));
    }

    #[test]
    fn of_several_tokens_the_first_allowed_one_goes_on() {
        let with = |value| Request { upgrade: Some(value), ..ASKING };
        assert_eq!(decide(&with(b"websocket, h2c"), WEBSOCKET), Ok(&b"websocket"[..]));
        assert_eq!(decide(&with(b"h2c, websocket"), WEBSOCKET), Ok(&b"websocket"[..]));
        assert_eq!(decide(&with(b"foo, websocket"), b"websocket foo"), Ok(&b"foo"[..]));
        assert_eq!(decide(&with(b"websocket foo"), b"websocket foo"), Err(NotUpgrade::Token));
        for value in ["websocketx", "websocket/13", "h2c", "TLS/1.0", "", ","] {
            assert_eq!(
                decide(&with(value.as_bytes()), WEBSOCKET),
                Err(NotUpgrade::Token),
                "{value}"
            );
        }
    }

    #[test]
    fn each_missing_condition_is_named() {
        let cases = [
            (Request { upgrade: None, ..ASKING }, NotUpgrade::NotAsked),
            (Request { is_get: false, ..ASKING }, NotUpgrade::Method),
            (Request { is_http_1_1: false, ..ASKING }, NotUpgrade::Version),
            (Request { connection: None, ..ASKING }, NotUpgrade::Connection),
            (Request { connection: Some(b"NoUpgradePlease"), ..ASKING }, NotUpgrade::Connection),
            (Request { content_length: Some(b"5"), ..ASKING }, NotUpgrade::Body),
            (Request { content_length: Some(b""), ..ASKING }, NotUpgrade::Body),
            (Request { content_length: Some(b"-0"), ..ASKING }, NotUpgrade::Body),
            (Request { content_length: Some(b"0, 0"), ..ASKING }, NotUpgrade::Body),
            (Request { transfer_encoding: Some(b"chunked"), ..ASKING }, NotUpgrade::Body),
            (
                Request {
                    transfer_encoding: Some(b"chunked"),
                    content_length: Some(b"0"),
                    ..ASKING
                },
                NotUpgrade::Body,
            ),
        ];
        for (request, why) in cases {
            assert_eq!(decide(&request, WEBSOCKET), Err(why), "{request:?}");
        }
    }

    #[test]
    fn each_reason_has_words_of_its_own() {
        let all = [
            NotUpgrade::NotAsked,
            NotUpgrade::Version,
            NotUpgrade::Connection,
            NotUpgrade::Token,
            NotUpgrade::Method,
            NotUpgrade::Body,
        ];
        let texts: HashSet<_> = all.iter().map(NotUpgrade::to_string).collect();
        assert!(texts.len() == all.len() && !texts.contains(""), "{texts:?}");
        // Of these, nobody else may make an upgrade.
        let for_nobody = all.map(NotUpgrade::is_for_nobody);
        assert_eq!(for_nobody, [false, true, true, false, false, false]);
    }

    #[test]
    fn other_protocols_take_any_method_and_a_body() {
        let post =
            Request { is_get: false, upgrade: Some(b"tcp"), content_length: Some(b"5"), ..ASKING };
        assert_eq!(decide(&post, b"tcp"), Ok(&b"tcp"[..]));
        assert_eq!(decide(&post, b"websocket tcp"), Ok(&b"tcp"[..]));
        assert_eq!(decide(&post, WEBSOCKET), Err(NotUpgrade::Token));
        let both = Request { upgrade: Some(b"websocket, tcp"), ..post };
        assert_eq!(decide(&both, b"websocket tcp"), Ok(&b"tcp"[..]));
        assert_eq!(decide(&both, WEBSOCKET), Err(NotUpgrade::Method));
        let old = Request { is_http_1_1: false, ..post };
        assert_eq!(decide(&old, b"tcp"), Err(NotUpgrade::Version));
        assert_eq!(
            decide(&Request { connection: None, ..post }, b"tcp"),
            Err(NotUpgrade::Connection)
        );
    }

    #[test]
    fn handshake_headers_survive_connection() {
        for name in ["Sec-WebSocket-Key", "sec-websocket-protocol", "HOST", "Origin"] {
            assert!(is_handshake_header(name.as_bytes()), "{name}");
        }
        for name in ["Referer", "Sec-WebSocket", "Cookie", "X-Sec-WebSocket-Key"] {
            assert!(!is_handshake_header(name.as_bytes()), "{name}");
        }
    }

    #[test]
    fn protocol_names() {
        for name in ["websocket", "foo/2", "x!y"] {
            assert!(is_protocol(name.as_bytes()), "{name}");
        }
        for name in ["", "/", "a/", "/a", "a/b/c", "a b", "a,b", "a\u{e9}"] {
            assert!(!is_protocol(name.as_bytes()), "{name}");
        }
    }
}
