//! Bytes go both ways, and ends are carried.

mod common;

use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::atomic::Ordering::Relaxed;
use std::thread;
use std::time::Duration;

use common::*;
use relay::{Budget, By, Rules, Side, Tls, Tunnel, Why};

#[test]
fn echoes_through_tcp() {
    let (relay, counters) = relay(1);
    let (mut client, a) = tcp_pair();
    let (mut backend, b) = tcp_pair();
    let (tunnel, ends) = tunnel(a, b);
    relay.adopt(tunnel).expect("adopted");
    let mut got = [0; 5];
    for _ in 0..100 {
        client.write_all(b"hello").expect("write");
        backend.read_exact(&mut got).expect("read");
        assert_eq!(&got, b"hello");
        backend.write_all(b"world").expect("write");
        client.read_exact(&mut got).expect("read");
        assert_eq!(&got, b"world");
    }
    assert_eq!(relay.open(), 1);
    drop(client);
    expect_end(&backend);
    drop(backend);
    let end = ends.wait();
    assert_eq!((end.by, &end.why), (By::Client, &Why::Closed));
    assert_eq!((end.bytes_up, end.bytes_down), (500, 500));
    until("open is 0", || relay.open() == 0);
    assert_eq!(counters.ended_by.of(&Why::Closed).load(Relaxed), 1);
    assert_eq!(counters.bytes_up.load(Relaxed), 500);
    assert_eq!(counters.open.load(Relaxed), 0);
    assert!(relay.stop().is_empty());
    assert_eq!((relay.alive(), counters.threads.load(Relaxed)), (0, 0));
}

/// Both directions at once, in random sizes; checks every byte, then both ends.
fn bulk<S>(client: &S, backend: &S, seed: u64, total: usize)
where
    S: Sync,
    for<'a> &'a S: Read + Write,
    S: ShutWrite,
{
    thread::scope(|scope| {
        scope.spawn(|| {
            send_pattern(client, seed, total);
            client.shut_write();
        });
        scope.spawn(|| {
            send_pattern(backend, seed + 1, total);
            backend.shut_write();
        });
        scope.spawn(|| {
            expect_pattern(backend, seed, total);
            expect_end(backend);
        });
        expect_pattern(client, seed + 1, total);
        expect_end(client);
    });
}

trait ShutWrite {
    fn shut_write(&self);
}

impl ShutWrite for TcpStream {
    fn shut_write(&self) {
        self.shutdown(Shutdown::Write).expect("shutdown");
    }
}

impl ShutWrite for std::os::unix::net::UnixStream {
    fn shut_write(&self) {
        self.shutdown(Shutdown::Write).expect("shutdown");
    }
}

#[test]
fn bulk_both_ways_through_tcp() {
    const TOTAL: usize = 16 << 20;
    let (relay, _) = relay(2);
    thread::scope(|scope| {
        for seed in 0..3 {
            let relay = &relay;
            scope.spawn(move || {
                let (client, a) = tcp_pair();
                let (backend, b) = tcp_pair();
                let (tunnel, ends) = tunnel(a, b);
                relay.adopt(tunnel).expect("adopted");
                bulk(&client, &backend, 10 * seed, TOTAL);
                let end = ends.wait();
                assert_eq!(end.why, Why::Closed);
                assert_eq!((end.bytes_up, end.bytes_down), (TOTAL as u64, TOTAL as u64));
            });
        }
    });
}

#[test]
fn bulk_both_ways_through_unix_sockets() {
    const TOTAL: usize = 16 << 20;
    let (relay, _) = relay(1);
    let (client, a) = unix_pair();
    let (backend, b) = unix_pair();
    let (tunnel, ends) = tunnel(a, b);
    relay.adopt(tunnel).expect("adopted");
    bulk(&client, &backend, 77, TOTAL);
    assert_eq!(ends.wait().why, Why::Closed);
}

#[test]
fn what_was_read_ahead_comes_first() {
    let (relay, _) = relay(1);
    let (client, a) = tcp_pair();
    let (backend, b) = tcp_pair();
    // More than a socket takes at once, so that it is also resumed.
    let ahead = 24 << 20;
    let mut up = vec![0; ahead];
    Pattern::new(1).take(&mut up);
    let (record, ends) = record();
    let side = |fd: TcpStream, read_ahead| Side { fd: OwnedFd::from(fd), tls: None, read_ahead };
    let tunnel =
        Tunnel::new(side(a, up), side(b, b"greeting".to_vec()), opaque(), Rules::default(), record);
    relay.adopt(tunnel).expect("adopted");
    let mut greeting = [0; 8];
    (&client).read_exact(&mut greeting).expect("read");
    assert_eq!(&greeting, b"greeting");
    let mut pattern = Pattern::new(1);
    let mut skipped = vec![0; ahead];
    pattern.take(&mut skipped);
    let mut rest = [0; 1000];
    pattern.take(&mut rest);
    (&client).write_all(&rest).expect("write");
    expect_pattern(&backend, 1, ahead + 1000);
    drop((client, backend));
    assert_eq!(ends.wait().bytes_up, ahead as u64 + 1000);
}

#[test]
fn half_close_goes_through_both_ways() {
    let (relay, _) = relay(1);
    for first_is_client in [true, false] {
        let (client, a) = tcp_pair();
        let (backend, b) = tcp_pair();
        let (tunnel, ends) = tunnel(a, b);
        relay.adopt(tunnel).expect("adopted");
        let (first, second) =
            if first_is_client { (&client, &backend) } else { (&backend, &client) };
        let mut got = [0; 4];
        { first }.write_all(b"last").expect("write");
        first.shut_write();
        { second }.read_exact(&mut got).expect("read");
        expect_end(second);
        // The other direction lives on.
        for _ in 0..3 {
            { second }.write_all(b"more").expect("write");
            { first }.read_exact(&mut got).expect("read");
            assert_eq!(&got, b"more");
        }
        assert_eq!(relay.open(), 1);
        second.shut_write();
        expect_end(first);
        let end = ends.wait();
        assert_eq!(end.why, Why::Closed);
        assert_eq!(end.by == By::Client, first_is_client);
    }
}

fn reset(socket: TcpStream) {
    let linger = libc::linger { l_onoff: 1, l_linger: 0 };
    // SAFETY: the kernel reads linger, which lives on the stack.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_LINGER,
            (&raw const linger).cast(),
            size_of::<libc::linger>() as u32,
        )
    };
    assert_eq!(result, 0);
}

fn expect_reset(mut socket: &TcpStream) {
    let mut bytes = [0; 65_536];
    loop {
        match socket.read(&mut bytes) {
            Ok(0) => panic!("an end, not a reset"),
            Ok(_) => {}
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::ConnectionReset);
                return;
            }
        }
    }
}

#[test]
fn a_reset_becomes_a_reset() {
    let (relay, counters) = relay(1);
    for client_resets in [true, false] {
        let (client, a) = tcp_pair();
        let (backend, b) = tcp_pair();
        let (tunnel, ends) = tunnel(a, b);
        relay.adopt(tunnel).expect("adopted");
        (&client).write_all(b"x").expect("write");
        (&backend).read_exact(&mut [0]).expect("read");
        let (resets, other) = if client_resets { (client, backend) } else { (backend, client) };
        reset(resets);
        expect_reset(&other);
        let end = ends.wait();
        assert_eq!(end.why, Why::Reset);
        assert_eq!(end.by == By::Client, client_resets);
    }
    assert_eq!(counters.ended_by.of(&Why::Reset).load(Relaxed), 2);
}

/// Writes until the socket takes no more; returns how much went.
fn fill(mut socket: &TcpStream) -> usize {
    socket.set_nonblocking(true).expect("nonblocking");
    let chunk = [7; 65_536];
    let mut total = 0;
    let mut full_for = 0;
    // Full, and still full when whoever takes it had time to.
    while full_for < 20 {
        match socket.write(&chunk) {
            Ok(n) => {
                total += n;
                full_for = 0;
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                full_for += 1;
                thread::sleep(Duration::from_millis(5));
            }
            Err(error) => panic!("{error}"),
        }
    }
    socket.set_nonblocking(false).expect("blocking");
    total
}

/// How many bytes wait to be read from `socket`, or to be acknowledged by its peer.
fn queued(socket: &TcpStream, which: libc::Ioctl) -> usize {
    let mut bytes: libc::c_int = 0;
    // SAFETY: both requests write one int.
    let result = unsafe { libc::ioctl(socket.as_raw_fd(), which, &raw mut bytes) };
    assert_eq!(result, 0);
    bytes as usize
}

#[test]
fn a_slow_reader_stops_its_sender() {
    let (relay, counters) = relay(1);
    let (client, a) = tcp_pair();
    let (backend, b) = tcp_pair();
    let inside = a.try_clone().expect("dup");
    let (tunnel, ends) = tunnel(a, b);
    relay.adopt(tunnel).expect("adopted");
    let sent = fill(&client);
    let in_sockets = queued(&inside, libc::FIONREAD) + queued(&client, libc::TIOCOUTQ);
    let delivered = counters.bytes_up.load(Relaxed) as usize;
    assert!(
        sent <= delivered + in_sockets + (256 << 10),
        "sent {sent}, delivered {delivered}, in sockets {in_sockets}: more than a buffer kept"
    );
    drop(inside);
    // The other direction is not held up.
    (&backend).write_all(b"still here").expect("write");
    (&client).read_exact(&mut [0; 10]).expect("read");
    // A reader that comes back gets everything.
    client.shut_write();
    let mut came = 0;
    let mut bytes = vec![0; 10_000];
    loop {
        match (&backend).read(&mut bytes).expect("read") {
            0 => break,
            n => came += n,
        }
    }
    assert_eq!(came, sent);
    drop((client, backend));
    assert_eq!(ends.wait().bytes_up, sent as u64);
}

#[test]
fn a_reset_is_noticed_while_nothing_is_read() {
    // Who resets, and who does not read: neither side is written to when it happens.
    for (client_resets, client_stalls) in
        [(true, true), (true, false), (false, true), (false, false)]
    {
        let (relay, _) = relay(1);
        let (client, a) = tcp_pair();
        let (backend, b) = tcp_pair();
        let (tunnel, ends) = tunnel(a, b);
        relay.adopt(tunnel).expect("adopted");
        // The one who does not read is flooded by the other.
        fill(if client_stalls { &backend } else { &client });
        let (resets, other) = if client_resets { (client, backend) } else { (backend, client) };
        reset(resets);
        if client_resets != client_stalls {
            // What the one had said before goes on to the other, who reads after all.
            let came = io::copy(&mut &other, &mut io::sink()).expect("an end, no reset");
            drop(other);
            let end = ends.wait();
            assert_eq!(end.why, Why::Reset);
            assert_eq!(end.by == By::Client, client_resets);
            assert_eq!(came, if client_resets { end.bytes_up } else { end.bytes_down });
            continue;
        }
        let end = ends.wait();
        assert_eq!(end.why, Why::Reset);
        assert_eq!(end.by == By::Client, client_resets);
        expect_reset(&other);
    }
}

#[test]
fn a_reset_after_a_half_close_is_noticed() {
    for client_first in [true, false] {
        let (relay, _) = relay(1);
        let (client, a) = tcp_pair();
        let (backend, b) = tcp_pair();
        let (tunnel, ends) = tunnel(a, b);
        relay.adopt(tunnel).expect("adopted");
        let (first, second) = if client_first { (client, backend) } else { (backend, client) };
        first.shut_write();
        expect_end(&second);
        // Nothing is read from it any more, and nothing is to be written.
        reset(first);
        let end = ends.wait();
        assert_eq!(end.why, Why::Reset);
        assert_eq!(end.by == By::Client, client_first);
        // It got an end, which no reset is to overtake.
        let mut second = second;
        until("nobody listens any more", || second.write(b"x").is_err());
    }
}

/// A back end that closes with bytes unread resets. What it said before is still said.
#[test]
fn last_words_before_a_reset_arrive() {
    let (first, _) = relay(1);
    let (client, a) = tcp_pair();
    let (backend, b) = tcp_pair();
    for socket in [&b, &backend] {
        limit_buffers(socket);
    }
    let (tunnel, ends) = tunnel(a, b);
    first.adopt(tunnel).expect("adopted");
    // So that bytes wait in the relay.
    fill(&client);
    // While nobody looks.
    let tunnels = first.stop();
    (&backend).write_all(b"last words").expect("write");
    drop(backend);
    let (second, _) = relay(1);
    for tunnel in tunnels {
        second.adopt(tunnel).expect("adopted");
    }
    let mut got = [0; 10];
    (&client).read_exact(&mut got).expect("the last words");
    assert_eq!(&got, b"last words");
    // A reset only if they were acknowledged by then.
    let end = (&client).read(&mut got);
    assert!(matches!(end, Ok(0) | Err(_)), "{end:?}");
    assert_eq!(ends.wait().why, Why::Reset);
}

/// A side that is gone, as each write to it says, and whose last words are still to be read: they
/// came in small pieces.
struct Gone {
    pieces: usize,
}

const PIECE: &[u8] = b"last words";

impl Tls for Gone {
    fn read(&mut self, buffer: &mut [u8], _: &mut Budget) -> io::Result<usize> {
        self.pieces = self.pieces.checked_sub(1).ok_or(ErrorKind::WouldBlock)?;
        buffer[..PIECE.len()].copy_from_slice(PIECE);
        Ok(PIECE.len())
    }

    fn closed_cleanly(&self) -> bool {
        false
    }

    fn write(&mut self, _: &[u8], _: bool) -> io::Result<()> {
        Err(io::Error::from_raw_os_error(libc::ECONNRESET))
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

/// Last words arrive although a write to the side that said them finds it gone before they were
/// read. Of the client's that takes more of them than are read in one turn, as it is read first.
#[test]
fn last_words_of_a_side_that_a_write_finds_gone_arrive() {
    let (relay, _) = relay(1);
    for (client_goes, pieces) in [(true, 100), (false, 50)] {
        let (_gone, inside) = tcp_pair();
        // Of TCP the reset might overtake them.
        let (other, other_inside) = unix_pair();
        let tls: Option<Box<dyn Tls>> = Some(Box::new(Gone { pieces }));
        let gone = Side { fd: inside.into(), tls, read_ahead: Vec::new() };
        let other_side =
            Side { read_ahead: b"hello?".to_vec(), ..Side::plain(other_inside.into()) };
        let (client, backend) = if client_goes { (gone, other_side) } else { (other_side, gone) };
        let (record, ends) = record();
        relay
            .adopt(Tunnel::new(client, backend, opaque(), Rules::default(), record))
            .expect("adopted");
        let mut got = vec![0; pieces * PIECE.len()];
        (&other).read_exact(&mut got).expect("the last words");
        assert_eq!(got, PIECE.repeat(pieces));
        expect_end(&other);
        let end = ends.wait();
        assert_eq!(end.why, Why::Reset);
        assert_eq!(end.by == By::Client, client_goes);
        let delivered = if client_goes { end.bytes_up } else { end.bytes_down };
        assert_eq!(delivered, got.len() as u64);
    }
}
