//! What is a right `101`, and what of it a client sees. Against a reading by lines.

use std::borrow::Cow;

use protocol::handshake::{Offer, Rigour, check};
use protocol::head::{Scanner, inspect};

use crate::input;
use crate::rules::{is_token, list, same, stripped};

/// A byte of flags, the four texts of an offer that end in NUL, then a head.
pub fn run(mut data: &[u8]) {
    let flags = input::byte(&mut data);
    let [token, accept, protocols, extensions] = [0; 4].map(|_| input::text(&mut data).to_vec());
    let given = |bit: u8, value| (flags & bit != 0).then_some(value);
    let offer = Offer {
        token,
        accept: given(1, accept),
        protocols: given(2, protocols),
        extensions: given(4, extensions),
        extensions_are_ruled: false,
    };
    let head = data;
    let is_clean = Scanner::default().end(head) == Ok(Some(head.len())) && inspect(head).is_ok();
    let expected = expected(head, &offer);
    for rigour in [Rigour::Strict, Rigour::Lenient, Rigour::Off] {
        let found = check(head, &offer, rigour);
        let told = match &found {
            Ok(right) => right.forgiven.as_ref(),
            Err(wrong) => Some(wrong),
        };
        if let Some(wrong) = told {
            // Into the log, and into a status line.
            let text = wrong.to_string();
            let is_plain = text.bytes().all(|byte| (b' '..=b'~').contains(&byte));
            assert!(is_plain && text.len() < 1500, "{text:?}");
        }
        // What was not found clean is not shown to it; it does not panic over it all the same.
        if !is_clean {
            continue;
        }
        let is_off = rigour == Rigour::Off || !same(&offer.token, b"websocket");
        match (&expected, found) {
            (None, Err(wrong)) => assert!(!wrong.is_forgivable(), "{wrong}"),
            (Some(right), Ok(passed)) => {
                let forgives = rigour == Rigour::Lenient && !is_off && !right.is_right;
                assert!(right.is_right || is_off || forgives, "{rigour:?} passes it");
                assert_eq!(passed.forgiven.is_some(), forgives);
                assert_eq!(passed.head, right.head);
                // What is nobody's to change is not copied.
                assert_eq!(matches!(passed.head, Cow::Borrowed(_)), passed.head == head);
                let again =
                    check(&passed.head, &offer, rigour).map(|again| again.head.into_owned());
                assert_eq!(again.as_deref(), Ok(&*right.head), "it is right still");
            }
            (Some(right), Err(wrong)) => {
                assert!(!right.is_right && rigour == Rigour::Strict && !is_off, "{wrong}");
                assert!(wrong.is_forgivable());
            }
            (None, Ok(_)) => panic!("{rigour:?} passes what is no tunnel"),
        }
    }
}

/// A `101` that makes a tunnel.
struct Expected {
    /// Its head, as the client is to see it.
    head: Vec<u8>,
    /// Whether it keeps to RFC 6455.
    is_right: bool,
}

/// What the RFCs say, none where there is no tunnel.
fn expected(head: &[u8], offer: &Offer) -> Option<Expected> {
    let text = head.strip_suffix(b"\r\n\r\n")?;
    let lines = split(text, b"\r\n");
    let (status_line, lines) = lines.split_first()?;
    if !status_line.starts_with(b"HTTP/1.1 ") || status_line.contains(&b'\n') {
        return None;
    }
    let mut fields: Vec<(Vec<u8>, &[u8])> = Vec::new();
    let mut shown = [status_line, &b"\r\n"[..]].concat();
    for line in lines {
        // RFC 9112, section 5: no space before the colon, no folding.
        let colon = line.iter().position(|byte| *byte == b':')?;
        let (name, value) = (&line[..colon], &line[colon + 1..]);
        let is_value = |byte: &u8| matches!(byte, b'\t' | b' '..=b'~' | 0x80..);
        if !is_token(name) || !value.iter().all(is_value) {
            return None;
        }
        let name = name.to_ascii_lowercase();
        if name != b"content-length" && name != b"transfer-encoding" {
            shown.extend_from_slice(line);
            shown.extend_from_slice(b"\r\n");
        }
        fields.push((name, stripped(value)));
    }
    shown.extend_from_slice(b"\r\n");
    let values = |name: &str| -> Vec<&[u8]> {
        fields.iter().filter(|(n, _)| n == name.as_bytes()).map(|(_, value)| *value).collect()
    };
    let listed = |name: &str| -> Vec<Vec<u8>> {
        values(name).into_iter().flat_map(|value| list(value)).map(<[u8]>::to_vec).collect()
    };
    // RFC 9110, section 7.8: one line, one token, the one that was sent.
    let [upgrade] = values("upgrade")[..] else { return None };
    if !same(upgrade, &offer.token)
        || !listed("connection").iter().any(|member| same(member, b"upgrade"))
    {
        return None;
    }

    let accepted = match (&offer.accept, &values("sec-websocket-accept")[..]) {
        (Some(wanted), [seen]) => wanted == seen,
        _ => false,
    };
    let offered = list(offer.protocols.as_deref().unwrap_or_default());
    let chosen: Vec<&[u8]> = values("sec-websocket-protocol")
        .into_iter()
        .filter(|value| !list(value).is_empty())
        .collect();
    let chooses = chosen.len() <= 1 && chosen.iter().all(|one| offered.contains(one));
    let name = |extension: &[u8]| -> Vec<u8> {
        let end = extension.iter().position(|byte| *byte == b';').unwrap_or(extension.len());
        stripped(&extension[..end]).to_ascii_lowercase()
    };
    let offered = list(offer.extensions.as_deref().unwrap_or_default());
    let extends = listed("sec-websocket-extensions")
        .iter()
        .all(|one| offered.iter().any(|other| name(other) == name(one)));
    Some(Expected { head: shown, is_right: accepted && chooses && extends })
}

fn split<'a>(text: &'a [u8], by: &[u8]) -> Vec<&'a [u8]> {
    let mut parts = Vec::new();
    let mut rest = text;
    while let Some(at) = rest.windows(by.len()).position(|window| window == by) {
        parts.push(&rest[..at]);
        rest = &rest[at + by.len()..];
    }
    parts.push(rest);
    parts
}
