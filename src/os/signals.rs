//! Signals that this thread blocks, and a descriptor for those that it waits for.

use std::ffi::c_int;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use rustix::io::Errno;
use rustix::process::Signal;

use crate::poll;

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

/// What becomes of a signal.
pub(crate) fn current(signal: c_int) -> io::Result<libc::sigaction> {
    // SAFETY: plain numbers and a pointer, for which zero is valid.
    let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
    // SAFETY: asks; the structure is ours.
    match unsafe { libc::sigaction(signal, std::ptr::null(), &raw mut action) } {
        0 => Ok(action),
        _ => Err(io::Error::last_os_error()),
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

    /// Blocks signals in this thread. Returns what it blocked before.
    pub(crate) fn block(signals: &[c_int]) -> Self {
        Self::change(libc::SIG_BLOCK, &set(signals))
    }

    /// Has this thread block these signals and no other.
    pub(crate) fn block_only(signals: &[c_int]) {
        Self::change(libc::SIG_SETMASK, &set(signals));
    }

    /// Has this thread block these again, and no others.
    pub(crate) fn restore(&self) {
        Self::change(libc::SIG_SETMASK, &self.0);
    }
}

/// A descriptor that becomes readable when this process is sent SIGTERM, which is blocked in
/// this thread from now on.
///
/// # Errors
/// It cannot be had.
pub fn sigterm() -> io::Result<OwnedFd> {
    descriptor(&[libc::SIGTERM])
}

/// Signals of which a descriptor becomes readable; this thread blocks them from now on.
pub(crate) fn descriptor(signals: &[c_int]) -> io::Result<OwnedFd> {
    Mask::block(signals);
    let set = set(signals);
    // SAFETY: the set is initialised; -1 makes a new descriptor.
    let fd = unsafe { libc::signalfd(-1, &raw const set, libc::SFD_CLOEXEC | libc::SFD_NONBLOCK) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: just made, and nobody else's.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// The signals that ask for a stop at once, held back for as long as this lives: its descriptor is
/// readable once there is one.
pub struct StopSignals {
    fd: OwnedFd,
    before: Mask,
}

impl StopSignals {
    /// In the thread that has their handlers.
    ///
    /// # Errors
    /// There is no descriptor for them.
    pub fn hold() -> io::Result<Self> {
        let signals = [libc::SIGTERM, libc::SIGINT];
        let before = Mask::block(&signals);
        match descriptor(&signals) {
            Ok(fd) => Ok(Self { fd, before }),
            Err(error) => {
                before.restore();
                Err(error)
            }
        }
    }
}

impl AsFd for StopSignals {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl Drop for StopSignals {
    fn drop(&mut self) {
        self.before.restore();
    }
}

/// What a drain process is told, each by a signal of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Notice {
    /// To end its tunnels at once.
    End,
    /// That there are too many like it: to end them by and by.
    Evicted,
    /// That the server stops gracefully, and has said until when tunnels may live.
    ServerEnds,
}

impl Notice {
    const ALL: [Self; 3] = [Self::End, Self::Evicted, Self::ServerEnds];

    /// Drain processes of older builds know SIGTERM, and ignore the others.
    const fn number(self) -> c_int {
        match self {
            Self::End => libc::SIGTERM,
            Self::Evicted => libc::SIGUSR2,
            Self::ServerEnds => libc::SIGUSR1,
        }
    }

    pub(crate) fn signal(self) -> Signal {
        match self {
            Self::End => Signal::TERM,
            Self::Evicted => Signal::USR2,
            Self::ServerEnds => Signal::USR1,
        }
    }

    /// The signals of all of them.
    pub(crate) const fn signals() -> [c_int; 3] {
        let [end, evicted, server_ends] = Self::ALL;
        [end.number(), evicted.number(), server_ends.number()]
    }
}

/// The notices that came to this process. Readable when there are any.
#[derive(Debug)]
pub struct Notices(OwnedFd);

impl Notices {
    /// Their signals are blocked in this thread from now on.
    ///
    /// # Errors
    /// There is no descriptor for them.
    pub(crate) fn new() -> io::Result<Self> {
        descriptor(&Notice::signals()).map(Self)
    }

    /// The next one.
    pub fn take(&self) -> Option<Notice> {
        let mut info = MaybeUninit::<libc::signalfd_siginfo>::uninit();
        let size = size_of::<libc::signalfd_siginfo>();
        // SAFETY: writes no more than the size of the structure.
        let got = unsafe { libc::read(self.0.as_raw_fd(), info.as_mut_ptr().cast(), size) };
        if usize::try_from(got) != Ok(size) {
            if let Some(error) = Errno::from_io_error(&io::Error::last_os_error()) {
                poll::rest_after(&error);
            }
            return None;
        }
        // SAFETY: the kernel has filled all of it.
        let number = unsafe { info.assume_init() }.ssi_signo;
        Notice::ALL.into_iter().find(|notice| u32::try_from(notice.number()) == Ok(number))
    }
}

impl AsFd for Notices {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}
