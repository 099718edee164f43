//! Descriptors go back to where they were. Alone in its binary, as it counts the process's.

mod common;

use std::io::{Read, Write};

use common::*;
use relay::{Ending, Order};

fn open_descriptors() -> usize {
    std::fs::read_dir("/proc/self/fd").expect("fd").count()
}

#[test]
fn the_baseline_is_restored() {
    let before_relay = open_descriptors();
    let (relay, _) = relay(2);
    let baseline = open_descriptors();
    for round in 0..5 {
        let mut peers = Vec::new();
        for _ in 0..200 {
            let (mut client, a) = unix_pair();
            let (mut backend, b) = unix_pair();
            let (tunnel, ends) = tunnel(a, b);
            relay.adopt(tunnel).expect("adopted");
            client.write_all(b"x").expect("write");
            backend.read_exact(&mut [0]).expect("read");
            peers.push((client, backend, ends));
        }
        assert_eq!(open_descriptors(), baseline + 4 * 200);
        match round {
            // By the peers, by order, by giving them back (below).
            0 | 1 => drop(peers),
            _ => {
                relay.end_all(Ending::at_once(
                    Order::Stop,
                    None,
                    std::time::Duration::from_millis(10),
                ));
                drop(peers);
            }
        }
        until("all are closed", || open_descriptors() == baseline);
    }
    let (client, a) = unix_pair();
    let (backend, b) = unix_pair();
    let (tunnel, _ends) = tunnel(a, b);
    relay.adopt(tunnel).expect("adopted");
    let tunnels = relay.stop();
    assert_eq!(open_descriptors(), before_relay + 4);
    drop((tunnels, client, backend));
    assert_eq!(open_descriptors(), before_relay);
}
