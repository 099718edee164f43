//! Keepalive is turned on for a tunnel that outlives its probation, and not for one of a moment.

mod common;

use std::net::TcpStream;
use std::time::{Duration, Instant};

use common::*;
use relay::{KeepAlive, Relay, Settings, Tunnel};
use socket2::SockRef;

const PROBATION: Duration = Duration::from_millis(200);
const KEEP_ALIVE: KeepAlive = KeepAlive { idle_seconds: 61, interval_seconds: 21, probes: 4 };

fn start(keep_alive: Option<KeepAlive>) -> Relay {
    let settings = Settings { keep_alive, probation: PROBATION, ..Settings::default() };
    Relay::start(&settings, counters()).expect("relay")
}

/// A tunnel as its peers see it, and copies of the relay's own sockets.
struct Peers {
    client: TcpStream,
    backend: TcpStream,
    sides: [TcpStream; 2],
    ends: Ends,
}

fn peers() -> (Tunnel, Peers) {
    let (client, a) = tcp_pair();
    let (backend, b) = tcp_pair();
    let sides = [&a, &b].map(|side| side.try_clone().expect("dup"));
    let (tunnel, ends) = tunnel(a, b);
    (tunnel, Peers { client, backend, sides, ends })
}

fn is_on(socket: &TcpStream) -> bool {
    SockRef::from(socket).keepalive().expect("an option")
}

fn await_keepalive(peers: &Peers) {
    for side in &peers.sides {
        until("keepalive is on", || is_on(side));
    }
}

#[test]
fn those_that_outlive_their_probation_have_it() {
    let first = start(Some(KEEP_ALIVE));
    let adopted = Instant::now();
    let mut kept = Vec::new();
    let mut short = Vec::new();
    for number in 0..300 {
        let (tunnel, peers) = peers();
        first.adopt(tunnel).expect("adopted");
        if number % 3 == 0 {
            let Peers { client, backend, sides, ends } = peers;
            drop((client, backend));
            ends.wait();
            short.push(sides);
        } else {
            kept.push(peers);
        }
    }
    // On a slow machine they may have lived as long.
    if adopted.elapsed() < PROBATION {
        assert!(!short.iter().flatten().any(is_on));
        assert!(!kept.iter().flat_map(|peers| &peers.sides).any(is_on));
    }
    kept.iter().for_each(await_keepalive);
    assert!(adopted.elapsed() >= PROBATION);
    for side in kept.iter().flat_map(|peers| &peers.sides) {
        let side = SockRef::from(side);
        assert_eq!(side.tcp_keepalive_time().expect("an option"), Duration::from_secs(61));
        assert_eq!(side.tcp_keepalive_interval().expect("an option"), Duration::from_secs(21));
        assert_eq!(side.tcp_keepalive_retries().expect("an option"), 4);
        side.set_keepalive(false).expect("an option");
    }
    // The thread that carries a tunnel next does it anew.
    let second = start(Some(KEEP_ALIVE));
    for tunnel in first.stop() {
        second.adopt(tunnel).expect("adopted");
    }
    kept.iter().for_each(await_keepalive);
    // Not one that has no such setting.
    let third = start(None);
    for peers in &kept {
        peers.sides.iter().for_each(|side| {
            SockRef::from(side).set_keepalive(false).expect("an option");
        });
    }
    for tunnel in second.stop() {
        third.adopt(tunnel).expect("adopted");
    }
    let (last, of_last) = peers();
    third.adopt(last).expect("adopted");
    std::thread::sleep(2 * PROBATION);
    drop((of_last.client, of_last.backend));
    of_last.ends.wait();
    assert!(!kept.iter().flat_map(|peers| &peers.sides).any(is_on));
}
