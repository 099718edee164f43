//! What is taken for an upgrade request, and comma-separated lists. Against the rules as sentences.

use protocol::list::{has_token, members, trim};
use protocol::upgrade::{NotUpgrade, Request, decide, is_handshake_header, is_protocol};

use crate::input;
use crate::rules::{is_token, list, same, stripped};

/// A byte of flags, then six texts that end in NUL.
pub fn run(mut data: &[u8]) {
    let flags = input::byte(&mut data);
    let [connection, upgrade, length, encoding, allowed, name] =
        [0; 6].map(|_| input::text(&mut data));
    let given = |bit: u8, value| (flags & bit != 0).then_some(value);
    let request = Request {
        is_get: flags & 1 != 0,
        is_http_1_1: flags & 2 != 0,
        connection: given(4, connection),
        upgrade: given(8, upgrade),
        content_length: given(16, length),
        transfer_encoding: given(32, encoding),
    };
    // The configuration holds nothing else.
    let names: Vec<&[u8]> =
        allowed.split(u8::is_ascii_whitespace).filter(|name| is_protocol(name)).collect();
    let allowed = if names.is_empty() { b"websocket".to_vec() } else { names.join(&b' ') };

    let found = decide(&request, &allowed);
    assert_eq!(found, expected(&request, &allowed), "{request:?}, allowed {allowed:?}");
    if let Ok(token) = found {
        // It is sent on as it is.
        assert!(is_protocol(token));
        assert!(upgrade.as_ptr_range().contains(&token.as_ptr()));
    }

    for value in [connection, upgrade, name] {
        let expected = list(value);
        assert_eq!(members(value).collect::<Vec<_>>(), expected);
        assert_eq!(trim(value), stripped(value));
        let expected = expected.iter().any(|member| same(member, name));
        // A token has no comma, no space, and is not empty.
        if is_token(name) {
            assert_eq!(has_token(value, name), expected);
        }
    }
    let parts: Vec<&[u8]> = name.split(|byte| *byte == b'/').collect();
    assert_eq!(is_protocol(name), parts.len() <= 2 && parts.iter().all(|part| is_token(part)));
    let lower = String::from_utf8_lossy(name).to_ascii_lowercase();
    let stays = lower == "host" || lower == "origin" || lower.starts_with("sec-websocket-");
    assert_eq!(is_handshake_header(name), stays);
}

/// RFC 9110, sections 7.6.1 and 7.8, and RFC 6455, section 4.1.
fn expected<'a>(request: &Request<'a>, allowed: &[u8]) -> Result<&'a [u8], NotUpgrade> {
    let Some(upgrade) = request.upgrade else { return Err(NotUpgrade::NotAsked) };
    if !request.is_http_1_1 {
        return Err(NotUpgrade::Version);
    }
    let connection = request.connection.map(list).unwrap_or_default();
    if !connection.iter().any(|member| same(member, b"upgrade")) {
        return Err(NotUpgrade::Connection);
    }
    let has_body = request.transfer_encoding.is_some()
        || request.content_length.is_some_and(|length| {
            let length = String::from_utf8_lossy(stripped(length)).into_owned();
            length.is_empty() || length.chars().any(|digit| digit != '0')
        });
    let mut why = NotUpgrade::Token;
    for token in list(upgrade) {
        if !allowed.split(|byte| *byte == b' ').any(|name| same(name, token)) {
            continue;
        }
        if same(token, b"websocket") && !request.is_get {
            why = NotUpgrade::Method;
        } else if same(token, b"websocket") && has_body {
            why = NotUpgrade::Body;
        } else {
            return Ok(token);
        }
    }
    Err(why)
}
