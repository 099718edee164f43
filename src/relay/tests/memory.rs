//! Idle memory, as the system sees it. By hand:
//! `cargo test -p relay --release --test memory -- --ignored --nocapture`

mod common;

use std::os::unix::net::UnixStream;
use std::time::Duration;

use common::*;
use relay::{End, Record, Rules, Side, Tunnel};

struct Nothing;

impl Record for Nothing {
    fn ended(&mut self, _: &End) {}
}

fn private_kib() -> usize {
    let rollup = std::fs::read_to_string("/proc/self/smaps_rollup").expect("smaps_rollup");
    rollup
        .lines()
        .filter(|line| line.starts_with("Private_"))
        .filter_map(|line| line.split_whitespace().nth(1)?.parse::<usize>().ok())
        .sum()
}

#[test]
#[ignore = "a measurement, not a test"]
fn idle_tunnels() {
    const TUNNELS: usize = 9000;
    let (relay, _) = relay(1);
    for timeout in [None, Some(Duration::from_secs(3600))] {
        let before = private_kib();
        for _ in 0..TUNNELS {
            // The two ends of one pair talk to each other through the relay: nothing is said.
            let (a, b) = UnixStream::pair().expect("pair");
            let tunnel = Tunnel::new(
                Side::plain(a.into()),
                Side::plain(b.into()),
                websocket(),
                Rules { idle_timeout: timeout, ..Rules::default() },
                Box::new(Nothing),
            );
            relay.adopt(tunnel).expect("adopted");
        }
        let (probe, a) = unix_pair();
        let (other, b) = unix_pair();
        let (last, _ends) = tunnel(a, b);
        relay.adopt(last).expect("adopted");
        drop(probe);
        expect_end(&other);
        let each = (private_kib() - before) as f64 / TUNNELS as f64;
        println!("timeout {timeout:?}: {each:.2} KiB per idle tunnel");
        relay.end_all(relay::Ending::at_once(relay::Order::Stop, None, Duration::ZERO));
    }
}
