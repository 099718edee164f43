//! Three system calls per message and direction, of whatever kind.

mod common;
#[path = "common/strace.rs"]
mod strace;

use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use common::*;
use relay::{Rules, Side, Tunnel};

const ROUNDS: usize = 2000;

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

#[test]
fn three_per_message() {
    for test in ["small_messages", "large_messages_and_a_timeout"] {
        if let Some(calls) = strace::calls_of(test) {
            strace::assert_three_each(&calls, 2 * ROUNDS);
        }
    }
}
