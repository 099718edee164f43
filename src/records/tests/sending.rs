//! What is sent, opened by what seals it otherwise.

mod common;

use std::cell::{Cell, RefCell};
use std::collections::BTreeSet;

use common::{Direction, Ring};
use records::{
    Alert, Content, Crypto, CryptoError, Keys, OpenError, ProofError, Receiver, Role, SealError,
    Secret, Sender, Suite, TrafficKeys, Version,
};

const ALERT: u8 = 21;
const HANDSHAKE: u8 = 22;
const DATA: u8 = 23;

const KEY_UPDATE: [u8; 5] = [24, 0, 0, 1, 0];
/// RFC 8446 5.5, rounded down.
const MAX_RECORDS_PER_KEY: u64 = 1 << 24;

fn pair(version: Version, suite: Suite) -> (Sender, Direction) {
    let direction = Direction::new(version, suite);
    (Sender::new(direction.proved()), direction)
}

fn data(sender: &mut Sender, text: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    sender.seal_data(&Ring, text, &mut out).expect("sealed");
    out
}

#[test]
fn data_are_cut_into_records() {
    for (version, suite) in common::sessions() {
        let (mut sender, mut peer) = pair(version, suite);
        for length in [1, 16_383, 16_384, 16_385, 32_768, 100_000] {
            let text: Vec<u8> = (0..=250).cycle().take(length).collect();
            let records = peer.open_all(&data(&mut sender, &text));
            assert_eq!(records.len(), length.div_ceil(16_384));
            assert!(records.iter().all(|(kind, text)| *kind == DATA && text.len() <= 16_384));
            let found: Vec<u8> = records.into_iter().flat_map(|(_, text)| text).collect();
            assert_eq!(found, text);
        }
        assert_eq!(data(&mut sender, &[]), []);
    }
}

/// What is in the buffer stays, and what is sealed comes behind it.
#[test]
fn records_are_appended() {
    for (version, suite) in common::sessions() {
        let (mut sender, mut peer) = pair(version, suite);
        let mut out = b"before".to_vec();
        sender.seal_data(&Ring, b"one", &mut out).expect("sealed");
        sender.seal_close_notify(&Ring, &mut out).expect("sealed");
        assert_eq!(out[..6], *b"before");
        assert_eq!(peer.open_all(&out[6..]), [(DATA, b"one".to_vec()), (ALERT, vec![1, 0])]);
    }
}

/// RFC 5288 3: the explicit nonce is not that of any other record.
#[test]
fn explicit_nonces_go_on() {
    for (suite, number) in [(Suite::Aes128Gcm, 0), (Suite::Aes256Gcm, 77)] {
        let mut direction = Direction::new(Version::Tls12, suite);
        direction.number = number;
        direction.explicit = u64::MAX - 1;
        let mut sender = Sender::new(direction.proved());
        for expected in [u64::MAX - 1, u64::MAX, 0, 1] {
            assert_eq!(data(&mut sender, b"x")[5..13], expected.to_be_bytes());
        }
    }
}

/// RFC 8446 4.6.3: before the next data, and once.
#[test]
fn a_key_update_is_answered() {
    for suite in common::SUITES {
        let (mut sender, mut peer) = pair(Version::Tls13, suite);
        assert!(!sender.owes());
        sender.owe_key_update();
        sender.owe_key_update();
        assert!(sender.owes());
        let records = peer.open_all(&data(&mut sender, b"text"));
        assert_eq!(records, [(HANDSHAKE, KEY_UPDATE.to_vec()), (DATA, b"text".to_vec())]);
        assert!(!sender.owes());
        assert_eq!(peer.open_all(&data(&mut sender, b"more")), [(DATA, b"more".to_vec())]);
        sender.owe_key_update();
        let mut out = Vec::new();
        sender.seal_owed(&Ring, &mut out).expect("sealed");
        assert_eq!(peer.open_all(&out), [(HANDSHAKE, KEY_UPDATE.to_vec())]);
        out.clear();
        sender.seal_owed(&Ring, &mut out).expect("nothing to do");
        assert_eq!(out, []);
        assert_eq!(peer.open_all(&data(&mut sender, b"text")), [(DATA, b"text".to_vec())]);
    }
}

#[test]
fn a_renegotiation_is_answered() {
    for suite in common::SUITES {
        let (mut sender, mut peer) = pair(Version::Tls12, suite);
        sender.owe_no_renegotiation();
        sender.owe_no_renegotiation();
        assert!(sender.owes());
        let mut out = Vec::new();
        sender.seal_owed(&Ring, &mut out).expect("sealed");
        assert_eq!(peer.open_all(&out), [(ALERT, vec![1, 100])]);
        assert!(!sender.owes());
        assert_eq!(peer.open_all(&data(&mut sender, b"text")), [(DATA, b"text".to_vec())]);
    }
}

/// RFC 8446 5.5.
#[test]
fn keys_are_new_in_time() {
    for suite in common::SUITES {
        let mut peer = Direction::new(Version::Tls13, suite);
        peer.number = MAX_RECORDS_PER_KEY - 2;
        let mut sender = Sender::new(peer.proved());
        let records = peer.open_all(&data(&mut sender, &[7; 5 * 16_384]));
        let kinds: Vec<u8> = records.iter().map(|(kind, _)| *kind).collect();
        assert_eq!(kinds, [DATA, DATA, HANDSHAKE, DATA, DATA, DATA]);
        assert_eq!(records[2].1, KEY_UPDATE);
        assert_eq!(peer.number, 3);
        // One that is asked for is one in time.
        peer.number = MAX_RECORDS_PER_KEY + 5;
        let mut sender = Sender::new(peer.proved());
        sender.owe_key_update();
        let records = peer.open_all(&data(&mut sender, b"text"));
        assert_eq!(records, [(HANDSHAKE, KEY_UPDATE.to_vec()), (DATA, b"text".to_vec())]);
        // TLS 1.2 has none.
        let mut peer = Direction::new(Version::Tls12, suite);
        peer.number = MAX_RECORDS_PER_KEY;
        let mut sender = Sender::new(peer.proved());
        assert_eq!(peer.open_all(&data(&mut sender, b"text")), [(DATA, b"text".to_vec())]);
    }
}

/// RFC 8446 5.3, RFC 5246 6.1.
#[test]
fn numbers_do_not_wrap() {
    for (version, suite) in common::sessions() {
        let mut peer = Direction::new(version, suite);
        peer.number = u64::MAX - 1;
        let mut sender = Sender::new(peer.proved());
        let mut out = Vec::new();
        let sealed = sender.seal_close_notify(&Ring, &mut out);
        assert_eq!((sealed, peer.open_all(&out).len()), (Ok(()), 1));
        if version == Version::Tls12 {
            peer.number = u64::MAX - 1;
            let mut sender = Sender::new(peer.proved());
            data(&mut sender, b"the last");
            out.clear();
            let sealed = sender.seal_data(&Ring, b"one more", &mut out);
            assert_eq!((sealed, out.len()), (Err(SealError::Exhausted), 0));
        }
    }
}

/// RFC 8446 6.1, 6.2.
#[test]
fn nothing_comes_behind_the_end() {
    for (version, suite) in common::sessions() {
        for fatal in [None, Some(Alert::BAD_RECORD_MAC)] {
            let (mut sender, mut peer) = pair(version, suite);
            let mut out = Vec::new();
            match fatal {
                None => sender.seal_close_notify(&Ring, &mut out),
                Some(alert) => sender.seal_fatal(&Ring, alert, &mut out),
            }
            .expect("sealed");
            let expected = fatal.map_or(vec![1, 0], |alert| vec![2, alert.0]);
            assert_eq!(peer.open_all(&out), [(ALERT, expected)]);
            out.clear();
            for sealed in [
                sender.seal_data(&Ring, b"text", &mut out),
                sender.seal_close_notify(&Ring, &mut out),
                sender.seal_fatal(&Ring, Alert::DECODE_ERROR, &mut out),
            ] {
                assert_eq!((sealed, out.len()), (Err(SealError::Closed), 0));
            }
        }
    }
}

/// Ring, which first asks whether it works, and says for which keys.
struct Asking<F>(F);

impl<F: Fn(Option<&Keys>) -> Result<(), CryptoError>> Crypto for Asking<F> {
    fn seal(
        &self,
        suite: Suite,
        keys: &Keys,
        nonce: &[u8; 12],
        aad: &[u8],
        text: &mut [u8],
    ) -> Result<[u8; 16], CryptoError> {
        self.0(Some(keys))?;
        Ring.seal(suite, keys, nonce, aad, text)
    }

    fn open(
        &self,
        suite: Suite,
        keys: &Keys,
        nonce: &[u8; 12],
        aad: &[u8],
        text: &mut [u8],
        tag: &[u8; 16],
    ) -> Result<(), OpenError> {
        self.0(Some(keys))?;
        Ring.open(suite, keys, nonce, aad, text, tag)
    }

    fn expand_label(
        &self,
        suite: Suite,
        secret: &[u8],
        label: &str,
        out: &mut [u8],
    ) -> Result<(), CryptoError> {
        self.0(None)?;
        Ring.expand_label(suite, secret, label, out)
    }
}

/// Fails after so many calls.
fn failing(works: usize) -> impl Crypto {
    let left = Cell::new(works);
    Asking(move |_: Option<&Keys>| {
        left.set(left.get().checked_sub(1).ok_or(CryptoError)?);
        Ok(())
    })
}

/// What could not be encrypted does not go out, and what comes next neither.
#[test]
fn a_library_that_fails_is_the_end() {
    for (version, suite) in common::sessions() {
        let (mut sender, mut peer) = pair(version, suite);
        let mut out = Vec::new();
        let crypto = failing(1);
        let sealed = sender.seal_data(&crypto, &[7; 20_000], &mut out);
        assert_eq!(sealed, Err(SealError::Crypto));
        assert_eq!(peer.open_all(&out), [(DATA, vec![7; 16_384])]);
        out.clear();
        let sealed = sender.seal_close_notify(&Ring, &mut out);
        assert_eq!((sealed, out.len()), (Err(SealError::Closed), 0));

        let mut receiver = Receiver::new(peer.proved(), Role::Server);
        let mut record = peer.seal(DATA, b"text");
        let fatal = receiver.open(&failing(0), &mut record).expect_err("failed");
        assert_eq!(fatal.alert, Some(Alert::INTERNAL_ERROR));
        assert_eq!(fatal.to_string(), "the TLS library failed");
        let mut record = peer.seal(DATA, b"text");
        assert!(receiver.open(&Ring, &mut record).is_err());
        let proved = peer.keys().prove(&failing(0), &record, 0..=9);
        assert_eq!(proved.err(), Some(ProofError::Crypto));
    }
}

/// A seal and three expansions, an opening and three.
#[test]
fn half_new_keys_are_none() {
    for works in 0..4 {
        let (mut sender, peer) = pair(Version::Tls13, Suite::Aes256Gcm);
        sender.owe_key_update();
        let mut out = Vec::new();
        let sealed = sender.seal_owed(&failing(works), &mut out);
        assert_eq!((sealed, sender.owes()), (Err(SealError::Crypto), false));
        assert_eq!(out.is_empty(), works == 0);
        out.clear();
        let sealed = sender.seal_data(&Ring, b"text", &mut out);
        assert_eq!((sealed, out.len()), (Err(SealError::Closed), 0));

        let mut receiver = Receiver::new(peer.proved(), Role::Server);
        let mut record = peer.clone().seal(HANDSHAKE, &KEY_UPDATE);
        let opened = receiver.open(&failing(works), &mut record);
        assert_eq!(opened.map_err(|fatal| fatal.alert), Err(Some(Alert::INTERNAL_ERROR)));
    }
}

#[test]
fn a_proof_tells_what_comes_next() {
    for (version, suite) in common::sessions() {
        let mut direction = Direction::new(version, suite);
        direction.number = 40;
        let last = direction.seal(HANDSHAKE, b"whatever it is");
        for numbers in [0..=64, 40..=40, 0..=40, 40..=64] {
            let proved = direction.keys().prove(&Ring, &last, numbers).expect("proved").0;
            let out = data(&mut Sender::new(proved), b"next");
            assert_eq!(out, direction.clone().seal(DATA, b"next"));
        }
        let wrong = |keys: TrafficKeys, last: &[u8], numbers| {
            assert_eq!(keys.prove(&Ring, last, numbers).err(), Some(ProofError::Wrong));
        };
        wrong(direction.keys(), &last, 0..=39);
        wrong(direction.keys(), &last, 41..=64);
        wrong(direction.keys(), &last[..last.len() - 1], 0..=64);
        wrong(direction.keys(), &[&last[..], &[0]].concat(), 0..=64);
        wrong(direction.keys(), &[], 0..=64);
        let mut other = direction.clone();
        other.key[3] ^= 1;
        other.secret[3] ^= 1;
        wrong(other.keys(), &last, 0..=64);
        // There is no number behind it.
        direction.number = u64::MAX;
        let last = direction.seal(DATA, b"the last");
        wrong(direction.keys(), &last, u64::MAX - 1..=u64::MAX);
    }
}

#[test]
fn keys_have_their_lengths() {
    for suite in common::SUITES {
        let (key, iv) = (suite.key_bytes(), suite.tls12_iv_bytes());
        assert!(Secret::new(suite, &[1; 64][..suite.secret_bytes()]).is_some());
        assert!(Secret::new(suite, &[1; 64][..suite.secret_bytes() - 1]).is_none());
        assert!(Secret::new(suite, &[1; 64][..suite.secret_bytes() + 1]).is_none());
        assert!(Keys::tls12(suite, &[1; 64][..key], &[1; 64][..iv]).is_some());
        for (key, iv) in [(key - 1, iv), (key + 1, iv), (key, iv - 1), (key, iv + 1)] {
            assert!(Keys::tls12(suite, &[1; 64][..key], &[1; 64][..iv]).is_none());
        }
    }
}

/// What a session must not leave behind shows in its last record.
#[test]
fn a_proof_tells_what_the_record_had() {
    for (version, suite) in common::sessions() {
        for (kind, text) in [(DATA, &b"data"[..]), (HANDSHAKE, &KEY_UPDATE), (ALERT, &[1, 0])] {
            let mut direction = Direction::new(version, suite);
            let last = direction.seal(kind, text);
            let (_, opened) = direction.keys().prove(&Ring, &last, 0..=0).expect("proved");
            assert_eq!(opened.is_data(), kind == DATA);
            assert_eq!(opened.messages(), (kind == HANDSHAKE).then_some(text));
            assert!(!opened.is_padded());
        }
    }
    let mut direction = Direction::new(Version::Tls13, Suite::Aes128Gcm);
    let last = direction.seal_padded(DATA, b"data", 1);
    let (_, opened) = direction.keys().prove(&Ring, &last, 0..=0).expect("proved");
    assert!(opened.is_data() && opened.is_padded());
}

/// Who keeps contexts tells keys apart by their ids.
#[test]
fn ids_are_never_used_again() {
    let keys = |byte| Keys::tls12(Suite::Aes128Gcm, &[byte; 16], &[0; 4]).expect("lengths");
    let (first, second) = (keys(1), keys(1));
    assert!(first.id() > 0 && second.id() > first.id());
    let ids = RefCell::new(BTreeSet::new());
    let noting = Asking(|keys: Option<&Keys>| {
        ids.borrow_mut().extend(keys.map(Keys::id));
        Ok(())
    });
    let direction = Direction::new(Version::Tls13, Suite::Aes128Gcm);
    let mut sender = Sender::new(direction.proved());
    let mut out = Vec::new();
    for round in 0..3 {
        sender.seal_data(&noting, b"text", &mut out).expect("sealed");
        sender.owe_key_update();
        assert_eq!(ids.take().len(), 1 + usize::from(round > 0));
    }
}

/// Neither a secret nor a key is shown.
#[test]
fn nothing_prints_a_secret() {
    for suite in [Suite::Aes128Gcm, Suite::Aes256Gcm, Suite::Chacha20Poly1305] {
        let secret = Secret::new(suite, &[0xab; 48][..suite.secret_bytes()]).expect("its length");
        let keys = TrafficKeys::tls13(&Ring, suite, secret).expect("keys");
        let mut texts = vec![format!("{keys:?}")];
        let proved = keys.assume(0, 0);
        texts.push(format!("{proved:?}"));
        let sender = Sender::new(proved);
        texts.push(format!("{sender:?}"));
        for text in texts {
            assert!(!text.contains("171") && !text.contains("ab, "), "{text}");
            assert!(text.contains("Secret") && text.contains("Keys { id: "), "{text}");
        }
    }
}

#[test]
fn what_is_sealed_is_opened() {
    for (version, suite) in common::sessions() {
        let (mut sender, peer) = pair(version, suite);
        let mut receiver = Receiver::new(peer.proved(), Role::Server);
        for round in 0..3 {
            if version == Version::Tls13 && round == 1 {
                sender.owe_key_update();
                let mut out = Vec::new();
                sender.seal_owed(&Ring, &mut out).expect("sealed");
                let opened = receiver.open(&Ring, &mut out);
                assert_eq!(opened, Ok(Content::KeyUpdate { answer: false }));
            }
            let mut out = data(&mut sender, b"text");
            let Ok(Content::Data(place)) = receiver.open(&Ring, &mut out) else {
                panic!("no data")
            };
            assert_eq!(out[place], *b"text");
        }
    }
}

#[test]
fn each_failure_is_named() {
    let [failed, exhausted, closed] =
        [SealError::from(CryptoError), SealError::Exhausted, SealError::Closed]
            .map(|e| e.to_string());
    assert_eq!(failed, CryptoError.to_string());
    assert_eq!(failed, "the TLS library failed");
    assert_eq!(exhausted, "no TLS record numbers left");
    assert_eq!(closed, "the TLS session has ended");
}

/// Who keeps what it made of keys by their numbers finds that of no others.
#[test]
fn keys_have_numbers_of_their_own() {
    let keys = || Keys::tls12(Suite::Aes128Gcm, &[1; 16], &[2; 4]).expect("their lengths");
    let [first, second, third] = [keys(), keys(), keys()].map(|keys| keys.id());
    assert!(0 < first && first < second && second < third, "{first} {second} {third}");
}
