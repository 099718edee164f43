//! A flood does not hold up quiet tunnels.

mod common;

use std::io::{Read, Write};
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::Relaxed;
use std::thread;

use common::*;

#[test]
fn quiet_tunnels_pass_a_flood() {
    const QUIET: usize = 1000;
    let (relay, counters) = relay(1);
    let stop = AtomicBool::new(false);
    let mut quiet = Vec::new();
    for _ in 0..QUIET {
        let (client, a) = tcp_pair();
        let (backend, b) = tcp_pair();
        let (tunnel, ends) = tunnel(a, b);
        relay.adopt(tunnel).expect("adopted");
        quiet.push((client, backend, ends));
    }
    let (mut flooder, a) = tcp_pair();
    let (mut drain, b) = tcp_pair();
    let (flood, _ends) = tunnel(a, b);
    relay.adopt(flood).expect("adopted");
    thread::scope(|scope| {
        scope.spawn(|| {
            let chunk = vec![0; 1 << 20];
            while !stop.load(Relaxed) {
                flooder.write_all(&chunk).expect("write");
            }
            flooder.shutdown(std::net::Shutdown::Both).expect("shutdown");
        });
        scope.spawn(|| {
            let mut bytes = vec![0; 1 << 20];
            while drain.read(&mut bytes).expect("read") > 0 {}
        });
        until("the flood runs", || counters.bytes_up.load(Relaxed) > 64 << 20);
        // How much of the flood goes by while a message does: the relay's own measure of time.
        let mut passed: Vec<u64> = quiet
            .iter_mut()
            .map(|(client, backend, _)| {
                let before = counters.bytes_up.load(Relaxed);
                client.write_all(b"quiet").expect("write");
                backend.read_exact(&mut [0; 5]).expect("read");
                counters.bytes_up.load(Relaxed) - before
            })
            .collect();
        stop.store(true, Relaxed);
        passed.sort_unstable();
        // A few polls' worth of 256 KiB each. The machine's own pauses are a few messages'.
        let (median, most) = (passed[QUIET / 2], passed[QUIET * 99 / 100]);
        assert!(median < 4 << 20, "{median} bytes of flood passed a quiet message");
        assert!(most < 64 << 20, "{most} bytes of flood passed one of a hundred quiet messages");
    });
}
