//! Sides that have ended or are held back cost no CPU. Alone in its binary, as it looks at the process's CPU time.

mod common;

use std::io::{Read, Write};
use std::net::Shutdown;
use std::thread;
use std::time::Duration;

use common::*;

/// CPU time of the process, in clock ticks.
fn cpu_ticks() -> u64 {
    let stat = std::fs::read_to_string("/proc/self/stat").expect("stat");
    let after_name = stat.rsplit(')').next().expect("fields");
    let fields: Vec<&str> = after_name.split_whitespace().collect();
    fields[11].parse::<u64>().expect("utime") + fields[12].parse::<u64>().expect("stime")
}

#[test]
fn a_half_closed_hung_up_or_held_back_side_costs_nothing() {
    let (relay, _) = relay(1);
    let mut held = Vec::new();
    for _ in 0..10 {
        // Half closed, with the other direction open.
        let (client, a) = tcp_pair();
        let (backend, b) = tcp_pair();
        let (half, ends) = tunnel(a, b);
        relay.adopt(half).expect("adopted");
        client.shutdown(Shutdown::Write).expect("shutdown");
        expect_end(&backend);
        held.push((client, backend, ends));
    }
    // Gone for good, while the other side neither reads nor ends.
    let (client, a) = unix_pair();
    let (backend, b) = unix_pair();
    let (hung_up, _ends) = tunnel(a, b);
    relay.adopt(hung_up).expect("adopted");
    client.set_nonblocking(true).expect("nonblocking");
    until("the back end is full", || (&client).write(&[1; 65_536]).is_err());
    drop(client);
    // Held back, with a client that sends on.
    let rules = relay::Rules { bandwidth: Some(1000), ..relay::Rules::default() };
    let mut slow = Vec::new();
    for _ in 0..10 {
        let (client, a) = tcp_pair();
        let (backend, b) = tcp_pair();
        let (record, ends) = record();
        let sides = [a, b].map(|side| relay::Side::plain(side.into()));
        let [a, b] = sides;
        relay.adopt(relay::Tunnel::new(a, b, opaque(), rules, record)).expect("adopted");
        (&client).write_all(&[1; 50_000]).expect("write");
        (&backend).read_exact(&mut [0; 1000]).expect("what may come at once");
        slow.push((client, backend, ends));
    }
    let before = cpu_ticks();
    thread::sleep(Duration::from_millis(500));
    // A spin is 50 ticks.
    assert!(cpu_ticks() - before < 20, "the relay spins");
    drop(backend);
}
