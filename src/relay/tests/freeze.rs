//! Tunnels that become bytes and tunnels again while bytes flow.

mod common;

use std::io::{Read, Write};
use std::net::Shutdown;
use std::os::fd::OwnedFd;
use std::sync::atomic::Ordering::Relaxed;
use std::thread;
use std::time::Duration;

use common::*;
use relay::{Rules, Side, Tunnel, Why};

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

#[test]
fn nothing_is_lost_or_doubled_under_full_traffic() {
    const TUNNELS: usize = 4;
    const TOTAL: usize = 16 << 20;
    let (mut relay, _) = relay(1);
    let mut ends = Vec::new();
    let mut with_kept = 0;
    thread::scope(|scope| {
        let mut running = Vec::new();
        for index in 0..TUNNELS {
            // Their buffers are small, so that bytes are kept.
            let (client, a) = unix_pair();
            let (backend, b) = unix_pair();
            let (tunnel, end) = tunnel(a, b);
            relay.adopt(tunnel).expect("adopted");
            ends.push(end);
            let seed = index as u64 * 2;
            let clones = (client.try_clone().expect("dup"), backend.try_clone().expect("dup"));
            for (writer, mut reader, seed) in
                [(clones.0, clones.1, seed), (backend, client, seed + 1)]
            {
                running.push(scope.spawn(move || {
                    send_pattern(&writer, seed, TOTAL);
                    writer.shutdown(Shutdown::Write).expect("shutdown");
                }));
                running.push(scope.spawn(move || {
                    let mut pattern = Pattern::new(seed);
                    let mut random = Random::new(seed);
                    let mut buffer = vec![0; 300_000];
                    loop {
                        let most = 1 + random.below(300_000);
                        let n = reader.read(&mut buffer[..most]).expect("read");
                        if n == 0 {
                            break;
                        }
                        pattern.check(&buffer[..n]);
                        if random.below(100) == 0 {
                            thread::sleep(Duration::from_millis(3));
                        }
                    }
                }));
            }
        }
        while running.iter().any(|thread| !thread.is_finished()) {
            thread::sleep(Duration::from_millis(2));
            let tunnels = relay.stop();
            relay = self::relay(1).0;
            for tunnel in tunnels {
                let frozen = tunnel.freeze().expect("plain");
                with_kept += usize::from(frozen.bytes().len() > 1000);
                // One that does not go is thawed where it was.
                let tunnel = frozen.thaw(&|_, _| None).ok().expect("what was frozen");
                relay.adopt(refrozen(tunnel)).expect("adopted");
            }
        }
    });
    for end in ends {
        let end = end.wait();
        assert_eq!(end.why, Why::Closed);
        assert_eq!((end.bytes_up, end.bytes_down), (TOTAL as u64, TOTAL as u64));
    }
    assert!(with_kept > 0, "some had bytes of their own");
}

#[test]
fn half_closed_and_within_a_frame() {
    let (client, a) = tcp_pair();
    let (backend, b) = tcp_pair();
    let (record, end) = record();
    let sides = [a, b].map(|side| Side::plain(side.into()));
    let [to_client, to_backend] = sides;
    let rules = Rules {
        idle_timeout: Some(Duration::from_secs(600)),
        linger: Some(Duration::from_secs(5)),
        ..Rules::default()
    };
    let tunnel = Tunnel::new(to_client, to_backend, websocket(), rules, record);
    let (first, _) = relay(1);
    first.adopt(tunnel).expect("adopted");
    // The back end ends; the client is within the header of a Close frame, code 4000.
    backend.shutdown(Shutdown::Write).expect("shutdown");
    (&client).write_all(&[0x88, 0x82, 0, 0]).expect("write");
    expect_end(&client);
    let mut got = [0; 4];
    (&backend).read_exact(&mut got).expect("carried");
    let second = relay(1).0;
    for tunnel in first.stop() {
        second.adopt(refrozen(tunnel)).expect("adopted");
    }
    (&client).write_all(&[0, 0, 0x0f, 0xa0]).expect("write");
    (&backend).read_exact(&mut got).expect("carried");
    assert_eq!(got, [0, 0, 0x0f, 0xa0]);
    client.shutdown(Shutdown::Write).expect("shutdown");
    expect_end(&backend);
    let end = end.wait();
    assert_eq!((end.by, end.why.clone()), (relay::By::Backend, Why::Closed));
    assert_eq!((end.bytes_up, end.bytes_down), (8, 0));
    assert_eq!((end.client_close, end.backend_close), (Some(4000), None));
}

#[test]
fn bytes_that_are_no_frames() {
    let (client, a) = tcp_pair();
    let (backend, b) = tcp_pair();
    let (record, end) = record();
    let [to_client, to_backend] = [a, b].map(|side| Side::plain(side.into()));
    let tunnel = Tunnel::new(to_client, to_backend, websocket(), Rules::default(), record);
    let (first, _) = relay(1);
    first.adopt(tunnel).expect("adopted");
    let mut got = [0; 3];
    for (mut from, mut to) in [(&client, &backend), (&backend, &client)] {
        // An opcode that does not exist.
        from.write_all(&[0x8f, 0xff, 0xff]).expect("write");
        to.read_exact(&mut got).expect("carried");
    }
    let second = relay(1).0;
    for tunnel in first.stop() {
        second.adopt(refrozen(tunnel)).expect("adopted");
    }
    for (mut from, mut to) in [(&client, &backend), (&backend, &client)] {
        from.write_all(b"raw").expect("write");
        to.read_exact(&mut got).expect("carried");
        assert_eq!(&got, b"raw");
    }
    client.shutdown(Shutdown::Write).expect("shutdown");
    backend.shutdown(Shutdown::Write).expect("shutdown");
    let end = end.wait();
    assert_eq!((end.bytes_up, end.bytes_down), (6, 6));
}

#[test]
fn other_bytes_are_refused() {
    let made = || {
        let (_, a) = unix_pair();
        let (_, b) = unix_pair();
        tunnel(a, b).0
    };
    let frozen = made().freeze().expect("a plain tunnel").bytes().to_vec();
    let thaw = |bytes: &[u8]| {
        let [client, backend] = [unix_pair().0, unix_pair().0].map(OwnedFd::from);
        Tunnel::thaw(bytes, client, backend, record().0).is_some()
    };
    assert!(thaw(&frozen));
    for cut in 0..frozen.len() {
        assert!(!thaw(&frozen[..cut]), "{cut}");
    }
    let mut longer = frozen.clone();
    longer.push(0);
    assert!(!thaw(&longer));
    // Behind version, age, rules, first end and stage: adding to so many bytes overflows.
    let mut countless = frozen.clone();
    countless[109..117].fill(0xff);
    assert!(!thaw(&countless));
    let mut random = Random::new(1);
    // Whatever it is: no panic, there or when it is used.
    let (relay, _) = relay(1);
    for _ in 0..20_000 {
        let mut bytes = frozen.clone();
        for _ in 0..1 + random.below(4) {
            let at = 2 + random.below(bytes.len() - 2);
            bytes[at] = random.next() as u8;
        }
        let (mut client, a) = unix_pair();
        let (_backend, b) = unix_pair();
        if let Some(tunnel) = Tunnel::thaw(&bytes, a.into(), b.into(), record().0)
            && random.below(20) == 0
        {
            let _ = client.write_all(&[0x81; 40]);
            relay.adopt(tunnel).expect("adopted");
        }
    }
    relay.end_all(relay::Ending::at_once(relay::Order::Stop, Some(1001), Duration::from_secs(5)));
    let mut other = frozen;
    other[0] ^= 1;
    assert!(!thaw(&other), "another version");
}

/// The bytes of a file of `tests/frozen`: hexadecimal numbers, and comments after `#`.
fn bytes_of(text: &str) -> Vec<u8> {
    let digits: String = text.lines().filter_map(|line| line.split('#').next()).collect();
    let digits: Vec<u8> = digits.bytes().filter(|byte| !byte.is_ascii_whitespace()).collect();
    let byte = |pair: &[u8]| {
        u8::from_str_radix(str::from_utf8(pair).expect("ASCII"), 16).expect("hexadecimal")
    };
    digits.chunks(2).map(byte).collect()
}

/// What `tests/frozen/version-10.hex` is: a client has sent part of a frame with the request for the
/// upgrade, the back end one and the beginning of a Close frame with its answer.
fn known() -> Tunnel {
    let side = |read_ahead: &[u8]| Side {
        fd: OwnedFd::from(unix_pair().0),
        tls: None,
        read_ahead: read_ahead.to_vec(),
    };
    let client = side(&[0x82, 0xfe, 0x01, 0x00, 1, 2, 3, 4, 0x55, 0x56]);
    let backend = side(&[0x81, 2, b'h', b'i', 0x88, 2, 0x03]);
    let rules = Rules {
        idle_timeout: Some(Duration::from_secs(600)),
        linger: Some(Duration::from_millis(1500)),
        max_message_client: Some(1000),
        max_message_backend: None,
        ping_interval: Some(Duration::from_secs(30)),
        ping_timeout: Some(Duration::from_secs(10)),
        report_interval: Some(Duration::from_secs(38)),
        strict: Some(relay::Strict::On),
        max_lifetime: Some(Duration::from_secs(3600)),
        expires: Some(Duration::from_secs(4_000_000_000)),
        message_rate: Some(20),
        message_burst: Some(40),
        bandwidth: Some(65_536),
    };
    Tunnel::new(client, backend, websocket(), rules, record().0)
}

/// Where the microseconds stand for which the tunnel has lived: all else is the same each time.
const AGE: std::ops::Range<usize> = 2..10;

fn thaw(bytes: &[u8]) -> Option<Tunnel> {
    let [client, backend] = [unix_pair().0, unix_pair().0].map(OwnedFd::from);
    Tunnel::thaw(bytes, client, backend, record().0)
}

/// Another build of the module reads them.
#[test]
fn the_bytes_of_this_version_are_pinned() {
    assert_eq!(relay::FROZEN_VERSION, 10, "add the file of the new version to tests/frozen");
    let pinned = bytes_of(include_str!("frozen/version-10.hex"));
    let mut frozen = known().freeze().expect("a plain tunnel").bytes().to_vec();
    frozen[AGE].copy_from_slice(&pinned[AGE]);
    assert_eq!(frozen, pinned);
    // What comes out of them is the same tunnel, and no younger.
    let again = thaw(&pinned).expect("a tunnel").freeze().expect("a plain tunnel");
    let mut again = again.bytes().to_vec();
    let age = |bytes: &[u8]| u64::from_le_bytes(bytes[AGE].try_into().expect("eight bytes"));
    assert!((age(&pinned)..age(&pinned) + 30_000_000).contains(&age(&again)));
    again[AGE].copy_from_slice(&pinned[AGE]);
    assert_eq!(again, pinned);
}

/// Their tunnels go to a drain process of their own.
#[test]
fn the_bytes_of_older_versions_are_refused() {
    for older in [
        include_str!("frozen/version-1.hex"),
        include_str!("frozen/version-2.hex"),
        include_str!("frozen/version-3.hex"),
        include_str!("frozen/version-4.hex"),
        include_str!("frozen/version-5.hex"),
        include_str!("frozen/version-6.hex"),
        include_str!("frozen/version-7.hex"),
        include_str!("frozen/version-8.hex"),
        include_str!("frozen/version-9.hex"),
    ] {
        assert!(thaw(&bytes_of(older)).is_none());
    }
    // Nor is what a later one may write.
    let mut later = bytes_of(include_str!("frozen/version-10.hex"));
    later[0] += 1;
    assert!(thaw(&later).is_none());
}

/// Rules about frames are for WebSocket alone, wherever the tunnel is carried.
#[test]
fn another_protocol_is_not_looked_at() {
    let (client, a) = tcp_pair();
    let (backend, b) = tcp_pair();
    let (record, end) = record();
    let [to_client, to_backend] = [a, b].map(|side| Side::plain(side.into()));
    let strict = Some(relay::Strict::On);
    let rules = Rules { max_message_client: Some(1), strict, ..Rules::default() };
    let opaque = [relay::Tracker::opaque(), relay::Tracker::opaque()];
    let tunnel = Tunnel::new(to_client, to_backend, opaque, rules, record);
    let (relay, _) = relay(1);
    relay.adopt(refrozen(tunnel)).expect("adopted");
    for (mut from, mut to) in [(&client, &backend), (&backend, &client)] {
        from.write_all(&[0xff; 100]).expect("write");
        let mut got = [0; 100];
        to.read_exact(&mut got).expect("carried");
    }
    drop((client, backend));
    assert_eq!(end.wait().bytes_up, 100);
}

/// Each is one that no bytes of a peer lead to.
#[test]
fn states_that_cannot_be_are_refused() {
    // Of the direction from the client, behind version, age, rules, first end, stage and the bytes
    // delivered.
    const TRACKER: usize = 2 + 8 + (12 * 8 + 1) + 1 + 1 + 8;
    const LEFT: usize = TRACKER + 1;
    const HAVE: usize = LEFT + 8;
    const CODE: usize = HAVE + 1 + 10;
    const MESSAGES: usize = CODE + 2;
    const BREACH: usize = MESSAGES + 2 * 8;
    const GUARD: usize = BREACH + 1;
    const GUARD_HAVE: usize = GUARD + 8 + 8 + 1;
    const PACE: usize = GUARD_HAVE + 1 + 10;
    let pinned = bytes_of(include_str!("frozen/version-10.hex"));
    let made = |rules| {
        let [client, backend] = [(); 2].map(|()| Side::plain(unix_pair().0.into()));
        let tunnel = Tunnel::new(client, backend, websocket(), rules, record().0);
        tunnel.freeze().expect("a plain tunnel").bytes().to_vec()
    };
    let free = made(Rules::default());
    let strict = made(Rules { strict: Some(relay::Strict::On), ..Rules::default() });
    for good in [&pinned, &free, &strict] {
        assert!(thaw(good).is_some());
    }
    for (what, good, changes) in [
        ("a guard without a rule", &free, &[(GUARD, 1)][..]),
        ("a breach without a rule", &free, &[(BREACH, 1)]),
        ("within a payload and a header", &strict, &[(LEFT, 1), (HAVE, 1)]),
        ("more than a header", &strict, &[(HAVE, 2)]),
        ("a header that is not allowed", &strict, &[(HAVE, 3), (HAVE + 1, 0xf), (HAVE + 2, 0xff)]),
        ("messages used up without a rule", &free, &[(PACE, 1)]),
        ("bytes used up without a rule", &free, &[(PACE + 8, 1)]),
        ("more messages than can be used up", &pinned, &[(PACE + 7, 1)]),
        ("more bytes than can be used up", &pinned, &[(PACE + 8 + 7, 1)]),
        ("a guard within a payload and a header", &strict, &[(GUARD, 1), (GUARD_HAVE, 1)]),
        ("a guard with more than a header", &strict, &[(GUARD_HAVE, 2)]),
        ("not of WebSocket and within a payload", &free, &[(TRACKER, 0), (LEFT, 1)]),
        ("not of WebSocket and within a header", &free, &[(TRACKER, 0), (HAVE, 1)]),
        ("never of WebSocket and closed", &free, &[(TRACKER, 0), (CODE, 1)]),
        ("never of WebSocket and with messages", &free, &[(TRACKER, 0), (MESSAGES, 1)]),
        ("never of WebSocket and with binary ones", &free, &[(TRACKER, 0), (MESSAGES + 8, 1)]),
    ] {
        let mut bytes = good.clone();
        for (at, value) in changes {
            bytes[*at] = *value;
        }
        assert!(thaw(&bytes).is_none(), "{what}");
    }
}

/// Whatever the bytes are: no panic, neither there nor when the tunnel is carried.
#[test]
fn any_bytes_are_taken_or_refused() {
    let pinned = bytes_of(include_str!("frozen/version-10.hex"));
    assert!((0..pinned.len()).all(|cut| thaw(&pinned[..cut]).is_none()));
    let (relay, counters) = relay(1);
    let mut taken = 0;
    for at in 2..pinned.len() {
        for value in [0, 1, 2, 3, 0x7f, 0x80, 0xff] {
            let mut bytes = pinned.clone();
            // Eight of them, so that numbers are as large as they can be.
            for byte in bytes.iter_mut().skip(at).take(8) {
                *byte = value;
            }
            let (mut client, a) = unix_pair();
            let (mut backend, b) = unix_pair();
            let (record, ends) = record();
            let Some(tunnel) = Tunnel::thaw(&bytes, a.into(), b.into(), record) else { continue };
            taken += 1;
            let _ = client.write_all(&[0x81; 40]);
            let _ = backend.write_all(&[0x02; 40]);
            relay.adopt(tunnel).expect("adopted");
            drop((client, backend));
            assert_ne!(ends.wait().why, Why::Panic, "{value} from {at} on");
        }
    }
    assert!(taken > 100, "{taken}");
    assert_eq!(counters.ended_by.of(&Why::Panic).load(Relaxed), 0);
}
