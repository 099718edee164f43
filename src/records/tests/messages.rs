//! Handshake messages and alerts of a peer within a session, right and wrong.

mod common;

use common::SUITES;
use common::pair::{ALERT, DATA, HANDSHAKE, Pair, ROLES, TLS12, TLS13, VERSIONS, message};
use records::{Alert, Content, Role};

const KEY_UPDATE: [u8; 5] = [24, 0, 0, 1, 0];
const KEY_UPDATE_ASKING: [u8; 5] = [24, 0, 0, 1, 1];
const CLIENT_HELLO: u8 = 1;
const HELLO_REQUEST: [u8; 4] = [0; 4];
const TICKET: u8 = 4;

/// RFC 8446 4.6.3.
#[test]
fn keys_change() {
    for suite in SUITES {
        for role in ROLES {
            let mut pair = Pair::of(TLS13, suite, role);
            for (update, answer) in [(KEY_UPDATE, false), (KEY_UPDATE_ASKING, true)].repeat(100) {
                assert_eq!(pair.give(HANDSHAKE, &update), Ok(Content::KeyUpdate { answer }));
                pair.peer.update();
            }
            pair.give_data(b"new keys");
        }
    }
}

#[test]
fn old_keys_are_gone() {
    let mut pair = Pair::new(TLS13, Role::Client);
    assert_eq!(pair.give(HANDSHAKE, &KEY_UPDATE), Ok(Content::KeyUpdate { answer: false }));
    pair.refuses(DATA, b"old", Alert::BAD_RECORD_MAC, "TLS record that does not decrypt");
}

#[test]
fn a_wrong_key_update_is_refused() {
    for role in ROLES {
        let value = "TLS KeyUpdate with an unknown value";
        let pair = || Pair::new(TLS13, role);
        for wrong in [2, 3, 128, 255] {
            let update = message(24, &[wrong]);
            pair().refuses(HANDSHAKE, &update, Alert::ILLEGAL_PARAMETER, value);
        }
        let length = "TLS handshake message of a wrong length";
        for body in [&[][..], &[0, 0], &[0; 200]] {
            let update = message(24, body);
            pair().refuses(HANDSHAKE, &update, Alert::DECODE_ERROR, length);
        }
        // RFC 8446 5.1: the keys change behind it.
        let behind = "TLS handshake message behind a KeyUpdate in one record";
        let twice = [KEY_UPDATE, KEY_UPDATE].concat();
        pair().refuses(HANDSHAKE, &twice, Alert::UNEXPECTED_MESSAGE, behind);
        let more = [&KEY_UPDATE[..], &[24]].concat();
        pair().refuses(HANDSHAKE, &more, Alert::UNEXPECTED_MESSAGE, behind);
    }
}

#[test]
fn a_key_update_comes_in_pieces() {
    for cut in 1..5 {
        for role in ROLES {
            let mut pair = Pair::new(TLS13, role);
            let (front, rest) = KEY_UPDATE_ASKING.split_at(cut);
            assert_eq!(pair.give(HANDSHAKE, front), Ok(Content::Nothing));
            assert_eq!(pair.give(HANDSHAKE, rest), Ok(Content::KeyUpdate { answer: true }));
            pair.peer.update();
            pair.give_data(b"new keys");
        }
    }
    let mut pair = Pair::new(TLS13, Role::Server);
    for byte in &KEY_UPDATE[..4] {
        assert_eq!(pair.give(HANDSHAKE, &[*byte]), Ok(Content::Nothing));
    }
    assert_eq!(pair.give(HANDSHAKE, &[0]), Ok(Content::KeyUpdate { answer: false }));
}

/// RFC 8446 5.1.
#[test]
fn nothing_comes_within_a_message() {
    for cut in 1..5 {
        for (kind, text) in [(DATA, &b"text"[..]), (DATA, b""), (ALERT, &[1, 0]), (ALERT, &[2, 40])]
        {
            let mut pair = Pair::new(TLS13, Role::Client);
            assert_eq!(pair.give(HANDSHAKE, &KEY_UPDATE[..cut]), Ok(Content::Nothing));
            let why = "other TLS record within a handshake message";
            pair.refuses(kind, text, Alert::UNEXPECTED_MESSAGE, why);
        }
    }
}

/// RFC 5246 6.2.1: other types may come between.
#[test]
fn tls_1_2_has_data_within_a_message() {
    let mut pair = Pair::new(TLS12, Role::Server);
    let hello = message(CLIENT_HELLO, &[7; 300]);
    for part in hello[..303].chunks(50) {
        assert_eq!(pair.give(HANDSHAKE, part), Ok(Content::Nothing));
        pair.give_data(b"between");
    }
    assert_eq!(pair.give(HANDSHAKE, &hello[303..]), Ok(Content::Renegotiation));
    let mut pair = Pair::new(TLS12, Role::Server);
    assert_eq!(pair.give(HANDSHAKE, &hello[..303]), Ok(Content::Nothing));
    assert_eq!(pair.give(HANDSHAKE, &hello[303..]), Ok(Content::Renegotiation));
}

/// RFC 8446 4.6.1.
#[test]
fn tickets_are_for_clients_and_ignored() {
    for size in [0, 1, 200, 16_000, 100_000, 131_337] {
        let mut pair = Pair::new(TLS13, Role::Client);
        let tickets = [message(TICKET, &vec![5; size]), message(TICKET, &[6])].concat();
        for part in tickets.chunks(16_384) {
            assert_eq!(pair.give(HANDSHAKE, part), Ok(Content::Nothing));
        }
        pair.give_data(b"behind");
        // One record has the end of a message, a whole one, and a KeyUpdate.
        assert_eq!(pair.give(HANDSHAKE, &tickets[..2]), Ok(Content::Nothing));
        let rest = [&tickets[2..], &KEY_UPDATE].concat();
        for (at, part) in rest.chunks(16_384).enumerate() {
            let is_last = at == (rest.len() - 1) / 16_384;
            let expected =
                if is_last { Content::KeyUpdate { answer: false } } else { Content::Nothing };
            assert_eq!(pair.give(HANDSHAKE, part), Ok(expected));
        }
        pair.peer.update();
        pair.give_data(b"behind");
    }
    let unexpected = "unexpected TLS handshake message";
    let pair = Pair::new(TLS13, Role::Server);
    pair.refuses(HANDSHAKE, &[TICKET], Alert::UNEXPECTED_MESSAGE, unexpected);
    let (pair, length) =
        (Pair::new(TLS13, Role::Client), "TLS handshake message of a wrong length");
    pair.refuses(HANDSHAKE, &[TICKET, 2, 1, 0x0a], Alert::DECODE_ERROR, length);
}

/// A message is refused by its first byte. So is CertificateRequest (13), whose answer needs the
/// transcript of the handshake (RFC 8446 4.4.1).
#[test]
fn other_messages_are_refused() {
    for version in VERSIONS {
        for role in ROLES {
            for kind in 0..=255 {
                let is_right = match (version, role) {
                    (TLS13, Role::Client) => kind == 24 || kind == TICKET,
                    (TLS13, Role::Server) => kind == 24,
                    (TLS12, Role::Client) => kind == 0,
                    (TLS12, Role::Server) => kind == CLIENT_HELLO,
                };
                let mut pair = Pair::new(version, role);
                if is_right {
                    assert_eq!(pair.give(HANDSHAKE, &[kind]), Ok(Content::Nothing));
                } else {
                    let why = "unexpected TLS handshake message";
                    pair.refuses(HANDSHAKE, &[kind], Alert::UNEXPECTED_MESSAGE, why);
                }
            }
        }
    }
}

/// RFC 5246 7.2.2, 7.4.1.1.
#[test]
fn renegotiation_is_refused_a_few_times() {
    for (role, asks) in
        [(Role::Client, HELLO_REQUEST.to_vec()), (Role::Server, message(CLIENT_HELLO, &[3; 90]))]
    {
        let mut pair = Pair::new(TLS12, role);
        for _ in 0..2 {
            for _ in 0..4 {
                assert_eq!(pair.give(HANDSHAKE, &asks), Ok(Content::Renegotiation));
            }
            pair.give_data(b"data");
        }
        // Those of one record count as one.
        assert_eq!(pair.give(HANDSHAKE, &asks.repeat(9)), Ok(Content::Renegotiation));
        for _ in 0..3 {
            assert_eq!(pair.give(HANDSHAKE, &asks), Ok(Content::Renegotiation));
        }
        let why = "too many attempts at TLS renegotiation";
        pair.refuses(HANDSHAKE, &asks, Alert::UNEXPECTED_MESSAGE, why);
    }
    let length = "TLS handshake message of a wrong length";
    let pair = Pair::new(TLS12, Role::Client);
    pair.refuses(HANDSHAKE, &message(0, &[0]), Alert::DECODE_ERROR, length);
    let pair = Pair::new(TLS12, Role::Server);
    // 131,396 bytes are the most (RFC 5246 7.4.1.2).
    pair.refuses(HANDSHAKE, &[CLIENT_HELLO, 2, 1, 0x45], Alert::DECODE_ERROR, length);
    let mut pair = Pair::new(TLS12, Role::Server);
    assert_eq!(pair.give(HANDSHAKE, &[CLIENT_HELLO, 2, 1, 0x44]), Ok(Content::Nothing));
}

/// RFC 8446 6.1: what comes behind it is ignored, whatever it is. TLS 1.3 has no levels; in TLS 1.2 it
/// is a warning (RFC 5246 7.2.1), and an error ends the connection whatever it is called.
#[test]
fn close_notify_is_the_end() {
    for (version, level) in [(TLS13, 0), (TLS13, 1), (TLS13, 2), (TLS13, 9), (TLS12, 1)] {
        let mut pair = Pair::new(version, Role::Client);
        assert_eq!(pair.give(ALERT, &[level, 0]), Ok(Content::CloseNotify));
        assert_eq!(pair.give(DATA, b"behind"), Ok(Content::CloseNotify));
        assert_eq!(pair.open(vec![9; 100]), Ok(Content::CloseNotify));
        assert_eq!(pair.open(vec![]), Ok(Content::CloseNotify));
    }
    let mut pair = Pair::new(TLS12, Role::Client);
    let record = pair.peer.seal(ALERT, &[2, 0]);
    pair.refuses_record(record, None, "the peer sent the TLS alert close_notify");
    for level in [0, 9] {
        let pair = Pair::new(TLS12, Role::Client);
        let why = "TLS alert of an unknown level";
        pair.refuses(ALERT, &[level, 0], Alert::ILLEGAL_PARAMETER, why);
    }
}

/// RFC 8446 6: the level says nothing; RFC 5246 7.2.
#[test]
fn alerts_end_the_connection() {
    let alert_of = |version, level, alert| {
        let mut pair = Pair::new(version, Role::Client);
        let record = pair.peer.seal(ALERT, &[level, alert]);
        (pair, record)
    };
    for alert in (1..=255).filter(|alert| *alert != 90) {
        for level in [0, 1, 2, 3] {
            let (pair, record) = alert_of(TLS13, level, alert);
            let why = format!("the peer sent the TLS alert {}", Alert(alert));
            pair.refuses_record(record, None, &why);
        }
        let (pair, record) = alert_of(TLS12, 2, alert);
        let why = format!("the peer sent the TLS alert {}", Alert(alert));
        pair.refuses_record(record, None, &why);
        for level in [0, 3, 255] {
            let (pair, record) = alert_of(TLS12, level, alert);
            let why = "TLS alert of an unknown level";
            pair.refuses_record(record, Some(Alert::ILLEGAL_PARAMETER), why);
        }
    }
    assert_eq!(Alert(40).to_string(), "handshake_failure");
    assert_eq!(Alert(200).to_string(), "200");
}

#[test]
fn warnings_are_counted() {
    for (version, alert) in [(TLS12, 100), (TLS12, 90), (TLS12, 255), (TLS13, 90)] {
        let mut pair = Pair::new(version, Role::Server);
        for _ in 0..3 {
            for _ in 0..4 {
                assert_eq!(pair.give(ALERT, &[1, alert]), Ok(Content::Nothing));
            }
            pair.give_data(b"data");
        }
        for _ in 0..4 {
            assert_eq!(pair.give(ALERT, &[1, alert]), Ok(Content::Nothing));
        }
        // No data are not data.
        assert_eq!(pair.give(DATA, b""), Ok(Content::Nothing));
        pair.refuses(ALERT, &[1, alert], Alert::UNEXPECTED_MESSAGE, "too many TLS warnings");
    }
}

/// RFC 8446 5.1. None at all is another error (RFC 8446 5.4).
#[test]
fn an_alert_is_whole_and_alone() {
    for version in VERSIONS {
        for text in [&[1][..], &[1, 0, 1, 0], &[2, 40, 0]] {
            let pair = Pair::new(version, Role::Server);
            pair.refuses(ALERT, text, Alert::DECODE_ERROR, "TLS alert of a wrong length");
        }
        let pair = Pair::new(version, Role::Server);
        let why = "empty TLS record of a type that must not be empty";
        pair.refuses(ALERT, &[], Alert::UNEXPECTED_MESSAGE, why);
    }
}
