//! Idle timeouts.

mod common;

use std::io::{Read, Write};
use std::thread;
use std::time::{Duration, Instant};

use common::*;
use relay::{By, Rules, Side, Tunnel, Why};

fn idle_tunnel(
    rules: Rules,
    frames: [relay::Tracker; 2],
) -> (Tunnel, Ends, std::net::TcpStream, std::net::TcpStream) {
    let (client, a) = tcp_pair();
    let (backend, b) = tcp_pair();
    let (record, ends) = record();
    let tunnel = Tunnel::new(Side::plain(a.into()), Side::plain(b.into()), frames, rules, record);
    (tunnel, ends, client, backend)
}

#[test]
fn bytes_in_either_direction_put_it_off() {
    let (relay, _) = relay(1);
    let timeout = Duration::from_millis(600);
    let (tunnel, ends, mut client, mut backend) =
        idle_tunnel(Rules { idle_timeout: Some(timeout), ..Rules::default() }, opaque());
    relay.adopt(tunnel).expect("adopted");
    let mut last = Instant::now();
    for round in 0..16 {
        thread::sleep(Duration::from_millis(100));
        last = Instant::now();
        if round % 2 == 0 {
            client.write_all(b"x").expect("write");
            backend.read_exact(&mut [0]).expect("read");
        } else {
            backend.write_all(b"x").expect("write");
            client.read_exact(&mut [0]).expect("read");
        }
    }
    expect_end(&client);
    assert!(last.elapsed() >= timeout, "too early: {:?}", last.elapsed());
    expect_end(&backend);
    drop((client, backend));
    let end = ends.wait();
    assert_eq!((end.by, end.why), (By::Us, Why::IdleTimeout));
    assert_eq!(end.bytes_up + end.bytes_down, 16);
}

#[test]
fn a_websocket_is_told_1001() {
    let (relay, _) = relay(1);
    let timeout = Some(Duration::from_millis(100));
    let rules = Rules { idle_timeout: timeout, ..Rules::default() };
    let (tunnel, ends, mut client, mut backend) = idle_tunnel(rules, websocket());
    relay.adopt(tunnel).expect("adopted");
    let mut got = Vec::new();
    client.read_to_end(&mut got).expect("read");
    assert_eq!(got, [0x88, 2, 0x03, 0xe9]);
    got.clear();
    backend.read_to_end(&mut got).expect("read");
    assert_eq!(got[..2], [0x88, 0x82]);
    assert_eq!([got[6] ^ got[2], got[7] ^ got[3]], [0x03, 0xe9]);
    assert_eq!(got.len(), 8);
    drop((client, backend));
    assert_eq!(ends.wait().why, Why::IdleTimeout);
}

#[test]
fn peers_that_do_not_end_are_not_waited_for() {
    let relay = relay(1).0;
    let soon = Some(Duration::from_millis(50));
    let (tunnel, ends, client, backend) =
        idle_tunnel(Rules { idle_timeout: soon, linger: soon, ..Rules::default() }, opaque());
    relay.adopt(tunnel).expect("adopted");
    assert_eq!(ends.wait().why, Why::IdleTimeout);
    until("none is open", || relay.open() == 0);
    drop((client, backend));
}
