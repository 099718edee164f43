//! Clients that send faster than they may: they are read more slowly, and nothing else.

mod common;

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::os::fd::OwnedFd;
use std::thread;
use std::time::{Duration, Instant};

use common::*;
use relay::{Ending, Order, Relay, Rules, Settings, Side, Tracker, Tunnel, Why};

/// How long a rate is looked at.
const TIME: Duration = Duration::from_secs(3);
/// How much longer that may take: 5 %, and what a busy machine needs.
const SLACK: Duration = Duration::from_millis(300);

fn pair(frames: [Tracker; 2], rules: Rules) -> (Tunnel, TcpStream, TcpStream, Ends) {
    let (client, a) = tcp_pair();
    let (backend, b) = tcp_pair();
    let (record, ends) = record();
    let sides = [a, b].map(|side| Side::plain(side.into()));
    let [a, b] = sides;
    (Tunnel::new(a, b, frames, rules, record), client, backend, ends)
}

fn open(frames: [Tracker; 2], rules: Rules) -> (Relay, TcpStream, TcpStream, Ends) {
    let (tunnel, client, backend, ends) = pair(frames, rules);
    let (relay, _) = relay(1);
    relay.adopt(tunnel).expect("adopted");
    (relay, client, backend, ends)
}

fn bandwidth(bytes: u64) -> Rules {
    Rules { bandwidth: Some(bytes), ..Rules::default() }
}

fn messages(rate: u64, burst: u64) -> Rules {
    Rules { message_rate: Some(rate), message_burst: Some(burst), ..Rules::default() }
}

/// Nothing is faster than the rule, and what can be sent is not slower.
fn is_right(took: Duration, right: Duration) {
    assert!(took + Duration::from_millis(10) >= right, "{took:?} for {right:?}");
    assert!(took <= right + SLACK, "{took:?} for {right:?}");
}

/// How long the bytes of `TIME` take after the ones that may come at once, with a client that sends
/// them in frames with these headers or in none.
fn time_for(rate: usize, frames: [Tracker; 2], head: &[u8]) -> Duration {
    let (_relay, mut client, backend, ends) = open(frames, bandwidth(rate as u64));
    let total = rate + rate * TIME.as_secs() as usize;
    let begin = Instant::now();
    client.write_all(head).expect("write");
    thread::scope(|scope| {
        scope.spawn(|| send_pattern(&client, 1, total - head.len()));
        let mut got = vec![0; head.len()];
        (&backend).read_exact(&mut got).expect("read");
        assert_eq!(got, head);
        expect_pattern(&backend, 1, total - head.len());
    });
    let took = begin.elapsed();
    drop((client, backend));
    assert_eq!(ends.wait().bytes_up, total as u64);
    took
}

#[test]
fn bytes_come_as_fast_as_they_may() {
    for rate in [10_000, 1 << 20] {
        is_right(time_for(rate, opaque(), &[]), TIME);
    }
}

#[test]
fn bytes_that_are_spliced_count() {
    // A frame that is longer than all that is sent.
    let head = [&frame_header(0x82, true, 1 << 40)[..], &[1, 2, 3, 4]].concat();
    is_right(time_for(4 << 20, websocket(), &head), TIME);
}

/// Masked frames, each with its number.
fn numbered(count: u32, first: u8) -> Vec<u8> {
    let frame =
        |number: u32| [&frame_header(first, true, 4)[..], &[0; 4], &number.to_be_bytes()].concat();
    (0..count).flat_map(frame).collect()
}

#[test]
fn messages_come_as_fast_as_they_may() {
    for (rate, burst) in [(10, 3), (10, 1), (1000, 1000)] {
        let (_relay, mut client, mut backend, ends) = open(websocket(), messages(rate, burst));
        let count = burst + rate * TIME.as_secs();
        let sent = numbered(count as u32, 0x82);
        let begin = Instant::now();
        let mut got = vec![0; sent.len()];
        thread::scope(|scope| {
            scope.spawn(|| client.write_all(&sent).expect("write"));
            backend.read_exact(&mut got[..10 * burst as usize]).expect("read");
            assert!(begin.elapsed() < SLACK, "the first ones are not held back");
            // No more of them come at once.
            backend.set_nonblocking(true).expect("nonblocking");
            if rate < 100 {
                let more = backend.read(&mut [0; 10]).map_err(|error| error.kind());
                assert_eq!(more, Err(ErrorKind::WouldBlock));
            }
            backend.set_nonblocking(false).expect("blocking");
            backend.read_exact(&mut got[10 * burst as usize..]).expect("read");
        });
        is_right(begin.elapsed(), TIME);
        assert!(got == sent);
        drop((client, backend));
        assert_eq!(ends.wait().messages_up, Some(count));
    }
}

/// Neither the fragments of one message nor Pings are messages.
#[test]
fn what_is_no_message_is_not_counted() {
    let (_relay, mut client, mut backend, ends) = open(websocket(), messages(1, 3));
    let begin = Instant::now();
    let sent = [numbered(1, 0x02), numbered(500, 0x00), numbered(500, 0x89), numbered(1, 0x80)];
    client.write_all(&sent.concat()).expect("write");
    let mut got = vec![0; sent.concat().len()];
    backend.read_exact(&mut got).expect("read");
    assert!(begin.elapsed() < Duration::from_secs(1));
    drop((client, backend));
    ends.wait();
}

/// A client that does not mask, which a back end may let pass, gets no further by that.
#[test]
fn bad_framing_is_no_way_round() {
    let (_relay, mut client, mut backend, ends) = open(websocket(), messages(10, 10));
    let begin = Instant::now();
    let frame: &[u8] = &[0x81, 0];
    client.write_all(&frame.repeat(40)).expect("write");
    let mut got = [0; 80];
    backend.read_exact(&mut got).expect("read");
    // One read brings more than it may, and is paid for by the next ones.
    client.write_all(frame).expect("write");
    backend.read_exact(&mut got[..2]).expect("read");
    assert!(begin.elapsed() >= Duration::from_secs(3), "{:?}", begin.elapsed());
    drop((client, backend));
    ends.wait();
}

#[test]
fn the_client_feels_it_and_the_back_end_does_not() {
    let (_relay, client, backend, ends) = open(opaque(), bandwidth(1000));
    client.set_nonblocking(true).expect("nonblocking");
    let mut sent = 0;
    let mut is_full = 0;
    until("the client has to wait", || match (&client).write(&[1; 65_536]) {
        Ok(n) => {
            sent += n;
            is_full = 0;
            false
        }
        Err(_) => {
            is_full += 1;
            is_full == 100
        }
    });
    assert!(sent < 64 << 20, "{sent}");
    client.set_nonblocking(false).expect("blocking");
    let begin = Instant::now();
    thread::scope(|scope| {
        scope.spawn(|| send_pattern(&backend, 2, 16 << 20));
        expect_pattern(&client, 2, 16 << 20);
    });
    assert!(begin.elapsed() < PATIENCE / 2);
    // A client that is gone is not waited for.
    drop(client);
    drop(backend);
    assert!(ends.wait().bytes_up < 40_000);
}

#[test]
fn an_end_comes_behind_all_bytes() {
    let (_relay, client, backend, ends) = open(opaque(), bandwidth(50_000));
    let begin = Instant::now();
    thread::scope(|scope| {
        scope.spawn(|| {
            send_pattern(&client, 3, 150_000);
            client.shutdown(Shutdown::Write).expect("shutdown");
        });
        expect_pattern(&backend, 3, 150_000);
        expect_end(&backend);
    });
    is_right(begin.elapsed(), Duration::from_secs(2));
    drop((client, backend));
    assert_eq!(ends.wait().why, Why::Closed);
}

#[test]
fn an_order_is_not_held_back() {
    let (relay, mut client, mut backend, ends) = open(websocket(), messages(1, 1));
    client.write_all(&numbered(100, 0x82)).expect("write");
    let mut got = [0; 10];
    backend.read_exact(&mut got).expect("read");
    let begin = Instant::now();
    relay.end_all(Ending {
        order: Order::Stop,
        code: Some(1001),
        spread: Duration::ZERO,
        linger: Duration::from_millis(300),
    });
    assert!(begin.elapsed() < Duration::from_secs(1) + SLACK);
    let mut last = Vec::new();
    client.read_to_end(&mut last).expect("read");
    assert_eq!(last, [0x88, 2, 0x03, 0xe9]);
    let mut last = Vec::new();
    backend.read_to_end(&mut last).expect("read");
    assert_eq!(last[last.len() - 8..last.len() - 6], [0x88, 0x82]);
    assert_eq!(ends.wait().why, Why::Stopped);
}

#[test]
fn a_reset_is_seen() {
    let (_relay, client, backend, ends) = open(opaque(), bandwidth(1000));
    // It does not read what it is sent.
    (&backend).write_all(b"x").expect("write");
    until("it is there", || client.peek(&mut [0]).is_ok());
    (&client).write_all(&[0; 50_000]).expect("write");
    drop(client);
    let begin = Instant::now();
    assert_eq!(ends.wait().why, Why::Reset);
    assert!(begin.elapsed() < Duration::from_secs(5));
    drop(backend);
}

/// Who is held back is not silent.
#[test]
fn neither_silence_nor_a_missing_pong_ends_it() {
    let brief = Some(Duration::from_millis(200));
    let rules =
        Rules { idle_timeout: brief, ping_interval: brief, ping_timeout: brief, ..messages(1, 1) };
    let (_relay, mut client, backend, ends) = open(websocket(), rules);
    let sent = numbered(4, 0x82);
    let begin = Instant::now();
    client.write_all(&sent).expect("write");
    let pongs = thread::spawn({
        let backend = backend.try_clone().expect("dup");
        // Only the back end is asked, and answers.
        move || {
            while (&backend).write_all(&[0x8a, 0]).is_ok() {
                thread::sleep(Duration::from_millis(50));
            }
        }
    });
    let mut got = Vec::new();
    while got.iter().filter(|byte| **byte == 0x82).count() < 4 {
        let mut more = [0; 100];
        let n = (&backend).read(&mut more).expect("read");
        assert!(n > 0, "{got:?}");
        got.extend_from_slice(&more[..n]);
    }
    is_right(begin.elapsed(), Duration::from_secs(3));
    drop(client);
    backend.shutdown(Shutdown::Both).expect("shutdown");
    pongs.join().expect("joined");
    ends.wait();
}

/// The same tunnel, as another process would have it.
fn refrozen(mut tunnel: Tunnel) -> Tunnel {
    let (nobody, _) = record();
    let record = tunnel.replace_record(nobody);
    let frozen = tunnel.freeze().expect("a plain tunnel");
    let [client, backend] =
        frozen.descriptors().map(|fd| -> OwnedFd { fd.try_clone_to_owned().expect("dup") });
    let bytes = frozen.bytes().to_vec();
    drop(frozen);
    Tunnel::thaw(&bytes, client, backend, record).expect("what was frozen")
}

/// Neither are bytes lost, nor does what may come at once come again.
#[test]
fn it_is_held_back_wherever_it_goes() {
    for is_frozen in [false, true] {
        let rules = Rules { bandwidth: Some(100_000), ..messages(10, 10) };
        let (mut relay, mut client, mut backend, ends) = open(websocket(), rules);
        let sent = numbered(40, 0x82);
        let begin = Instant::now();
        client.write_all(&sent).expect("write");
        let mut got = vec![0; sent.len()];
        for part in got.chunks_mut(100) {
            backend.read_exact(part).expect("read");
            let tunnels = relay.stop();
            relay = Relay::start(&Settings::default(), counters()).expect("a relay");
            for tunnel in tunnels {
                relay.adopt(if is_frozen { refrozen(tunnel) } else { tunnel }).expect("adopted");
            }
        }
        is_right(begin.elapsed(), Duration::from_secs(3));
        assert!(got == sent);
        drop((client, backend));
        ends.wait();
    }
}

/// Many that are held back are all served alike, and others do not wait for them.
#[test]
fn it_is_fair() {
    const LIMITED: usize = 200;
    let (relay, _) = relay(1);
    let mut held = Vec::new();
    for _ in 0..LIMITED {
        let (tunnel, client, backend, ends) = pair(opaque(), bandwidth(5000));
        relay.adopt(tunnel).expect("adopted");
        (&client).write_all(&[7; 60_000]).expect("write");
        held.push((client, backend, ends));
    }
    let (tunnel, mut client, mut backend, _ends) = pair(opaque(), Rules::default());
    relay.adopt(tunnel).expect("adopted");
    let mut times = Vec::new();
    let begin = Instant::now();
    while begin.elapsed() < TIME {
        let sent = Instant::now();
        client.write_all(b"x").expect("write");
        backend.read_exact(&mut [0]).expect("read");
        times.push(sent.elapsed());
        thread::sleep(Duration::from_millis(2));
    }
    times.sort();
    let p99 = times[times.len() * 99 / 100];
    assert!(p99 < Duration::from_millis(100), "{p99:?}");
    let mut came = Vec::new();
    for (_, backend, _) in &mut held {
        backend.set_nonblocking(true).expect("nonblocking");
        let mut bytes = Vec::new();
        let _ = backend.read_to_end(&mut bytes);
        came.push(bytes.len());
    }
    let (least, most) = (came.iter().min().copied(), came.iter().max().copied());
    assert!(least >= Some(17_000) && most <= Some(40_000), "{least:?} to {most:?}");
}
