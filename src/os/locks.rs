//! Who is what, as the kernel knows it: each process takes a lock of its own (`F_SETLK` of fcntl(2)),
//! which no process that it forks inherits, and which ends with it. Whoever has the file may ask who
//! holds one. No /proc is needed, which a chroot may not have.

use std::ffi::{c_int, c_short};
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};

use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, memfd_create};

/// Makes a file that is for locks alone: nothing can be written to it.
///
/// # Errors
/// It cannot be had.
pub fn file() -> io::Result<OwnedFd> {
    let make = |flags| memfd_create(c"mod_wsforward locks", flags | MemfdFlags::CLOEXEC);
    // It is never run. Linux 6.3 wants to be told.
    let file = make(MemfdFlags::NOEXEC_SEAL).or_else(|_| make(MemfdFlags::ALLOW_SEALING))?;
    fcntl_add_seals(&file, SealFlags::GROW | SealFlags::SHRINK | SealFlags::SEAL)?;
    Ok(file)
}

/// The lock of this number, or what gives it back.
fn lock(number: usize, kind: c_int) -> io::Result<libc::flock> {
    // SAFETY: plain numbers, for which zero is valid.
    let mut lock: libc::flock = unsafe { std::mem::zeroed() };
    lock.l_type = c_short::try_from(kind).map_err(io::Error::other)?;
    lock.l_whence = c_short::try_from(libc::SEEK_SET).map_err(io::Error::other)?;
    lock.l_start = libc::off_t::try_from(number).map_err(io::Error::other)?;
    lock.l_len = 1;
    Ok(lock)
}

/// Takes a lock for this process, for as long as it lives and closes no descriptor of the file.
///
/// # Errors
/// Another process has it.
pub fn take(file: BorrowedFd<'_>, number: usize) -> io::Result<()> {
    ask(file, libc::F_SETLK, &mut lock(number, libc::F_WRLCK as c_int)?)
}

/// Gives one back.
pub fn give_back(file: BorrowedFd<'_>, number: usize) {
    // It does not fail; and the process is about to end.
    let _ = lock(number, libc::F_UNLCK as c_int)
        .and_then(|mut lock| ask(file, libc::F_SETLK, &mut lock));
}

/// The process that holds a lock, unless it is this one.
pub fn holder(file: BorrowedFd<'_>, number: usize) -> Option<u32> {
    let mut lock = lock(number, libc::F_WRLCK as c_int).ok()?;
    ask(file, libc::F_GETLK, &mut lock).ok()?;
    let is_held = c_int::from(lock.l_type) != libc::F_UNLCK as c_int;
    // Locks of another kind (OFD) are nobody's, and those of other namespaces have no number here.
    u32::try_from(lock.l_pid).ok().filter(|pid| is_held && *pid > 1)
}

/// Sets a lock, or asks for one. Does not wait.
fn ask(file: BorrowedFd<'_>, what: c_int, lock: &mut libc::flock) -> io::Result<()> {
    // SAFETY: the kernel reads and writes the structure.
    let result = unsafe { libc::fcntl(file.as_raw_fd(), what, std::ptr::from_mut(lock)) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
