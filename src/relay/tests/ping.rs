//! Pings to sides that say nothing.

mod common;

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::mpsc::{Receiver, channel};
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

/// Sends frames until no more are taken, and the rest of the last one when it is told to.
fn flood(mut to: &TcpStream, masked: bool, go_on: &Receiver<()>) {
    let mut frame = frame_header(0x82, masked, 4096);
    // With the masking key.
    frame.resize(frame.len() + 4 * usize::from(masked) + 4096, 0);
    to.set_write_timeout(Some(Duration::from_millis(300))).expect("timeout");
    let mut sent = 0;
    while let Ok(more) = to.write(&frame[sent..]) {
        sent = (sent + more) % frame.len();
    }
    to.set_write_timeout(None).expect("timeout");
    go_on.recv().expect("told");
    to.write_all(&frame[sent..]).expect("write");
}

/// What it answers would lie behind what the other side does not take.
#[test]
fn who_is_not_read_is_not_asked() {
    for floods in [By::Client, By::Backend] {
        let (relay, client, backend, ends) = open(websocket());
        let masked = floods == By::Client;
        let (from, to) = if masked { (&client, &backend) } else { (&backend, &client) };
        std::thread::scope(|scope| {
            let (tell, go_on) = channel();
            scope.spawn(move || flood(from, masked, &go_on));
            std::thread::sleep(2 * (INTERVAL + TIMEOUT));
            assert_eq!(relay.open(), 1, "{floods:?}");
            tell.send(()).expect("told");
            // Once all of it has come it is asked, and says nothing.
            scope.spawn(|| std::io::copy(&mut &*to, &mut std::io::sink()).expect("read"));
            assert_eq!(read(from), if masked { [0x89, 0] } else { [0x89, 0x80] });
            assert_eq!(ends.wait().why, Why::PingTimeout);
            drop(relay);
        });
    }
}

/// A side whose socket has no room at all is asked as soon as it has.
#[test]
fn who_has_no_room_for_a_ping_is_asked_later() {
    const INTERVAL: Duration = Duration::from_secs(4);
    const TIMEOUT: Duration = Duration::from_secs(2);
    let ((mut client, a), (mut backend, b)) = (tcp_pair(), unix_pair());
    let (record, ends, activity) = registered("");
    let rules =
        Rules { ping_interval: Some(INTERVAL), ping_timeout: Some(TIMEOUT), ..Rules::default() };
    let (a, b) = (Side::plain(a.into()), Side::plain(b.into()));
    let (relay, _) = relay(1);
    let begin = Instant::now();
    relay.adopt(Tunnel::new(a, b, websocket(), rules, record)).expect("adopted");
    let mut frame = frame_header(0x82, true, 30_000);
    frame.resize(frame.len() + 4 + 30_000, 0);
    // The kernel takes all of the last one, or there would be something to wait for: so many fill it.
    let count = {
        let (to, _from) = unix_pair();
        to.set_nonblocking(true).expect("not blocking");
        let writes = std::iter::repeat_with(|| (&to).write(&frame));
        writes.take_while(|written| written.as_ref().is_ok_and(|n| *n == frame.len())).count()
    };
    for sent in 1..=count {
        if sent == count {
            // So the client is asked long after the back end.
            std::thread::sleep(INTERVAL * 3 / 4);
        }
        client.write_all(&frame).expect("write");
        let bytes = (sent * frame.len()) as u64;
        until("it goes on", || activity.bytes[0].load(Relaxed) == bytes);
    }
    // The back end is asked by then, and not gone yet.
    std::thread::sleep((INTERVAL + TIMEOUT / 4).saturating_sub(begin.elapsed()));
    backend.read_exact(&mut vec![0; count * frame.len()]).expect("all of them");
    let mut ping = [0; 6];
    backend.read_exact(&mut ping).expect("a Ping");
    assert!(masked_ping(ping));
    backend.write_all(&[0x8a, 0]).expect("write");
    // On a slow machine the client was asked meanwhile.
    let answer = match read(&client) {
        [0x89, 0] => read(&client),
        other => other,
    };
    assert_eq!(answer, [0x8a, 0], "it is not too late");
    drop((client, backend));
    ends.wait();
}
