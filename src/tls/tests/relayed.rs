//! Sessions carried by a relay.

mod common;

use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;
use std::time::Duration;

use common::*;
use openssl::ssl::{ShutdownState, SslStream, SslVersion};
use relay::{
    By, Counters, End, Ending, Order, Record, Relay, Rules, Settings, Side, Tracker, Tunnel, Why,
};

const VERSIONS: [SslVersion; 2] = [SslVersion::TLS1_2, SslVersion::TLS1_3];

struct Told(Sender<End>);

impl Record for Told {
    fn ended(&mut self, end: &End) {
        let _ = self.0.send(end.clone());
    }
}

fn wait(ends: &Receiver<End>) -> End {
    ends.recv_timeout(PATIENCE).expect("the tunnel ends in time")
}

fn start(buffer_size: usize) -> Relay {
    let counters: &'static Counters = Box::leak(Box::default());
    let settings = Settings { buffer_size, ..Settings::default() };
    Relay::start(&settings, counters).expect("relay")
}

fn tls_side(ours: SslStream<TcpStream>) -> Side {
    let (session, socket) = take_over(ours);
    Side { fd: OwnedFd::from(socket), tls: Some(session), read_ahead: Vec::new() }
}

fn adopt(relay: &Relay, client: Side, backend: Side, websocket: bool) -> Receiver<End> {
    let (sender, ends) = channel();
    let frames = if websocket {
        [Tracker::client_to_backend(), Tracker::backend_to_client()]
    } else {
        [Tracker::opaque(), Tracker::opaque()]
    };
    let tunnel = Tunnel::new(client, backend, frames, Rules::default(), Box::new(Told(sender)));
    relay.adopt(tunnel).expect("adopted");
    ends
}

/// A client that speaks TLS to us, and a back end that does or does not.
enum Peer {
    Tls(SslStream<TcpStream>),
    Plain(TcpStream),
}

impl Read for Peer {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        match self {
            Peer::Tls(stream) => stream.read(buffer),
            Peer::Plain(stream) => stream.read(buffer),
        }
    }
}

impl Write for Peer {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        match self {
            Peer::Tls(stream) => stream.write(bytes),
            Peer::Plain(stream) => stream.write(bytes),
        }
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl Peer {
    fn socket(&self) -> &TcpStream {
        match self {
            Peer::Tls(stream) => stream.get_ref(),
            Peer::Plain(stream) => stream,
        }
    }

    fn key_update(&self, kind: std::ffi::c_int) {
        if let Peer::Tls(stream) = self
            && stream.ssl().version2() == Some(SslVersion::TLS1_3)
        {
            key_update(stream, kind);
        }
    }
}

/// A tunnel whose client side is TLS, and whose back end is if `backend` says a version.
fn tls_tunnel(
    relay: &Relay,
    client: SslVersion,
    backend: Option<SslVersion>,
) -> (Peer, Peer, Receiver<End>) {
    let context = builder(client).build();
    let (client_peer, ours) = connect(&context, &context, true);
    let client = tls_side(ours);
    let (backend_peer, backend) = match backend {
        Some(version) => {
            let context = builder(version).build();
            let (peer, ours) = connect(&context, &context, false);
            (Peer::Tls(peer), tls_side(ours))
        }
        None => {
            let (peer, socket) = tcp_pair();
            (Peer::Plain(peer), Side::plain(socket.into()))
        }
    };
    let ends = adopt(relay, client, backend, false);
    (Peer::Tls(client_peer), backend_peer, ends)
}

/// A byte that depends on its place.
fn byte(seed: u64, at: u64) -> u8 {
    let mixed = (at / 8 + seed).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    (mixed >> (8 * (at % 8))) as u8
}

fn fill(seed: u64, at: u64, bytes: &mut [u8]) {
    for (index, place) in bytes.iter_mut().enumerate() {
        *place = byte(seed, at + index as u64);
    }
}

/// Ping-pong of growing windows: writes a burst, reads one back, with KeyUpdates strewn in.
fn exchange(peer: &mut Peer, seed: u64, other_seed: u64, total: u64, kind: std::ffi::c_int) {
    let mut sent = 0;
    let mut came = 0;
    let mut out = vec![0; 40_000];
    let mut got = vec![0; 40_000];
    let mut round = 0_u64;
    while sent < total || came < total {
        round += 1;
        let size = [1, 17, 1400, 16_384, 16_385, 40_000][(round % 6) as usize];
        let n = size.min(total - sent) as usize;
        fill(seed, sent, &mut out[..n]);
        peer.write_all(&out[..n]).expect("write");
        sent += n as u64;
        if round.is_multiple_of(7) {
            peer.key_update(kind);
        }
        // The same sizes come from the other side.
        peer.read_exact(&mut got[..n]).expect("read");
        for (index, &value) in got[..n].iter().enumerate() {
            assert_eq!(value, byte(other_seed, came + index as u64));
        }
        came += n as u64;
    }
}

#[test]
fn every_pairing_carries_both_ways_with_key_updates() {
    const TOTAL: u64 = 1 << 20;
    let relay = start(65_536);
    thread::scope(|scope| {
        for client in VERSIONS {
            for backend in [None, Some(SslVersion::TLS1_2), Some(SslVersion::TLS1_3)] {
                for kind in [KEY_UPDATE_NOT_REQUESTED, KEY_UPDATE_REQUESTED] {
                    let (mut one, mut two, ends) = tls_tunnel(&relay, client, backend);
                    scope.spawn(move || {
                        let other = thread::spawn(move || {
                            exchange(&mut two, 2, 1, TOTAL, kind);
                            two
                        });
                        exchange(&mut one, 1, 2, TOTAL, kind);
                        let two = other.join().expect("exchanged");
                        drop(one);
                        drop(two);
                        let end = wait(&ends);
                        assert_eq!((end.bytes_up, end.bytes_down), (TOTAL, TOTAL));
                    });
                }
            }
        }
    });
}

/// One direction at full speed towards a slow reader, with KeyUpdates from the reader while the
/// relay's writes to it are blocked, and given back again and again.
#[test]
fn bulk_survives_stops_and_key_updates() {
    const TOTAL: u64 = 24 << 20;
    let mut relay = start(65_536);
    let mut all_ends = Vec::new();
    let mut stops = 0;
    thread::scope(|scope| {
        let mut running = Vec::new();
        for (client, backend) in [
            (SslVersion::TLS1_3, Some(SslVersion::TLS1_3)),
            (SslVersion::TLS1_3, None),
            (SslVersion::TLS1_2, None),
            (SslVersion::TLS1_2, Some(SslVersion::TLS1_2)),
        ] {
            let (mut one, mut two, ends) = tls_tunnel(&relay, client, backend);
            all_ends.push(ends);
            // The back end sends, the client reads slowly and asks for new keys.
            running.push(scope.spawn(move || {
                let mut bytes = vec![0; 100_000];
                let mut at = 0;
                while at < TOTAL {
                    let n = (bytes.len() as u64).min(TOTAL - at) as usize;
                    fill(3, at, &mut bytes[..n]);
                    two.write_all(&bytes[..n]).expect("write");
                    at += n as u64;
                }
                // Until the reader has all.
                assert_eq!(two.read(&mut bytes).expect("its end"), 0);
            }));
            running.push(scope.spawn(move || {
                let mut bytes = vec![0; 50_000];
                let mut at = 0;
                let mut reads = 0;
                while at < TOTAL {
                    let n = one.read(&mut bytes).expect("read");
                    assert!(n > 0, "the end came early");
                    for (index, &value) in bytes[..n].iter().enumerate() {
                        assert_eq!(value, byte(3, at + index as u64));
                    }
                    at += n as u64;
                    reads += 1;
                    if reads % 100 == 0 {
                        one.key_update(KEY_UPDATE_REQUESTED);
                        thread::sleep(Duration::from_millis(2));
                    }
                }
                if let Peer::Tls(stream) = &mut one {
                    stream.shutdown().expect("close_notify");
                }
            }));
        }
        while running.iter().any(|thread| !thread.is_finished()) {
            thread::sleep(Duration::from_millis(3));
            let tunnels = relay.stop();
            stops += 1;
            relay = start([65_536, 4096, 1 << 20][stops % 3]);
            for tunnel in tunnels {
                relay.adopt(tunnel).expect("adopted");
            }
        }
    });
    for ends in all_ends {
        let end = wait(&ends);
        assert_eq!(end.bytes_down, TOTAL, "{end:?}");
    }
    assert!(stops > 20, "only {stops} stops");
}

/// How many bytes wait to be read from `socket`.
fn unread(socket: &TcpStream) -> usize {
    let mut bytes: libc::c_int = 0;
    // SAFETY: the request writes one int.
    let result = unsafe { libc::ioctl(socket.as_raw_fd(), libc::FIONREAD, &raw mut bytes) };
    assert_eq!(result, 0);
    bytes as usize
}

/// The session remembers that its socket was empty; what comes while nobody reads it, because
/// the other side is full, must still be found.
#[test]
fn what_comes_during_a_pause_is_read_after_it() {
    for version in VERSIONS {
        let relay = start(65_536);
        let context = builder(version).build();
        let (mut client, ours) = connect(&context, &context, true);
        let client_side = tls_side(ours);
        let inside = TcpStream::from(client_side.fd.try_clone().expect("dup"));
        let (mut backend, socket) = tcp_pair();
        let _ends = adopt(&relay, client_side, Side::plain(socket.into()), false);
        let mut chunk = vec![0; 10_000];
        let mut sent = 0;
        // One record at a time, so that each read empties the socket, until one is left there.
        loop {
            fill(5, sent, &mut chunk);
            client.write_all(&chunk).expect("write");
            sent += chunk.len() as u64;
            let paused = (0..100).all(|_| {
                thread::sleep(Duration::from_millis(1));
                unread(&inside) > 0
            });
            if paused {
                break;
            }
        }
        let mut at = 0;
        while at < sent {
            let n = backend.read(&mut chunk).expect("read");
            for (index, &value) in chunk[..n].iter().enumerate() {
                assert_eq!(value, byte(5, at + index as u64));
            }
            at += n as u64;
        }
    }
}

#[test]
fn records_arrive_split_at_any_byte() {
    for version in VERSIONS {
        let relay = start(65_536);
        // Between the client and us stands a wire that lets go one byte at a time.
        let (far, wire_in) = tcp_pair();
        let (wire_out, near) = tcp_pair();
        wire_in.set_nodelay(true).expect("nodelay");
        thread::scope(|scope| {
            let (mut one, mut two) =
                (wire_in.try_clone().expect("dup"), wire_out.try_clone().expect("dup"));
            scope.spawn(move || {
                let mut byte = [0];
                while matches!(one.read(&mut byte), Ok(1)) {
                    if two.write_all(&byte).is_err() {
                        break;
                    }
                }
                let _ = two.shutdown(Shutdown::Write);
            });
            let (mut back_in, mut back_out) =
                (wire_out.try_clone().expect("dup"), wire_in.try_clone().expect("dup"));
            scope.spawn(move || {
                let _ = std::io::copy(&mut back_in, &mut back_out);
                let _ = back_out.shutdown(Shutdown::Write);
            });
            let context = builder(version).build();
            let (mut client, ours) = connect_over(far, near, &context, &context, true);
            let (mut backend, socket) = tcp_pair();
            let ends = adopt(&relay, tls_side(ours), Side::plain(socket.into()), false);
            let mut got = vec![0; 16_384];
            for length in [1, 2, 100, 16_384, 5] {
                let bytes = vec![length as u8; length];
                client.write_all(&bytes).expect("write");
                backend.read_exact(&mut got[..length]).expect("read");
                assert!(got[..length] == bytes);
                backend.write_all(&bytes).expect("write");
                client.read_exact(&mut got[..length]).expect("read");
                assert!(got[..length] == bytes);
            }
            client.shutdown().expect("close_notify");
            assert_eq!(backend.read(&mut got).expect("its end"), 0);
            client.get_ref().shutdown(Shutdown::Both).expect("shutdown");
            drop(backend);
            assert_eq!(wait(&ends).by, By::Client);
            // Where it is not gone already.
            let _ = wire_out.shutdown(Shutdown::Both);
        });
    }
}

#[test]
fn close_notify_goes_through_as_half_close() {
    for version in VERSIONS {
        let relay = start(65_536);
        let (client, mut backend, ends) = tls_tunnel(&relay, version, None);
        let Peer::Tls(mut client) = client else { unreachable!("the client speaks TLS") };
        // The back end ends first: the client gets close_notify, not a bare end.
        backend.write_all(b"bye").expect("write");
        backend.socket().shutdown(Shutdown::Write).expect("shutdown");
        let mut got = [0; 3];
        client.read_exact(&mut got).expect("read");
        assert_eq!(client.read(&mut got).expect("close_notify"), 0);
        assert!(client.get_shutdown().contains(ShutdownState::RECEIVED));
        // And may still write.
        client.write_all(b"ok!").expect("write");
        backend.read_exact(&mut got).expect("read");
        assert_eq!(&got, b"ok!");
        client.shutdown().expect("close_notify");
        assert_eq!(backend.read(&mut got).expect("its end"), 0);
        let end = wait(&ends);
        assert_eq!((end.by, end.why), (By::Backend, Why::Closed));
    }
}

#[test]
fn a_bare_end_is_reported_as_truncation() {
    let relay = start(65_536);
    let (client, mut backend, ends) = tls_tunnel(&relay, SslVersion::TLS1_3, None);
    client.socket().shutdown(Shutdown::Write).expect("shutdown");
    assert_eq!(backend.read(&mut [0]).expect("its end"), 0);
    backend.socket().shutdown(Shutdown::Write).expect("shutdown");
    let end = wait(&ends);
    assert_eq!((end.by, end.why), (By::Client, Why::Truncated));
}

/// What browsers do: the Close frame is the last word, and TLS says none.
#[test]
fn a_bare_end_behind_a_close_frame_is_no_truncation() {
    const WHOLE: [u8; 8] = [0x88, 0x82, 0, 0, 0, 0, 3, 0xe9];
    for version in VERSIONS {
        for (frame, websocket, why) in [
            (&WHOLE[..], true, Why::Closed),
            (&WHOLE[..7], true, Why::Truncated),
            (&[0x81, 0x80, 0, 0, 0, 0], true, Why::Truncated),
            (&WHOLE, false, Why::Truncated),
        ] {
            let relay = start(65_536);
            let context = builder(version).build();
            let (mut client, ours) = connect(&context, &context, true);
            let (mut backend, socket) = tcp_pair();
            let ends = adopt(&relay, tls_side(ours), Side::plain(socket.into()), websocket);
            client.write_all(frame).expect("write");
            let mut got = vec![0; frame.len()];
            backend.read_exact(&mut got).expect("read");
            client.get_ref().shutdown(Shutdown::Write).expect("shutdown");
            assert_eq!(backend.read(&mut got).expect("its end"), 0);
            backend.shutdown(Shutdown::Write).expect("shutdown");
            let end = wait(&ends);
            assert_eq!(
                (end.by, end.why),
                (By::Client, why),
                "{version:?}, {frame:x?}, {websocket}"
            );
        }
    }
}

/// The same of a back end.
#[test]
fn a_back_ends_bare_end_behind_its_close_frame_is_no_truncation() {
    for (frame, why) in [(&[0x88, 0][..], Why::Closed), (&[0x82, 0], Why::Truncated)] {
        let relay = start(65_536);
        let context = builder(SslVersion::TLS1_3).build();
        let (mut backend, ours) = connect(&context, &context, false);
        let (mut client, socket) = tcp_pair();
        let ends = adopt(&relay, Side::plain(socket.into()), tls_side(ours), true);
        backend.write_all(frame).expect("write");
        let mut got = vec![0; frame.len()];
        client.read_exact(&mut got).expect("read");
        backend.get_ref().shutdown(Shutdown::Write).expect("shutdown");
        assert_eq!(client.read(&mut got).expect("its end"), 0);
        client.shutdown(Shutdown::Write).expect("shutdown");
        let end = wait(&ends);
        assert_eq!((end.by, end.why), (By::Backend, why), "{frame:x?}");
    }
}

#[test]
fn a_failure_of_tls_is_named_and_resets_the_other_side() {
    let relay = start(65_536);
    let (client, mut backend, ends) = tls_tunnel(&relay, SslVersion::TLS1_3, None);
    // A record that nobody has sealed.
    let record = [&[0x17, 3, 3, 1, 0x27][..], &[0x17; 0x127]].concat();
    client.socket().write_all(&record).expect("write");
    let end = wait(&ends);
    assert_eq!(end.by, By::Client);
    let Why::Tls(reason) = end.why else { panic!("{:?}", end.why) };
    assert!(!reason.is_empty() && !reason.contains("unknown"), "{reason}");
    let error = backend.read(&mut [0]).expect_err("a reset");
    assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
    // The client is told by an alert.
    let Peer::Tls(mut client) = client else { unreachable!("the client speaks TLS") };
    let error = client.ssl_read(&mut [0]).expect_err("an alert");
    assert!(error.to_string().contains("alert"), "{error}");
}

#[test]
fn a_reset_of_a_tls_client_becomes_a_reset() {
    let relay = start(65_536);
    let (client, mut backend, ends) = tls_tunnel(&relay, SslVersion::TLS1_3, None);
    // Unread bytes make the close a reset.
    backend.write_all(b"unread").expect("write");
    thread::sleep(Duration::from_millis(50));
    drop(client);
    let end = wait(&ends);
    assert_eq!((end.by, end.why), (By::Client, Why::Reset));
    let error = backend.read(&mut [0]).expect_err("a reset");
    assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
}

#[test]
fn an_order_says_1001_then_close_notify() {
    for version in VERSIONS {
        let relay = start(65_536);
        let context = builder(version).build();
        let (mut client, ours) = connect(&context, &context, true);
        let (mut backend, theirs) = connect(&context, &context, false);
        let ends = adopt(&relay, tls_side(ours), tls_side(theirs), true);
        thread::scope(|scope| {
            scope.spawn(|| {
                assert_eq!(relay.end_all(Ending::at_once(Order::Stop, Some(1001), PATIENCE)), 0)
            });
            let mut got = Vec::new();
            client.read_to_end(&mut got).expect("close_notify at the end");
            assert_eq!(got, [0x88, 2, 0x03, 0xe9]);
            assert!(client.get_shutdown().contains(ShutdownState::RECEIVED));
            got.clear();
            backend.read_to_end(&mut got).expect("close_notify at the end");
            assert_eq!(got.len(), 8);
            drop((client, backend));
            assert_eq!(wait(&ends).why, Why::Stopped);
        });
    }
}
