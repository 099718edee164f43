//! The system calls on the socket of a side, which a TLS session makes too.

use std::cell::RefCell;
use std::io;
use std::net::Shutdown;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::time::Duration;

use libc::{c_int, c_void, socklen_t};
use socket2::SockRef;

/// Receives what is there, without waiting. `Ok(0)` is the end.
///
/// # Errors
/// `WouldBlock` if nothing is there.
#[inline]
pub fn receive(fd: BorrowedFd<'_>, buffer: &mut [u8]) -> io::Result<usize> {
    loop {
        // SAFETY: the kernel writes at most buffer.len() bytes into buffer, which is borrowed
        // for the call; fd is open for as long as it is borrowed.
        let n = unsafe {
            libc::recv(
                fd.as_raw_fd(),
                buffer.as_mut_ptr().cast::<c_void>(),
                buffer.len(),
                libc::MSG_DONTWAIT,
            )
        };
        if let Some(result) = returned(n) {
            return result;
        }
    }
}

/// Sends what fits, without waiting and without SIGPIPE. `Ok(0)` means that nothing fits now. If
/// `more` follows at once, be it a FIN, the kernel may send all of it together.
///
/// # Errors
/// Never `WouldBlock`.
#[inline]
pub fn send(fd: BorrowedFd<'_>, bytes: &[u8], more: bool) -> io::Result<usize> {
    let more = if more { libc::MSG_MORE } else { 0 };
    loop {
        // SAFETY: the kernel reads at most bytes.len() bytes from bytes, which is borrowed for
        // the call; fd is open for as long as it is borrowed.
        let n = unsafe {
            libc::send(
                fd.as_raw_fd(),
                bytes.as_ptr().cast::<c_void>(),
                bytes.len(),
                libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL | more,
            )
        };
        match returned(n) {
            Some(Err(error)) if error.kind() == io::ErrorKind::WouldBlock => return Ok(0),
            Some(result) => return result,
            None => {}
        }
    }
}

/// Whether the end has come, with nothing before it.
pub(crate) fn has_ended(fd: BorrowedFd<'_>) -> bool {
    let mut byte = 0_u8;
    // SAFETY: the kernel writes at most one byte, into ours; fd is open for the borrow.
    let n = unsafe {
        libc::recv(
            fd.as_raw_fd(),
            (&raw mut byte).cast::<c_void>(),
            1,
            libc::MSG_DONTWAIT | libc::MSG_PEEK,
        )
    };
    n == 0
}

/// The result of a call that returned `n`; `None` if a signal came between.
#[inline]
pub(crate) fn returned(n: isize) -> Option<io::Result<usize>> {
    match usize::try_from(n) {
        Ok(n) => Some(Ok(n)),
        Err(_) => match io::Error::last_os_error() {
            error if error.kind() == io::ErrorKind::Interrupted => None,
            error => Some(Err(error)),
        },
    }
}

/// Sends a FIN. That it cannot (a peer already gone) shows at the next read.
pub fn shutdown_write(fd: BorrowedFd<'_>) {
    let _ = SockRef::from(&fd).shutdown(Shutdown::Write);
}

/// Has whoever reads it find an end, behind what has come. The peer is not told.
pub fn shutdown_read(fd: BorrowedFd<'_>) {
    let _ = SockRef::from(&fd).shutdown(Shutdown::Read);
}

/// Has whoever reads or writes it find an end.
pub fn shutdown_both(fd: BorrowedFd<'_>) {
    let _ = SockRef::from(&fd).shutdown(Shutdown::Both);
}

/// Whether a socket from which nothing is read any more, as [`shutdown_read`] makes it, has been ended
/// or reset by its peer. `None` if that cannot be told: it is not TCP.
pub fn peer_has_ended(fd: BorrowedFd<'_>) -> Option<bool> {
    /// Of the states of TCP (tcp(7), tcpi_state) the one in which both sides may send.
    const ESTABLISHED: u8 = 1;
    Some(tcp_info(fd).ok()?.tcpi_state != ESTABLISHED)
}

/// Has calls without a flag of their own not wait.
pub(crate) fn set_nonblocking(fd: BorrowedFd<'_>) {
    let on: c_int = 1;
    // SAFETY: the kernel reads one number, which lives on the stack.
    unsafe { libc::ioctl(fd.as_raw_fd(), libc::FIONBIO, &raw const on) };
}

/// Whether the peer has not got all that was sent, as far as is known: its TCP has not acknowledged it, or
/// it has not read it of a unix socket. A close that is a reset throws that away.
pub(crate) fn is_awaited(fd: BorrowedFd<'_>) -> bool {
    let mut bytes: c_int = 0;
    // SAFETY: the kernel writes one number, which lives on the stack.
    let result = unsafe { libc::ioctl(fd.as_raw_fd(), libc::TIOCOUTQ, &raw mut bytes) };
    result == 0 && bytes != 0
}

/// What the kernel knows of the connection.
///
/// # Errors
/// It is no TCP socket.
pub(crate) fn tcp_info(fd: BorrowedFd<'_>) -> io::Result<libc::tcp_info> {
    // SAFETY: it is made of numbers, for which zero is a value.
    let mut info: libc::tcp_info = unsafe { std::mem::zeroed() };
    #[expect(clippy::cast_possible_truncation, reason = "some hundred bytes")]
    let mut length = size_of::<libc::tcp_info>() as socklen_t;
    // SAFETY: the kernel writes at most length bytes into info, both live on the stack.
    let result = unsafe {
        libc::getsockopt(
            fd.as_raw_fd(),
            libc::IPPROTO_TCP,
            libc::TCP_INFO,
            (&raw mut info).cast::<c_void>(),
            &raw mut length,
        )
    };
    if result == 0 { Ok(info) } else { Err(io::Error::last_os_error()) }
}

/// Makes the close that follows a reset. Sockets that know no reset just close.
pub(crate) fn reset_on_close(fd: BorrowedFd<'_>) {
    let _ = SockRef::from(&fd).set_linger(Some(Duration::ZERO));
}

/// Takes the error that is pending on the socket.
pub(crate) fn take_error(fd: BorrowedFd<'_>) -> Option<io::Error> {
    SockRef::from(&fd).take_error().ok().flatten()
}

/// Seconds of CLOCK_MONOTONIC, some milliseconds late. No system call.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "it begins anew after 136 years"
)]
pub(crate) fn coarse_seconds() -> u32 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the kernel writes the time, which lives on the stack.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC_COARSE, &raw mut time) };
    time.tv_sec as u32
}

/// Four unpredictable bytes (RFC 6455 5.3), asked of the kernel in advance for a number of frames.
pub(crate) fn random() -> [u8; 4] {
    const AT_ONCE: usize = 64;
    thread_local! {
        static STORE: RefCell<Vec<[u8; 4]>> = const { RefCell::new(Vec::new()) };
    }
    STORE.with_borrow_mut(|store| {
        store.pop().unwrap_or_else(|| {
            let mut bytes = [[0; 4]; AT_ONCE];
            // SAFETY: the kernel writes at most the size of `bytes` into it. Where the call fails the
            // keys are all zero: still valid ones.
            unsafe { libc::getrandom(bytes.as_mut_ptr().cast::<c_void>(), size_of_val(&bytes), 0) };
            store.extend_from_slice(&bytes[1..]);
            bytes[0]
        })
    })
}
