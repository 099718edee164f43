//! One tunnel is ended by an order that stands where others see what it does.

mod common;

use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::atomic::Ordering::{Relaxed, SeqCst};
use std::thread;
use std::time::{Duration, Instant};

use common::*;
use relay::{Activity, By, Relay, Rules, Side, Tunnel, Why};

const REASON: &str = "Wartung, bis später";

struct Open {
    client: TcpStream,
    backend: TcpStream,
    ends: Ends,
    activity: &'static Activity,
}

fn made(rules: Rules, for_client: Vec<u8>) -> (Tunnel, Open) {
    let (client, a) = tcp_pair();
    let (backend, b) = tcp_pair();
    let (record, ends, activity) = registered(REASON);
    let [a, mut b] = [a, b].map(|side| Side::plain(side.into()));
    b.read_ahead = for_client;
    (Tunnel::new(a, b, websocket(), rules, record), Open { client, backend, ends, activity })
}

fn open(relay: &Relay) -> Open {
    let (tunnel, open) = made(Rules::default(), Vec::new());
    relay.adopt(tunnel).expect("adopted");
    until("it has a seat", || open.activity.seat.load(SeqCst) != 0);
    open
}

/// A Close frame as a client gets it.
fn close_down(code: u16) -> Vec<u8> {
    let payload = [&code.to_be_bytes()[..], REASON.as_bytes()].concat();
    [&[0x88, payload.len() as u8][..], &payload].concat()
}

/// The same frame, once it is not masked any more.
fn unmasked(frame: &[u8]) -> Vec<u8> {
    assert_eq!(frame[1] & 0x80, 0x80, "{frame:x?}");
    let payload = frame[6..].iter().zip(frame[2..6].iter().cycle()).map(|(byte, key)| byte ^ key);
    [frame[0], frame[1] & 0x7f].into_iter().chain(payload).collect()
}

/// Reads to the end, and hangs up as a peer does that is told to go.
fn read_out(mut socket: &TcpStream) -> Vec<u8> {
    let mut bytes = Vec::new();
    socket.read_to_end(&mut bytes).expect("an end, no reset");
    socket.shutdown(Shutdown::Both).expect("shutdown");
    bytes
}

#[test]
fn an_idle_tunnel_is_ended_and_no_other() {
    let (relay, counters) = relay(3);
    let tunnels: Vec<_> = (0..30).map(|_| open(&relay)).collect();
    for Open { client, backend, ends, activity } in tunnels.iter().step_by(3) {
        order(activity, 7, 4001);
        look(&relay, activity);
        assert_eq!(read_out(client), close_down(4001));
        assert_eq!(unmasked(&read_out(backend)), close_down(4001));
        let end = ends.wait();
        assert_eq!((end.by, end.why), (By::Us, Why::ClosedByAdmin));
        let bytes = [0, 1].map(|at| activity.bytes[at].load(Relaxed));
        assert_eq!(bytes, [end.bytes_up, end.bytes_down]);
        assert_eq!(activity.seat.load(SeqCst), 0, "it is nowhere any more");
    }
    for (mut client, mut backend) in
        (0..30).filter(|at| at % 3 != 0).map(|at| (&tunnels[at].client, &tunnels[at].backend))
    {
        client.write_all(b"\x81\x80\0\0\0\0").expect("write");
        backend.read_exact(&mut [0; 6]).expect("it goes on");
    }
    assert_eq!(counters.ended_by.of(&Why::ClosedByAdmin).load(Relaxed), 10);
    // One counts as open for a moment after its record was told.
    until("ten are gone", || relay.open() == 20);
}

#[test]
fn an_order_for_another_tunnel_of_the_entry_is_none() {
    let (relay, _) = relay(1);
    let Open { mut client, mut backend, ends, activity } = open(&relay);
    for life in [0, 6, 8, 7 + (1 << 16), u32::MAX] {
        order(activity, life, 1001);
        look(&relay, activity);
        client.write_all(b"\x82\x80\0\0\0\0").expect("write");
        backend.read_exact(&mut [0; 6]).expect("it goes on");
    }
    order(activity, 7, 1005);
    look(&relay, activity);
    // A code that cannot be sent is not.
    assert_eq!(read_out(&client), close_down(1001));
    assert_eq!(unmasked(&read_out(&backend)), close_down(1001));
    assert_eq!(ends.wait().why, Why::ClosedByAdmin);
}

#[test]
fn any_seat_may_be_named() {
    let (relay, _) = relay(2);
    let Open { mut client, mut backend, ends: _ends, activity } = open(&relay);
    let own = activity.seat.load(SeqCst);
    let mut random = Random::new(3);
    let seats = (0..10_000).map(|_| random.next() as u32).chain([0, own, own, u32::MAX, 1 << 24]);
    relay.look_at_orders(seats);
    client.write_all(b"\x82\x80\0\0\0\0").expect("write");
    backend.read_exact(&mut [0; 6]).expect("it goes on");
}

#[test]
fn an_order_that_was_there_before_the_tunnel_is_seen() {
    let (first, _) = relay(1);
    let Open { mut client, mut backend, ends, activity } = open(&first);
    client.write_all(b"\x81\x81\0\0\0\0x").expect("write");
    backend.read_exact(&mut [0; 7]).expect("read");
    let mut tunnels = first.stop();
    assert_eq!(activity.seat.load(SeqCst), 0);
    order(activity, 7, 1012);
    let tunnel = tunnels.pop().expect("it is given back");
    let frozen = tunnel.freeze().expect("a plain tunnel");
    let second = relay(2).0;
    second.adopt(frozen.thaw(&|_, _| None).ok().expect("thawed")).expect("adopted");
    assert_eq!(read_out(&client), close_down(1012));
    assert_eq!(unmasked(&read_out(&backend)), close_down(1012));
    let end = ends.wait();
    assert_eq!((end.by, end.why, end.messages_up), (By::Us, Why::ClosedByAdmin, Some(1)));
    assert_eq!(activity.messages[0][0].load(Relaxed), 1);
}

#[test]
fn what_is_kept_goes_before_the_frame() {
    let (relay, _) = relay(1);
    // More than the socket takes.
    let mut frame = vec![0x82, 127, 0, 0, 0, 0, 0, 0x80, 0, 0];
    frame.resize(10 + 0x80_0000, 0xab);
    let (tunnel, Open { client, backend, ends, activity }) = made(Rules::default(), frame.clone());
    relay.adopt(tunnel).expect("adopted");
    until("it has a seat", || activity.seat.load(SeqCst) != 0);
    // One is kept, the other stands within a frame, where no other may be.
    order(activity, 7, 3000);
    look(&relay, activity);
    let to_backend = thread::spawn(move || unmasked(&read_out(&backend)));
    assert_eq!(to_backend.join().expect("no panic"), close_down(3000));
    let bytes = read_out(&client);
    assert_eq!(bytes.len(), frame.len() + close_down(3000).len());
    assert!(bytes.starts_with(&frame) && bytes.ends_with(&close_down(3000)));
    assert_eq!(ends.wait().why, Why::ClosedByAdmin);
}

#[test]
fn within_a_frame_there_is_only_an_end() {
    let (relay, _) = relay(1);
    let Open { client, mut backend, ends, activity } = open(&relay);
    backend.write_all(&[0x82, 5, b'h']).expect("write");
    (&client).read_exact(&mut [0; 3]).expect("read");
    order(activity, 7, 1001);
    look(&relay, activity);
    assert!(read_out(&client).is_empty());
    assert_eq!(unmasked(&read_out(&backend)), close_down(1001));
    assert_eq!(ends.wait().why, Why::ClosedByAdmin);
}

#[test]
fn who_does_not_go_is_closed_after_a_while() {
    let (relay, _) = relay(1);
    let linger = Duration::from_millis(200);
    let (tunnel, Open { client, backend, ends, activity }) =
        made(Rules { linger: Some(linger), ..Rules::default() }, Vec::new());
    relay.adopt(tunnel).expect("adopted");
    until("it has a seat", || activity.seat.load(SeqCst) != 0);
    let began = Instant::now();
    order(activity, 7, 1001);
    look(&relay, activity);
    assert_eq!(ends.wait().why, Why::ClosedByAdmin);
    assert!(began.elapsed() >= linger);
    assert_eq!(read_out(&client), close_down(1001));
    drop(backend);
}

#[test]
fn others_see_what_goes_on() {
    let (relay, _) = relay(1);
    let Open { mut client, mut backend, ends, activity } = open(&relay);
    let seen = || {
        let bytes = activity.bytes.each_ref().map(|bytes| bytes.load(Relaxed));
        let messages = activity.messages.each_ref();
        (bytes, messages.map(|kinds| kinds.each_ref().map(|count| count.load(Relaxed))))
    };
    assert_eq!(seen(), ([0; 2], [[0; 2]; 2]));
    // A text in two frames with a Ping between them, and one that is binary.
    let up = b"\x01\x81\0\0\0\0a\x89\x80\0\0\0\0\x80\x80\0\0\0\0\x82\x80\0\0\0\0";
    client.write_all(up).expect("write");
    backend.read_exact(&mut [0; 25]).expect("read");
    until("it is seen", || seen() == ([25, 0], [[1, 1], [0, 0]]));
    backend.write_all(b"\x82\x00\x82\x01x\x8a\x00").expect("write");
    client.read_exact(&mut [0; 7]).expect("read");
    until("it is seen", || seen() == ([25, 7], [[1, 1], [0, 2]]));
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the kernel writes the time, which lives on the stack.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &raw mut time) };
    let last = u64::from(activity.last.load(Relaxed));
    assert!((last..last + 31).contains(&(time.tv_sec as u64)), "{last}");
    // What is no WebSocket any more has the messages that it had.
    client.write_all(b"\x8f\xff").expect("write");
    backend.read_exact(&mut [0; 2]).expect("read");
    until("it is seen", || seen() == ([27, 7], [[1, 1], [0, 2]]));
    drop((client, backend));
    let end = ends.wait();
    assert_eq!((end.messages_up, end.messages_down), (None, Some(2)));
}
