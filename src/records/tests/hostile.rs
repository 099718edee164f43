//! What records a peer sends that it should not, and how many of what it may.

mod common;

use common::pair::{ALERT, CHANGE_CIPHER_SPEC, DATA, HANDSHAKE, Pair, TLS12, TLS13, VERSIONS};
use common::{Ring, SUITES};
use records::{Alert, Content, HEADER_BYTES, MAX_RECORD_BYTES, Receiver, Role, record_bytes};

/// RFC 8446 5.1, 5.2; RFC 5246 6.2.3.
#[test]
fn the_header_tells_the_length() {
    let of = |version, head: &[u8]| {
        record_bytes(version, head).map_err(|fatal| (fatal.alert, fatal.to_string()))
    };
    let refused = |alert, why: &str| Err((Some(alert), why.to_owned()));
    for version in VERSIONS {
        assert_eq!(of(version, &[]), Ok(None));
        assert_eq!(of(version, &[23, 3, 3, 1]), Ok(None));
        assert_eq!(of(version, &[23, 3, 3, 1, 2]), Ok(Some(5 + 0x102)));
        assert_eq!(of(version, &[23, 3, 3, 1, 2, 9, 9]), Ok(Some(5 + 0x102)));
        assert_eq!(of(version, &[23, 3, 3, 0, 16]), Ok(Some(21)));
        let short = refused(Alert::BAD_RECORD_MAC, "TLS record that does not decrypt");
        assert_eq!(of(version, &[23, 3, 3, 0, 15]), short);
        // It is seen by the first byte.
        let why = "TLS ChangeCipherSpec after the handshake";
        assert_eq!(of(version, &[20]), refused(Alert::UNEXPECTED_MESSAGE, why));
        for kind in [0, 19, 24, 25, 128, 255] {
            let why = "unexpected type of TLS record";
            assert_eq!(of(version, &[kind]), refused(Alert::UNEXPECTED_MESSAGE, why));
        }
    }
    for kind in [ALERT, HANDSHAKE] {
        let why = "unexpected type of TLS record";
        assert_eq!(of(TLS13, &[kind]), refused(Alert::UNEXPECTED_MESSAGE, why));
        assert_eq!(of(TLS12, &[kind, 3, 3, 0, 26]), Ok(Some(31)));
    }
    for (version, most) in [(TLS12, 16_384 + 2048), (TLS13, 16_384 + 256_u16)] {
        let [high, low] = most.to_be_bytes();
        assert_eq!(of(version, &[23, 3, 3, high, low]), Ok(Some(5 + usize::from(most))));
        let [high, low] = (most + 1).to_be_bytes();
        let overflow = refused(Alert::RECORD_OVERFLOW, "TLS record too long");
        assert_eq!(of(version, &[23, 3, 3, high, low]), overflow);
    }
    for other in [[3, 1], [3, 4], [2, 3], [0, 0]] {
        let head = [23, other[0], other[1], 1, 0];
        let version = refused(Alert::PROTOCOL_VERSION, "TLS record of another version");
        assert_eq!(of(TLS12, &head), version);
        assert_eq!(of(TLS13, &head), Ok(Some(261)));
    }
}

#[test]
fn a_record_is_given_whole() {
    for version in VERSIONS {
        for change in [-1, 1] {
            let mut pair = Pair::new(version, Role::Server);
            let mut record = pair.peer.seal(DATA, b"some text");
            record.resize(record.len().checked_add_signed(change).expect("longer"), 0);
            let why = "TLS record too long";
            pair.refuses_record(record, Some(Alert::INTERNAL_ERROR), why);
        }
        Pair::new(version, Role::Server).refuses_record(
            vec![23, 3, 3],
            Some(Alert::INTERNAL_ERROR),
            "TLS record too long",
        );
    }
}

/// RFC 8446 5.2.
#[test]
fn a_record_with_one_bit_changed_is_refused() {
    for (version, suite) in common::sessions() {
        let length = Pair::of(version, suite, Role::Server).peer.seal(DATA, b"text").len();
        for bit in 0..8 * length {
            let mut pair = Pair::of(version, suite, Role::Server);
            let mut record = pair.peer.seal(DATA, b"text");
            record[bit / 8] ^= 1 << (bit % 8);
            if bit / 8 < 5 {
                // It has another length then, or is another record.
                assert!(pair.open(record).is_err(), "bit {bit}");
            } else {
                let why = "TLS record that does not decrypt";
                pair.refuses_record(record, Some(Alert::BAD_RECORD_MAC), why);
            }
        }
    }
}

#[test]
fn records_are_opened_once_and_in_order() {
    for (version, suite) in common::sessions() {
        let mut pair = Pair::of(version, suite, Role::Client);
        let records = [b"one", b"two", b"six"].map(|text| pair.peer.seal(DATA, text));
        assert!(matches!(pair.open(records[0].clone()), Ok(Content::Data(_))));
        let why = "TLS record that does not decrypt";
        pair.refuses_record(records[0].clone(), Some(Alert::BAD_RECORD_MAC), why);
        let mut pair = Pair::of(version, suite, Role::Client);
        let _ = pair.peer.seal(DATA, b"lost");
        pair.refuses(DATA, b"next", Alert::BAD_RECORD_MAC, why);
    }
}

/// RFC 8446 5.4.
#[test]
fn padding_is_taken_off() {
    for suite in SUITES {
        for zeros in [0, 1, 2, 255, 256, 16_000] {
            let mut pair = Pair::of(TLS13, suite, Role::Server);
            let mut record = pair.peer.seal_padded(DATA, b"te\0xt\0", zeros);
            assert_eq!(pair.receiver.open(&Ring, &mut record), Ok(Content::Data(5..11)));
            assert_eq!(record[5..11], *b"te\0xt\0");
            pair.give_data(b"next");
        }
    }
}

#[test]
fn padding_alone_is_refused() {
    for zeros in [0, 1, 500, 16_385] {
        let mut pair = Pair::new(TLS13, Role::Server);
        let record = pair.peer.seal_outer(DATA, &vec![0; zeros]);
        let why = "TLS record without a content type";
        pair.refuses_record(record, Some(Alert::UNEXPECTED_MESSAGE), why);
    }
}

/// RFC 8446 5.1, 5.4; RFC 5246 6.2.1.
#[test]
fn text_has_at_most_2_to_14_bytes() {
    for version in VERSIONS {
        Pair::new(version, Role::Server).give_data(&vec![1; 16_384]);
        let pair = Pair::new(version, Role::Server);
        pair.refuses(DATA, &vec![1; 16_385], Alert::RECORD_OVERFLOW, "TLS record too long");
    }
    let mut pair = Pair::new(TLS13, Role::Server);
    let record = pair.peer.seal_padded(DATA, &[1; 384], 16_000);
    assert_eq!(pair.open(record), Ok(Content::Data(5..389)));
    let record = pair.peer.seal_padded(DATA, &[1; 384], 16_001);
    pair.refuses_record(record, Some(Alert::RECORD_OVERFLOW), "TLS record too long");
}

#[test]
fn other_types_are_refused() {
    for kind in [0, 1, CHANGE_CIPHER_SPEC, 24, 26, 255] {
        let mut pair = Pair::new(TLS13, Role::Server);
        let record = pair.peer.seal_padded(kind, &[1], 0);
        // 0 is padding: its type is the 1 in front of it.
        let why = "unexpected type of TLS record";
        pair.refuses_record(record, Some(Alert::UNEXPECTED_MESSAGE), why);
    }
    for version in VERSIONS {
        for plain in [[20, 3, 3, 0, 1, 1], [21, 3, 3, 0, 2, 1], [22, 3, 3, 0, 4, 0]] {
            let refused = Pair::new(version, Role::Server).open(plain.to_vec());
            assert!(refused.is_err(), "{plain:?}");
        }
    }
}

/// RFC 8446 5.4 lets data be empty, and nothing else.
#[test]
fn empty_records_are_counted() {
    for version in VERSIONS {
        let mut pair = Pair::new(version, Role::Server);
        for _ in 0..3 {
            for _ in 0..32 {
                assert_eq!(pair.give(DATA, b""), Ok(Content::Nothing));
            }
            pair.give_data(b"something");
        }
        for _ in 0..32 {
            assert_eq!(pair.give(DATA, b""), Ok(Content::Nothing));
        }
        pair.refuses(DATA, b"", Alert::UNEXPECTED_MESSAGE, "too many empty TLS records");
        for kind in [HANDSHAKE, ALERT] {
            let pair = Pair::new(version, Role::Server);
            let why = "empty TLS record of a type that must not be empty";
            pair.refuses(kind, b"", Alert::UNEXPECTED_MESSAGE, why);
        }
    }
}

/// RFC 8446 5.3.
#[test]
fn numbers_do_not_wrap() {
    for (version, suite) in common::sessions() {
        let mut pair = Pair::of(version, suite, Role::Server);
        pair.peer.number = u64::MAX - 1;
        pair.receiver = Receiver::new(pair.peer.proved(), Role::Server);
        pair.give_data(b"the last");
        pair.peer.number -= 1;
        pair.refuses(DATA, b"one more", Alert::INTERNAL_ERROR, "no TLS record numbers left");
    }
}

#[test]
fn a_record_is_no_longer_than_it_may_be() {
    let header = |body: usize| {
        let [high, low] = u16::try_from(body).expect("two bytes").to_be_bytes();
        [23, 3, 3, high, low]
    };
    let most = MAX_RECORD_BYTES - HEADER_BYTES;
    assert_eq!(record_bytes(TLS12, &header(most)), Ok(Some(MAX_RECORD_BYTES)));
    assert!(record_bytes(TLS12, &header(most + 1)).is_err());
}
