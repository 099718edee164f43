//! A tunnel that lasts is told so; one of a moment is not.

mod common;

use std::os::fd::{AsRawFd, BorrowedFd, RawFd};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::{Duration, Instant};

use common::*;
use relay::{End, Record, Relay, Settings, Side, Tunnel};

const LASTING: Duration = Duration::from_millis(200);

struct Lasts {
    sockets: [RawFd; 2],
    told: Sender<()>,
    ended: Sender<End>,
}

impl Record for Lasts {
    fn lasts(&mut self, client: BorrowedFd<'_>, backend: BorrowedFd<'_>) {
        assert_eq!([client.as_raw_fd(), backend.as_raw_fd()], self.sockets);
        let _ = self.told.send(());
    }

    fn ended(&mut self, end: &End) {
        let _ = self.ended.send(end.clone());
    }
}

type Peers = (std::net::TcpStream, std::net::TcpStream);

fn tunnel_told() -> (Tunnel, Peers, Receiver<()>, Ends) {
    let (client, a) = tcp_pair();
    let (backend, b) = tcp_pair();
    let (told, is_told) = channel();
    let (ended, ends) = channel();
    let record = Lasts { sockets: [a.as_raw_fd(), b.as_raw_fd()], told, ended };
    let tunnel =
        Tunnel::new(Side::plain(a.into()), Side::plain(b.into()), opaque(), None, Box::new(record));
    (tunnel, (client, backend), is_told, Ends(ends))
}

#[test]
fn those_that_last_are_told_once() {
    let settings = Settings { lasting: LASTING, ..Settings::default() };
    let first = Relay::start(&settings, counters()).expect("relay");
    let adopted = Instant::now();
    let mut kept = Vec::new();
    let mut short = Vec::new();
    for number in 0..300 {
        let (tunnel, peers, told, ends) = tunnel_told();
        first.adopt(tunnel).expect("adopted");
        if number % 3 == 0 {
            drop(peers);
            ends.wait();
            short.push(told);
        } else {
            kept.push((peers, told, ends));
        }
    }
    let told_early = adopted.elapsed() >= LASTING;
    for (_, told, _) in &kept {
        told.recv_timeout(PATIENCE).expect("told");
        assert!(adopted.elapsed() >= LASTING);
    }
    // Nobody is told twice, but by the thread that carries it next; a slow machine may have had
    // short ones last.
    assert!(kept.iter().all(|(_, told, _)| told.try_recv().is_err()));
    assert!(told_early || short.iter().all(|told| told.try_recv().is_err()));
    let second = Relay::start(&settings, counters()).expect("relay");
    for tunnel in first.stop() {
        second.adopt(tunnel).expect("adopted");
    }
    for (_, told, _) in &kept {
        told.recv_timeout(PATIENCE).expect("told again");
    }
}
