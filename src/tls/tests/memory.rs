//! Idle memory of taken sessions. By hand:
//! `cargo test -p tls --release --test memory -- --ignored --nocapture --test-threads=1`

mod common;

use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::time::Duration;

use common::*;
use openssl::ssl::SslVersion;
use relay::{Counters, End, Ending, Order, Record, Relay, Rules, Settings, Side, Tracker, Tunnel};

struct Nothing;

impl Record for Nothing {
    fn ended(&mut self, _: &End) {}
}

/// Bytes in use of what malloc has given out, in all arenas.
fn in_use() -> usize {
    // SAFETY: takes nothing, returns a plain struct.
    unsafe { libc::mallinfo2() }.uordblks
}

/// What is freed when tunnels end is what they had. The peers stay as they are meanwhile.
fn measure(version: SslVersion, ours_is_server: bool) {
    const TUNNELS: usize = 1000;
    let context = builder(version).build();
    let counters: &'static Counters = Box::leak(Box::default());
    let relay = Relay::start(&Settings::default(), counters).expect("relay");
    let mut peers = Vec::new();
    let mut untaken = Vec::new();
    for index in 0..TUNNELS + 100 {
        let (mut peer, ours) = connect(&context, &context, ours_is_server);
        if index < 100 {
            untaken.push(ours);
            peers.push((peer, None));
            continue;
        }
        let (session, socket) = take_over(ours);
        let (mut other, plain) = tcp_pair();
        let tls_side =
            Side { fd: OwnedFd::from(socket), tls: Some(session), read_ahead: Vec::new() };
        let frames = [Tracker::client_to_backend(), Tracker::backend_to_client()];
        let plain_side = Side::plain(plain.into());
        let record = Box::new(Nothing);
        let tunnel = Tunnel::new(tls_side, plain_side, frames, Rules::default(), record);
        relay.adopt(tunnel).expect("adopted");
        let mut got = [0; 3000];
        peer.write_all(&got).expect("write");
        other.read_exact(&mut got).expect("read");
        other.write_all(&got).expect("write");
        peer.read_exact(&mut got).expect("read");
        peers.push((peer, Some(other)));
    }
    let before = in_use();
    drop(untaken);
    let untaken = (before - in_use()) as f64 / 100.0 / 1024.0;
    let before = in_use();
    assert_eq!(relay.end_all(Ending::at_once(Order::Stop, None, Duration::ZERO)), 0);
    let taken = (before - in_use()) as f64 / TUNNELS as f64 / 1024.0;
    println!(
        "{version:?}, ours is the server: {ours_is_server}: {taken:.2} KiB per idle tunnel; \
         an SSL of the openssl crate, not taken: {untaken:.2} KiB"
    );
}

#[test]
#[ignore = "a measurement, not a test"]
fn idle_sessions() {
    for version in [SslVersion::TLS1_2, SslVersion::TLS1_3] {
        for ours_is_server in [true, false] {
            measure(version, ours_is_server);
        }
    }
}
