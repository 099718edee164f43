//! Other processes: whether they run, when they end, and how they are told to.

use std::ffi::CStr;
use std::io;
use std::os::fd::{AsFd, OwnedFd};

use rustix::io::Errno;
use rustix::param::clock_ticks_per_second;
use rustix::process::{Pid, PidfdFlags, getppid, pidfd_open, pidfd_send_signal, test_kill_process};

use crate::poll;
use crate::signals::Notice;

/// What drain processes are named. The kernel keeps 15 bytes.
pub const DRAIN_NAME: &CStr = c"wsforward-drain";

/// A number as the kernel takes it. `None` is nobody's.
fn id(pid: u32) -> Option<Pid> {
    Pid::from_raw(i32::try_from(pid).ok()?)
}

/// A descriptor that becomes readable when the process `pid` has ended.
///
/// # Errors
/// There is no such process, no descriptor to be had, or the kernel is older than 5.3.
pub fn watch(pid: u32) -> io::Result<OwnedFd> {
    let pid = id(pid).ok_or(io::ErrorKind::InvalidInput)?;
    Ok(pidfd_open(pid, PidfdFlags::empty())?)
}

/// The same for the parent process.
///
/// # Errors
/// As [`watch`].
pub fn watch_parent() -> io::Result<OwnedFd> {
    let parent = getppid().ok_or(io::ErrorKind::NotFound)?;
    Ok(pidfd_open(parent, PidfdFlags::empty())?)
}

/// Tells a drain process something, if that is what it is: the number may by now be another
/// process's.
pub fn tell(pid: u32, notice: Notice, is_drain: impl FnOnce() -> bool) {
    if pid <= 1 {
        return;
    }
    // From here on the number stands for one process, whether it lives or not.
    let Ok(process) = watch(pid) else { return };
    if is_drain() && !has_other_name(pid) {
        // It may have ended meanwhile.
        let _ = pidfd_send_signal(process, notice.signal());
    }
}

/// Whether a process is known to have another name than drain processes. A chroot may not have /proc.
fn has_other_name(pid: u32) -> bool {
    std::fs::read(format!("/proc/{pid}/comm"))
        .is_ok_and(|name| name.strip_suffix(b"\n") != Some(DRAIN_NAME.to_bytes()))
}

/// Whether there is such a process, and it has not ended: one that was not reaped yet has, as far
/// as a descriptor can be had to find that out.
pub fn runs(pid: u32) -> bool {
    match watch(pid) {
        Ok(process) => !poll::is_readable(process.as_fd()),
        Err(_) => is_alive(pid),
    }
}

/// Whether there is such a process, reaped or not. One call, where [`runs`] takes three.
pub fn is_alive(pid: u32) -> bool {
    id(pid).is_some_and(|pid| test_kill_process(pid) != Err(Errno::SRCH))
}

/// The parent process.
pub fn parent() -> u32 {
    getppid().map_or(0, |parent| parent.as_raw_nonzero().get().unsigned_abs())
}

/// When a process began, in seconds since the epoch, as /proc shows it. `None` if it does not.
pub fn started(pid: u32) -> Option<u64> {
    /// Of the fields behind the name (proc_pid_stat(5)): ticks since the system began.
    const START: usize = 19;
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (_, behind) = stat.rsplit_once(") ")?;
    let ticks: u64 = behind.split_ascii_whitespace().nth(START)?.parse().ok()?;
    let seconds = ticks / clock_ticks_per_second().max(1);
    let up = u64::try_from(clock(libc::CLOCK_BOOTTIME).tv_sec).ok()?;
    let now = u64::try_from(clock(libc::CLOCK_REALTIME).tv_sec).ok()?;
    Some(now.saturating_sub(up.saturating_sub(seconds)))
}

/// What a clock shows: the C library asks no kernel for it, where the machine allows that.
fn clock(id: libc::clockid_t) -> libc::timespec {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: it writes one timespec, which lives on the stack.
    unsafe { libc::clock_gettime(id, &raw mut time) };
    time
}

/// Microseconds of a clock that all processes share and nobody sets.
pub fn now() -> u64 {
    let now = clock(libc::CLOCK_MONOTONIC);
    let (seconds, nanos) = (u64::try_from(now.tv_sec), u64::try_from(now.tv_nsec));
    seconds.unwrap_or(0) * 1_000_000 + nanos.unwrap_or(0) / 1000
}

/// The same clock in whole seconds, which wraps after 136 years.
pub fn seconds() -> u32 {
    ((now() / 1_000_000) & 0xffff_ffff) as u32
}

/// Gives memory that is free back to the system. musl has no such call.
pub fn trim_memory() {
    #[cfg(target_env = "gnu")]
    // SAFETY: takes a number.
    unsafe {
        libc::malloc_trim(0)
    };
}
