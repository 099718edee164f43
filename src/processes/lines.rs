//! Where lines about tunnels go: from a child to httpd's error log, in which no thread of the relay
//! waits; from a drain process through a pipe, to a child that logs them. The process that starts
//! says once which it is.

use std::fmt;
use std::os::fd::BorrowedFd;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use messages::{Level, LinesLost, Message, MessageId};
use once_cell::sync::OnceCell;
use os::forked::Forked;
use os::{line_pipe, poll};

use crate::ffi::log::Server;
use crate::ffi::server::Process;
use crate::processes::errorlog::ErrorLog;
use crate::processes::line_kind::Kind;
use crate::processes::own_slot;
use crate::processes::registry;

/// The sink of a child. Set once, when it starts.
static CHILD: OnceCell<ChildLines> = OnceCell::new();

struct ChildLines {
    server: Server<'static>,
    /// For threads that must not wait for the log. With the relay.
    errorlog: Option<ErrorLog>,
}

/// The sink of a drain process, before that of the child that it was forked from. Set once, when it
/// starts.
static DRAIN: OnceCell<DrainLines> = OnceCell::new();

struct DrainLines {
    /// Whether lines of usual ends are logged, as far as is known: else nobody misses them.
    ends_are_logged: bool,
    /// Lines that the pipe did not take, and that nobody has been told of.
    lost: AtomicU64,
}

/// A child starts. `errorlog` is that of one with a relay.
pub(super) fn install_in_child(child: &Process<'_>, errorlog: Option<ErrorLog>) {
    // A child starts once.
    let _ = CHILD.set(ChildLines { server: child.main_server(), errorlog });
}

/// A drain process starts.
pub(super) fn install_in_drain_process(_: &Forked, ends_are_logged: bool) {
    // So does a drain process.
    let _ = DRAIN.set(DrainLines { ends_are_logged, lost: AtomicU64::new(0) });
}

/// Whether this is a drain process, which has no log of its own.
pub(super) fn is_drain_process() -> bool {
    DRAIN.get().is_some()
}

/// Has a line of a kind logged, from any thread of a child or of a drain process.
pub(super) fn say(kind: Kind, text: &dyn fmt::Display) {
    match DRAIN.get() {
        Some(drain) => drain.say(kind, text),
        None => {
            let (level, id) = kind.form();
            log_at(level, id, text);
        }
    }
}

/// Has a message logged, from any thread of a child. One of the relay's is never held up for it.
pub(super) fn log<M: Message>(message: &M) {
    log_at(M::LEVEL, M::ID, message);
}

/// The same at a level of the caller's.
pub(super) fn log_at(level: Level, id: MessageId, text: &dyn fmt::Display) {
    let Some(child) = CHILD.get() else { return };
    match &child.errorlog {
        Some(errorlog) => errorlog.say(level, id, text),
        None => child.server.log(level, id, text),
    }
}

/// The process ends: what waits is logged, if the log takes it now.
pub(super) fn finish() {
    if let Some(drain) = DRAIN.get() {
        drain.finish();
    } else if let Some(errorlog) = CHILD.get().and_then(|child| child.errorlog.as_ref()) {
        errorlog.finish();
    }
}

/// The end of the pipe where drain processes write.
fn pipe() -> Option<BorrowedFd<'static>> {
    registry::lines().map(|[_, write]| write)
}

impl DrainLines {
    /// Has a child log a line of a kind. A pipe that is full loses it.
    fn say(&self, kind: Kind, line: &dyn fmt::Display) {
        let Some(pipe) = pipe() else { return };
        self.say_lost(pipe);
        let is_missed = kind != Kind::Ended || self.ends_are_logged;
        if !send(pipe, kind, line) && is_missed {
            self.lost.fetch_add(1, Relaxed);
            own_slot::count_lost_lines(1);
        }
    }

    /// Says how many lines were lost, if the pipe takes that.
    fn say_lost(&self, pipe: BorrowedFd<'_>) {
        let lost = self.lost.swap(0, Relaxed);
        if lost == 0 {
            return;
        }
        if !send(pipe, Kind::LinesLost, &LinesLost { lines: &lost }) {
            self.lost.fetch_add(lost, Relaxed);
        }
    }

    /// The same before the process ends, which waits for a while for room.
    fn finish(&self) {
        const WAIT: Duration = Duration::from_secs(1);
        if let Some(pipe) = pipe()
            && self.lost.load(Relaxed) > 0
        {
            poll::wait_for_room(pipe, WAIT);
            self.say_lost(pipe);
        }
    }
}

fn send(pipe: BorrowedFd<'_>, kind: Kind, line: &dyn fmt::Display) -> bool {
    failpoint::check!("log.send").is_ok()
        && line_pipe::send(pipe, format!("{}{line}", char::from(kind as u8)))
}
