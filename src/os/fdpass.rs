//! Messages that carry two descriptors from process to process (unix(7), SCM_RIGHTS).

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{BorrowedFd, OwnedFd};

use rustix::cmsg_space;
use rustix::net::sockopt::set_socket_send_buffer_size;
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags,
    SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketFlags, SocketType, recvmsg,
    sendmsg, socketpair,
};

use crate::poll;

/// The longest message. The kernel's bound for one is above 200 KiB.
pub const MESSAGE: usize = 64 * 1024;

/// What may be under way, in bytes as the kernel counts them: with what each message takes
/// besides. It doubles this.
const UNDER_WAY_BYTES: usize = 104 * 1024;

const FDS: usize = 2;
const CONTROL: usize = cmsg_space!(ScmRights(FDS));

/// Two sockets, the first to receive from, the second to send to: messages stay whole and in
/// order, and stay in the kernel for as long as either is open in any process.
///
/// # Errors
/// Descriptors cannot be had.
pub fn pair() -> io::Result<[OwnedFd; 2]> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let (receive, send) = socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None)?;
    // Whatever the system's default is.
    set_socket_send_buffer_size(&send, UNDER_WAY_BYTES)?;
    Ok([receive, send])
}

/// Sends one message, at most [`MESSAGE`] bytes, with copies of two descriptors.
///
/// # Errors
/// `WouldBlock` if there is no room now; ETOOMANYREFS if more descriptors are under way than
/// the sender may have open.
pub fn send(socket: BorrowedFd<'_>, bytes: &[u8], fds: [BorrowedFd<'_>; FDS]) -> io::Result<()> {
    let mut room = [MaybeUninit::uninit(); CONTROL];
    let mut control = SendAncillaryBuffer::new(&mut room);
    control.push(SendAncillaryMessage::ScmRights(&fds));
    let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
    sendmsg(socket, &[IoSlice::new(bytes)], &mut control, flags)?;
    Ok(())
}

/// Receives one message: how long it is, and the descriptors that came with it. None if this process has
/// no room for them: they are gone then.
///
/// # Errors
/// `WouldBlock` if none is there. `InvalidData` for a message that is too long, which is gone.
pub fn receive(
    socket: BorrowedFd<'_>,
    buffer: &mut [u8],
) -> io::Result<(usize, Option<[OwnedFd; FDS]>)> {
    let mut room = [MaybeUninit::uninit(); CONTROL];
    let mut control = RecvAncillaryBuffer::new(&mut room);
    let flags = RecvFlags::DONTWAIT | RecvFlags::CMSG_CLOEXEC;
    let came = recvmsg(socket, &mut [IoSliceMut::new(buffer)], &mut control, flags)
        .inspect_err(poll::rest_after)?;
    if came.flags.contains(ReturnFlags::TRUNC) {
        return Err(io::ErrorKind::InvalidData.into());
    }
    let is_cut = came.flags.contains(ReturnFlags::CTRUNC);
    // Those of a message that is refused are closed here.
    let rights = control.drain().filter_map(|message| match message {
        RecvAncillaryMessage::ScmRights(fds) => Some(fds),
        _ => None,
    });
    let mut fds = rights.flatten();
    match (fds.next(), fds.next(), fds.next()) {
        (Some(first), Some(second), None) if !is_cut => Ok((came.bytes, Some([first, second]))),
        _ => Ok((came.bytes, None)),
    }
}
