//! Signals that this thread blocks, and a descriptor for those that it waits for.

use std::ffi::c_int;
use std::io;
use std::os::fd::{FromRawFd, OwnedFd};

/// The set of these signals.
fn set(signals: &[c_int]) -> libc::sigset_t {
    let mut set = std::mem::MaybeUninit::<libc::sigset_t>::uninit();
    // SAFETY: initialises the set, then adds signals to it.
    unsafe {
        libc::sigemptyset(set.as_mut_ptr());
        for signal in signals {
            libc::sigaddset(set.as_mut_ptr(), *signal);
        }
        set.assume_init()
    }
}

/// The signals that a thread blocked.
pub(crate) struct Mask(libc::sigset_t);

impl Mask {
    fn change(how: c_int, signals: &libc::sigset_t) -> Self {
        let mut before = set(&[]);
        // SAFETY: both sets are initialised; the second stays as it is if the call fails.
        unsafe { libc::pthread_sigmask(how, signals, &raw mut before) };
        Self(before)
    }

    /// Blocks a signal in this thread. Returns what it blocked before.
    pub(crate) fn block(signal: c_int) -> Self {
        Self::change(libc::SIG_BLOCK, &set(&[signal]))
    }

    /// Has this thread block a signal and no other.
    pub(crate) fn block_only(signal: c_int) {
        Self::change(libc::SIG_SETMASK, &set(&[signal]));
    }

    /// Has this thread block these again, and no others.
    pub(crate) fn restore(self) {
        Self::change(libc::SIG_SETMASK, &self.0);
    }
}

/// A descriptor that becomes readable when this process is sent SIGTERM, which is blocked in
/// this thread from now on.
///
/// # Errors
/// It cannot be had.
pub fn sigterm() -> io::Result<OwnedFd> {
    Mask::block(libc::SIGTERM);
    let set = set(&[libc::SIGTERM]);
    // SAFETY: the set is initialised; -1 makes a new descriptor.
    let fd = unsafe { libc::signalfd(-1, &raw const set, libc::SFD_CLOEXEC | libc::SFD_NONBLOCK) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: just made, and nobody else's.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}
