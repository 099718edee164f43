//! Messages from several processes to several others: each stays whole, and goes to one of them.

use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};

use rustix::net::sockopt::{set_socket_send_buffer_size, set_socket_send_buffer_size_force};
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, recv, send as socket_send,
    socketpair,
};

use crate::poll;

/// The longest message.
pub const PACKET_BYTES: usize = 128 * 1024;

/// What may be under way, in bytes as the kernel counts them: a message of a few hundred bytes
/// counts for a thousand. It doubles this.
const UNDER_WAY_BYTES: usize = 1 << 20;

/// Two sockets, the first to receive from, the second to send to. Neither waits.
///
/// # Errors
/// Descriptors cannot be had.
pub fn pair() -> io::Result<[OwnedFd; 2]> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let (receive, send) = socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None)?;
    if set_socket_send_buffer_size_force(&send, UNDER_WAY_BYTES).is_err() {
        // Without privileges: as much as the system allows.
        let _ = set_socket_send_buffer_size(&send, UNDER_WAY_BYTES);
    }
    Ok([receive, send])
}

/// Sends one message.
///
/// # Errors
/// `WouldBlock` if there is no room now.
pub fn send(socket: BorrowedFd<'_>, message: &[u8]) -> io::Result<()> {
    socket_send(socket, message, SendFlags::DONTWAIT | SendFlags::NOSIGNAL)?;
    Ok(())
}

/// Receives one message, and returns its length.
///
/// # Errors
/// `WouldBlock` if none is there.
pub fn receive(socket: BorrowedFd<'_>, buffer: &mut [u8]) -> io::Result<usize> {
    let (length, _) = recv(socket, buffer, RecvFlags::DONTWAIT).inspect_err(poll::rest_after)?;
    Ok(length)
}
