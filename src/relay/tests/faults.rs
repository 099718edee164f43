//! What goes wrong stays where it is.

mod common;

use std::fs::File;
use std::io::{self, Read, Write};
use std::sync::atomic::Ordering::Relaxed;

use common::*;
use relay::{Activity, Budget, By, End, Record, Rules, Side, Tls, Tunnel, Why};

/// A TLS session that panics at its first read, and again when dropped.
struct Panics {
    on_drop: bool,
}

impl Tls for Panics {
    fn read(&mut self, _: &mut [u8], _: &mut Budget) -> io::Result<usize> {
        panic!("the test's panic")
    }
    fn closed_cleanly(&self) -> bool {
        true
    }
    fn write(&mut self, _: &[u8], _: bool) -> io::Result<()> {
        Ok(())
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
    fn kept(&self) -> usize {
        0
    }
    fn close(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Drop for Panics {
    fn drop(&mut self) {
        if self.on_drop {
            panic!("the test's second panic");
        }
    }
}

struct PanicsAtEnd;

impl Record for PanicsAtEnd {
    fn ended(&mut self, _: &End) {
        panic!("the test's panic in a record")
    }
}

#[test]
fn a_panic_ends_one_tunnel_only() {
    let (relay, counters) = relay(1);
    let (mut client, a) = tcp_pair();
    let (mut backend, b) = tcp_pair();
    let (healthy, _healthy_ends) = tunnel(a, b);
    relay.adopt(healthy).expect("adopted");
    for on_drop in [false, true] {
        let (bad_client, a) = tcp_pair();
        let (bad_backend, b) = tcp_pair();
        let (record, ends) = record();
        let side =
            Side { tls: Some(Box::new(Panics { on_drop })), fd: a.into(), read_ahead: Vec::new() };
        let bad = Tunnel::new(side, Side::plain(b.into()), opaque(), Rules::default(), record);
        relay.adopt(bad).expect("adopted");
        let end = ends.wait();
        assert_eq!((end.by, end.why), (By::Us, Why::Panic));
        for mut peer in [bad_client, bad_backend] {
            let error = peer.read(&mut [0]).expect_err("a reset");
            assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
        }
    }
    let (bad_client, a) = tcp_pair();
    let (bad_backend, b) = tcp_pair();
    let bad = Tunnel::new(
        Side::plain(a.into()),
        Side::plain(b.into()),
        opaque(),
        Rules::default(),
        Box::new(PanicsAtEnd),
    );
    relay.adopt(bad).expect("adopted");
    drop((bad_client, bad_backend));
    until("the bad ones are gone", || relay.open() == 1);
    client.write_all(b"fine").expect("write");
    backend.read_exact(&mut [0; 4]).expect("read");
    assert_eq!(relay.alive(), 1);
    assert_eq!(counters.ended_by.of(&Why::Panic).load(Relaxed), 2);
    assert_eq!(counters.open.load(Relaxed), 1);
}

/// A record that panics before its tunnel has a task; says how it ended.
struct PanicsAtBegin(Box<dyn Record>);

impl Record for PanicsAtBegin {
    fn activity(&self) -> Option<&'static Activity> {
        panic!("the test's panic before a task is there")
    }

    fn ended(&mut self, end: &End) {
        self.0.ended(end);
    }
}

#[test]
fn a_panic_before_its_task_is_there_ends_one_tunnel_only() {
    let (relay, counters) = relay(1);
    let (mut client, a) = tcp_pair();
    let (mut backend, b) = tcp_pair();
    let (healthy, _healthy_ends) = tunnel(a, b);
    relay.adopt(healthy).expect("adopted");
    let (mut bad_client, a) = tcp_pair();
    let (_bad_backend, b) = tcp_pair();
    let (record, ends) = record();
    let [a, b] = [a, b].map(|side| Side::plain(side.into()));
    let bad = Tunnel::new(a, b, opaque(), Rules::default(), Box::new(PanicsAtBegin(record)));
    relay.adopt(bad).expect("adopted");
    let end = ends.wait();
    assert_eq!((end.by, end.why), (By::Us, Why::Panic));
    assert_eq!(bad_client.read(&mut [0]).expect("its end"), 0);
    until("the bad one is gone", || relay.open() == 1);
    client.write_all(b"fine").expect("write");
    backend.read_exact(&mut [0; 4]).expect("read");
    assert_eq!(relay.alive(), 1);
    assert_eq!(counters.open.load(Relaxed), 1);
}

#[test]
fn what_cannot_be_watched_ends_at_once() {
    let (relay, counters) = relay(1);
    let (_client, a) = tcp_pair();
    let file = File::open("/proc/self/exe").expect("open");
    let (tunnel, ends) = tunnel(a, file);
    relay.adopt(tunnel).expect("adopted");
    let end = ends.wait();
    assert_eq!((end.by, end.why), (By::Backend, Why::Error(libc::EPERM)));
    until("open is 0", || relay.open() == 0);
    assert_eq!(counters.ended.load(Relaxed), 1);
}
