//! Who is what, as the kernel knows it: each process takes a lock of its own (`F_SETLK` of fcntl(2)),
//! which no process that it forks inherits, and which ends with it. Whoever has the file may ask who
//! holds one. No /proc is needed, which a chroot may not have.

use std::ffi::{c_int, c_short};
use std::io;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};

use crate::process::{check, owned};

/// Linux 6.3: a file that is never run. Where it is not known, the flag is left out.
const MFD_NOEXEC_SEAL: libc::c_uint = 8;

/// A file that is for locks alone: nothing can be written to it.
///
/// # Errors
/// It cannot be had.
pub fn file() -> io::Result<OwnedFd> {
    let make = |flags| {
        let name = c"mod_wsforward locks";
        // SAFETY: a NUL-terminated name.
        owned(unsafe { libc::memfd_create(name.as_ptr(), flags | libc::MFD_CLOEXEC) }.into())
    };
    let file = make(MFD_NOEXEC_SEAL).or_else(|_| make(libc::MFD_ALLOW_SEALING))?;
    let seals = libc::F_SEAL_GROW | libc::F_SEAL_SHRINK | libc::F_SEAL_SEAL;
    // SAFETY: an open descriptor and numbers.
    check(unsafe { libc::fcntl(file.as_raw_fd(), libc::F_ADD_SEALS, seals) })?;
    Ok(file)
}

/// The lock of this number, or what gives it back.
fn lock(number: usize, kind: c_int) -> io::Result<libc::flock> {
    // SAFETY: plain numbers, for which zero is valid.
    let mut lock: libc::flock = unsafe { std::mem::zeroed() };
    lock.l_type = kind as c_short;
    lock.l_whence = libc::SEEK_SET as c_short;
    lock.l_start = libc::off_t::try_from(number).map_err(io::Error::other)?;
    lock.l_len = 1;
    Ok(lock)
}

/// Takes a lock for this process, for as long as it lives and closes no descriptor of the file.
///
/// # Errors
/// Another process has it.
pub fn take(file: RawFd, number: usize) -> io::Result<()> {
    set(file, lock(number, libc::F_WRLCK as c_int)?)
}

/// Gives one back.
pub fn give_back(file: RawFd, number: usize) {
    // It does not fail; and the process is about to end.
    let _ = lock(number, libc::F_UNLCK as c_int).and_then(|lock| set(file, lock));
}

fn set(file: RawFd, lock: libc::flock) -> io::Result<()> {
    // SAFETY: the kernel reads the structure. It does not wait.
    check(unsafe { libc::fcntl(file, libc::F_SETLK, &raw const lock) }).map(drop)
}

/// The process that holds a lock, unless it is this one.
pub fn holder(file: RawFd, number: usize) -> Option<u32> {
    let mut lock = lock(number, libc::F_WRLCK as c_int).ok()?;
    // SAFETY: the kernel reads and writes the structure.
    let asked: c_int = unsafe { libc::fcntl(file, libc::F_GETLK, &raw mut lock) };
    let is_held = asked == 0 && lock.l_type != libc::F_UNLCK as c_short;
    // Locks of another kind (OFD) are nobody's, and those of other namespaces have no number here.
    u32::try_from(lock.l_pid).ok().filter(|pid| is_held && *pid > 1)
}
