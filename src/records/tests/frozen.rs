//! Directions that go to another process.

mod common;

use common::{Direction, Ring};
use records::{Content, Receiver, Role, Sender, Suite, Version};

const ALERT: u8 = 21;
const HANDSHAKE: u8 = 22;
const DATA: u8 = 23;

fn again(receiver: Receiver) -> Receiver {
    let mut frozen = Vec::new();
    receiver.freeze(&mut frozen);
    assert_eq!(frozen.len(), Receiver::FROZEN_BYTES);
    frozen.extend_from_slice(b"behind");
    let mut from = &frozen[..];
    let receiver = Receiver::thaw(&mut from).expect("thawed");
    assert_eq!(from, b"behind");
    receiver
}

fn sender_again(sender: Sender) -> Sender {
    let mut frozen = Vec::new();
    sender.freeze(&mut frozen);
    assert_eq!(frozen.len(), Sender::FROZEN_BYTES);
    frozen.extend_from_slice(b"behind");
    let mut from = &frozen[..];
    let sender = Sender::thaw(&mut from).expect("thawed");
    assert_eq!(from, b"behind");
    sender
}

/// All that a receiver sees is the same, if it is frozen behind each record.
#[test]
fn a_receiver_goes_on() {
    let update = |answer| vec![24, 0, 0, 1, answer];
    let tls13 = [
        (DATA, b"text".to_vec()),
        (DATA, vec![]),
        (ALERT, vec![1, 90]),
        (HANDSHAKE, vec![4, 0]),
        (HANDSHAKE, vec![1, 0, 9]),
        (HANDSHAKE, vec![9; 254]),
        (HANDSHAKE, [vec![9; 1], update(1)].concat()),
        (DATA, b"more".to_vec()),
        (HANDSHAKE, update(0)[..4].to_vec()),
        (HANDSHAKE, vec![0]),
        (ALERT, vec![1, 0]),
        (DATA, b"ignored".to_vec()),
    ];
    let tls12 = [
        (DATA, b"text".to_vec()),
        (HANDSHAKE, vec![0, 0]),
        (ALERT, vec![1, 100]),
        (HANDSHAKE, vec![0, 0]),
        (DATA, vec![]),
        (ALERT, vec![2, 40]),
        (DATA, b"refused".to_vec()),
    ];
    // Refused with a part of a message there.
    let interrupted = [(HANDSHAKE, vec![4, 0]), (DATA, vec![1]), (DATA, vec![2])];
    let wrong = [(HANDSHAKE, vec![9]), (DATA, vec![1])];
    let lists = |version| match version {
        Version::Tls12 => vec![&tls12[..], &wrong[..]],
        Version::Tls13 => vec![&tls13[..], &interrupted[..], &wrong[..]],
    };
    for (version, suite, records) in common::sessions()
        .flat_map(|(version, suite)| lists(version).into_iter().map(move |l| (version, suite, l)))
    {
        let mut peer = Direction::new(version, suite);
        let mut one = Receiver::new(peer.proved(), Role::Client);
        let mut other = Receiver::new(peer.proved(), Role::Client);
        for (kind, text) in records {
            let mut record = peer.seal(*kind, text);
            let (expected, found) =
                (one.open(&Ring, &mut record.clone()), other.open(&Ring, &mut record));
            assert_eq!(found, expected);
            if matches!(found, Ok(Content::KeyUpdate { .. })) {
                peer.update();
            }
            other = again(other);
            assert_eq!(other.version(), version);
        }
    }
}

#[test]
fn counts_go_along() {
    let mut peer = Direction::new(Version::Tls12, Suite::Aes128Gcm);
    let mut receiver = Receiver::new(peer.proved(), Role::Server);
    let hello = [1, 0, 0, 1, 9];
    for _ in 0..4 {
        assert!(receiver.open(&Ring, &mut peer.seal(DATA, b"")).is_ok());
        assert!(receiver.open(&Ring, &mut peer.seal(ALERT, &[1, 90])).is_ok());
        assert!(receiver.open(&Ring, &mut peer.seal(HANDSHAKE, &hello)).is_ok());
        receiver = again(receiver);
    }
    for _ in 4..32 {
        assert!(receiver.open(&Ring, &mut peer.seal(DATA, b"")).is_ok());
    }
    for (kind, text) in [(DATA, &b""[..]), (ALERT, &[1, 90]), (HANDSHAKE, &hello)] {
        let mut frozen = Vec::new();
        receiver.freeze(&mut frozen);
        let thaw = || Receiver::thaw(&mut &frozen[..]).expect("thawed");
        assert!(thaw().open(&Ring, &mut peer.clone().seal(kind, text)).is_err());
        receiver = thaw();
    }
}

#[test]
fn a_sender_goes_on() {
    for (version, suite) in common::sessions() {
        let mut peer = Direction::new(version, suite);
        peer.number = 9;
        let mut sender = Sender::new(peer.proved());
        for round in 0..4 {
            if round == 1 && version == Version::Tls13 {
                sender.owe_key_update();
            }
            if round == 2 {
                sender.owe_no_renegotiation();
            }
            sender = sender_again(sender);
            assert_eq!(sender.owes(), round == 2 || round == 1 && version == Version::Tls13);
            let mut out = Vec::new();
            sender.seal_data(&Ring, b"text", &mut out).expect("sealed");
            assert_eq!(out[5..13] == peer.explicit.to_be_bytes(), is_explicit(version, suite));
            peer.explicit += if round == 2 { 2 } else { 1 };
            assert_eq!(peer.open_all(&out).last(), Some(&(DATA, b"text".to_vec())));
        }
        sender.seal_close_notify(&Ring, &mut Vec::new()).expect("sealed");
        assert!(sender_again(sender).seal_data(&Ring, b"text", &mut Vec::new()).is_err());
    }
}

fn is_explicit(version: Version, suite: Suite) -> bool {
    version == Version::Tls12 && suite != Suite::Chacha20Poly1305
}

/// Only what is frozen is thawed: what is thawed freezes as it was.
#[test]
fn other_bytes_are_refused() {
    let mut refused = 0;
    for (version, suite) in common::sessions() {
        for role in [Role::Client, Role::Server] {
            let mut peer = Direction::new(version, suite);
            let mut receiver = Receiver::new(peer.proved(), role);
            let kind = if role == Role::Client { 4 } else { 24 };
            if version == Version::Tls13 {
                let mut record = peer.seal(HANDSHAKE, &[kind, 0, 0]);
                assert_eq!(receiver.open(&Ring, &mut record), Ok(Content::Nothing));
            }
            let mut frozen = Vec::new();
            receiver.freeze(&mut frozen);
            let mut sender = Vec::new();
            Sender::new(peer.proved()).freeze(&mut sender);
            for length in 0..frozen.len() {
                assert!(Receiver::thaw(&mut &frozen[..length]).is_none());
            }
            for length in 0..sender.len() {
                assert!(Sender::thaw(&mut &sender[..length]).is_none());
            }
            for at in 0..frozen.len() {
                for value in [0, 1, 2, 3, 4, 5, 24, 32, 33, 255] {
                    let mut changed = frozen.clone();
                    changed[at] = value;
                    let mut again = Vec::new();
                    match Receiver::thaw(&mut &changed[..]) {
                        Some(receiver) => receiver.freeze(&mut again),
                        None => {
                            refused += 1;
                            continue;
                        }
                    }
                    assert_eq!(again, changed, "at {at}");
                }
            }
            for at in 0..sender.len() {
                for value in [0, 1, 2, 3, 255] {
                    let mut changed = sender.clone();
                    changed[at] = value;
                    let mut again = Vec::new();
                    match Sender::thaw(&mut &changed[..]) {
                        Some(sender) => sender.freeze(&mut again),
                        None => {
                            refused += 1;
                            continue;
                        }
                    }
                    assert_eq!(again, changed, "at {at}");
                }
            }
        }
    }
    assert!(refused > 100);
}

/// A part of a message is thawed if it can have come.
#[test]
fn parts_of_messages_are_those_that_can_have_come() {
    const HEAD: usize = Receiver::FROZEN_BYTES - 24;
    let thaws = |version, role, head: [u8; 4], have: u64, body: u64| {
        let peer = Direction::new(version, Suite::Aes128Gcm);
        let mut frozen = Vec::new();
        Receiver::new(peer.proved(), role).freeze(&mut frozen);
        frozen[HEAD..HEAD + 4].copy_from_slice(&head);
        frozen[HEAD + 4..HEAD + 12].copy_from_slice(&have.to_le_bytes());
        frozen[HEAD + 12..HEAD + 20].copy_from_slice(&body.to_le_bytes());
        let thawed = Receiver::thaw(&mut &frozen[..]);
        // What is thawed can go on.
        thawed
            .map(|mut receiver| receiver.open(&Ring, &mut peer.clone().seal(HANDSHAKE, &[4])))
            .is_some()
    };
    let (tls12, tls13) = (Version::Tls12, Version::Tls13);
    let (client, server) = (Role::Client, Role::Server);
    for (version, role, head, have, body) in [
        (tls13, server, [0; 4], 0, 0),
        (tls13, server, [24, 0, 0, 0], 1, 0),
        (tls13, server, [24, 0, 0, 1], 4, 0),
        (tls13, client, [4, 0, 0, 0], 3, 0),
        (tls13, client, [4, 0, 1, 0], 4, 255),
        (tls12, server, [1, 0, 1, 0], 4, 0),
        (tls12, client, [0; 4], 3, 0),
    ] {
        assert!(thaws(version, role, head, have, body), "{head:?} {have} {body}");
    }
    for (version, role, head, have, body) in [
        (tls13, server, [1, 0, 0, 0], 0, 0),
        (tls13, server, [0; 4], 0, 1),
        (tls13, server, [24, 0, 0, 0], 1, 1),
        (tls13, server, [24, 1, 0, 0], 1, 0),
        (tls13, server, [24, 0, 0, 1], 3, 0),
        (tls13, server, [24, 0, 0, 1], 4, 1),
        (tls13, server, [24, 0, 0, 2], 4, 0),
        (tls13, server, [4, 0, 0, 1], 4, 0),
        (tls13, client, [4, 0, 1, 0], 4, 256),
        (tls13, client, [4, 0, 1, 0], 4, 257),
        (tls13, client, [4, 0, 1, 0], 5, 0),
        (tls13, client, [4, 0, 0, 0], 4, 0),
        (tls12, client, [0; 4], 4, 0),
        (tls12, client, [0; 4], u64::MAX, 0),
        (tls12, server, [1, 0, 1, 0], 4, u64::MAX),
        (tls12, server, [0; 4], 1, 0),
    ] {
        assert!(!thaws(version, role, head, have, body), "{head:?} {have} {body}");
    }
}

#[test]
fn counts_are_those_that_can_be() {
    const COUNTS: usize = Receiver::FROZEN_BYTES - 4;
    let thaws = |at: usize, count: u8| {
        let peer = Direction::new(Version::Tls12, Suite::Aes128Gcm);
        let mut frozen = Vec::new();
        Receiver::new(peer.proved(), Role::Server).freeze(&mut frozen);
        frozen[COUNTS + at] = count;
        Receiver::thaw(&mut &frozen[..]).is_some()
    };
    for (at, most) in [32, 4, 4].into_iter().enumerate() {
        assert!(thaws(at, most));
        assert!(!thaws(at, most + 1) && !thaws(at, 255));
    }
}
