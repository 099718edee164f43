//! What httpd's parent does for drain processes: it says how many there may be, and ends them with the
//! server. It may be root and has one thread: nothing that a child can write makes it wait or trust.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::{Duration, Instant};

use messages::{AccessLinesLost, LinesLost, Message, StillEnding};
use os::line_pipe::Reader;
use os::{poll, process, room};
use shared::Shared;

use crate::ffi::ending::restarts;
use crate::ffi::log::Server;
use crate::ffi::role::Parent;
use crate::ffi::server::most_children;
use crate::processes::access;
use crate::processes::line_kind;
use crate::processes::memory::shared;
use crate::processes::registry::{self, Drain};

/// What WSForwardMaxDrainProcesses stands for without a number. Written by [`measure`].
static AUTOMATIC: AtomicUsize = AtomicUsize::new(1);

/// Finds out how many drain processes there may be where the configuration does not say.
pub(crate) fn measure(_: &Parent) {
    let most = room::processes(most_children(), registry::MAX_AUTOMATIC as u64);
    AUTOMATIC.store(usize::try_from(most).unwrap_or(registry::MAX_AUTOMATIC), Relaxed);
}

/// The same, once it was found out.
pub(crate) fn automatic() -> usize {
    AUTOMATIC.load(Relaxed)
}

/// The server stops, or restarts without grace: tells every drain process, and
/// waits for them, at most a second. The parent has no children now, and logs for them.
pub(crate) fn end_all(parent: &Parent, server: Server<'_>) {
    // With what is logged meanwhile no more than the second.
    const WAIT: Duration = Duration::from_millis(900);
    const LAST_LINES: Duration = Duration::from_millis(100);
    /// After this long they are told again: one that was just being forked may not have been found.
    const REPEAT: Duration = Duration::from_millis(50);
    let until = Instant::now() + WAIT;
    let mut lines = Lines::new(server);
    loop {
        let drains = registry::drains();
        let Some(first) = drains.first() else { break };
        drains.iter().copied().for_each(Drain::terminate);
        let ended = process::watch(first.pid).ok();
        let ended = ended.as_ref().map(OwnedFd::as_fd);
        lines.wait([ended, None], REPEAT);
        if until <= Instant::now() {
            say_left(&mut lines);
            break;
        }
    }
    lines.finish(parent, until + LAST_LINES);
}

/// The time is over, and drain processes are not done.
fn say_left(lines: &mut Lines<'_>) {
    let processes = registry::drains().len();
    let slots = shared().into_iter().flat_map(Shared::slots);
    let open = slots.map(|slot| slot.counts.relay.open.load(Relaxed));
    let tunnels = open.fold(0, u64::wrapping_add);
    if processes > 0 && tunnels > 0 {
        lines.say(&StillEnding { processes: &processes, tunnels: &tunnels });
    }
}

/// What drain processes have logged while there is no child that could.
pub(crate) struct Lines<'s> {
    server: Server<'s>,
    pipe: Option<BorrowedFd<'static>>,
    reader: Option<Reader<'static>>,
    access: access::OfParent,
    /// Lines that the log did not take, and of which it does not tell yet.
    lost: u64,
}

impl<'s> Lines<'s> {
    /// In the parent, without children.
    pub(crate) fn new(server: Server<'s>) -> Self {
        let pipe = registry::lines().map(|[read, _]| read);
        let reader = pipe.and_then(|pipe| Reader::new(pipe).ok());
        Self { server, pipe, reader, access: access::OfParent::new(), lost: 0 }
    }

    /// Waits for one of two descriptors, and says which are readable. Logs what is there to log.
    pub(crate) fn wait(
        &mut self,
        [first, second]: [Option<BorrowedFd<'_>>; 2],
        timeout: Duration,
    ) -> [bool; 2] {
        let access = access::OfParent::channel();
        let [first, second, said, written] =
            poll::wait([first, second, self.pipe, access], Some(timeout));
        if said || written {
            self.log();
        }
        [first, second]
    }

    /// Logs a message of the parent's own, in the same way.
    pub(crate) fn say<M: Message>(&mut self, message: &M) {
        if self.server.takes_lines() {
            self.server.say(message);
        } else {
            self.lost += 1;
        }
    }

    /// Logs all that is there, until that time. Then what is left of lines of access logs is given up, and
    /// said to be lost: unless the server restarts, where its next children take it.
    fn finish(mut self, parent: &Parent, until: Instant) {
        loop {
            self.log();
            // A pipe that nobody reads stays readable.
            let pipe = self.pipe.filter(|_| self.reader.is_some());
            let channels = [pipe, access::OfParent::channel()];
            if poll::wait(channels, Some(Duration::ZERO)) == [false; 2] {
                break;
            }
            if until <= Instant::now() {
                let lines = if restarts(parent) { 0 } else { self.access.give_up() };
                if lines > 0 {
                    self.say(&AccessLinesLost { lines: &lines });
                }
                break;
            }
        }
        self.say_lost();
    }

    fn say_lost(&mut self) {
        if self.lost > 0 && self.server.takes_lines() {
            self.server.say(&LinesLost { lines: &std::mem::take(&mut self.lost) });
        }
    }

    /// Logs what is there. Does not wait for a log that is piped to a program: at a stop that may be
    /// gone, while the parent itself keeps its pipe open.
    pub(crate) fn log(&mut self) {
        let Self { server, reader, access, lost, .. } = self;
        *lost += access.write(*server);
        let Some(reader) = reader else { return };
        line_kind::read_lines(reader.receive(), |level, id, text| {
            if !server.takes_lines() {
                *lost += 1;
                return;
            }
            if *lost > 0 {
                server.say(&LinesLost { lines: &std::mem::take(lost) });
            }
            server.log(level, id, &text);
        });
    }
}
