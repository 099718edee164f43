//! What rules about frames refuse, at every split of the bytes, and how that ends a tunnel.

mod common;

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use common::*;
use relay::{Breach, By, End, Guard, Refused, Rules, Side, Strict, Tunnel, Why};

fn limited(client: u64) -> Rules {
    Rules { max_message_client: Some(client), ..Rules::default() }
}

fn strict(strict: Strict) -> Rules {
    Rules { strict: Some(strict), ..Rules::default() }
}

/// The frame with this first byte; a client masks.
fn frame(first: u8, length: usize, sender: By) -> Vec<u8> {
    let masked = sender == By::Client;
    let mut bytes = frame_header(first, masked, length);
    bytes.resize(bytes.len() + length + if masked { 4 } else { 0 }, 0xa5);
    bytes
}

/// What comes of `bytes`, whatever their split: where the header that is refused begins, if one is.
fn judged(rules: &Rules, sender: By, bytes: &[u8]) -> Option<(usize, Breach)> {
    let new = || Guard::new(rules, sender).expect("a rule looks at it");
    let whole = new().check(bytes).err().map(|refused| (refused.allowed, refused.breach));
    for cut in 1..bytes.len().min(400) {
        let mut guard = new();
        let seen = match guard.check(&bytes[..cut]) {
            Err(Refused { allowed, breach }) => Some((allowed, breach)),
            Ok(()) => guard.check(&bytes[cut..]).err().map(|refused| {
                let begins = whole.map_or(0, |(at, _)| at);
                // Of a header that was cut, the first part has gone on.
                let expected = begins.saturating_sub(cut);
                assert_eq!(refused.allowed, expected, "cut at {cut} of {bytes:x?}");
                (begins, refused.breach)
            }),
        };
        assert_eq!(seen, whole, "cut at {cut} of {bytes:x?}");
    }
    let mut guard = new();
    let one_by_one = bytes.iter().find_map(|byte| guard.check(&[*byte]).err());
    assert_eq!(one_by_one.map(|refused| refused.breach), whole.map(|(_, breach)| breach));
    whole
}

#[test]
fn messages_are_measured_with_all_of_their_fragments() {
    for (frames, refused) in [
        (vec![(0x82, 1000), (0x81, 1000)], None),
        (vec![(0x82, 1001)], Some(0)),
        (vec![(0x02, 600), (0x89, 125), (0x00, 400), (0x80, 0), (0x82, 1000)], None),
        (vec![(0x02, 600), (0x89, 125), (0x80, 401)], Some(2)),
        (vec![(0x82, 9), (0x02, 999), (0x00, 1), (0x00, 0), (0x00, 1)], Some(4)),
        (vec![(0x82, 70_000)], Some(0)),
        // Not as RFC 6455 wants it, and measured all the same.
        (vec![(0x02, 600), (0x02, 401)], Some(1)),
        (vec![(0xf3, 1001)], Some(0)),
        (vec![(0x8c, 1001)], Some(0)),
        (vec![(0x88, 2), (0x82, 1001)], Some(1)),
    ] {
        let frames: Vec<_> =
            frames.into_iter().map(|(first, length)| frame(first, length, By::Client)).collect();
        let before = |count| frames[..count].iter().map(Vec::len).sum();
        let expected = refused.map(|count| (before(count), Breach::TooBig));
        assert_eq!(judged(&limited(1000), By::Client, &frames.concat()), expected);
    }
}

#[test]
fn no_length_overflows() {
    for length in [u64::MAX, 1 << 63, (1 << 63) - 1, u64::MAX - 4] {
        let mut begin = frame(0x02, 3, By::Client);
        let at = begin.len();
        begin.extend_from_slice(&[0x80, 0xff]);
        begin.extend_from_slice(&length.to_be_bytes());
        let most = limited(u64::MAX - 1);
        let expected = (length > u64::MAX - 4).then_some((at, Breach::TooBig));
        assert_eq!(judged(&most, By::Client, &begin), expected);
        assert_eq!(judged(&limited(1 << 40), By::Client, &begin), Some((at, Breach::TooBig)));
        // However much of it comes.
        let mut guard = Guard::new(&most, By::Client).expect("a rule looks at it");
        if guard.check(&begin).is_ok() {
            assert_eq!(guard.check(&[0xff; 4096]), Ok(()));
        }
    }
}

#[test]
fn each_side_has_its_own_limit() {
    let rules = Rules { max_message_backend: Some(10), ..limited(5) };
    for (sender, most) in [(By::Client, 5), (By::Backend, 10)] {
        assert_eq!(judged(&rules, sender, &frame(0x82, most, sender)), None);
        let refused = judged(&rules, sender, &frame(0x82, most + 1, sender));
        assert_eq!(refused, Some((0, Breach::TooBig)));
    }
    assert_eq!(Guard::new(&limited(5), By::Backend), None);
    assert_eq!(Guard::new(&limited(0), By::Client), None);
    assert_eq!(Guard::new(&strict(Strict::Off), By::Client), None);
}

#[test]
fn strict_refuses_what_is_not_rfc_6455() {
    let wrong: [&[u8]; 23] = [
        &[0x81, 0x01],
        &[0x83],
        &[0x87],
        &[0x8b],
        &[0x8f],
        &[0x08],
        &[0x09],
        &[0x0a],
        &[0x89, 0xfe],
        &[0x88, 0xff],
        &[0x88, 0x81],
        &[0x80],
        &[0x00],
        &[0x01, 0x80, 0, 0, 0, 0, 0x81],
        &[0x02, 0x80, 0, 0, 0, 0, 0x89, 0x80, 0, 0, 0, 0, 0x02],
        &[0x02, 0x80, 0, 0, 0, 0, 0x80, 0x80, 0, 0, 0, 0, 0x80],
        &[0xc1],
        &[0xa1],
        &[0x91],
        &[0x82, 0xfe, 0, 125],
        &[0x82, 0xff, 0, 0, 0, 0, 0, 0, 0xff, 0xff],
        &[0x82, 0xff, 0x80, 0, 0, 0, 0, 1, 0, 0],
        &[0x82, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff],
    ];
    for bytes in wrong {
        // The byte that shows it is the last.
        let good = &bytes[..bytes.len() - 1];
        let mut guard = Guard::new(&strict(Strict::On), By::Client).expect("strict");
        assert_eq!(guard.check(good), Ok(()), "{good:x?}");
        let refused = judged(&strict(Strict::On), By::Client, bytes);
        assert!(matches!(refused, Some((_, Breach::Protocol))), "{bytes:x?}");
    }
    let masked = judged(&strict(Strict::On), By::Backend, &[0x81, 0x81]);
    assert_eq!(masked, Some((0, Breach::Protocol)));
}

#[test]
fn strict_refuses_nothing_else() {
    let lengths = [0, 1, 125, 126, 127, 65_535, 65_536, 200_000];
    for sender in [By::Client, By::Backend] {
        for length in lengths {
            let frames = [
                frame(0x81, length, sender),
                frame(0x02, length, sender),
                frame(0x89, 125, sender),
                frame(0x00, length, sender),
                frame(0x8a, 0, sender),
                frame(0x80, length, sender),
                frame(0x88, 125, sender),
                // Behind a Close frame nobody listens.
                vec![0xff; 300],
            ];
            assert_eq!(judged(&strict(Strict::On), sender, &frames.concat()), None);
        }
    }
}

#[test]
fn what_an_extension_defines_is_right() {
    let names = |list: &'static str| list.split(',').map(str::as_bytes);
    let deflate = Strict::On.with(names("permessage-deflate"));
    assert_eq!(deflate, Strict::Deflate);
    assert_eq!(Strict::On.with(names("Permessage-Deflate,x-mine")), Strict::Extended);
    assert_eq!(Strict::On.with(names("x-mine,permessage-deflate")), Strict::Extended);
    assert_eq!(Strict::Off.with(names("permessage-deflate,x-mine")), Strict::Off);
    for (first, refuses) in [(0xc1, false), (0x42, false), (0xa1, true), (0x91, true), (0xc9, true)]
    {
        let refused = judged(&strict(deflate), By::Backend, &[first, 0]);
        assert_eq!(refused.is_some(), refuses, "{first:x}");
    }
    // Only the first frame of a message is marked (RFC 7692 6.1).
    assert!(judged(&strict(deflate), By::Backend, &[0x41, 0, 0x40, 0]).is_some());
    assert!(judged(&strict(Strict::Extended), By::Backend, &[0xf3, 0, 0xfb, 0, 0xf1, 0]).is_none());
    assert!(judged(&strict(Strict::Extended), By::Backend, &[0x0b, 0]).is_some());
}

struct Open {
    client: TcpStream,
    backend: TcpStream,
    ends: Ends,
    _relay: relay::Relay,
}

fn open(rules: Rules, read_ahead: &[u8]) -> Open {
    let (client, a) = tcp_pair();
    let (backend, b) = tcp_pair();
    let (record, ends) = record();
    let a = Side { read_ahead: read_ahead.to_vec(), ..Side::plain(a.into()) };
    let tunnel = Tunnel::new(a, Side::plain(b.into()), websocket(), rules, record);
    let (relay, _) = relay(1);
    relay.adopt(tunnel).expect("adopted");
    for side in [&client, &backend] {
        side.set_read_timeout(Some(Duration::from_secs(20))).expect("timeout");
    }
    Open { client, backend, ends, _relay: relay }
}

impl Open {
    /// Reads both sides to their ends, and answers none of them.
    fn over(mut self) -> (Vec<u8>, Vec<u8>, End) {
        let [mut client, mut backend] = [Vec::new(), Vec::new()];
        self.client.read_to_end(&mut client).expect("read");
        self.backend.read_to_end(&mut backend).expect("read");
        drop((self.client, self.backend));
        (client, backend, self.ends.wait())
    }
}

fn masked_close(bytes: &[u8]) -> u16 {
    assert_eq!((bytes.len(), &bytes[..2]), (8, &[0x88, 0x82][..]), "{bytes:x?}");
    u16::from_be_bytes([bytes[6] ^ bytes[2], bytes[7] ^ bytes[3]])
}

#[test]
fn a_message_that_is_too_big_ends_the_tunnel_before_it() {
    let good = frame(0x82, 100, By::Client);
    let bad = frame(0x82, 101, By::Client);
    for ahead in [0, 5, good.len(), good.len() + bad.len()] {
        let bytes = [good.clone(), bad.clone()].concat();
        let mut tunnel = open(limited(100), &bytes[..ahead]);
        tunnel.client.write_all(&bytes[ahead..]).expect("write");
        let (client, backend, end) = tunnel.over();
        assert_eq!(client, [0x88, 2, 0x03, 0xf1], "1009, {ahead}");
        assert_eq!(backend[..good.len()], good);
        assert_eq!(masked_close(&backend[good.len()..]), 1001, "{ahead}");
        assert_eq!((end.by, end.why), (By::Client, Why::MessageTooBig), "{ahead}");
    }
}

#[test]
fn a_header_that_is_cut_ends_without_a_close_frame_behind_it() {
    let mut tunnel = open(limited(100), &[]);
    let bad = frame(0x82, 1000, By::Client);
    tunnel.client.write_all(&bad[..3]).expect("write");
    let mut first = [0; 3];
    tunnel.backend.read_exact(&mut first).expect("carried");
    tunnel.client.write_all(&bad[3..]).expect("write");
    let (client, backend, end) = tunnel.over();
    assert_eq!((client, backend), (vec![0x88, 2, 0x03, 0xf1], Vec::new()));
    assert_eq!((end.by, end.why), (By::Client, Why::MessageTooBig));
}

#[test]
fn a_back_end_that_breaks_the_protocol_is_told_1002() {
    let mut tunnel = open(strict(Strict::On), &[]);
    tunnel.backend.write_all(&[0x81, 1, b'x', 0x81, 0x80, 0, 0, 0, 0]).expect("write");
    let (client, backend, end) = tunnel.over();
    assert_eq!(client, [0x81, 1, b'x', 0x88, 2, 0x03, 0xe9]);
    assert_eq!(masked_close(&backend), 1002);
    assert_eq!((end.by, end.why), (By::Backend, Why::ProtocolError));
}

#[test]
fn large_messages_are_spliced_and_measured() {
    const MOST: usize = 64 << 20;
    let mut tunnel = open(limited(MOST as u64), &[]);
    let mut client = tunnel.client.try_clone().expect("dup");
    let sender = std::thread::spawn(move || {
        let big = frame(0x82, MOST, By::Client);
        client.write_all(&big).expect("write");
        // Whoever is told that it is too big need not take it.
        let _ = client.write_all(&frame(0x82, MOST + 1, By::Client));
    });
    let mut got = vec![0; MOST + 14];
    tunnel.backend.read_exact(&mut got).expect("carried");
    assert_eq!(got, frame(0x82, MOST, By::Client));
    let mut rest = Vec::new();
    tunnel.backend.read_to_end(&mut rest).expect("read");
    assert_eq!(masked_close(&rest), 1001);
    drop((tunnel.client, tunnel.backend));
    assert_eq!(tunnel.ends.wait().why, Why::MessageTooBig);
    sender.join().expect("sent");
}
