//! Messages that carry two descriptors from process to process (unix(7), SCM_RIGHTS).

use std::ffi::c_void;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

use libc::c_int;

/// The longest message. The kernel's bound for one is above 200 KiB.
pub const MESSAGE: usize = 64 * 1024;

const FDS: usize = 2;
const FDS_SIZE: u32 = (FDS * size_of::<c_int>()) as u32;
// SAFETY: computes a size.
const CONTROL: usize = unsafe { libc::CMSG_SPACE(FDS_SIZE) } as usize;

/// Room for one control message, aligned for its header.
#[repr(C)]
union Control {
    _aligned: libc::cmsghdr,
    bytes: [u8; CONTROL],
}

/// Two sockets, the first to receive from, the second to send to: messages stay whole and in
/// order, and stay in the kernel for as long as either is open in any process.
///
/// # Errors
/// Descriptors cannot be had.
pub fn pair() -> io::Result<[OwnedFd; 2]> {
    let mut fds = [-1; 2];
    let kind = libc::SOCK_SEQPACKET | libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK;
    // SAFETY: room for two descriptors.
    if unsafe { libc::socketpair(libc::AF_UNIX, kind, 0, fds.as_mut_ptr()) } != 0 {
        return Err(io::Error::last_os_error());
    }
    // What is under way is bounded, whatever the system's default is. The kernel doubles it.
    let size: c_int = 104 * 1024;
    // SAFETY: the kernel reads a number.
    unsafe {
        libc::setsockopt(
            fds[1],
            libc::SOL_SOCKET,
            libc::SO_SNDBUF,
            (&raw const size).cast(),
            size_of_val(&size) as libc::socklen_t,
        )
    };
    // SAFETY: just made, and nobody else's.
    Ok(fds.map(|fd| unsafe { OwnedFd::from_raw_fd(fd) }))
}

/// A message header over `bytes` and `control`, both to outlive its use.
fn header(bytes: &mut libc::iovec, control: &mut Control) -> libc::msghdr {
    // SAFETY: plain numbers and pointers, for which zero is valid.
    let mut header: libc::msghdr = unsafe { std::mem::zeroed() };
    header.msg_iov = bytes;
    header.msg_iovlen = 1;
    header.msg_control = std::ptr::from_mut(control).cast();
    // musl has other types here than glibc.
    header.msg_controllen = CONTROL as _;
    header
}

/// Sends one message, at most [`MESSAGE`] bytes, with copies of two descriptors.
///
/// # Errors
/// `WouldBlock` if there is no room now; ETOOMANYREFS if more descriptors are under way than
/// the sender may have open.
pub fn send(socket: RawFd, bytes: &[u8], fds: [BorrowedFd<'_>; FDS]) -> io::Result<()> {
    let fds = fds.map(|fd| fd.as_raw_fd());
    let start: *const c_void = bytes.as_ptr().cast();
    let mut iovec = libc::iovec { iov_base: start.cast_mut(), iov_len: bytes.len() };
    let mut control = Control { bytes: [0; CONTROL] };
    let header = header(&mut iovec, &mut control);
    // SAFETY: the control buffer has room for one message with two descriptors, aligned.
    unsafe {
        let message = libc::CMSG_FIRSTHDR(&raw const header);
        (*message).cmsg_level = libc::SOL_SOCKET;
        (*message).cmsg_type = libc::SCM_RIGHTS;
        (*message).cmsg_len = libc::CMSG_LEN(FDS_SIZE) as _;
        std::ptr::copy_nonoverlapping(
            fds.as_ptr().cast::<u8>(),
            libc::CMSG_DATA(message),
            size_of_val(&fds),
        );
    }
    let flags = libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL;
    // SAFETY: the kernel reads the bytes and the control message; the descriptors are borrowed.
    if unsafe { libc::sendmsg(socket, &raw const header, flags) } < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

/// Receives one message: how long it is, and the descriptors that came with it.
///
/// # Errors
/// `WouldBlock` if none is there. `InvalidData` for a message that did not come whole: too
/// long, or without room for its descriptors in this process. It is gone then.
pub fn receive(socket: RawFd, buffer: &mut [u8]) -> io::Result<(usize, [OwnedFd; FDS])> {
    let mut iovec = libc::iovec { iov_base: buffer.as_mut_ptr().cast(), iov_len: buffer.len() };
    let mut control = Control { bytes: [0; CONTROL] };
    let mut header = header(&mut iovec, &mut control);
    let flags = libc::MSG_DONTWAIT | libc::MSG_CMSG_CLOEXEC;
    // SAFETY: the kernel writes at most as many bytes as both buffers have.
    let length = unsafe { libc::recvmsg(socket, &raw mut header, flags) };
    let length = usize::try_from(length).map_err(|_| io::Error::last_os_error())?;
    let came = taken(&header);
    let cut = header.msg_flags & (libc::MSG_TRUNC | libc::MSG_CTRUNC) != 0;
    match <[OwnedFd; FDS]>::try_from(came) {
        Ok(fds) if !cut => Ok((length, fds)),
        _ => Err(io::ErrorKind::InvalidData.into()),
    }
}

/// The descriptors that a received message carries, owned from here on.
fn taken(header: &libc::msghdr) -> Vec<OwnedFd> {
    let mut taken = Vec::new();
    // SAFETY: the kernel filled the control buffer, which is alive, and says how far.
    let message = unsafe { libc::CMSG_FIRSTHDR(header).as_ref() };
    let Some(message) = message.filter(|message| {
        (message.cmsg_level, message.cmsg_type) == (libc::SOL_SOCKET, libc::SCM_RIGHTS)
    }) else {
        return taken;
    };
    // SAFETY: computes a size.
    let head = unsafe { libc::CMSG_LEN(0) } as usize;
    #[allow(clippy::unnecessary_cast, reason = "musl has 32 bits here")]
    let length = message.cmsg_len as usize;
    let count = length.saturating_sub(head) / size_of::<c_int>();
    for at in 0..count.min(FDS) {
        // SAFETY: `count` descriptors follow the header, not aligned for certain; the kernel
        // made them for this process, and nobody else knows of them.
        taken.push(unsafe {
            let fd = libc::CMSG_DATA(message).cast::<c_int>().add(at).read_unaligned();
            OwnedFd::from_raw_fd(fd)
        });
    }
    taken
}
