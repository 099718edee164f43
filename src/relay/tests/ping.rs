//! Pings to sides that say nothing.

mod common;

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use common::*;
use relay::{By, Relay, Rules, Side, Tracker, Tunnel, Why};

const INTERVAL: Duration = Duration::from_millis(800);
const TIMEOUT: Duration = Duration::from_millis(600);
/// How much later than its time something may come.
const SLACK: Duration = Duration::from_secs(3);

fn open(frames: [Tracker; 2]) -> (Relay, TcpStream, TcpStream, Ends) {
    open_with(frames, INTERVAL)
}

fn open_with(frames: [Tracker; 2], interval: Duration) -> (Relay, TcpStream, TcpStream, Ends) {
    let (client, a) = tcp_pair();
    let (backend, b) = tcp_pair();
    let (record, ends) = record();
    let rules = Rules {
        ping_interval: Some(interval),
        ping_timeout: Some(TIMEOUT),
        linger: Some(Duration::from_millis(100)),
        ..Rules::default()
    };
    let tunnel = Tunnel::new(Side::plain(a.into()), Side::plain(b.into()), frames, rules, record);
    let (relay, _) = relay(1);
    relay.adopt(tunnel).expect("adopted");
    for side in [&client, &backend] {
        side.set_read_timeout(Some(Duration::from_secs(20))).expect("timeout");
    }
    (relay, client, backend, ends)
}

fn read<const N: usize>(mut from: &TcpStream) -> [u8; N] {
    let mut bytes = [0; N];
    from.read_exact(&mut bytes).expect("read");
    bytes
}

fn masked_ping(bytes: [u8; 6]) -> bool {
    bytes[..2] == [0x89, 0x80]
}

#[test]
fn both_sides_are_asked_and_their_answers_go_on() {
    let (_relay, mut client, mut backend, ends) = open(websocket());
    for _ in 0..3 {
        let begin = Instant::now();
        assert_eq!(read(&client), [0x89, 0]);
        assert!(masked_ping(read(&backend)));
        assert!(begin.elapsed() < INTERVAL + SLACK, "{:?}", begin.elapsed());
        let pong = [0x8a, 0x80, 1, 2, 3, 4];
        client.write_all(&pong).expect("write");
        assert_eq!(read(&backend), pong);
        backend.write_all(&[0x8a, 0]).expect("write");
        assert_eq!(read(&client), [0x8a, 0]);
    }
    drop((client, backend));
    ends.wait();
}

/// Who is asked first is a matter of chance, and now and then both are at once.
#[test]
fn who_is_asked_second_gets_the_ping_with_the_others_pong() {
    const PONG: [u8; 6] = [0x8a, 0x80, 1, 2, 3, 4];
    const TRIES: usize = 12;
    let (mut together, mut tries) = (0, 0);
    while together < 2 {
        tries += 1;
        assert!(tries <= TRIES, "{together} times together");
        let (_relay, mut client, mut backend, ends) = open_with(websocket(), 3 * INTERVAL);
        for side in [&client, &backend] {
            side.set_nonblocking(true).expect("not blocking");
        }
        let mut buffer = [0; 32];
        let client_is_first = loop {
            if client.read(&mut buffer).is_ok() {
                break true;
            }
            if backend.read(&mut buffer).is_ok() {
                break false;
            }
            std::thread::sleep(Duration::from_millis(1));
        };
        for side in [&client, &backend] {
            side.set_nonblocking(false).expect("blocking");
        }
        let got = if client_is_first {
            client.write_all(&PONG).expect("write");
            let length = backend.read(&mut buffer).expect("read");
            (buffer[..2] == [0x89, 0x80]).then(|| buffer[6..length] == PONG)
        } else {
            backend.write_all(&[0x8a, 0]).expect("write");
            let length = client.read(&mut buffer).expect("read");
            (buffer[..2] == [0x89, 0]).then(|| buffer[2..length] == [0x8a, 0])
        };
        together += usize::from(got.expect("a Ping first"));
        drop((client, backend));
        ends.wait();
    }
}

#[test]
fn who_does_not_answer_is_gone() {
    for silent in [By::Client, By::Backend] {
        let begin = Instant::now();
        let (_relay, mut client, mut backend, ends) = open(websocket());
        assert_eq!(read(&client), [0x89, 0]);
        assert!(masked_ping(read(&backend)));
        // What answers need not be a Pong.
        let (by, close): (_, &[u8]) = match silent {
            By::Client => {
                backend.write_all(&[0x81, 1, b'x']).expect("write");
                (By::Client, &[0x81, 1, b'x', 0x88, 2, 0x03, 0xe9])
            }
            _ => {
                client.write_all(&[0x81, 0x81, 0, 0, 0, 0, b'x']).expect("write");
                (By::Backend, &[0x88, 2, 0x03, 0xe9])
            }
        };
        let mut got = Vec::new();
        client.read_to_end(&mut got).expect("read");
        assert_eq!(got, close);
        let took = begin.elapsed();
        assert!(took >= INTERVAL * 7 / 8 + TIMEOUT, "{took:?}");
        assert!(took < INTERVAL + TIMEOUT + SLACK, "{took:?}");
        drop((client, backend));
        let end = ends.wait();
        assert_eq!((end.by, end.why), (by, Why::PingTimeout));
    }
}

#[test]
fn nothing_is_put_into_a_frame_but_between_fragments() {
    let (_relay, mut client, mut backend, ends) = open(websocket());
    // The client gets no Ping before this frame is over.
    backend.write_all(&[0x01, 5, b'h']).expect("write");
    assert_eq!(read(&client), [0x01, 5, b'h']);
    for _ in 0..3 {
        assert!(masked_ping(read(&backend)));
        backend.write_all(b"e").expect("write");
        assert_eq!(read(&client), [b'e']);
    }
    backend.write_all(b"y").expect("write");
    assert_eq!(read(&client), [b'y', 0x89, 0]);
    client.write_all(&[0x81, 0x80, 0, 0, 0, 0]).expect("write");
    drop((client, backend));
    ends.wait();
}

#[test]
fn what_is_no_websocket_is_left_alone() {
    let (relay, client, backend, ends) = open(opaque());
    client.set_read_timeout(Some(INTERVAL + TIMEOUT)).expect("timeout");
    assert!((&client).read(&mut [0]).is_err(), "silence");
    assert_eq!(relay.open(), 1);
    drop((client, backend));
    ends.wait();
}
