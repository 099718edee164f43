//! Where completed lines of access logs go. In a child a thread writes them, since a log may be a
//! pipe, and the program behind it may stand still: no thread of the relay waits for it. A drain
//! process has no log, and sends them to a child; to the parent, when the server stops.

use std::collections::HashSet;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use messages::{AccessLinesLost, AccessLogFailed, AccessLogGone};
use once_cell::sync::OnceCell;
use os::forked::Forked;
use os::packets::{self, PACKET_BYTES};
use os::signal_safe::EventFd;
use os::{log_file, poll, process};

use crate::ffi::log::Server;
use crate::ffi::log_files;
use crate::processes::access_line;
use crate::processes::line_kind::Kind;
use crate::processes::line_queue::{Pushed, Queue};
use crate::processes::lines;
use crate::processes::memory;
use crate::processes::own_slot::count_lost_access_lines;
use crate::processes::registry;

/// What waits for the logs at most, for each relay thread: lines, and their bytes.
const LINES: usize = 1 << 17;
const BYTES: usize = 32 << 20;
/// The same in a drain process, for room in the way to a child.
const DRAIN_LINES: usize = 1 << 16;
const DRAIN_BYTES: usize = 8 << 20;

/// How long a process that ends waits for who takes its lines.
const FLUSH: Duration = Duration::from_secs(1);

/// The most messages of drain processes that are taken in a row.
const AT_ONCE: usize = 256;

/// More than the way to a child holds, see [`packets`].
const MOST_GIVEN_UP: u64 = 1 << 14;

/// How often it is said at most that lines were lost, while the process goes on.
const SAY_LOST_EVERY_SECONDS: u32 = 10;

/// Logs that are said to be gone or not to be written to: no more than this.
const MOST_SAID: usize = 64;

/// The sink of a child with a relay. Set once, when it starts.
static CHILD: OnceCell<AccessLog> = OnceCell::new();

/// The sink of a drain process, before that of the child that it was forked from. Set once, when it
/// starts.
static DRAIN: OnceCell<Queue<(), [u8]>> = OnceCell::new();

/// The way to the access logs of a child.
struct AccessLog {
    shared: Arc<Shared>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

struct Shared {
    queue: Queue<(), [u8]>,
    /// Set when there is something to do.
    wake: EventFd,
    /// Set when the thread has ended.
    done: EventFd,
}

/// A child with a relay starts: starts the thread that writes.
///
/// # Errors
/// No thread or descriptor can be had.
pub(super) fn start_in_child(relay_threads: usize) -> io::Result<()> {
    let queue = Queue::new(LINES * relay_threads, BYTES * relay_threads);
    let shared = Arc::new(Shared { queue, wake: EventFd::new()?, done: EventFd::new()? });
    let of_thread = Arc::clone(&shared);
    let channel = registry::access_lines().map(|[receive, _]| receive);
    let thread = relay::spawn_lasting("wsf-access", move || {
        of_thread.write(channel);
        of_thread.done.signal();
    })?;
    // A child starts once.
    let _ = CHILD.set(AccessLog { shared, thread: Mutex::new(Some(thread)) });
    Ok(())
}

/// A drain process starts.
pub(super) fn install_in_drain_process(_: &Forked) {
    // What the child has lost is the child's to say.
    LOST.unsaid.store(0, Relaxed);
    LOST.said_at.store(0, Relaxed);
    let _ = DRAIN.set(Queue::new(DRAIN_LINES, DRAIN_BYTES));
}

/// Has a completed line written, from any thread of a child or of a drain process. Never waits.
pub(super) fn write(message: Vec<u8>) {
    if let Some(waiting) = DRAIN.get() {
        // What is to be sent on is sent in its order.
        if waiting.len() > 0 || send(&message) == Sent::NoRoom {
            push(waiting, message);
        }
    } else if let Some(log) = CHILD.get()
        && push(&log.shared.queue, message) == Pushed::First
    {
        log.shared.wake.signal();
    }
}

fn push(queue: &Queue<(), [u8]>, message: Vec<u8>) -> Pushed {
    let pushed = queue.push((), message);
    if pushed == Pushed::Lost {
        LOST.add(1);
    }
    pushed
}

#[derive(PartialEq, Eq)]
enum Sent {
    /// To a child, or it cannot be: that is counted.
    Done,
    /// There is no room now.
    NoRoom,
}

/// Sends a line to a child.
fn send(message: &[u8]) -> Sent {
    let channel = registry::access_lines().filter(|_| message.len() <= PACKET_BYTES);
    let send = |channel| {
        failpoint::check!("log.send-access")?;
        packets::send(channel, message)
    };
    let sent = channel.map(|[_, channel]| send(channel));
    match sent {
        Some(Ok(())) => return Sent::Done,
        Some(Err(error)) if error.kind() == io::ErrorKind::WouldBlock => return Sent::NoRoom,
        _ => LOST.add(1),
    }
    Sent::Done
}

/// In a drain process: sends what waits for room. `true` if something still waits.
pub(super) fn send_waiting() -> bool {
    let Some(waiting) = DRAIN.get() else { return false };
    while let Some(((), message)) = waiting.pop() {
        if send(&message) == Sent::NoRoom {
            waiting.put_back((), message);
            return true;
        }
    }
    LOST.say_if_due();
    false
}

/// Lines that this process has lost because nobody took them in time, or because they are too long
/// for the way to a child.
static LOST: Lost = Lost { unsaid: AtomicU64::new(0), said_at: AtomicU32::new(0) };

struct Lost {
    /// Those of which nothing was said yet.
    unsaid: AtomicU64,
    /// When something was said last; see [`process::seconds`].
    said_at: AtomicU32,
}

impl Lost {
    /// Counts more, and says so: a log may stand still for as long as the process lives.
    fn add(&self, lines: u64) {
        count_lost_access_lines(lines);
        self.unsaid.fetch_add(lines, Relaxed);
        self.say_if_due();
    }

    /// Says how many, if nothing was said lately.
    fn say_if_due(&self) {
        let since = process::seconds().wrapping_sub(self.said_at.load(Relaxed));
        if since >= SAY_LOST_EVERY_SECONDS {
            self.say();
        }
    }

    fn say(&self) {
        let lost = self.unsaid.swap(0, Relaxed);
        if lost > 0 {
            self.said_at.store(process::seconds(), Relaxed);
            lines::say(Kind::AccessLinesLost, &AccessLinesLost { lines: &lost });
        }
    }

    fn has_unsaid(&self) -> bool {
        self.unsaid.load(Relaxed) > 0
    }
}

/// The process ends: what waits is written, or sent on, if that goes now.
pub(super) fn finish() {
    if let Some(waiting) = DRAIN.get() {
        let until = Instant::now() + FLUSH;
        while send_waiting() {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                LOST.add(waiting.len() as u64);
                break;
            }
            if let Some([_, channel]) = registry::access_lines() {
                poll::wait_for_room(channel, left);
            }
        }
    } else if let Some(log) = CHILD.get() {
        log.finish();
    }
    LOST.say();
}

impl AccessLog {
    fn finish(&self) {
        let Shared { queue, wake, done } = &*self.shared;
        queue.close();
        wake.signal();
        let Some(thread) = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take() else {
            return;
        };
        if done.wait(FLUSH) {
            // Its panic, if it had one, is in the log.
            let _ = thread.join();
        } else {
            // With the one that it is at.
            LOST.add(queue.len() as u64 + 1);
        }
    }
}

impl Shared {
    /// The life of the thread.
    fn write(&self, mut channel: Option<BorrowedFd<'static>>) {
        let mut buffer = Vec::new();
        let mut said = Said::default();
        // It begins again behind a panic: nobody says again what waits by then.
        self.wake.signal();
        while !self.queue.is_over() {
            let patience =
                LOST.has_unsaid().then_some(Duration::from_secs(SAY_LOST_EVERY_SECONDS.into()));
            let [woken, came] = poll::wait([Some(self.wake.as_fd()), channel], patience);
            if woken {
                self.wake.clear();
            }
            // For children with the logs of now, from here on: they wait there until one has started.
            channel = channel.filter(|_| !came || memory::has_current_logs());
            // What a child that ends does not take is for others.
            if let Some(channel) = channel.filter(|_| came && self.queue.is_open()) {
                take_in(channel, &mut buffer, |message| {
                    said.note(write_line(message, log_file::write));
                });
            }
            while let Some(((), message)) = self.queue.pop() {
                said.note(write_line(&message, log_file::write));
            }
            LOST.say_if_due();
        }
    }
}

/// Takes what drain processes have sent, but not for ever.
fn take_in(channel: BorrowedFd<'_>, buffer: &mut Vec<u8>, mut each: impl FnMut(&[u8])) {
    buffer.resize(PACKET_BYTES, 0);
    for _ in 0..AT_ONCE {
        let Ok(length) = packets::receive(channel, buffer) else { break };
        each(&buffer[..length]);
    }
    *buffer = Vec::new();
}

/// What became of a line.
enum Written {
    Yes,
    Gone(Vec<u8>),
    Failed(Vec<u8>, io::Error),
}

fn write_line(
    message: &[u8],
    write: impl FnOnce(BorrowedFd<'_>, &[u8]) -> io::Result<()>,
) -> Written {
    let Some((name, line)) = access_line::read(message) else { return Written::Yes };
    let Some(fd) = log_files::log(name) else { return Written::Gone(name.to_vec()) };
    match failpoint::check!("log.access").and_then(|()| write(fd, line)) {
        Ok(()) => Written::Yes,
        Err(error) => Written::Failed(name.to_vec(), error),
    }
}

/// The logs of which was said what is wrong with them.
#[derive(Default)]
struct Said(HashSet<Vec<u8>>);

impl Said {
    fn is_new(&mut self, name: Vec<u8>) -> bool {
        self.0.len() < MOST_SAID && self.0.insert(name)
    }

    fn note(&mut self, written: Written) {
        if let Some((kind, text)) = self.text(written) {
            lines::say(kind, &text);
        }
    }

    /// Says nothing of it now. Whether there was something to say.
    fn keep(&self, written: Written) -> bool {
        let (Written::Gone(name) | Written::Failed(name, _)) = written else { return false };
        count_lost_access_lines(1);
        !self.0.contains(&name)
    }

    fn text(&mut self, written: Written) -> Option<(Kind, String)> {
        let (kind, name, error) = match written {
            Written::Yes => return None,
            Written::Gone(name) => (Kind::AccessLogGone, name, None),
            Written::Failed(name, error) => (Kind::AccessLogFailed, name, Some(error)),
        };
        count_lost_access_lines(1);
        let log = access_line::shown(&name);
        let text = match error {
            None => AccessLogGone { log: &log }.to_string(),
            Some(error) => AccessLogFailed { log: &log, error: &error }.to_string(),
        };
        self.is_new(name).then_some((kind, text))
    }
}

/// In the parent, while the server stops and there is no child: writes what drain processes send.
/// It does not wait for any log.
pub(super) struct OfParent {
    said: Said,
    buffer: Vec<u8>,
}

impl OfParent {
    /// Nothing came yet.
    pub(super) fn new() -> Self {
        Self { said: Said::default(), buffer: Vec::new() }
    }

    /// Where it comes from.
    pub(super) fn channel() -> Option<BorrowedFd<'static>> {
        registry::access_lines().map(|[receive, _]| receive)
    }

    /// Writes what is there. Returns how many lines the error log did not take.
    pub(super) fn write(&mut self, server: Server<'_>) -> u64 {
        let Some(channel) = Self::channel() else { return 0 };
        let Self { said, buffer } = self;
        let mut lost = 0;
        take_in(channel, buffer, |message| {
            let written = write_line(message, |fd, line| {
                let is_written = log_file::write_now(fd, line);
                is_written.then_some(()).ok_or_else(|| io::ErrorKind::WouldBlock.into())
            });
            if !server.takes_lines() {
                lost += u64::from(said.keep(written));
                return;
            }
            if let Some((kind, text)) = said.text(written) {
                let (level, id) = kind.form();
                server.log(level, id, &text);
            }
        });
        lost
    }

    /// Takes what is there without writing it, and says how many lines that were.
    pub(super) fn give_up(&mut self) -> u64 {
        let mut lost = 0;
        if let Some(channel) = Self::channel() {
            while lost < MOST_GIVEN_UP && packets::receive(channel, &mut [0]).is_ok() {
                lost += 1;
            }
        }
        lost
    }
}
