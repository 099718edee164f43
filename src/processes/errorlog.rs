//! The error log as threads see it that must not wait for it: a log may be a pipe, and the program
//! behind it may stand still. Lines go by a queue to a thread that may wait. What does not fit is
//! lost, and counted.

use std::fmt;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use messages::{Level, LinesLost, MessageId};
use os::signal_safe::EventFd;
use os::{line_pipe, poll};

use crate::ffi::log::Server;
use crate::processes::line_kind::read_lines;
use crate::processes::line_queue::{Pushed, Queue};
use crate::processes::memory;
use crate::processes::own_slot::count_lost_lines;

/// What waits for the log at most, for each relay thread: lines, and their bytes.
const MAX_LINES: usize = 8192;
const MAX_BYTES: usize = 2 << 20;

/// How long a child that ends waits for the log.
const FLUSH_WAIT: Duration = Duration::from_secs(1);

/// The way to the error log of a child.
pub(super) struct ErrorLog {
    shared: Arc<Shared>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

struct Shared {
    server: Server<'static>,
    queue: Queue<(Level, MessageId)>,
    /// Set when there is something to do.
    wake: EventFd,
    /// Set when the thread has ended.
    done: EventFd,
}

impl ErrorLog {
    /// Starts the thread that writes. `pipe` is where the lines of drain processes come from, open
    /// for as long as this process is.
    ///
    /// # Errors
    /// No thread or descriptor can be had.
    pub(super) fn start(
        server: Server<'static>,
        pipe: Option<BorrowedFd<'static>>,
        relay_threads: usize,
    ) -> io::Result<Self> {
        let queue = Queue::new(MAX_LINES * relay_threads, MAX_BYTES * relay_threads);
        let (wake, done) = (EventFd::new()?, EventFd::new()?);
        let shared = Arc::new(Shared { server, queue, wake, done });
        let of_thread = Arc::clone(&shared);
        let thread = relay::spawn_lasting("wsf-log", move || {
            of_thread.write(pipe);
            of_thread.done.signal();
        })?;
        Ok(Self { shared, thread: Mutex::new(Some(thread)) })
    }

    /// Has a line logged. Never waits.
    pub(super) fn say(&self, level: Level, id: MessageId, text: &dyn fmt::Display) {
        self.shared.say(level, id, text);
    }

    /// Has written what waits, and ends the thread. A log that stands still is not waited for:
    /// what it does not take in this time is lost.
    pub(super) fn finish(&self) {
        let Shared { queue, wake, done, .. } = &*self.shared;
        queue.close();
        wake.signal();
        let Some(thread) = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take() else {
            return;
        };
        if done.wait(FLUSH_WAIT) {
            // Its panic, if it had one, is in the log.
            let _ = thread.join();
        } else {
            // With the one that it is at.
            count_lost_lines(queue.len() as u64 + 1);
        }
    }
}

impl Shared {
    fn say(&self, level: Level, id: MessageId, text: &dyn fmt::Display) {
        if !self.server.is_logged(level) {
            return;
        }
        match self.queue.push((level, id), text.to_string()) {
            Pushed::First => self.wake.signal(),
            Pushed::Behind => {}
            Pushed::Lost => count_lost_lines(1),
        }
    }

    /// Takes what drain processes have said.
    fn take_in(&self, pipe: BorrowedFd<'_>, buffer: &mut Vec<u8>) {
        failpoint::step!("log.take");
        read_lines(line_pipe::receive(pipe, buffer), |level, id, text| {
            if self.server.is_logged(level)
                && self.queue.push_own((level, id), text.to_owned()) == Pushed::Lost
            {
                count_lost_lines(1);
            }
        });
    }

    /// The life of the thread.
    fn write(&self, mut pipe: Option<BorrowedFd<'_>>) {
        let mut buffer = Vec::new();
        // It begins again behind a panic: nobody says again what waits by then.
        self.wake.signal();
        while !self.queue.is_over() {
            let [woken, said] = poll::wait([Some(self.wake.as_fd()), pipe], None);
            if woken {
                self.wake.clear();
            }
            // For children with the logs of now, from here on: they wait there until one has started.
            pipe = pipe.filter(|_| !said || memory::has_current_logs());
            // What a child that ends does not take is for others.
            if let Some(pipe) = pipe.filter(|_| said && self.queue.is_open()) {
                self.take_in(pipe, &mut buffer);
            }
            while let Some(((level, id), line)) = self.queue.pop() {
                failpoint::step!("log.write");
                self.server.log(level, id, &line);
                let lost = self.queue.take_lost();
                if lost > 0 {
                    self.server.say(&LinesLost { lines: &lost });
                }
            }
        }
    }
}
