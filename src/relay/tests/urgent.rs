//! Urgent bytes (tcp(7), MSG_OOB). They are no part of what is carried, but a read stops where one was.

mod common;

use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::os::fd::AsRawFd;
use std::sync::mpsc::{Receiver, Sender, channel};

use common::*;
use relay::{End, Record, Relay, Rules, Side, Tunnel, Why};

/// A record that has its thread wait when its tunnel ends: what comes meanwhile has all come when the
/// thread looks.
struct Blocks {
    is_blocked: Sender<()>,
    go_on: Receiver<()>,
}

impl Record for Blocks {
    fn ended(&mut self, _: &End) {
        self.is_blocked.send(()).expect("it is waited for");
        self.go_on.recv().expect("it is told");
    }
}

/// Runs `what` while the only thread of the relay looks at nothing.
fn while_it_does_not_look(relay: &Relay, what: impl FnOnce()) {
    let (tell_blocked, is_blocked) = channel();
    let (tell, go_on) = channel();
    let [(client, a), (backend, b)] = [unix_pair(), unix_pair()];
    let [a, b] = [a, b].map(|side| Side::plain(side.into()));
    let record = Box::new(Blocks { is_blocked: tell_blocked, go_on });
    relay.adopt(Tunnel::new(a, b, opaque(), Rules::default(), record)).expect("adopted");
    drop((client, backend));
    is_blocked.recv_timeout(PATIENCE).expect("it ends");
    what();
    tell.send(()).expect("it waits");
}

fn send_urgent(to: &TcpStream) {
    // SAFETY: the kernel reads one byte.
    let n = unsafe { libc::send(to.as_raw_fd(), b"!".as_ptr().cast(), 1, libc::MSG_OOB) };
    assert_eq!(n, 1);
}

/// Whether all that was sent has come to the other socket.
fn has_come(from: &TcpStream) -> bool {
    let mut bytes: libc::c_int = 0;
    // SAFETY: the kernel writes one number.
    let result = unsafe { libc::ioctl(from.as_raw_fd(), libc::TIOCOUTQ, &raw mut bytes) };
    result == 0 && bytes == 0
}

#[test]
fn a_message_behind_an_urgent_byte_is_carried() {
    let (relay, _) = relay(1);
    let ((mut client, a), (mut backend, b)) = (tcp_pair(), tcp_pair());
    let (tunnel, ends) = tunnel(a, b);
    relay.adopt(tunnel).expect("adopted");
    let mut got = [0; 6];
    // More than once: what is known of the first says nothing of the next.
    for _ in 0..3 {
        client.write_all(b"before").expect("write");
        backend.read_exact(&mut got).expect("read");
        while_it_does_not_look(&relay, || {
            client.write_all(b"one").expect("write");
            send_urgent(&client);
            client.write_all(b"two").expect("write");
            until("all of it has come", || has_come(&client));
        });
        backend.read_exact(&mut got).expect("both");
        assert_eq!(&got, b"onetwo");
    }
    drop((client, backend));
    ends.wait();
}

#[test]
fn a_flood_with_an_urgent_byte_is_carried() {
    const LENGTH: usize = 8 << 20;
    const BEFORE: usize = 4 << 20;
    for has_end in [true, false] {
        let (relay, _) = relay(1);
        let ((client, a), (backend, b)) = (tcp_pair(), tcp_pair());
        let (record, ends) = record();
        let [a, b] = [a, b].map(|side| Side::plain(side.into()));
        let tunnel = Tunnel::new(a, b, websocket(), Rules::default(), record);
        relay.adopt(tunnel).expect("adopted");
        // One frame, of which most is spliced.
        let header = [frame_header(0x82, false, LENGTH), vec![0; BEFORE]].concat();
        std::thread::scope(|scope| {
            scope.spawn(|| (&backend).write_all(&header).expect("write"));
            (&client).read_exact(&mut vec![0; header.len()]).expect("read");
        });
        while_it_does_not_look(&relay, || {
            (&backend).write_all(&[b'a'; 300_000]).expect("write");
            send_urgent(&backend);
            (&backend).write_all(&[b'b'; 50_000]).expect("write");
            if has_end {
                backend.shutdown(Shutdown::Write).expect("shutdown");
            }
            until("all of it has come", || has_come(&backend));
        });
        let mut got = vec![0; 350_000];
        (&client).read_exact(&mut got).expect("all of it");
        assert!(got[..300_000].iter().all(|byte| *byte == b'a'));
        assert!(got[300_000..].iter().all(|byte| *byte == b'b'));
        drop((client, backend));
        let end = ends.wait();
        assert_eq!(end.why, Why::Closed);
        assert_eq!(end.bytes_down, (header.len() + got.len()) as u64);
    }
}
