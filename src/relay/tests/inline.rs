//! Tunnels that end on the thread that has them.

mod common;

use std::io::{Read, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread;
use std::time::{Duration, Instant};

use common::*;
use relay::{By, Ending, Order, Rules, Settings, Side, Tunnel, Why};

#[test]
fn peers_are_told_and_waited_for() {
    let (first, _) = relay(1);
    let (mut peers, mut ends) = (Vec::new(), Vec::new());
    for _ in 0..20 {
        let (client, a) = tcp_pair();
        let (backend, b) = tcp_pair();
        let (record, end) = record();
        let [a, b] = [a, b].map(|side| Side::plain(side.into()));
        first.adopt(Tunnel::new(a, b, websocket(), Rules::default(), record)).expect("adopted");
        peers.push((client, backend));
        ends.push(end);
    }
    let tunnels = first.stop();
    let counters = counters();
    let ending = thread::spawn(move || {
        let began = Instant::now();
        let within = Duration::from_secs(20);
        let how = Ending::at_once(Order::DrainTimeout, Some(1001), within);
        relay::end_inline(&Settings::default(), counters, tunnels, || true, how);
        began.elapsed()
    });
    for (client, backend) in &mut peers {
        let mut frame = [0; 4];
        client.read_exact(&mut frame).expect("a Close frame");
        assert_eq!(frame, [0x88, 2, 0x03, 0xe9]);
        expect_end(&*client);
        let mut masked = [0; 8];
        backend.read_exact(&mut masked).expect("a Close frame");
        assert_eq!(masked[..2], [0x88, 0x82]);
        expect_end(&*backend);
    }
    assert!(!ending.is_finished());
    drop(peers);
    assert!(ending.join().expect("no panic") < Duration::from_secs(10));
    for end in ends {
        let end = end.wait();
        assert_eq!((end.by, end.why), (By::Us, Why::DrainTimeout));
    }
    assert_eq!((counters.open.load(Relaxed), counters.ended.load(Relaxed)), (0, 20));
}

#[test]
fn peers_that_stay_are_left_at_the_deadline() {
    let (mut client, a) = tcp_pair();
    let (_backend, b) = tcp_pair();
    let (tunnel, end) = tunnel(a, b);
    let within = Duration::from_millis(200);
    let began = Instant::now();
    let counters = counters();
    let how = Ending::at_once(Order::Stop, None, within);
    relay::end_inline(&Settings::default(), counters, vec![tunnel], || true, how);
    assert!(began.elapsed() >= within && began.elapsed() < Duration::from_secs(5));
    assert_eq!(end.wait().why, Why::Stopped);
    expect_end(&client);
    let _ = client.write(b"to nobody");
}

#[test]
fn they_are_carried_until_it_is_time() {
    let (mut client, a) = tcp_pair();
    let (mut backend, b) = tcp_pair();
    let (tunnel, end) = tunnel(a, b);
    let is_time = Arc::new(AtomicBool::new(false));
    let told = Arc::clone(&is_time);
    let carrying = thread::spawn(move || {
        let how = Ending::at_once(Order::DrainTimeout, None, Duration::from_secs(20));
        let is_time = || told.load(Relaxed);
        relay::end_inline(&Settings::default(), counters(), vec![tunnel], is_time, how);
    });
    for round in 0..20 {
        client.write_all(&[round]).expect("write");
        let mut got = [0];
        backend.read_exact(&mut got).expect("read");
        assert_eq!(got, [round]);
    }
    is_time.store(true, Relaxed);
    expect_end(&client);
    expect_end(&backend);
    drop((client, backend));
    carrying.join().expect("no panic");
    assert_eq!(end.wait().why, Why::DrainTimeout);
}

/// They may all end before it is time, and are not waited for then.
#[test]
fn nobody_waits_for_tunnels_that_have_ended() {
    let (client, a) = tcp_pair();
    let (backend, b) = tcp_pair();
    let (tunnel, end) = tunnel(a, b);
    drop((client, backend));
    let how = Ending::at_once(Order::DrainTimeout, None, PATIENCE);
    relay::end_inline(&Settings::default(), counters(), vec![tunnel], || false, how);
    assert_eq!(end.wait().why, Why::Closed);
}
