//! The kernel of the simulation: the system calls that the relay makes, in the place of libc's.
//!
//! The linker takes a function of this program before one of libc, so the relay, tokio and mio are
//! as they are everywhere. Sockets of the simulation live in memory; what is no such socket (pipes,
//! the eventfd that wakes a thread) goes on to the real kernel. Time stands still but for
//! [`Kernel::now`]. A relay thread that waits in `epoll_wait` waits for the script, and the script
//! waits until it does: what happens is a matter of the seed alone.

use std::collections::{BTreeMap, VecDeque};
use std::ffi::{c_int, c_long, c_uint, c_ulong, c_void};
use std::fs::File;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use libc::{epoll_event, size_t, socklen_t, ssize_t, timespec};

use crate::common::Random;

/// Calls in one step of the script that moved nothing. More are a busy loop.
const FUTILE_CALLS: usize = 400;

/// Nanoseconds. Ahead of the real clock: whoever sleeps until then in earnest is woken before.
static CLOCK: AtomicU64 = AtomicU64::new(1_000_000_000_000_000_000);

static KERNEL: Mutex<Option<Kernel>> = Mutex::new(None);
/// The relay thread waits, or has something to do again.
static TURN: Condvar = Condvar::new();

/// One socket of the relay, and what is under way between it and its peer.
#[derive(Debug, Default)]
pub(crate) struct Socket {
    /// What the peer sent and the relay has not read.
    pub inbox: VecDeque<u8>,
    pub inbox_size: usize,
    /// What the relay sent and the peer has not read.
    pub outbox: VecDeque<u8>,
    pub outbox_size: usize,
    /// All that the relay sent, in bytes.
    pub sent: u64,
    /// A FIN came.
    pub peer_ended: bool,
    /// The relay has said that it reads no more.
    reads_no_more: bool,
    /// A RST came, or an error of the network.
    pub is_dead: bool,
    /// The error that the next call tells.
    pub error: Option<c_int>,
    /// Whoever sends gets a RST.
    is_gone: bool,
    /// The relay sent a FIN.
    pub shut: bool,
    /// The relay closed it,
    pub closed: bool,
    /// so that the peer sees a RST,
    pub resets: bool,
    /// as it was told to by SO_LINGER.
    lingers: bool,
    /// A send was refused, in part at least, or `epoll_wait` found no room.
    pub is_full: bool,
    descriptors: usize,
    /// The events that `epoll` is to tell of, and as what. There is but one thread that asks.
    interest: Option<(u32, u64)>,
    /// Something happened since `epoll_wait` told of it.
    edge: bool,
}

impl Socket {
    fn room(&self) -> usize {
        self.outbox_size.saturating_sub(self.outbox.len())
    }

    /// Whether the kernel would say so.
    fn is_writable(&self) -> bool {
        self.shut || self.is_dead || self.room() >= self.outbox_size.div_ceil(3)
    }

    fn events(&self) -> u32 {
        let mut events = 0;
        if !self.inbox.is_empty() || self.peer_ended || self.is_dead {
            events |= libc::EPOLLIN;
        }
        if self.peer_ended || self.is_dead {
            events |= libc::EPOLLRDHUP;
        }
        if self.is_writable() {
            events |= libc::EPOLLOUT;
        }
        if self.is_dead || self.peer_ended && self.shut {
            events |= libc::EPOLLHUP;
        }
        if self.error.is_some() {
            events |= libc::EPOLLERR;
        }
        events as u32
    }

    /// Whether bytes for it have to wait.
    pub(crate) fn is_blocked(&self) -> bool {
        self.is_full && !self.is_writable()
    }

    /// Takes bytes of the peer, as many as there is room for.
    pub(crate) fn arrive(&mut self, bytes: &mut VecDeque<u8>, most: usize) -> usize {
        if self.reads_no_more {
            self.refuse();
            return 0;
        }
        let n = most.min(bytes.len()).min(self.inbox_size.saturating_sub(self.inbox.len()));
        self.inbox.extend(bytes.drain(..n));
        self.edge |= n > 0;
        n
    }

    /// The peer reads.
    pub(crate) fn leave(&mut self, most: usize) -> Vec<u8> {
        let n = most.min(self.outbox.len());
        let bytes = self.outbox.drain(..n).collect();
        if self.is_full && self.is_writable() {
            self.is_full = false;
            self.edge = true;
        }
        bytes
    }

    /// The peer ends what it sends.
    pub(crate) fn end(&mut self) {
        self.peer_ended = true;
        self.edge = true;
    }

    /// The connection fails. What arrived before can still be read.
    pub(crate) fn fail(&mut self, error: c_int) {
        self.error = Some(error);
        self.is_dead = true;
        self.outbox.clear();
        self.edge = true;
    }

    /// The peer closes: what was sent to it, or will be, is answered by a RST.
    pub(crate) fn abandon(&mut self) {
        self.is_gone = true;
        if !self.outbox.is_empty() {
            self.refuse();
        }
    }

    fn refuse(&mut self) {
        self.fail(if self.peer_ended { libc::EPIPE } else { libc::ECONNRESET });
    }

    /// `epoll_wait` tells of it once more.
    pub(crate) fn touch(&mut self) {
        self.edge = true;
    }

    fn receive(&mut self, buffer: &mut [u8], peek: bool) -> Result<usize, c_int> {
        let n = buffer.len().min(self.inbox.len());
        if n > 0 {
            let (first, second) = self.inbox.as_slices();
            let of_first = n.min(first.len());
            buffer[..of_first].copy_from_slice(&first[..of_first]);
            buffer[of_first..n].copy_from_slice(&second[..n - of_first]);
            if !peek {
                self.inbox.drain(..n);
            }
            return Ok(n);
        }
        match self.error.take() {
            Some(error) => Err(error),
            None if self.peer_ended || self.is_dead => Ok(0),
            None => Err(libc::EAGAIN),
        }
    }

    fn send(&mut self, bytes: &[u8], most: usize) -> Result<usize, c_int> {
        if let Some(error) = self.error.take() {
            return Err(error);
        }
        if self.shut || self.is_dead {
            return Err(libc::EPIPE);
        }
        if self.is_gone {
            // Taken, and answered by a RST.
            self.sent += bytes.len() as u64;
            self.refuse();
            return Ok(bytes.len());
        }
        let n = bytes.len().min(self.room()).min(most);
        self.outbox.extend(&bytes[..n]);
        self.sent += n as u64;
        if n < bytes.len() {
            self.is_full = true;
            if self.is_writable() {
                // There was no room for a moment only.
                self.is_full = false;
                self.edge = true;
            }
        }
        if n == 0 { Err(libc::EAGAIN) } else { Ok(n) }
    }
}

/// All that a seed is about.
pub(crate) struct Kernel {
    pub sockets: Vec<Socket>,
    numbers: BTreeMap<RawFd, usize>,
    random: Random,
    /// Of 100 calls so many are interrupted, or take less than they could.
    pub trouble: usize,
    futile: usize,
    /// The relay thread waits for the script.
    is_waiting: bool,
    /// The `epoll` of the relay thread.
    epoll: RawFd,
    /// Nobody waits for the script.
    is_free: bool,
    failure: Option<&'static str>,
}

/// What time it is.
pub(crate) fn now() -> u64 {
    CLOCK.load(Relaxed)
}

fn lock() -> MutexGuard<'static, Option<Kernel>> {
    KERNEL.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Looks at, or changes, what there is. The relay thread waits meanwhile.
pub(crate) fn with<T>(see: impl FnOnce(&mut Kernel) -> T) -> T {
    see(lock().as_mut().expect("a simulation runs"))
}

/// Begins anew.
pub(crate) fn boot(random: Random, trouble: usize) {
    *lock() = Some(Kernel {
        sockets: Vec::new(),
        numbers: BTreeMap::new(),
        random,
        trouble,
        futile: 0,
        is_waiting: false,
        epoll: -1,
        is_free: false,
        failure: None,
    });
}

/// Ends it.
pub(crate) fn halt() {
    *lock() = None;
}

/// A new socket: its number, and a descriptor for the relay.
pub(crate) fn socket(inbox_size: usize, outbox_size: usize) -> (usize, OwnedFd) {
    let place = OwnedFd::from(File::open("/dev/null").expect("/dev/null"));
    let number = with(|kernel| {
        let socket = Socket { inbox_size, outbox_size, descriptors: 1, ..Socket::default() };
        kernel.sockets.push(socket);
        kernel.numbers.insert(place.as_raw_fd(), kernel.sockets.len() - 1);
        kernel.sockets.len() - 1
    });
    (number, place)
}

/// How a socket is now. Whoever looks does so outside of [`with`]: a panic there needs `close`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Look {
    pub unread: usize,
    pub is_blocked: bool,
    pub has_failed: bool,
    pub is_dead: bool,
    pub peer_ended: bool,
    pub shut: bool,
    pub closed: bool,
    pub resets: bool,
    pub sent: u64,
}

/// Looks at a socket.
pub(crate) fn look(number: usize) -> Look {
    with(|kernel| {
        let socket = &kernel.sockets[number];
        Look {
            unread: socket.inbox.len(),
            is_blocked: socket.is_blocked(),
            has_failed: socket.error.is_some(),
            is_dead: socket.is_dead,
            peer_ended: socket.peer_ended,
            shut: socket.shut,
            closed: socket.closed,
            resets: socket.resets,
            sent: socket.sent,
        }
    })
}

/// Has the relay thread do all that there is to do. It has none left when this returns.
pub(crate) fn settle() {
    let mut kernel = lock();
    if let Some(kernel) = kernel.as_mut() {
        kernel.is_waiting = false;
        kernel.futile = 0;
    }
    TURN.notify_all();
    while kernel.as_ref().is_some_and(|k| !k.is_waiting && k.failure.is_none()) {
        kernel = TURN.wait(kernel).unwrap_or_else(PoisonError::into_inner);
    }
    let failure = kernel.as_ref().and_then(|kernel| kernel.failure);
    drop(kernel);
    assert_eq!(failure, None);
}

/// Lets time pass, and the relay thread do what it then has to.
pub(crate) fn pass(time: Duration) {
    CLOCK.fetch_add(time.as_nanos() as u64, Relaxed);
    settle();
}

/// Waits until the relay thread was told something, which it has not seen yet.
pub(crate) fn wait_for_message() {
    let epoll = with(|kernel| kernel.epoll);
    assert!(await_message(epoll, 60_000), "the relay thread is told");
}

/// Waits until an `epoll` has something to tell, and leaves it there.
fn await_message(epoll: RawFd, millis: c_int) -> bool {
    let mut poll = libc::pollfd { fd: epoll, events: libc::POLLIN, revents: 0 };
    // SAFETY: one element.
    unsafe { libc::poll(&raw mut poll, 1, millis) == 1 }
}

/// Runs `last` while the relay thread does not wait for the script.
pub(crate) fn free<T>(last: impl FnOnce() -> T) -> T {
    with(|kernel| {
        kernel.is_free = true;
        kernel.is_waiting = false;
        kernel.futile = 0;
    });
    TURN.notify_all();
    let result = last();
    with(|kernel| kernel.is_free = false);
    result
}

impl Kernel {
    /// The relay asks for something that it must not.
    fn expect(&mut self, is_right: bool, what: &'static str) {
        if !is_right {
            self.failure = self.failure.or(Some(what));
        }
    }

    /// Takes note of what a call returns: much that nothing comes of is a busy loop.
    fn note(&mut self, result: Result<usize, c_int>) -> Result<usize, c_int> {
        self.futile = if result.is_ok_and(|n| n > 0) { 0 } else { self.futile + 1 };
        if self.futile > FUTILE_CALLS {
            self.failure = Some("the relay thread is busy with nothing");
        }
        result
    }

    fn is_interrupted(&mut self) -> bool {
        self.random.below(100) < self.trouble / 4
    }

    /// Whether there is memory to splice with.
    fn can_splice(&mut self) -> bool {
        self.random.below(100) >= self.trouble / 10
    }

    /// How many of so many bytes a call takes.
    fn most(&mut self, length: usize) -> usize {
        if self.random.below(100) < self.trouble {
            1 + self.random.below(length.max(1))
        } else {
            length
        }
    }

    fn receive(&mut self, number: usize, buffer: &mut [u8], peek: bool) -> Result<usize, c_int> {
        if self.is_interrupted() {
            return Err(libc::EINTR);
        }
        self.sockets[number].receive(buffer, peek)
    }

    fn send(&mut self, number: usize, bytes: &[u8]) -> Result<usize, c_int> {
        if self.is_interrupted() {
            return Err(libc::EINTR);
        }
        let most = self.most(bytes.len());
        self.sockets[number].send(bytes, most)
    }

    /// What `epoll_wait` has to tell, in an order that nobody may rely on.
    fn take_events(&mut self, events: &mut [epoll_event]) -> usize {
        let mut count = 0;
        let first = self.random.below(self.sockets.len().max(1));
        for turn in 0..self.sockets.len() {
            let number = (first + turn) % self.sockets.len();
            let socket = &mut self.sockets[number];
            let Some((wanted, data)) = socket.interest else { continue };
            if !socket.edge || count == events.len() {
                continue;
            }
            // Who asks and finds no room is told when there is some (tcp_poll).
            socket.is_full |= !socket.is_writable();
            let found = socket.events() & (wanted | (libc::EPOLLERR | libc::EPOLLHUP) as u32);
            socket.edge = false;
            if found != 0 {
                events[count] = epoll_event { events: found, u64: data };
                count += 1;
            }
        }
        count
    }
}

/// As a system call returns it.
fn returned(result: Result<usize, c_int>) -> ssize_t {
    match result {
        Ok(n) => n as ssize_t,
        Err(error) => {
            // SAFETY: the errno of this thread.
            unsafe { *libc::__errno_location() = error };
            -1
        }
    }
}

/// Runs `call` if this is one of ours.
fn ours<T>(fd: RawFd, call: impl FnOnce(&mut Kernel, usize) -> T) -> Option<T> {
    let mut kernel = lock();
    let kernel = kernel.as_mut()?;
    let number = kernel.numbers.get(&fd).copied()?;
    let result = call(kernel, number);
    Some(result)
}

/// A relay thread that went wrong stays where it is: its test has failed.
fn stop_if_failed() {
    if lock().as_ref().is_some_and(|kernel| kernel.failure.is_some()) {
        TURN.notify_all();
        loop {
            std::thread::park();
        }
    }
}

// SAFETY for all of these: they are called as libc's, whose contracts they keep: they touch no
// memory but what the caller lends for the call, and what is not ours goes on to the real kernel.

#[unsafe(no_mangle)]
unsafe extern "C" fn recv(fd: c_int, buffer: *mut c_void, length: size_t, flags: c_int) -> ssize_t {
    let peek = flags & libc::MSG_PEEK != 0;
    let result = ours(fd, |kernel, number| {
        // SAFETY: the caller lends so many bytes.
        let buffer = unsafe { std::slice::from_raw_parts_mut(buffer.cast::<u8>(), length) };
        let result = kernel.receive(number, buffer, peek);
        kernel.note(result)
    });
    stop_if_failed();
    // SAFETY: the caller's own arguments.
    result.map(returned).unwrap_or_else(|| unsafe {
        libc::syscall(libc::SYS_recvfrom, fd, buffer, length, flags, 0, 0) as ssize_t
    })
}

#[unsafe(no_mangle)]
unsafe extern "C" fn send(
    fd: c_int,
    bytes: *const c_void,
    length: size_t,
    flags: c_int,
) -> ssize_t {
    let result = ours(fd, |kernel, number| {
        kernel.expect(flags & libc::MSG_NOSIGNAL != 0, "send without MSG_NOSIGNAL");
        // SAFETY: the caller lends so many bytes.
        let bytes = unsafe { std::slice::from_raw_parts(bytes.cast::<u8>(), length) };
        let result = kernel.send(number, bytes);
        kernel.note(result)
    });
    stop_if_failed();
    // SAFETY: the caller's own arguments.
    result.map(returned).unwrap_or_else(|| unsafe {
        libc::syscall(libc::SYS_sendto, fd, bytes, length, flags, 0, 0) as ssize_t
    })
}

/// From a socket of ours into a real pipe, or out of one.
#[unsafe(no_mangle)]
unsafe extern "C" fn splice(
    from: c_int,
    from_offset: *mut i64,
    to: c_int,
    to_offset: *mut i64,
    length: size_t,
    flags: c_uint,
) -> ssize_t {
    let filled = ours(from, |kernel, number| {
        if !kernel.can_splice() {
            return kernel.note(Err(libc::ENOMEM));
        }
        let mut bytes = vec![0; length.min(1 << 16)];
        let result = kernel.receive(number, &mut bytes, false);
        if let Ok(n) = result {
            // SAFETY: bytes of ours, into a pipe in which there is no more than a frame header.
            let written = unsafe { libc::write(to, bytes.as_ptr().cast(), n) };
            kernel.expect(written == n as isize, "the pipe that is filled has no room");
        }
        kernel.note(result)
    });
    let result = filled.or_else(|| {
        ours(to, |kernel, number| {
            if !kernel.can_splice() {
                return kernel.note(Err(libc::ENOMEM));
            }
            let room = kernel.sockets[number].room();
            let most = kernel.most(length);
            let socket = &kernel.sockets[number];
            let is_open = socket.error.is_none() && !socket.is_dead && !socket.shut;
            let mut bytes = vec![0; most.min(room)];
            if !bytes.is_empty() && is_open {
                // SAFETY: room of ours.
                let n = unsafe { libc::read(from, bytes.as_mut_ptr().cast(), bytes.len()) };
                kernel.expect(n > 0, "the pipe that is emptied is empty");
                bytes.truncate(n.max(0) as usize);
            }
            let all = bytes.len();
            let result = kernel.sockets[number].send(&bytes, all);
            if all < length && room <= most {
                kernel.sockets[number].is_full = true;
            }
            kernel.note(result)
        })
    });
    stop_if_failed();
    // SAFETY: the caller's own arguments.
    result.map(returned).unwrap_or_else(|| unsafe {
        let call = libc::SYS_splice;
        libc::syscall(call, from, from_offset, to, to_offset, length, flags) as ssize_t
    })
}

#[unsafe(no_mangle)]
unsafe extern "C" fn shutdown(fd: c_int, how: c_int) -> c_int {
    let result = ours(fd, |kernel, number| {
        let is_second = how == libc::SHUT_WR && kernel.sockets[number].shut;
        kernel.expect(how != libc::SHUT_RDWR && !is_second, "a second FIN");
        let socket = &mut kernel.sockets[number];
        if how == libc::SHUT_WR {
            socket.shut = true;
            socket.edge |= socket.peer_ended;
        } else if !socket.is_dead {
            // Behind what has come there is an end, whatever the peer still sends.
            socket.reads_no_more = true;
            socket.end();
        }
        0
    });
    // SAFETY: the caller's own arguments.
    result.unwrap_or_else(|| unsafe { libc::syscall(libc::SYS_shutdown, fd, how) as c_int })
}

#[unsafe(no_mangle)]
unsafe extern "C" fn close(fd: c_int) -> c_int {
    let mut kernel = lock();
    if let Some(kernel) = kernel.as_mut()
        && let Some(number) = kernel.numbers.remove(&fd)
    {
        let socket = &mut kernel.sockets[number];
        socket.descriptors -= 1;
        if socket.descriptors == 0 {
            socket.closed = true;
            socket.resets = socket.lingers || !socket.inbox.is_empty();
            socket.interest = None;
            let loses = socket.lingers && !socket.is_dead && !socket.outbox.is_empty();
            kernel.expect(!loses, "a reset throws away what was sent");
        }
    }
    drop(kernel);
    // SAFETY: the caller's own argument.
    unsafe { libc::syscall(libc::SYS_close, fd) as c_int }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn fcntl(fd: c_int, command: c_int, argument: c_long) -> c_int {
    // SAFETY: the caller's own arguments.
    let result = unsafe { libc::syscall(libc::SYS_fcntl, fd, command, argument) as c_int };
    if command == libc::F_DUPFD_CLOEXEC && result >= 0 {
        ours(fd, |kernel, number| {
            kernel.numbers.insert(result, number);
            kernel.sockets[number].descriptors += 1;
        });
    }
    result
}

#[unsafe(no_mangle)]
unsafe extern "C" fn ioctl(fd: c_int, request: c_ulong, argument: *mut c_int) -> c_int {
    let result = ours(fd, |kernel, number| match request {
        libc::FIONBIO => 0,
        libc::TIOCOUTQ => {
            // SAFETY: the caller lends a number.
            unsafe { *argument = kernel.sockets[number].outbox.len() as c_int };
            0
        }
        _ => unreachable!("ioctl {request}"),
    });
    // SAFETY: the caller's own arguments.
    result.unwrap_or_else(|| unsafe {
        libc::syscall(libc::SYS_ioctl, fd, request, argument) as c_int
    })
}

#[unsafe(no_mangle)]
unsafe extern "C" fn setsockopt(
    fd: c_int,
    level: c_int,
    name: c_int,
    value: *const c_void,
    length: socklen_t,
) -> c_int {
    let result = ours(fd, |kernel, number| {
        kernel.sockets[number].lingers |= (level, name) == (libc::SOL_SOCKET, libc::SO_LINGER);
        0
    });
    // SAFETY: the caller's own arguments.
    result.unwrap_or_else(|| unsafe {
        libc::syscall(libc::SYS_setsockopt, fd, level, name, value, length) as c_int
    })
}

#[unsafe(no_mangle)]
unsafe extern "C" fn getsockopt(
    fd: c_int,
    level: c_int,
    name: c_int,
    value: *mut c_void,
    length: *mut socklen_t,
) -> c_int {
    let result = ours(fd, |kernel, number| {
        if (level, name) == (libc::SOL_SOCKET, libc::SO_ERROR) {
            let error = kernel.sockets[number].error.take().unwrap_or(0);
            // SAFETY: the caller lends a number.
            unsafe { *value.cast::<c_int>() = error };
            return Ok(0);
        }
        // As a unix socket, which knows no TCP_INFO.
        Err(libc::EOPNOTSUPP)
    });
    // SAFETY: the caller's own arguments.
    result.map(|result| returned(result) as c_int).unwrap_or_else(|| unsafe {
        libc::syscall(libc::SYS_getsockopt, fd, level, name, value, length) as c_int
    })
}

#[unsafe(no_mangle)]
unsafe extern "C" fn epoll_ctl(
    epoll: c_int,
    operation: c_int,
    fd: c_int,
    event: *mut epoll_event,
) -> c_int {
    let result = ours(fd, |kernel, number| {
        let socket = &mut kernel.sockets[number];
        if operation == libc::EPOLL_CTL_DEL {
            let was_there = socket.interest.take().is_some();
            kernel.expect(was_there, "EPOLL_CTL_DEL of what is not there");
        } else {
            // SAFETY: the caller lends an event.
            let epoll_event { events, u64: data } = unsafe { *event };
            socket.interest = Some((events, data));
            // What is there already is told.
            socket.edge = true;
            kernel.expect(events & libc::EPOLLET as u32 != 0, "a level-triggered event");
        }
        0
    });
    // SAFETY: the caller's own arguments.
    result.unwrap_or_else(|| unsafe {
        libc::syscall(libc::SYS_epoll_ctl, epoll, operation, fd, event) as c_int
    })
}

#[unsafe(no_mangle)]
unsafe extern "C" fn epoll_wait(
    epoll: c_int,
    events: *mut epoll_event,
    most: c_int,
    millis: c_int,
) -> c_int {
    let real = |millis: c_int| {
        let call = libc::SYS_epoll_pwait;
        let mask = std::ptr::null::<c_void>();
        // SAFETY: the caller's own arguments.
        unsafe { libc::syscall(call, epoll, events, most, millis, mask, 8) as c_int }
    };
    let until = u64::try_from(millis).ok().map(|millis| now() + millis * 1_000_000);
    let mut kernel = lock();
    loop {
        let Some(world) = kernel.as_mut() else {
            drop(kernel);
            return real(millis);
        };
        world.epoll = epoll;
        // What the kernel has is little: it is the thread that is woken.
        let count = real(0).max(0) as usize;
        // SAFETY: the caller lends so many.
        let rest =
            unsafe { std::slice::from_raw_parts_mut(events.add(count), most as usize - count) };
        let count = count + world.take_events(rest);
        if count > 0 || millis == 0 || until.is_some_and(|until| until <= now()) {
            let _ = world.note(Ok(0));
            drop(kernel);
            stop_if_failed();
            return count as c_int;
        }
        if world.is_free {
            drop(kernel);
            await_message(epoll, 10);
            kernel = lock();
            continue;
        }
        world.is_waiting = true;
        TURN.notify_all();
        while kernel.as_ref().is_some_and(|world| world.is_waiting) {
            kernel = TURN.wait(kernel).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn getrandom(buffer: *mut c_void, length: size_t, flags: c_uint) -> ssize_t {
    // The relay asks for so many; who else asks does not do so in each run of a seed.
    if let Some(kernel) = lock().as_mut().filter(|_| length == 4) {
        // SAFETY: the caller lends so many bytes.
        let bytes = unsafe { std::slice::from_raw_parts_mut(buffer.cast::<u8>(), length) };
        kernel.random.fill(bytes);
        return length as ssize_t;
    }
    // SAFETY: the caller's own arguments.
    unsafe { libc::syscall(libc::SYS_getrandom, buffer, length, flags) as ssize_t }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn clock_gettime(clock: c_int, time: *mut timespec) -> c_int {
    if matches!(clock, libc::CLOCK_MONOTONIC | libc::CLOCK_MONOTONIC_COARSE) {
        let now = now();
        // SAFETY: the caller lends it.
        unsafe {
            (*time).tv_sec = (now / 1_000_000_000) as i64;
            (*time).tv_nsec = (now % 1_000_000_000) as i64;
        }
        return 0;
    }
    // SAFETY: the caller's own arguments.
    unsafe { libc::syscall(libc::SYS_clock_gettime, clock, time) as c_int }
}
