//! A process that leaves httpd behind: it is forked from a child, and goes on alone.

use std::ffi::{CString, c_int};
use std::io;
use std::marker::PhantomData;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

use crate::closing::close_all_but;
use crate::process::DRAIN_NAME;
use crate::signal_safe::exit_now;
use crate::signals::{Mask, Notice, Notices};

/// What a fork leads to.
pub enum Fork {
    /// In the old process: the id of the new one.
    Parent(u32),
    /// In the new one.
    Child(Forked),
}

/// A process that was just forked, and has the calling thread alone. What needs that is a method
/// of it.
pub struct Forked {
    /// It stays in its thread.
    _of_thread: PhantomData<*const ()>,
}

/// `fork()`. The new process has the name of drain processes, and the signals of notices blocked: it
/// can be told to end as soon as it is found.
///
/// # Errors
/// There is no process to be had.
///
/// # Safety
/// The new process uses nothing that another thread may have held or changed at the fork. That
/// leaves the memory of the calling thread, and the allocator, which the C library makes fit for
/// the new process; it leaves nothing of httpd.
pub unsafe fn fork_drain() -> io::Result<Fork> {
    let before = Mask::block(&Notice::signals());
    let name = rustix::thread::name().unwrap_or_else(|_| CString::from(c"httpd"));
    // Without its name it is nobody's to end, and ends with its tunnels.
    let _ = rustix::thread::set_name(DRAIN_NAME);
    // SAFETY: what it asks for is asked of the caller.
    let pid = unsafe { libc::fork() };
    if pid == 0 {
        return Ok(Fork::Child(Forked { _of_thread: PhantomData }));
    }
    let error = io::Error::last_os_error();
    let _ = rustix::thread::set_name(&name);
    before.restore();
    u32::try_from(pid).map(Fork::Parent).map_err(|_| error)
}

/// What a forked process has of its own once it has left httpd.
pub struct Left {
    /// What this process is told.
    pub notices: Notices,
    /// What `ps` shows, if it can be changed.
    pub title: Option<Title>,
}

impl Forked {
    /// Runs `body` as the last thing that this process does: no panic goes beyond it.
    pub fn run(self, body: impl FnOnce(Self)) -> ! {
        // What a panic has to say has no place to go.
        let _ = catch_unwind(AssertUnwindSafe(|| body(self)));
        exit_now()
    }

    /// Closes all descriptors but these and 0 to 2, which lead to `nowhere` then.
    ///
    /// # Safety
    /// No other descriptor is used in this process any more, or closed by who owned it.
    pub unsafe fn close_all_but<'fd>(
        &self,
        keep: impl IntoIterator<Item = BorrowedFd<'fd>>,
        nowhere: BorrowedFd<'_>,
    ) {
        for standard in 0..=2 {
            // SAFETY: both are descriptors; what `standard` was is given up.
            unsafe { libc::dup2(nowhere.as_raw_fd(), standard) };
        }
        let numbers = keep.into_iter().map(|fd| fd.as_raw_fd()).chain(0..=2);
        let mut keep: Vec<u32> = numbers.filter_map(|fd| u32::try_from(fd).ok()).collect();
        keep.sort_unstable();
        keep.dedup();
        // SAFETY: by the caller.
        unsafe { close_all_but(&keep) };
    }

    /// Gives up httpd's session, signal handlers, signal mask and environment; faults end the
    /// process. From here on it may have threads.
    ///
    /// # Errors
    /// There is no descriptor for notices.
    pub fn leave(self) -> io::Result<Left> {
        // It fails in a session's leader, which is as well.
        let _ = rustix::process::setsid();
        let ignored = [libc::SIGHUP, libc::SIGINT, libc::SIGPIPE, libc::SIGWINCH]
            .into_iter()
            .chain([libc::SIGTTOU, libc::SIGTTIN, libc::SIGTSTP]);
        // Those of notices stay blocked.
        let by_default = [libc::SIGCHLD, libc::SIGSEGV, libc::SIGBUS, libc::SIGABRT]
            .into_iter()
            .chain([libc::SIGILL, libc::SIGFPE, libc::SIGXCPU, libc::SIGXFSZ])
            .chain(Notice::signals());
        let ignored = ignored.map(|signal| (signal, libc::SIG_IGN));
        for (signal, how) in ignored.chain(by_default.map(|signal| (signal, libc::SIG_DFL))) {
            // SAFETY: sets a disposition, to none of our own functions.
            unsafe { libc::signal(signal, how) };
        }
        Mask::block_only(&Notice::signals());
        let title = self.title();
        Ok(Left { notices: Notices::new()?, title })
    }

    /// Finds the memory of the arguments (proc_pid_stat(5), fields 48 to 51).
    fn title(&self) -> Option<Title> {
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
        // SAFETY: this process has one thread. Whoever asks for a variable from here on finds none,
        // where its text would be overwritten.
        if unsafe { libc::clearenv() } != 0 {
            return None;
        }
        // SAFETY: the kernel put both there, on the first thread's stack, writable for as long as
        // the process lives. httpd and the environment were their users, and this process has left
        // both.
        let memory = unsafe { std::slice::from_raw_parts_mut(start, length) };
        Some(Title { memory, used })
    }
}

/// Alarms in a row without a sign of life between them.
static ALARMS: AtomicU32 = AtomicU32::new(0);
/// Seconds to the next, should there be one.
static SECONDS: AtomicU32 = AtomicU32::new(0);

extern "C" fn on_alarm(_: c_int) {
    // A process that was frozen finds its alarm due when it thaws: only the second counts.
    if ALARMS.fetch_add(1, Relaxed) > 0 {
        exit_now();
    }
    // SAFETY: takes a number, and may be called by a handler.
    unsafe { libc::alarm(SECONDS.load(Relaxed)) };
}

/// Ends the process unless this is called again within so many seconds, or twice as many.
pub fn end_unless_alive(seconds: u32) {
    SECONDS.store(seconds, Relaxed);
    ALARMS.store(0, Relaxed);
    let handler: extern "C" fn(c_int) = on_alarm;
    // SAFETY: the handler calls nothing that a handler may not; then a number.
    unsafe {
        libc::signal(libc::SIGALRM, handler as libc::sighandler_t);
        libc::alarm(seconds);
    }
}

/// What `ps` shows of a process: the memory of its arguments, and of its environment behind.
pub struct Title {
    memory: &'static mut [u8],
    /// How much of it is not as it was: the arguments at least.
    used: usize,
}

impl Title {
    /// Shows `title`, as far as there is room.
    pub fn set(&mut self, title: &str) {
        let length = title.len().min(self.memory.len() - 1);
        self.used = self.used.max(length + 1);
        self.memory[..length].copy_from_slice(&title.as_bytes()[..length]);
        self.memory[length..self.used].fill(0);
    }
}
