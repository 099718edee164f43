//! What a process asks of the kernel when it leaves httpd behind: fork, the
//! descriptors and signals it keeps, its title, and whom it watches.

use std::ffi::{CStr, c_int, c_long, c_void};
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};

pub mod descriptors;

fn check(result: c_int) -> io::Result<c_int> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

fn owned(result: c_long) -> io::Result<OwnedFd> {
    let fd = check(c_int::try_from(result).unwrap_or(-1))?;
    // SAFETY: the callers pass what a system call has just made for them.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// `fork()`: the new process's id in the old one, `None` in the new one, which
/// has the calling thread alone.
pub fn fork() -> io::Result<Option<u32>> {
    // SAFETY: the caller goes on with what needs no other thread: glibc makes its
    // allocator fit for the new process, and nothing of httpd is called there.
    let pid = check(unsafe { libc::fork() })?;
    Ok(u32::try_from(pid).ok().filter(|pid| *pid != 0))
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

/// Asks a drain process to end. The number comes from memory that others write
/// to, and may by now be another process's: nobody else is signalled.
pub fn terminate(pid: u32) {
    let Some(pid) = c_int::try_from(pid).ok().filter(|pid| *pid > 1) else { return };
    // From here on the number stands for one process, whether it lives or not.
    let Ok(process) = watch(pid) else { return };
    let name = std::fs::read(format!("/proc/{pid}/comm")).unwrap_or_default();
    if name.strip_suffix(b"\n") != Some(DRAIN_NAME.to_bytes()) {
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
    limit.rlim_cur
}

/// Whether there is such a process.
pub fn is_alive(pid: u32) -> bool {
    let Ok(pid) = libc::pid_t::try_from(pid) else { return false };
    // SAFETY: signal 0 only asks.
    let gone = unsafe { libc::kill(pid, 0) } != 0;
    !gone || io::Error::last_os_error().raw_os_error() != Some(libc::ESRCH)
}

/// Gives up httpd's session, signal handlers and mask. SIGTERM is for the
/// descriptor that is returned; an alarm ends the process, as do faults.
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
    for signal in [libc::SIGALRM, libc::SIGCHLD, libc::SIGTERM, libc::SIGSEGV, libc::SIGBUS]
        .into_iter()
        .chain([libc::SIGABRT, libc::SIGILL, libc::SIGFPE, libc::SIGXCPU, libc::SIGXFSZ])
    {
        // SAFETY: as above.
        unsafe { libc::signal(signal, libc::SIG_DFL) };
    }
    let mut term = std::mem::MaybeUninit::<libc::sigset_t>::uninit();
    // SAFETY: initialises the set, then adds a signal to it.
    let term = unsafe {
        libc::sigemptyset(term.as_mut_ptr());
        libc::sigaddset(term.as_mut_ptr(), libc::SIGTERM);
        term.assume_init()
    };
    // SAFETY: the set is initialised; the old mask is not wanted.
    unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, &raw const term, std::ptr::null_mut()) };
    // SAFETY: the set is initialised; -1 makes a new descriptor.
    owned(
        unsafe { libc::signalfd(-1, &raw const term, libc::SFD_CLOEXEC | libc::SFD_NONBLOCK) }
            .into(),
    )
}

/// Has the kernel end the process in so many seconds, unless this is called
/// again; 0 is never.
pub fn end_in(seconds: u32) {
    // SAFETY: takes a number.
    unsafe { libc::alarm(seconds) };
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
    // Kernels before 5.9.
    // SAFETY: asks for a number.
    let most = unsafe { libc::sysconf(libc::_SC_OPEN_MAX) };
    let most = u32::try_from(most).unwrap_or(1 << 20);
    for fd in first..=last.min(most) {
        if let Ok(fd) = c_int::try_from(fd) {
            // SAFETY: as above.
            unsafe { libc::close(fd) };
        }
    }
}

/// Gives memory that is free back to the system.
pub fn trim_memory() {
    // SAFETY: takes a number.
    unsafe { libc::malloc_trim(0) };
}

/// Ends the process here: no exit handlers, no destructors.
pub fn exit_now() -> ! {
    // SAFETY: does not return.
    unsafe { libc::_exit(0) }
}

/// What `ps` shows of a process: the memory of its arguments.
pub struct Title(&'static mut [u8]);

impl Title {
    /// Finds that memory (proc_pid_stat(5), fields 48 and 49).
    ///
    /// # Safety
    /// Nobody else in this process uses its arguments any more.
    pub unsafe fn find() -> Option<Self> {
        let stat = std::fs::read_to_string("/proc/self/stat").ok()?;
        // The second field, in brackets, may hold anything.
        let (_, rest) = stat.rsplit_once(") ")?;
        let mut fields = rest.split(' ').skip(48 - 3);
        let start: usize = fields.next()?.trim().parse().ok()?;
        let end: usize = fields.next()?.trim().parse().ok()?;
        let start = std::ptr::with_exposed_provenance_mut::<u8>(start);
        let length = end.checked_sub(start.addr())?;
        if start.is_null() || length == 0 {
            return None;
        }
        // SAFETY: the kernel put the arguments there, on the first thread's stack,
        // writable for as long as the process lives; alone by the caller.
        Some(Self(unsafe { std::slice::from_raw_parts_mut(start, length) }))
    }

    /// Shows `title`, as far as there is room.
    pub fn set(&mut self, title: &str) {
        let most = self.0.len() - 1;
        let length = title.len().min(most);
        self.0.fill(0);
        self.0[..length].copy_from_slice(&title.as_bytes()[..length]);
    }
}

/// Names the calling thread, which is what `ps -o comm` and `top` show.
pub fn set_name(name: &CStr) {
    let name: *const c_void = name.as_ptr().cast();
    // SAFETY: a C string, of which the kernel takes 15 bytes.
    unsafe { libc::prctl(libc::PR_SET_NAME, name) };
}
