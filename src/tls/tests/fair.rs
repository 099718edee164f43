//! Peers that make much work of few bytes do not hold up quiet tunnels.

mod common;

use std::ffi::c_int;
use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::atomic::Ordering::Relaxed;
use std::thread;
use std::time::{Duration, Instant};

use common::forge::{Forge, Peer, shaken};
use common::*;
use openssl::ssl::SslVersion;
use relay::{Budget, Counters, Relay, Rules, Settings, Side, Tracker, Tunnel};

/// What a hostile client sends, again and again.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Pattern {
    /// So many KeyUpdates of this kind, then one byte in a record of its own.
    KeyUpdates(usize, c_int),
    /// A record of one byte.
    Bytes,
    /// So many records of no byte, then one of one byte.
    Empty(usize),
    /// A Ping without payload in a record of its own.
    Pings,
    /// KeyUpdates and a record of no byte around one of one byte, so that something is left behind
    /// that one.
    Around,
}

impl Pattern {
    /// The bytes of the tunnel in one repetition.
    fn bytes(self) -> &'static [u8] {
        match self {
            Pattern::Pings => &[0x89, 0x80, 1, 2, 3, 4],
            _ => &[7],
        }
    }

    /// The records in one repetition.
    fn records(self) -> usize {
        match self {
            Pattern::KeyUpdates(count, _) | Pattern::Empty(count) => count + 1,
            Pattern::Bytes | Pattern::Pings => 1,
            Pattern::Around => 8,
        }
    }
}

const PATTERNS: [(SslVersion, Pattern); 9] = [
    (SslVersion::TLS1_3, Pattern::KeyUpdates(60, KEY_UPDATE_NOT_REQUESTED)),
    (SslVersion::TLS1_3, Pattern::KeyUpdates(60, KEY_UPDATE_REQUESTED)),
    (SslVersion::TLS1_3, Pattern::Bytes),
    (SslVersion::TLS1_3, Pattern::Empty(20)),
    (SslVersion::TLS1_3, Pattern::Pings),
    (SslVersion::TLS1_3, Pattern::Around),
    (SslVersion::TLS1_2, Pattern::Bytes),
    (SslVersion::TLS1_2, Pattern::Empty(20)),
    (SslVersion::TLS1_2, Pattern::Pings),
];

fn client(version: SslVersion) -> (Peer, Session, TcpStream) {
    let (client, ours) = shaken(version, true);
    let (session, socket) = take_over(ours);
    (client, session, socket)
}

/// The ciphertext of `times` repetitions of a pattern.
fn ciphertext(client: &mut Peer, pattern: Pattern, times: usize) -> Vec<u8> {
    if let Pattern::Empty(count) = pattern {
        let mut forge = Forge::new(client);
        let mut out = Vec::new();
        for _ in 0..times {
            for _ in 0..count {
                forge.record(b"", &mut out);
            }
            forge.record(pattern.bytes(), &mut out);
        }
        return out;
    }
    if pattern == Pattern::Around {
        let mut forge = Forge::new(client);
        let mut out = Vec::new();
        for _ in 0..times {
            for _ in 0..5 {
                forge.key_update(&mut out);
            }
            forge.record(pattern.bytes(), &mut out);
            forge.key_update(&mut out);
            forge.record(b"", &mut out);
        }
        return out;
    }
    client.stream.get_mut().recorded = Some(Vec::new());
    for _ in 0..times {
        if let Pattern::KeyUpdates(count, kind) = pattern {
            for _ in 0..count {
                // SAFETY: a live SSL of TLS 1.3 that this thread alone uses.
                unsafe {
                    assert_eq!(raw::SSL_key_update(client.stream.ssl().as_raw(), kind), 1);
                    assert_eq!(raw::SSL_do_handshake(client.stream.ssl().as_raw()), 1);
                }
            }
        }
        client.stream.write_all(pattern.bytes()).expect("write");
    }
    client.stream.get_mut().recorded.take().expect("it was recorded")
}

/// How much one read does is bounded, whatever there is to read.
#[test]
fn one_read_goes_through_few_records() {
    /// Records in one read that bring bytes, and those that bring none.
    const MOST: usize = 129;
    const MOST_SILENT: usize = 32;
    for (version, pattern) in PATTERNS {
        let times = if pattern.records() == 1 { 1500 } else { 20 };
        let (mut client, mut session, socket) = client(version);
        let sent = ciphertext(&mut client, pattern, times);
        let mut wire = client.wire();
        wire.write_all(&sent).expect("write");
        let mut all = vec![0; sent.len()];
        until("all is there", || socket.peek(&mut all).expect("peek") == sent.len());
        let (mut came, mut reads, mut most) = (0, 0, 0);
        let mut buffer = vec![0; 65_536];
        while came < times * pattern.bytes().len() {
            let mut budget = Budget::default();
            session.recheck();
            reads += 1;
            match session.read(&mut buffer, &mut budget) {
                Ok(n) => {
                    came += n;
                    most = most.max(n / pattern.bytes().len());
                }
                Err(error) => {
                    assert_eq!(error.kind(), std::io::ErrorKind::Interrupted);
                    assert!(budget.is_spent());
                }
            }
        }
        println!("{version:?}, {pattern:?}: {reads} reads, at most {most} records with bytes");
        assert!(most <= MOST, "{version:?}, {pattern:?}: {most} records in one read");
        let silent = times * (pattern.records() - 1);
        let least = silent / MOST_SILENT;
        assert!(reads >= least, "{version:?}, {pattern:?}: {reads} reads, expected {least}");
    }
}

/// A plain tunnel, or one whose client speaks TLS.
fn tunnel(relay: &Relay, side: Side) -> TcpStream {
    let (backend, plain) = tcp_pair();
    let frames = [Tracker::client_to_backend(), Tracker::backend_to_client()];
    let tunnel =
        Tunnel::new(side, Side::plain(plain.into()), frames, Rules::default(), Box::new(Untold));
    relay.adopt(tunnel).expect("adopted");
    backend
}

/// How quiet tunnels fare beside clients that send `sent` each, `total` bytes of the tunnels in all,
/// or over and over if that is endless.
/// Returns the times that messages took, in order, and how many bytes of the hostile tunnels
/// passed each.
fn beside(hostile: Vec<(TcpStream, Side, Vec<u8>)>, total: u64) -> (Vec<Duration>, Vec<u64>) {
    const QUIET: usize = 20;
    const MESSAGES: usize = 200;
    let counters: &'static Counters = Box::leak(Box::default());
    let settings = Settings { threads: 1, buffer_size: 65_536, ..Settings::default() };
    let relay = Relay::start(&settings, counters).expect("relay");
    let mut quiet: Vec<_> =
        (0..QUIET).map(|_| tls_client_tunnel(&relay, SslVersion::TLS1_3)).collect();
    let (mut times, mut passed) = (Vec::new(), Vec::new());
    thread::scope(|scope| {
        let mut sockets = Vec::new();
        for (socket, side, sent) in hostile {
            let mut backend = tunnel(&relay, side);
            sockets.push(socket.try_clone().expect("dup"));
            scope.spawn(move || {
                let mut bytes = vec![0; 65_536];
                while backend.read(&mut bytes).is_ok_and(|n| n > 0) {}
            });
            let mut answers = socket.try_clone().expect("dup");
            scope.spawn(move || {
                let mut bytes = vec![0; 65_536];
                while answers.read(&mut bytes).is_ok_and(|n| n > 0) {}
            });
            scope.spawn(move || {
                let mut socket = socket;
                while socket.write_all(&sent).is_ok() && total == u64::MAX {}
            });
        }
        until("the flood runs", || counters.bytes_up.load(Relaxed) > 100);
        for index in 0..MESSAGES {
            if counters.bytes_up.load(Relaxed) > total / 10 * 9 {
                break;
            }
            let (client, backend) = &mut quiet[index % QUIET];
            let before = counters.bytes_up.load(Relaxed);
            let begin = Instant::now();
            client.write_all(b"quiet").expect("write");
            backend.read_exact(&mut [0; 5]).expect("read");
            times.push(begin.elapsed());
            passed.push(counters.bytes_up.load(Relaxed) - before);
            // Wherever the relay is in its round.
            thread::sleep(Duration::from_micros(index as u64 * 7919 % 3000));
        }
        for socket in sockets {
            let _ = socket.shutdown(Shutdown::Both);
        }
    });
    times.sort_unstable();
    passed.sort_unstable();
    (times, passed)
}

fn check(what: &str, (times, passed): (Vec<Duration>, Vec<u64>), most: u64) {
    let count = times.len();
    assert!(count > 20, "{what}: only {count} messages while the flood ran");
    let (median, late) = (times[count / 2], times[count * 99 / 100]);
    println!(
        "{what}: {count} messages, median {median:.1?}, 99 % {late:.1?}, worst {:.1?}; bytes that \
         passed: median {}, 99 % {}",
        times[count - 1],
        passed[count / 2],
        passed[count * 99 / 100]
    );
    // Of a few turns of each hostile tunnel: the relay's own measure of time.
    assert!(passed[count / 2] <= most, "{what}: {} bytes passed a message", passed[count / 2]);
    // A busy machine makes it so late, a relay that is held up much later.
    assert!(median < Duration::from_millis(500), "{what}: a message took {median:?}");
}

const HOSTILE: usize = 8;

#[test]
fn quiet_tunnels_pass_peers_of_small_records() {
    for (version, pattern) in PATTERNS {
        let times = match pattern {
            Pattern::KeyUpdates(..) => 100,
            Pattern::Around => 1000,
            Pattern::Empty(_) => 4_000,
            Pattern::Bytes | Pattern::Pings => 100_000,
        };
        let hostile: Vec<_> = thread::scope(|scope| {
            let made: Vec<_> = (0..HOSTILE)
                .map(|_| {
                    scope.spawn(move || {
                        let (mut client, session, socket) = client(version);
                        let sent = ciphertext(&mut client, pattern, times);
                        let peer = client.wire().try_clone().expect("dup");
                        let side =
                            Side { fd: socket.into(), tls: Some(session), read_ahead: Vec::new() };
                        (peer, side, sent)
                    })
                })
                .collect();
            made.into_iter().map(|made| made.join().expect("made")).collect()
        });
        let total = HOSTILE * times * pattern.bytes().len();
        let turn = HOSTILE * 129 * pattern.bytes().len();
        check(&format!("{version:?}, {pattern:?}"), beside(hostile, total as u64), 8 * turn as u64);
    }
}

/// Frames of one byte, and of none, without TLS.
#[test]
fn quiet_tunnels_pass_peers_of_small_frames() {
    for frame in [&[0x82, 0x81, 1, 2, 3, 4, 5][..], &[0x89, 0x80, 1, 2, 3, 4]] {
        let hostile = (0..HOSTILE).map(|_| {
            let (peer, socket) = tcp_pair();
            (peer, Side::plain(socket.into()), frame.repeat(100_000))
        });
        let turn = HOSTILE as u64 * (256 << 10);
        check(
            &format!("plain, frames of {} bytes", frame.len()),
            beside(hostile.collect(), u64::MAX),
            8 * turn,
        );
    }
}
