//! A back end that sends one frame without end, and a client that reads when it is told to.

use std::io::{ErrorKind, Write};
use std::net::TcpStream;
use std::thread;
use std::time::Duration;

use relay::{Rules, Side, Tracker, Tunnel};
use socket2::SockRef;

use crate::common::*;

/// The header of an unmasked binary frame.
pub(crate) fn header(length: u64) -> Vec<u8> {
    let mut header = vec![0x82, 127];
    header.extend(length.to_be_bytes());
    header
}

/// What a socket holds, in bytes: enough for reads that make a flood.
const SOCKET_BYTES: usize = 1 << 18;

/// A tunnel, and its peers.
pub(crate) fn flooded(frames: [Tracker; 2]) -> (Tunnel, Ends, TcpStream, TcpStream) {
    let (client, a) = tcp_pair();
    let (backend, b) = tcp_pair();
    // By itself the kernel takes many times as much.
    for socket in [&client, &a, &backend, &b] {
        let socket = SockRef::from(socket);
        socket.set_recv_buffer_size(SOCKET_BYTES).expect("size");
        socket.set_send_buffer_size(SOCKET_BYTES).expect("size");
    }
    let (record, ends) = record();
    let tunnel =
        Tunnel::new(Side::plain(a.into()), Side::plain(b.into()), frames, Rules::default(), record);
    (tunnel, ends, client, backend)
}

/// Writes until the socket has taken none for a while.
pub(crate) fn fill(mut socket: &TcpStream, pattern: &mut Pattern) -> usize {
    socket.set_nonblocking(true).expect("nonblocking");
    let mut chunk = vec![0; 1 << 16];
    let (mut total, mut unsent, mut full_for) = (0, 0, 0);
    while full_for < 20 {
        if unsent == 0 {
            pattern.take(&mut chunk);
            unsent = chunk.len();
        }
        match socket.write(&chunk[chunk.len() - unsent..]) {
            Ok(n) => {
                total += n;
                unsent -= n;
                full_for = 0;
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                full_for += 1;
                thread::sleep(Duration::from_millis(2));
            }
            Err(error) => panic!("{error}"),
        }
    }
    socket.set_nonblocking(false).expect("blocking");
    total
}
