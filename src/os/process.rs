//! What a process asks of the kernel when it leaves httpd behind: fork, the
//! descriptors and signals it keeps, its title, and whom it watches.

use std::ffi::{CStr, c_int, c_long};
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

pub(crate) fn check(result: c_int) -> io::Result<c_int> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

pub(crate) fn owned(result: c_long) -> io::Result<OwnedFd> {
    let fd = check(c_int::try_from(result).unwrap_or(-1))?;
    // SAFETY: the callers pass what a system call has just made for them.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// `fork()`: the new process's id in the old one, `None` in the new one, which has the calling
/// thread alone, the name of drain processes, and SIGTERM blocked: it can be told to end as soon
/// as it is found.
///
/// # Errors
/// There is no process to be had.
pub fn fork_drain() -> io::Result<Option<u32>> {
    let before = block(libc::SIGTERM);
    let mut name = [0_u8; 16];
    // SAFETY: the kernel writes at most 16 bytes, then reads a C string.
    unsafe {
        libc::prctl(libc::PR_GET_NAME, name.as_mut_ptr());
        libc::prctl(libc::PR_SET_NAME, DRAIN_NAME.as_ptr());
    }
    // SAFETY: the caller goes on with what needs no other thread: glibc makes its
    // allocator fit for the new process, and nothing of httpd is called there.
    let pid = check(unsafe { libc::fork() });
    if !matches!(pid, Ok(0)) {
        // SAFETY: the name is NUL-terminated by the kernel; the mask was read by `block`.
        unsafe {
            libc::prctl(libc::PR_SET_NAME, name.as_ptr());
            libc::pthread_sigmask(libc::SIG_SETMASK, &raw const before, std::ptr::null_mut());
        }
    }
    Ok(u32::try_from(pid?).ok().filter(|pid| *pid != 0))
}

/// Blocks a signal in this thread, and returns what was blocked before.
fn block(signal: c_int) -> libc::sigset_t {
    let mut before = std::mem::MaybeUninit::<libc::sigset_t>::uninit();
    let set = signals(&[signal]);
    // SAFETY: the sets are initialised, the second by the first call where the last fails.
    unsafe {
        libc::sigemptyset(before.as_mut_ptr());
        libc::pthread_sigmask(libc::SIG_BLOCK, &raw const set, before.as_mut_ptr());
        before.assume_init()
    }
}

fn signals(signals: &[c_int]) -> libc::sigset_t {
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

/// A descriptor that becomes readable when this process is sent SIGTERM, which is blocked in
/// this thread from now on.
///
/// # Errors
/// It cannot be had.
pub fn sigterm() -> io::Result<OwnedFd> {
    block(libc::SIGTERM);
    let set = signals(&[libc::SIGTERM]);
    let flags = libc::SFD_CLOEXEC | libc::SFD_NONBLOCK;
    // SAFETY: the set is initialised; -1 makes a new descriptor.
    owned(unsafe { libc::signalfd(-1, &raw const set, flags) }.into())
}

/// A descriptor that becomes readable when the process `pid` has ended.
pub fn watch(pid: c_int) -> io::Result<OwnedFd> {
    // SAFETY: takes two numbers.
    owned(unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) })
}

/// The parent process.
pub fn parent() -> c_int {
    // SAFETY: asks for a number.
    unsafe { libc::getppid() }
}

/// What drain processes are named. The kernel keeps 15 bytes.
pub const DRAIN_NAME: &CStr = c"wsforward-drain";

/// Asks a drain process to end, if that is what it is: the number may by now be another process's.
pub fn terminate(pid: u32, is_drain: impl FnOnce() -> bool) {
    let Some(id) = c_int::try_from(pid).ok().filter(|pid| *pid > 1) else { return };
    // From here on the number stands for one process, whether it lives or not.
    let Ok(process) = watch(id) else { return };
    if !is_drain() || has_other_name(pid) {
        return;
    }
    let no_info = std::ptr::null::<libc::siginfo_t>();
    // SAFETY: an open descriptor of a process, three numbers of no memory.
    unsafe {
        libc::syscall(libc::SYS_pidfd_send_signal, process.as_raw_fd(), libc::SIGTERM, no_info, 0)
    };
}

/// A descriptor of which the numbers that others write to it can be read, as a
/// sum, without waiting.
pub fn event() -> io::Result<OwnedFd> {
    // SAFETY: takes two numbers.
    owned(unsafe { libc::eventfd(0, libc::EFD_CLOEXEC | libc::EFD_NONBLOCK) }.into())
}

/// Makes an event readable. It is full only if it is readable already.
pub fn raise(event: RawFd) {
    let one = 1_u64;
    // SAFETY: eight readable bytes, as an eventfd takes.
    unsafe { libc::write(event, (&raw const one).cast(), size_of_val(&one)) };
}

/// Takes what an event or a signal descriptor has to give.
pub fn swallow(fd: RawFd) {
    let mut bytes = [0_u8; 128];
    // SAFETY: writes at most as many bytes as there are.
    unsafe { libc::read(fd, bytes.as_mut_ptr().cast(), bytes.len()) };
}

/// What a pipe of lines holds, in bytes; the most that one without privileges may
/// ask for (pipe(7)).
pub const LINES: usize = 1 << 20;

/// A pipe of lines: its reading and its writing end, neither of which waits.
pub fn lines() -> io::Result<[OwnedFd; 2]> {
    let mut fds = [-1; 2];
    // SAFETY: room for two descriptors.
    check(unsafe { libc::pipe2(fds.as_mut_ptr(), libc::O_CLOEXEC | libc::O_NONBLOCK) })?;
    // A smaller one loses lines sooner.
    // SAFETY: an open descriptor and a number.
    unsafe { libc::fcntl(fds[1], libc::F_SETPIPE_SZ, LINES) };
    // SAFETY: just made, and nobody else's.
    Ok(fds.map(|fd| unsafe { OwnedFd::from_raw_fd(fd) }))
}

/// Writes one line, whole or not at all. `false` if there is no room now, or no
/// reader left.
pub fn send_line(pipe: RawFd, mut line: String) -> bool {
    line.retain(|c| c != '\n');
    let most = (0..libc::PIPE_BUF).rev().find(|at| line.is_char_boundary(*at));
    line.truncate(most.unwrap_or_default());
    line.push('\n');
    // SAFETY: `line` is readable for its length, which no other write is mixed with.
    unsafe { libc::write(pipe, line.as_ptr().cast(), line.len()) >= 0 }
}

/// Reads all lines that are there. Of several readers each gets whole lines: the
/// buffer takes what a pipe can hold, and a read takes all of it.
pub fn read_lines(pipe: RawFd, buffer: &mut Vec<u8>) -> &[u8] {
    buffer.clear();
    // That a read does not wait is a flag that all processes share, and any of them may clear.
    if wait([pipe], 0) != [true] {
        return buffer;
    }
    buffer.reserve_exact(LINES);
    // SAFETY: writes at most as many bytes as are reserved.
    let length = unsafe { libc::read(pipe, buffer.as_mut_ptr().cast(), LINES) };
    // SAFETY: that many were just written.
    unsafe { buffer.set_len(usize::try_from(length).unwrap_or(0)) };
    buffer
}

/// Waits until one of the descriptors is readable, for at most so many
/// milliseconds; -1 is for ever. Says which are.
pub fn wait<const N: usize>(fds: [RawFd; N], millis: c_int) -> [bool; N] {
    let mut polled = fds.map(|fd| libc::pollfd { fd, events: libc::POLLIN, revents: 0 });
    // SAFETY: N entries.
    let ready = unsafe { libc::poll(polled.as_mut_ptr(), N as libc::nfds_t, millis) };
    // Interrupted: nothing is ready, and the caller asks again.
    polled.map(|one| ready > 0 && one.revents != 0)
}

/// Waits until a queue has room, for at most so many milliseconds.
pub fn wait_for_room(queue: RawFd, millis: c_int) {
    let mut polled = libc::pollfd { fd: queue, events: libc::POLLOUT, revents: 0 };
    // SAFETY: one entry.
    unsafe { libc::poll(&raw mut polled, 1, millis) };
}

/// How many descriptors this process may have open.
pub fn descriptor_limit() -> u64 {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: the structure is ours. It stays zero if the call fails.
    unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit) };
    self::limit(limit.rlim_cur)
}

/// A limit as a number of 64 bits. Where it has fewer, infinity is no large number.
#[allow(clippy::useless_conversion, reason = "it has 32 bits on some platforms")]
pub(crate) fn limit(limit: libc::rlim_t) -> u64 {
    if limit == libc::RLIM_INFINITY { u64::MAX } else { u64::from(limit) }
}

/// Whether there is such a process, and it has not ended: one that was not reaped yet has, as far
/// as a descriptor can be had to find that out.
pub fn runs(pid: u32) -> bool {
    let Ok(id) = c_int::try_from(pid) else { return false };
    match watch(id) {
        Ok(process) => wait([process.as_raw_fd()], 0) == [false],
        Err(_) => is_alive(pid),
    }
}

/// Whether a process is known to have another name than drain processes. A chroot may not have /proc.
fn has_other_name(pid: u32) -> bool {
    std::fs::read(format!("/proc/{pid}/comm"))
        .is_ok_and(|name| name.strip_suffix(b"\n") != Some(DRAIN_NAME.to_bytes()))
}

/// Microseconds of a clock that all processes share and nobody sets.
pub fn now() -> u64 {
    let mut now = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the structure is ours. It stays zero if the call fails.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &raw mut now) };
    // On some platforms these are of two types.
    let (seconds, nanos) = (u64::try_from(now.tv_sec), u64::try_from(now.tv_nsec));
    seconds.unwrap_or(0) * 1_000_000 + nanos.unwrap_or(0) / 1000
}

/// Whether there is such a process, reaped or not. One call, where [`runs`] takes three.
pub fn is_alive(pid: u32) -> bool {
    let Ok(pid) = libc::pid_t::try_from(pid) else { return false };
    // SAFETY: signal 0 only asks.
    let gone = unsafe { libc::kill(pid, 0) } != 0;
    !gone || io::Error::last_os_error().raw_os_error() != Some(libc::ESRCH)
}

/// Gives up httpd's session, signal handlers and mask. SIGTERM is for the
/// descriptor that is returned; faults end the process.
pub fn own_signals() -> io::Result<OwnedFd> {
    // SAFETY: no arguments. It fails in a session's leader, which is as well.
    unsafe { libc::setsid() };
    for signal in [libc::SIGHUP, libc::SIGINT, libc::SIGUSR1, libc::SIGUSR2, libc::SIGPIPE]
        .into_iter()
        .chain([libc::SIGWINCH, libc::SIGTTOU, libc::SIGTTIN, libc::SIGTSTP])
    {
        // SAFETY: sets a disposition, to none of our own functions.
        unsafe { libc::signal(signal, libc::SIG_IGN) };
    }
    for signal in [libc::SIGCHLD, libc::SIGTERM, libc::SIGSEGV, libc::SIGBUS].into_iter().chain([
        libc::SIGABRT,
        libc::SIGILL,
        libc::SIGFPE,
        libc::SIGXCPU,
        libc::SIGXFSZ,
    ]) {
        // SAFETY: as above.
        unsafe { libc::signal(signal, libc::SIG_DFL) };
    }
    let set = signals(&[libc::SIGTERM]);
    // SAFETY: the set is initialised; the old mask is not wanted. SIGTERM stays blocked.
    unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, &raw const set, std::ptr::null_mut()) };
    sigterm()
}

/// Alarms in a row without a sign of life between them.
static ALARMS: AtomicU32 = AtomicU32::new(0);
/// Seconds to the next, should there be one.
static PATIENCE: AtomicU32 = AtomicU32::new(0);

extern "C" fn on_alarm(_: c_int) {
    // A process that was frozen finds its alarm due when it thaws: only the second counts.
    if ALARMS.fetch_add(1, Relaxed) > 0 {
        exit_now();
    }
    // SAFETY: takes a number, and may be called by a handler.
    unsafe { libc::alarm(PATIENCE.load(Relaxed)) };
}

/// Ends the process unless this is called again within so many seconds, or twice as many.
pub fn end_unless_alive(seconds: u32) {
    PATIENCE.store(seconds, Relaxed);
    ALARMS.store(0, Relaxed);
    let handler: extern "C" fn(c_int) = on_alarm;
    // SAFETY: the handler calls nothing that a handler may not; then a number.
    unsafe {
        libc::signal(libc::SIGALRM, handler as libc::sighandler_t);
        libc::alarm(seconds);
    }
}

/// Runs `body` as the last thing that this process does: no panic goes beyond it.
pub fn never_back(body: impl FnOnce()) -> ! {
    // What a panic has to say has no place to go.
    let _ = catch_unwind(AssertUnwindSafe(body));
    exit_now()
}

/// Closes a descriptor whose owner was forgotten.
pub fn close(fd: RawFd) {
    // SAFETY: the caller is the last to know the number.
    unsafe { libc::close(fd) };
}

/// Closes all descriptors but these and 0 to 2, which lead nowhere then.
pub fn close_all_but(keep: &mut Vec<RawFd>, nowhere: &OwnedFd) {
    for standard in 0..=2 {
        // SAFETY: both are descriptors; what `standard` was is given up.
        unsafe { libc::dup2(nowhere.as_raw_fd(), standard) };
    }
    keep.extend(0..=2);
    keep.sort_unstable();
    keep.dedup();
    let mut from: u32 = 0;
    for fd in keep.iter().filter_map(|fd| u32::try_from(*fd).ok()) {
        if fd > from {
            close_range(from, fd - 1);
        }
        from = fd + 1;
    }
    close_range(from, u32::MAX);
}

fn close_range(first: u32, last: u32) {
    // SAFETY: closes descriptors that belong to nobody in this process any more:
    // the caller keeps what is still owned.
    if unsafe { libc::syscall(libc::SYS_close_range, first, last, 0) } == 0 {
        return;
    }
    // Kernels before 5.9, or what filters their calls. There may be many numbers, but few are open.
    let open = std::fs::read_dir("/proc/self/fd").into_iter().flatten().flatten();
    let numbers: Vec<u32> =
        open.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect();
    for fd in numbers.into_iter().filter(|fd| (first..=last).contains(fd)) {
        if let Ok(fd) = c_int::try_from(fd) {
            // SAFETY: as above; that of the directory is closed already.
            unsafe { libc::close(fd) };
        }
    }
}

/// Gives memory that is free back to the system. musl has no such call.
pub fn trim_memory() {
    #[cfg(target_env = "gnu")]
    // SAFETY: takes a number.
    unsafe {
        libc::malloc_trim(0)
    };
}

/// Ends the process here: no exit handlers, no destructors.
pub fn exit_now() -> ! {
    // SAFETY: does not return.
    unsafe { libc::_exit(0) }
}

/// What `ps` shows of a process: the memory of its arguments, and of its environment behind.
pub struct Title {
    memory: &'static mut [u8],
    /// How much of it is not as it was: the arguments at least.
    used: usize,
}

impl Title {
    /// Finds that memory (proc_pid_stat(5), fields 48 to 51).
    ///
    /// # Safety
    /// Nobody else in this process uses its arguments or its environment any more.
    pub unsafe fn find() -> Option<Self> {
        let stat = std::fs::read_to_string("/proc/self/stat").ok()?;
        // The second field, in brackets, may hold anything.
        let (_, rest) = stat.rsplit_once(") ")?;
        let mut fields = rest.split(' ').skip(48 - 3).map(|field| field.trim().parse());
        let mut field = || -> Option<usize> { fields.next()?.ok() };
        let (start, arguments, environment, end) = (field()?, field()?, field()?, field()?);
        // The kernel shows what is behind the arguments if their last byte is not NUL, provided
        // that it follows at once (get_mm_cmdline).
        let end = if environment == arguments { end.max(arguments) } else { arguments };
        let start = std::ptr::with_exposed_provenance_mut::<u8>(start);
        let length = end.checked_sub(start.addr())?;
        let used = arguments.checked_sub(start.addr())?;
        if start.is_null() || length == 0 {
            return None;
        }
        // SAFETY: the kernel put both there, on the first thread's stack, writable for as long
        // as the process lives; alone by the caller.
        let memory = unsafe { std::slice::from_raw_parts_mut(start, length) };
        Some(Self { memory, used })
    }

    /// Shows `title`, as far as there is room.
    pub fn set(&mut self, title: &str) {
        let length = title.len().min(self.memory.len() - 1);
        self.used = self.used.max(length + 1);
        self.memory[..length].copy_from_slice(&title.as_bytes()[..length]);
        self.memory[length..self.used].fill(0);
    }
}
