//! Floods go through pipes, of which there are few. Alone in its binary, as it counts the
//! process's descriptors.

mod common;
#[path = "common/flood.rs"]
mod flood;

use std::io::{Read, Write};
use std::thread;
use std::time::Duration;

use common::*;
use flood::*;
use relay::{DESCRIPTORS_OF_PIPES, Ending, Order, Settings, Why};

/// The numbers of this process's descriptors of pipes.
fn pipes() -> Vec<i32> {
    let entries = std::fs::read_dir("/proc/self/fd").expect("fd");
    let is_pipe = |entry: &std::fs::DirEntry| {
        let target = std::fs::read_link(entry.path()).unwrap_or_default();
        target.to_string_lossy().starts_with("pipe:")
    };
    let number = |entry: std::fs::DirEntry| entry.file_name().to_str()?.parse().ok();
    entries.flatten().filter(is_pipe).filter_map(number).collect()
}

/// One frame after another of several MiB, some sent by the pipe, through tunnels that stand
/// still in the middle of it; then all of it arrives, and the frames were followed.
#[test]
fn floods_go_through_few_pipes() {
    const TUNNELS: u64 = 48;
    const LENGTH: u64 = 1 << 40;
    let before = pipes().len();
    let settings = Settings { lowest_descriptor: 2000, ..Settings::default() };
    let relay = relay::Relay::start(&settings, counters()).expect("relay");
    let mut held = Vec::new();
    for seed in 0..TUNNELS {
        let (tunnel, ends, client, backend) = flooded(websocket());
        relay.adopt(tunnel).expect("adopted");
        (&backend).write_all(&header(LENGTH)).expect("write");
        let mut pattern = Pattern::new(seed);
        let sent = fill(&backend, &mut pattern);
        held.push((seed, sent, ends, client, backend));
    }
    // Each that stands still has one, as long as there are some.
    let in_use = pipes();
    assert_eq!(in_use.len() - before, DESCRIPTORS_OF_PIPES);
    assert!(in_use.iter().filter(|fd| **fd >= 2000).count() >= DESCRIPTORS_OF_PIPES);
    for (seed, sent, _, client, _) in &held {
        let mut head = [0; 10];
        { client }.read_exact(&mut head).expect("read");
        assert_eq!(head[..], header(LENGTH));
        expect_pattern(client, *seed, *sent);
    }
    // Within a frame nobody gets a Close.
    assert_eq!(
        relay.end_all(Ending::at_once(Order::Stop, Some(1001), Duration::from_millis(100))),
        0
    );
    for (_, _, ends, client, _) in &held {
        expect_end(client);
        assert_eq!(ends.wait().why, Why::Stopped);
    }
    // What the crowd needed is given back with its last tunnel.
    until("no pipe is left", || pipes().len() == before);
}

/// The tracker knows where it is behind payload that it has not seen.
#[test]
fn frames_are_followed_behind_a_flood() {
    const LENGTH: usize = 40 << 20;
    let (relay, _) = relay(1);
    let (tunnel, ends, client, backend) = flooded(websocket());
    relay.adopt(tunnel).expect("adopted");
    thread::scope(|scope| {
        scope.spawn(|| {
            for seed in [1, 2] {
                (&backend).write_all(&header(LENGTH as u64)).expect("write");
                send_pattern(&backend, seed, LENGTH);
            }
        });
        for seed in [1, 2] {
            let mut head = [0; 10];
            (&client).read_exact(&mut head).expect("read");
            assert_eq!(head[..], header(LENGTH as u64));
            expect_pattern(&client, seed, LENGTH);
        }
    });
    assert_eq!(
        relay.end_all(Ending::at_once(Order::Stop, Some(1001), Duration::from_millis(100))),
        0
    );
    let mut close = [0; 4];
    (&client).read_exact(&mut close).expect("a Close between two frames");
    assert_eq!(close, [0x88, 2, 0x03, 0xe9]);
    assert_eq!(ends.wait().why, Why::Stopped);
}
