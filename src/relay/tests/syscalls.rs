//! Three system calls per message and direction, of whatever kind; and those of Pings.

mod common;
#[path = "common/strace.rs"]
mod strace;

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use common::*;
use relay::{KeepAlive, Relay, Rules, Settings, Side, Tunnel};

const ROUNDS: usize = 2000;
/// Idle tunnels that are pinged, and how often.
const IDLE: usize = 100;
const PING_ROUNDS: usize = 3;

fn ping_pong(size: usize, timeout: Option<Duration>) {
    let (relay, _) = relay(1);
    let (mut client, a) = tcp_pair();
    let (mut backend, b) = tcp_pair();
    let (record, _ends, activity) = registered("");
    let side = |fd: std::net::TcpStream| Side::plain(fd.into());
    let rules = Rules { idle_timeout: timeout, ..Rules::default() };
    let tunnel = Tunnel::new(side(a), side(b), websocket(), rules, record);
    relay.adopt(tunnel).expect("adopted");
    let mut up = vec![0x82, 0x80 | 126, (size >> 8) as u8, size as u8, 1, 2, 3, 4];
    up.resize(8 + size, 7);
    strace::ping_pong(&mut client, &mut backend, &up, ROUNDS);
    assert!(activity.messages[0][1].load(Relaxed) > ROUNDS as u64, "others see them");
}

/// Not tests by themselves: what strace watches.
#[test]
#[ignore = "run by the other test, under strace"]
fn small_messages() {
    ping_pong(1000, None);
}

#[test]
#[ignore = "run by the other test, under strace"]
fn large_messages_and_a_timeout() {
    ping_pong(16_384, Some(Duration::from_secs(3600)));
}

/// Reads what has come, answers Pings, and returns how many there were.
fn answer(peer: &mut TcpStream, pong: &[u8]) -> usize {
    let mut buffer = [0; 64];
    let Ok(n) = peer.read(&mut buffer) else { return 0 };
    let (mut bytes, mut pings) = (&buffer[..n], 0);
    while let [first, second, ..] = bytes {
        if *first == 0x89 {
            peer.write_all(pong).expect("write");
            pings += 1;
        }
        bytes = &bytes[if second & 0x80 == 0 { 2 } else { 6 }..];
    }
    pings
}

#[test]
#[ignore = "run by the other test, under strace"]
fn silent_tunnels() {
    let keep_alive = Some(KeepAlive { idle_seconds: 60, interval_seconds: 1, probes: 3 });
    let settings = Settings { keep_alive, probation: Duration::ZERO, ..Settings::default() };
    let relay = Relay::start(&settings, counters()).expect("the relay starts");
    let rules = Rules {
        ping_interval: Some(Duration::from_secs(4)),
        ping_timeout: Some(Duration::from_secs(40)),
        ..Rules::default()
    };
    let mut peers = Vec::new();
    for _ in 0..IDLE {
        let ((client, a), (backend, b)) = (tcp_pair(), tcp_pair());
        for peer in [&client, &backend] {
            peer.set_nonblocking(true).expect("not blocking");
        }
        let side = |fd: TcpStream| Side::plain(fd.into());
        let (record, ends) = record();
        relay.adopt(Tunnel::new(side(a), side(b), websocket(), rules, record)).expect("adopted");
        peers.push((client, backend, ends));
    }
    let mut rounds = |count: usize| {
        let mut pings = 0;
        while pings < 2 * IDLE * count {
            std::thread::sleep(Duration::from_millis(2));
            for (client, backend, _) in &mut peers {
                pings += answer(client, &[0x8a, 0x80, 1, 2, 3, 4]) + answer(backend, &[0x8a, 0]);
            }
        }
    };
    rounds(1);
    strace::mark();
    rounds(PING_ROUNDS);
    strace::mark();
}

/// Each side is asked, and its answer goes on: mostly the second Ping with the first answer. What Pings
/// find out is not looked for in another way too.
#[test]
fn five_per_round_of_pings() {
    let Some(calls) = strace::calls_of("silent_tunnels") else { return };
    let rounds = IDLE * PING_ROUNDS;
    println!("{calls:?} for {rounds} rounds");
    let of = |name: &str| calls.get(name).copied().unwrap_or_default();
    // Two Pings and two answers are three calls, but where both Pings are due at once.
    assert!(of("sendto") <= rounds * 15 / 4, "{calls:?}");
    assert!(of("recvfrom") <= rounds * 9 / 4, "{calls:?}");
    assert!(of("sendto") >= rounds * 5 / 2 && of("recvfrom") >= rounds * 3 / 2, "{calls:?}");
    let others = calls.values().sum::<usize>() - of("sendto") - of("recvfrom") - of("epoll_wait");
    // The thread wakes itself when the first of its timers changes.
    assert!(others <= rounds / 2, "{calls:?}");
}

#[test]
fn three_per_message() {
    for test in ["small_messages", "large_messages_and_a_timeout"] {
        if let Some(calls) = strace::calls_of(test) {
            strace::assert_three_each(&calls, 2 * ROUNDS);
        }
    }
}
