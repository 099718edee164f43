//! Orderly ends: Close 1001 between frames, never within one, then the end.

mod common;

use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::os::fd::{AsRawFd, OwnedFd};
use std::thread;
use std::time::{Duration, Instant};

use common::*;
use relay::{By, Ending, Order, Relay, Rules, Side, Tunnel, Why};

fn websocket_tunnel(relay: &Relay) -> (TcpStream, TcpStream, Ends) {
    let (client, a) = tcp_pair();
    let (backend, b) = tcp_pair();
    let (record, ends) = record();
    let side = |fd: TcpStream| Side::plain(OwnedFd::from(fd));
    let tunnel = Tunnel::new(side(a), side(b), websocket(), Rules::default(), record);
    relay.adopt(tunnel).expect("adopted");
    (client, backend, ends)
}

/// Reads to the end and closes, as a peer does that is told to go.
fn read_out(mut socket: TcpStream) -> Vec<u8> {
    let mut bytes = Vec::new();
    socket.read_to_end(&mut bytes).expect("read");
    bytes
}

const UNMASKED_1001: [u8; 4] = [0x88, 2, 0x03, 0xe9];

fn is_masked_1001(bytes: &[u8]) -> bool {
    bytes.len() == 8
        && bytes[..2] == [0x88, 0x82]
        && [bytes[6] ^ bytes[2], bytes[7] ^ bytes[3]] == [0x03, 0xe9]
}

#[test]
fn each_side_is_told_if_it_is_between_frames() {
    let (relay, _) = relay(2);
    // Complete and incomplete frames towards the back end (up) and the client (down).
    let whole_up: &[u8] = &[0x82, 0x81, 1, 2, 3, 4, 5];
    let part_up: &[u8] = &[0x82, 0x85, 1, 2, 3, 4, 5];
    let whole_down: &[u8] = &[0x82, 0x01, 9];
    let part_down: &[u8] = &[0x82, 0x7e, 0x01, 0x00, 9, 9];
    let close_down: &[u8] = &[0x88, 0x02, 0x03, 0xe8];
    let cases = [
        (&[][..], &[][..], true, true),
        (whole_up, whole_down, true, true),
        (part_up, whole_down, false, true),
        (whole_up, part_down, true, false),
        (part_up, part_down, false, false),
        (whole_up, close_down, true, false),
    ];
    let mut peers = Vec::new();
    for (up, down, up_told, down_told) in cases {
        let (mut client, mut backend, ends) = websocket_tunnel(&relay);
        client.write_all(up).expect("write");
        backend.write_all(down).expect("write");
        backend.read_exact(&mut vec![0; up.len()]).expect("read");
        client.read_exact(&mut vec![0; down.len()]).expect("read");
        peers.push((client, backend, ends, up_told, down_told));
    }
    thread::scope(|scope| {
        let ending =
            scope.spawn(|| relay.end_all(Ending::at_once(Order::Stop, Some(1001), PATIENCE)));
        let mut all_ends = Vec::new();
        for (client, backend, ends, up_told, down_told) in peers {
            let down = read_out(client);
            let up = read_out(backend);
            assert_eq!(down == UNMASKED_1001, down_told, "{down:x?}");
            assert_eq!(is_masked_1001(&up), up_told, "{up:x?}");
            assert!(down_told || down.is_empty());
            assert!(up_told || up.is_empty());
            all_ends.push(ends);
        }
        assert_eq!(ending.join().expect("ended"), 0);
        for ends in all_ends {
            let end = ends.wait();
            assert_eq!((end.by, end.why), (By::Us, Why::Stopped));
        }
    });
    // It goes on for who comes later.
    let (mut client, mut backend, _ends) = websocket_tunnel(&relay);
    client.write_all(b"xx").expect("write");
    backend.read_exact(&mut [0; 2]).expect("read");
}

#[test]
fn under_full_traffic_frames_stay_whole() {
    let (relay, _) = relay(1);
    let tunnels: Vec<_> = (0..20).map(|_| websocket_tunnel(&relay)).collect();
    thread::scope(|scope| {
        let mut readers = Vec::new();
        for (index, (client, backend, _)) in tunnels.iter().enumerate() {
            scope.spawn(move || {
                // Frames of random lengths until the end.
                let mut random = Random::new(index as u64);
                let mut backend = backend;
                loop {
                    let length = 126 + random.below(30_000);
                    let mut frame = vec![0x82, 126];
                    frame.extend_from_slice(&(length as u16).to_be_bytes());
                    frame.resize(4 + length, 0xab);
                    if backend.write_all(&frame).is_err() {
                        return;
                    }
                }
            });
            // The back end hangs up once it is told.
            scope.spawn(move || {
                let mut backend = backend;
                let mut bytes = [0; 100];
                while backend.read(&mut bytes).is_ok_and(|n| n > 0) {}
                let _ = backend.shutdown(std::net::Shutdown::Both);
            });
            readers.push(scope.spawn(move || {
                let mut bytes = Vec::new();
                let mut client = client;
                client.read_to_end(&mut bytes).expect("an end, no reset");
                let _ = client.shutdown(std::net::Shutdown::Both);
                bytes
            }));
        }
        thread::sleep(Duration::from_millis(100));
        assert_eq!(
            relay.end_all(Ending::at_once(Order::Stop, Some(1001), Duration::from_secs(5))),
            0
        );
        let mut told = 0;
        for reader in readers {
            let bytes = reader.join().expect("read");
            let mut at = 0;
            // What is left after whole frames is a Close frame, or part of a frame.
            while bytes.len() - at >= 4 {
                if bytes[at..] == UNMASKED_1001 {
                    told += 1;
                    break;
                }
                assert_eq!(bytes[at..at + 2], [0x82, 126]);
                let length = usize::from(u16::from_be_bytes([bytes[at + 2], bytes[at + 3]]));
                let end = at + 4 + length;
                if end > bytes.len() {
                    assert!(bytes[at + 4..].iter().all(|&byte| byte == 0xab));
                    break;
                }
                assert!(bytes[at + 4..end].iter().all(|&byte| byte == 0xab));
                at = end;
            }
        }
        println!("{told} of 20 were between frames");
    });
}

/// Bytes that came and were not read.
fn unread(socket: &TcpStream) -> usize {
    let mut count: libc::c_int = 0;
    // SAFETY: the kernel writes one number, which lives on the stack.
    unsafe { libc::ioctl(socket.as_raw_fd(), libc::FIONREAD, &raw mut count) };
    usize::try_from(count).expect("a socket")
}

#[test]
fn who_cannot_send_on_and_says_nothing_more_is_told() {
    let (relay, _) = relay(1);
    // One side has sent, and the other does not read.
    for is_client in [true, false] {
        let (client, a) = tcp_pair();
        let (backend, b) = tcp_pair();
        let watched = if is_client { &a } else { &b }.try_clone().expect("dup");
        let (record, ends) = record();
        let [to_client, to_backend] = [a, b].map(|side| Side::plain(side.into()));
        let tunnel = Tunnel::new(to_client, to_backend, websocket(), Rules::default(), record);
        relay.adopt(tunnel).expect("adopted");
        let (mut sends, mut silent) = if is_client { (client, backend) } else { (backend, client) };
        // One endless frame.
        let mask = if is_client { 0x80 } else { 0 };
        sends.write_all(&[0x82, mask | 127, 0, 0, 1, 0, 0, 0, 0, 0]).expect("write");
        // Until a little is left lying for a while, so that nothing more comes of its own.
        let mut left_for = 0;
        while left_for < 50 {
            if unread(&watched) == 0 {
                sends.write_all(&[0; 4096]).expect("write");
                left_for = 0;
            } else {
                thread::sleep(Duration::from_millis(1));
                left_for += 1;
            }
        }
        thread::scope(|scope| {
            let ending =
                scope.spawn(|| relay.end_all(Ending::at_once(Order::Stop, Some(1001), PATIENCE)));
            let mut told = vec![0; if is_client { 4 } else { 8 }];
            sends.read_exact(&mut told).expect("a Close frame");
            assert!(told == UNMASKED_1001 || is_masked_1001(&told), "{told:x?}");
            expect_end(&sends);
            sends.shutdown(Shutdown::Write).expect("shutdown");
            while silent.read(&mut [0; 65_536]).expect("an end, no reset") > 0 {}
            drop((silent, watched));
            assert_eq!(ending.join().expect("ended"), 0);
        });
        assert_eq!(ends.wait().why, Why::Stopped);
    }
}

#[test]
fn who_has_ended_gets_what_is_kept_for_it() {
    const KEPT: usize = 24 << 20;
    let (relay, _) = relay(1);
    let (client, a) = tcp_pair();
    let (mut backend, b) = tcp_pair();
    let (record, ends) = record();
    let mut from_client = Side::plain(a.into());
    from_client.read_ahead = vec![7; KEPT];
    let sides = (from_client, Side::plain(b.into()));
    let tunnel = Tunnel::new(sides.0, sides.1, opaque(), Rules::default(), record);
    for peer in [&client, &backend] {
        peer.shutdown(Shutdown::Write).expect("shutdown");
    }
    relay.adopt(tunnel).expect("adopted");
    expect_end(&client);
    thread::scope(|scope| {
        let ending =
            scope.spawn(|| relay.end_all(Ending::at_once(Order::Stop, Some(1001), PATIENCE)));
        // It is not closed before all has come, however long that takes.
        thread::sleep(Duration::from_millis(200));
        let mut bytes = Vec::new();
        backend.read_to_end(&mut bytes).expect("read");
        assert_eq!(bytes.len(), KEPT);
        assert_eq!(ending.join().expect("ended"), 0);
    });
    assert_eq!(ends.wait().bytes_up, KEPT as u64);
}

#[test]
fn who_does_not_go_is_closed_in_time() {
    let (relay, counters) = relay(1);
    let mut peers: Vec<_> = (0..50).map(|_| websocket_tunnel(&relay)).collect();
    let began = Instant::now();
    let left =
        relay.end_all(Ending::at_once(Order::DrainTimeout, Some(1001), Duration::from_millis(300)));
    assert_eq!(left, 0);
    assert!(began.elapsed() >= Duration::from_millis(300));
    for (client, backend, ends) in &mut peers {
        assert_eq!(ends.wait().why, Why::DrainTimeout);
        let mut bytes = Vec::new();
        client.read_to_end(&mut bytes).expect("read");
        assert_eq!(bytes, UNMASKED_1001);
        bytes.clear();
        backend.read_to_end(&mut bytes).expect("read");
        assert!(is_masked_1001(&bytes));
    }
    let open = &counters.open;
    assert_eq!(open.load(std::sync::atomic::Ordering::Relaxed), 0);
}

#[test]
fn no_time_at_all_still_says_goodbye() {
    let (relay, _) = relay(1);
    let (client, backend, ends) = websocket_tunnel(&relay);
    assert_eq!(relay.end_all(Ending::at_once(Order::Stop, Some(1001), Duration::ZERO)), 0);
    assert_eq!(ends.wait().why, Why::Stopped);
    assert_eq!(read_out(client), UNMASKED_1001);
    assert!(is_masked_1001(&read_out(backend)));
}

#[test]
fn tunnels_end_one_after_the_other_if_there_is_time() {
    const TUNNELS: usize = 100;
    let spread = Duration::from_secs(2);
    let (relay, counters) = relay(2);
    let began = Instant::now();
    let mut peers: Vec<_> = (0..TUNNELS).map(|_| websocket_tunnel(&relay)).collect();
    let before = began.elapsed();
    let how = Ending { order: Order::Stop, code: Some(1012), spread, linger: Duration::ZERO };
    thread::scope(|scope| {
        let ending = scope.spawn(|| relay.end_all(how));
        until("the first has ended", || relay.open() < TUNNELS);
        // It joins them, and is carried until its time comes.
        let late = websocket_tunnel(&relay);
        assert!(!ending.is_finished());
        peers.push(late);
        assert_eq!(ending.join().expect("ended"), 0);
    });
    assert!(began.elapsed() >= spread / 2, "it took its time");
    let mut first_half = 0;
    for (client, backend, ends) in peers {
        let end = ends.wait();
        assert_eq!((end.by, end.why), (By::Us, Why::Stopped));
        first_half += usize::from(end.duration < before + spread / 2);
        assert_eq!(read_out(client), [0x88, 2, 0x03, 0xf4]);
        let up = read_out(backend);
        assert_eq!([up[6] ^ up[2], up[7] ^ up[3]], [0x03, 0xf4]);
    }
    assert!((10..TUNNELS - 10).contains(&first_half), "{first_half} in the first half");
    assert_eq!(counters.open.load(std::sync::atomic::Ordering::Relaxed), 0);
}

#[test]
fn an_order_at_once_ends_what_another_would_have_ended_later() {
    let (relay, _) = relay(1);
    let tunnels: Vec<_> = (0..20).map(|_| websocket_tunnel(&relay)).collect();
    let began = Instant::now();
    let hour = Duration::from_secs(3600);
    let slow = Ending { order: Order::DrainTimeout, code: Some(1001), spread: hour, linger: hour };
    thread::scope(|scope| {
        let slowly = scope.spawn(|| relay.end_all(slow));
        // Something goes on meanwhile.
        for (mut client, mut backend, _) in tunnels.iter().map(|(c, b, e)| (c, b, e)) {
            client.write_all(b"\x81\x80\0\0\0\0").expect("write");
            backend.read_exact(&mut [0; 6]).expect("read");
        }
        let quick = Ending::at_once(Order::Stop, Some(1001), Duration::ZERO);
        assert_eq!(relay.end_all(quick), 0);
        assert_eq!(slowly.join().expect("ended"), 0);
    });
    assert!(began.elapsed() < hour);
    for (client, backend, ends) in tunnels {
        assert_eq!(ends.wait().why, Why::Stopped);
        assert_eq!(read_out(client), UNMASKED_1001);
        assert!(is_masked_1001(&read_out(backend)));
    }
}

#[test]
fn without_a_code_there_is_only_an_end() {
    let (relay, _) = relay(1);
    let (client, backend, ends) = websocket_tunnel(&relay);
    thread::scope(|scope| {
        scope.spawn(|| relay.end_all(Ending::at_once(Order::Stop, None, PATIENCE)));
        assert!(read_out(client).is_empty());
        assert!(read_out(backend).is_empty());
    });
    assert_eq!(ends.wait().why, Why::Stopped);
}

#[test]
fn close_codes_are_reported() {
    let (relay, _) = relay(1);
    let (mut client, mut backend, ends) = websocket_tunnel(&relay);
    let key = [1, 2, 3, 4];
    let [high, low] = 1000_u16.to_be_bytes();
    client.write_all(&[0x88, 0x82, 1, 2, 3, 4, high ^ key[0], low ^ key[1]]).expect("write");
    backend.read_exact(&mut [0; 8]).expect("read");
    backend.write_all(&[0x88, 0x00]).expect("write");
    client.read_exact(&mut [0; 2]).expect("read");
    drop((client, backend));
    let end = ends.wait();
    assert_eq!((end.client_close, end.backend_close), (Some(1000), Some(1005)));
}
