//! What a side has said before it is gone arrives, whatever goes on the other way.

mod common;

use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use common::*;
use relay::{Budget, By, Rules, Side, Tls, Tracker, Tunnel, Why, socket};

/// How many bytes wait to be read from `socket`, or to be acknowledged by its peer.
fn queued(socket: &TcpStream, which: libc::Ioctl) -> usize {
    let mut bytes: libc::c_int = 0;
    // SAFETY: both requests write one int.
    let result = unsafe { libc::ioctl(socket.as_raw_fd(), which, &raw mut bytes) };
    assert_eq!(result, 0);
    bytes as usize
}

/// Goes, and is gone for the relay, which has `inside`: the other one's last message crosses its end.
fn go_while_spoken_to(goes: TcpStream, inside: &TcpStream, mut other: &TcpStream) {
    until("all of it is with the relay", || queued(&goes, libc::TIOCOUTQ) == 0);
    other.write_all(b"x").expect("write");
    until("it is spoken to", || queued(&goes, libc::FIONREAD) > 0);
    // With bytes unread this is a reset.
    drop(goes);
    until("it is gone", || socket::peer_has_ended(inside.as_fd()) == Some(true));
}

/// A tunnel in which a side speaks, then the other is told, and its own socket inside the relay.
fn spoken(by: By, few: bool, bytes: usize) -> (relay::Relay, Ends, [TcpStream; 3]) {
    let (relay, counters) = relay(1);
    let ((client, a), (backend, b)) = (tcp_pair(), tcp_pair());
    let inside = if by == By::Client { &a } else { &b }.try_clone().expect("dup");
    if few {
        for socket in if by == By::Client { [&backend, &b] } else { [&client, &a] } {
            limit_buffers(socket);
        }
    }
    let (tunnel, ends) = tunnel(a, b);
    relay.adopt(tunnel).expect("adopted");
    let (speaks, other) = if by == By::Client { (client, backend) } else { (backend, client) };
    send_pattern(&speaks, 1, bytes);
    if !few {
        let delivered = || {
            let counter = if by == By::Client { &counters.bytes_up } else { &counters.bytes_down };
            counter.load(Relaxed) == bytes as u64
        };
        until("all of it is with the kernel", delivered);
    }
    (relay, ends, [speaks, other, inside])
}

/// They are in its socket's queue, of which a reset would throw away what it has not acknowledged.
#[test]
fn last_words_that_were_sent_on_arrive() {
    const BYTES: usize = 1 << 20;
    for by in [By::Client, By::Backend] {
        let (_relay, ends, [speaks, other, inside]) = spoken(by, false, BYTES);
        go_while_spoken_to(speaks, &inside, &other);
        drop(inside);
        // It reads when the relay has long let it go: nobody who does not read is waited for without end.
        let end = ends.wait();
        assert_eq!((end.by, &end.why), (by, &Why::Reset));
        expect_pattern(&other, 1, BYTES);
        expect_end(&other);
        assert_eq!(end.bytes_up + end.bytes_down, BYTES as u64 + 1);
    }
}

/// They are with the relay, or it has not read them yet.
#[test]
fn last_words_that_had_to_wait_arrive() {
    const BYTES: usize = 150_000;
    for by in [By::Client, By::Backend] {
        let (_relay, ends, [speaks, other, inside]) = spoken(by, true, BYTES);
        go_while_spoken_to(speaks, &inside, &other);
        drop(inside);
        expect_pattern(&other, 1, BYTES);
        expect_end(&other);
        drop(other);
        let end = ends.wait();
        assert_eq!((end.by, &end.why), (by, &Why::Reset));
        assert_eq!(end.bytes_up + end.bytes_down, BYTES as u64 + 1);
    }
}

/// Who goes, with its last words.
type Goes = Mutex<Option<(TcpStream, Vec<u8>)>>;

/// TLS without ciphers, which takes note of what it is told.
struct Clear {
    fd: OwnedFd,
    closes: Arc<AtomicUsize>,
    /// Says this and goes, while the relay has read from here, and before it writes that.
    goes: Arc<Goes>,
}

impl Tls for Clear {
    fn read(&mut self, buffer: &mut [u8], _: &mut Budget) -> io::Result<usize> {
        let n = socket::receive(self.fd.as_fd(), buffer)?;
        let goes = self.goes.lock().expect("no panic").take().filter(|_| n > 0);
        if let Some((mut goes, said)) = goes {
            goes.write_all(&said).expect("write");
        }
        Ok(n)
    }

    fn closed_cleanly(&self) -> bool {
        true
    }

    fn write(&mut self, bytes: &[u8], more: bool) -> io::Result<()> {
        let sent = socket::send(self.fd.as_fd(), bytes, more)?;
        assert_eq!(sent, bytes.len(), "few bytes");
        Ok(())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }

    fn kept(&self) -> usize {
        0
    }

    fn close(&mut self) -> io::Result<()> {
        self.closes.fetch_add(1, Relaxed);
        Ok(())
    }
}

/// A client with TLS can tell whether something may be missing: a close_notify says that nothing is
/// (RFC 8446 6.1). Behind a Close frame that is so.
#[test]
fn tls_says_that_it_was_all_only_if_it_was() {
    let cases: [(&[u8], _); 2] = [(&[0x82, 3, 1, 2, 3], 0), (&[0x88, 2, 3, 0xe9], 1)];
    for (said, notified) in cases {
        let (relay, _) = relay(1);
        let ((client, a), (backend, b)) = (unix_pair(), tcp_pair());
        let inside = b.try_clone().expect("dup");
        let closes = Arc::default();
        let fd = a.as_fd().try_clone_to_owned().expect("dup");
        let clear = Clear { fd, closes: Arc::clone(&closes), goes: Arc::default() };
        let tls: Option<Box<dyn Tls>> = Some(Box::new(clear));
        let (record, ends) = record();
        let side = Side { fd: a.into(), tls, read_ahead: Vec::new() };
        let frames = [Tracker::client_to_backend(), Tracker::backend_to_client()];
        let backend_side = Side::plain(b.into());
        relay
            .adopt(Tunnel::new(side, backend_side, frames, Rules::default(), record))
            .expect("adopted");
        (&backend).write_all(said).expect("write");
        (&client).write_all(&[0x81, 0x80, 0, 0, 0, 0]).expect("write");
        until("it is spoken to", || queued(&backend, libc::FIONREAD) > 0);
        // Of a unix socket it is known whether it was read.
        drop(backend);
        until("it is gone", || socket::peer_has_ended(inside.as_fd()) == Some(true));
        let mut got = Vec::new();
        until("an end", || (&client).read_to_end(&mut got).is_ok());
        assert_eq!(got, said);
        drop(client);
        let end = ends.wait();
        assert_eq!((end.by, &end.why), (By::Backend, &Why::Reset));
        assert_eq!(closes.load(Relaxed), notified, "{said:?}");
    }
}

/// One that hears nothing any more and does not end is not waited for without end either.
#[test]
fn who_is_not_told_anything_is_let_go() {
    let (_relay, ends, [speaks, mut other, inside]) = spoken(By::Backend, false, 1000);
    let mut got = [0; 1000];
    speaks.shutdown(Shutdown::Write).expect("shutdown");
    go_while_spoken_to(speaks, &inside, &other);
    drop(inside);
    let end = ends.wait();
    assert_eq!((end.by, &end.why), (By::Backend, &Why::Reset));
    other.read_exact(&mut got).expect("all of it");
    expect_end(&other);
    until("it is closed", || {
        other.write(b"x").is_err_and(|error| {
            matches!(error.kind(), ErrorKind::BrokenPipe | ErrorKind::ConnectionReset)
        })
    });
}

/// The relay learns of the end by a write, before anybody has told it that there is something to read.
#[test]
fn last_words_that_came_with_a_failed_write_arrive() {
    const SAID: [u8; 5] = [0x82, 3, 1, 2, 3];
    const ASKED: [u8; 6] = [0x81, 0x80, 0, 0, 0, 0];
    let (relay, _) = relay(1);
    let ((client, a), (backend, b)) = (unix_pair(), tcp_pair());
    let goes = Arc::<Goes>::default();
    let fd = a.as_fd().try_clone_to_owned().expect("dup");
    let clear = Clear { fd, closes: Arc::default(), goes: Arc::clone(&goes) };
    let (record, ends) = record();
    let side = Side { fd: a.into(), tls: Some(Box::new(clear)), read_ahead: Vec::new() };
    let tunnel = Tunnel::new(side, Side::plain(b.into()), websocket(), Rules::default(), record);
    relay.adopt(tunnel).expect("adopted");
    (&client).write_all(&ASKED).expect("write");
    until("something lies unread", || queued(&backend, libc::FIONREAD) > 0);
    *goes.lock().expect("no panic") = Some((backend, SAID.to_vec()));
    (&client).write_all(&ASKED).expect("write");
    let mut got = Vec::new();
    until("an end", || (&client).read_to_end(&mut got).is_ok());
    assert_eq!(got, SAID);
    drop(client);
    let end = ends.wait();
    assert_eq!((end.by, &end.why), (By::Backend, &Why::Reset));
}

/// Who reads no more and goes on sending is gone: what it has sent by then arrives, and no more is taken.
#[test]
fn who_reads_no_more_does_not_go_on_for_ever() {
    let (relay, _) = relay(1);
    let ((client, a), (backend, b)) = (unix_pair(), unix_pair());
    let (tunnel, ends) = tunnel(a, b);
    relay.adopt(tunnel).expect("adopted");
    backend.shutdown(Shutdown::Read).expect("shutdown");
    let floods = std::thread::spawn(move || {
        loop {
            if let Err(error) = (&backend).write_all(&[7; 65_536]) {
                return error.kind();
            }
        }
    });
    (&client).write_all(b"x").expect("write");
    // Slower than what comes: there is always more to read.
    let reads = std::thread::spawn(move || {
        while let Ok(1..) = (&client).read(&mut [0; 1024]) {
            std::thread::sleep(Duration::from_micros(50));
        }
    });
    let end = ends.wait();
    assert_eq!((end.by, &end.why), (By::Backend, &Why::Reset));
    assert_eq!(floods.join().expect("no panic"), ErrorKind::BrokenPipe);
    reads.join().expect("no panic");
}
