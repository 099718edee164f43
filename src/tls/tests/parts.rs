//! Records and messages that come in part.

mod common;

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;
use std::time::{Duration, Instant};

use common::forge::{DATA, Forge, HANDSHAKE, KEY_UPDATE, Peer, shaken};
use common::*;
use openssl::ssl::SslVersion;
use relay::{
    Budget, By, Counters, End, Record, Relay, Rules, Settings, Side, Tracker, Tunnel, Why,
};

const CLIENT_HELLO: u8 = 1;
const NEW_SESSION_TICKET: u8 = 4;

/// A message of so many bytes that the peer of a session may send: a ClientHello of TLS 1.2, which is
/// refused, or a NewSessionTicket of TLS 1.3.
fn message(version: SslVersion, size: u16) -> Vec<u8> {
    let body = if version == SslVersion::TLS1_2 {
        vec![0; size.into()]
    } else {
        // RFC 8446 4.6.1: lifetime, age, nonce, ticket, extensions.
        let [high, low] = (size - 13).to_be_bytes();
        let mut body = vec![0; size.into()];
        body[9..11].copy_from_slice(&[high, low]);
        body
    };
    let [high, low] = size.to_be_bytes();
    let kind = if version == SslVersion::TLS1_2 { CLIENT_HELLO } else { NEW_SESSION_TICKET };
    [&[kind, 0, high, low], &body[..]].concat()
}

/// A session whose former owner has read the first part of `record`.
fn taken_within(
    version: SslVersion,
    ours_is_server: bool,
    record: impl FnOnce(&mut Forge) -> Vec<u8>,
    part: usize,
) -> (Peer, Forge, Session, TcpStream) {
    let (peer, mut ours) = shaken(version, ours_is_server);
    let mut forge = Forge::new(&peer);
    let record = record(&mut forge);
    let mut wire = peer.wire();
    wire.write_all(&record[..part]).expect("write");
    until("it has arrived", || ours.get_ref().peek(&mut [0; 100]).expect("peek") == part);
    ours.get_ref().set_nonblocking(true).expect("nonblocking");
    assert!(ours.ssl_read(&mut [0; 100]).is_err());
    let (taken, socket) = taken(ours, Vec::new());
    wire.write_all(&record[part..]).expect("write");
    (peer, forge, taken.into_tls(), socket)
}

/// One read does no more for a session that was taken over within a record.
#[test]
fn one_read_goes_through_few_records_behind_a_part_of_one() {
    const SIZE: u16 = 3000;
    /// Records in one read.
    const MOST: usize = 32;
    for (version, ours_is_server) in [(SslVersion::TLS1_2, true), (SslVersion::TLS1_3, false)] {
        for begins in [false, true] {
            for part in [1, 5, 7] {
                let message = message(version, SIZE);
                let mut fragments = message.chunks(1);
                let first = |forge: &mut Forge| {
                    let mut record = Vec::new();
                    if begins {
                        let first = fragments.next().expect("a byte");
                        forge.record_of(HANDSHAKE, first, &mut record);
                    } else {
                        forge.record_of(DATA, b"7", &mut record);
                    }
                    record
                };
                let (peer, mut forge, mut session, socket) =
                    taken_within(version, ours_is_server, first, part);
                let mut sent = Vec::new();
                for fragment in fragments {
                    forge.record_of(HANDSHAKE, fragment, &mut sent);
                }
                forge.record(b"8", &mut sent);
                let mut wire = peer.wire();
                wire.write_all(&sent).expect("write");
                let mut all = vec![0; sent.len()];
                until("all is there", || socket.peek(&mut all).expect("peek") == all.len());
                let (mut came, mut reads) = (Vec::new(), 0);
                let mut buffer = vec![0; 65_536];
                while came.last() != Some(&b'8') {
                    let mut budget = Budget::default();
                    session.recheck();
                    reads += 1;
                    match session.read(&mut buffer, &mut budget) {
                        Ok(n) => came.extend_from_slice(&buffer[..n]),
                        Err(error) => {
                            assert_eq!(error.kind(), ErrorKind::Interrupted, "{error}");
                            assert!(budget.is_spent());
                        }
                    }
                }
                let what = format!("{version:?}, {begins}, {part}: {reads} reads");
                println!("{what}");
                assert_eq!(came, if begins { &b"8"[..] } else { &b"78"[..] }, "{what}");
                assert!(reads >= usize::from(SIZE) / MOST, "{what}");
            }
        }
    }
}

/// What a tunnel says at its end.
struct Told(Sender<End>);

impl Record for Told {
    fn ended(&mut self, end: &End) {
        let _ = self.0.send(end.clone());
    }
}

/// A relay with so much patience, and the tunnel of a peer by TLS and one without.
fn relayed(
    version: SslVersion,
    peer_is_client: bool,
    message_timeout: Duration,
) -> (Relay, Peer, Forge, TcpStream, Receiver<End>) {
    let counters: &'static Counters = Box::leak(Box::default());
    let settings = Settings { threads: 1, message_timeout, ..Settings::default() };
    let relay = Relay::start(&settings, counters).expect("relay");
    let (peer, ours) = shaken(version, peer_is_client);
    let forge = Forge::new(&peer);
    let (session, socket) = take_over(ours);
    let side = Side { fd: socket.into(), tls: Some(session), read_ahead: Vec::new() };
    let (other, plain) = tcp_pair();
    let plain = Side::plain(plain.into());
    let (client, backend) = if peer_is_client { (side, plain) } else { (plain, side) };
    let frames = [Tracker::opaque(), Tracker::opaque()];
    let (sender, ends) = channel();
    let tunnel = Tunnel::new(client, backend, frames, Rules::default(), Box::new(Told(sender)));
    relay.adopt(tunnel).expect("adopted");
    (relay, peer, forge, other, ends)
}

/// The messages that a client and a back end may send, the first of which holds the most memory.
const MESSAGES: [(SslVersion, bool); 3] =
    [(SslVersion::TLS1_2, true), (SslVersion::TLS1_3, true), (SslVersion::TLS1_3, false)];

/// A message that may come of this peer.
fn message_of((version, is_client): (SslVersion, bool)) -> Vec<u8> {
    if version == SslVersion::TLS1_3 && is_client {
        return KEY_UPDATE.to_vec();
    }
    message(version, 200)
}

/// Room for all of it is held once OpenSSL knows how long it is. One whose session has left OpenSSL
/// holds none, and goes on.
#[test]
fn a_message_that_is_not_completed_ends_its_tunnel() {
    for (version, is_client) in MESSAGES {
        let timeout = Duration::from_millis(100);
        let (_relay, peer, mut forge, mut other, ends) = relayed(version, is_client, timeout);
        let message = message_of((version, is_client));
        let mut sent = Vec::new();
        forge.record(b"x", &mut sent);
        forge.record_of(HANDSHAKE, &message[..4], &mut sent);
        let mut wire = peer.wire();
        wire.write_all(&sent).expect("write");
        other.read_exact(&mut [0]).expect("what stands before it");
        if NATIVE {
            assert!(ends.recv_timeout(3 * timeout).is_err());
            continue;
        }
        let end = ends.recv_timeout(PATIENCE).expect("the tunnel ends");
        assert_eq!(end.by, if is_client { By::Client } else { By::Backend });
        assert!(matches!(&end.why, Why::Tls(text) if text.contains("in time")), "{:?}", end.why);
        assert_eq!(other.read(&mut [0]).expect_err("a reset").kind(), ErrorKind::ConnectionReset);
    }
}

/// Each of many messages comes in part, and so late that all of them together take longer than one may.
#[test]
fn messages_that_are_completed_end_nothing() {
    for (version, is_client) in MESSAGES {
        let timeout = Duration::from_secs(2);
        let (relay, peer, mut forge, mut other, ends) = relayed(version, is_client, timeout);
        let message = message_of((version, is_client));
        let begin = Instant::now();
        let mut wire = peer.wire();
        while begin.elapsed() < timeout + timeout / 4 {
            let mut sent = Vec::new();
            forge.record_of(HANDSHAKE, &message[..4], &mut sent);
            wire.write_all(&sent).expect("write");
            thread::sleep(timeout / 20);
            sent.clear();
            forge.record_of(HANDSHAKE, &message[4..], &mut sent);
            if message == KEY_UPDATE {
                forge.update();
            }
            forge.record(b"x", &mut sent);
            wire.write_all(&sent).expect("write");
            let came = other.read_exact(&mut [0]);
            assert!(
                came.is_ok(),
                "{version:?}, {is_client}: {came:?}, {:?}",
                ends.recv_timeout(PATIENCE)
            );
        }
        assert_eq!(relay.open(), 1);
        assert!(ends.try_recv().is_err());
    }
}

/// A back end of TLS 1.2 asks for a renegotiation, in one record or two: it is told that there is none.
#[test]
fn a_hello_request_in_parts_is_answered() {
    let timeout = Duration::from_millis(100);
    for part in [0, 1, 3] {
        let (_relay, mut peer, mut forge, mut other, _ends) =
            relayed(SslVersion::TLS1_2, false, timeout);
        let mut sent = Vec::new();
        let hello_request = [0; 4];
        if part > 0 {
            forge.record_of(HANDSHAKE, &hello_request[..part], &mut sent);
            peer.wire().write_all(&sent).expect("write");
            thread::sleep(3 * timeout);
            sent.clear();
        }
        forge.record_of(HANDSHAKE, &hello_request[part..], &mut sent);
        forge.record(b"x", &mut sent);
        peer.wire().write_all(&sent).expect("write");
        other.read_exact(&mut [0]).expect("what stands behind it");
        // It has not asked, for all that its OpenSSL knows.
        let error = peer.stream.ssl_read(&mut [0]).expect_err("a warning");
        assert!(error.to_string().contains("no renegotiation"), "{error}");
    }
}
