//! The end of a child: its tunnels go on in a process forked for them, outside
//! of httpd's scoreboard, while the child exits at once.
//!
//! The forked process has one thread and must not rely on anything that another
//! thread may have held at the fork: it never calls httpd, APR or a log, runs no
//! cleanup of a pool, and leaves by `_exit`. What it needs is made before.

mod collector;

use std::io;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use once_cell::sync::OnceCell;
use relay::{Order, Relay, Settings as RelaySettings, Tunnel};

use self::collector::{Claim, Received};
use crate::ffi::log::Server;
use crate::keeper::log_lines;
use crate::process::{self, Title};
use crate::shared::{Kind, Slot, shared};

/// "Going away" (RFC 6455, section 7.4.1).
pub const GOING_AWAY: u16 = 1001;

/// A drain process that hangs is ended by the kernel after this many seconds.
const HANG: u32 = 60;
/// How often it looks around although nothing happens, in milliseconds.
const ROUND: i32 = 10_000;
/// How long peers get to answer a Close, when the server stops.
const STOP: Duration = Duration::from_millis(500);
/// The same when the drain's own time is over.
const OVER: Duration = Duration::from_secs(5);

/// What a child makes at its start for the process that may follow it.
pub struct Prepared {
    /// httpd's parent process: when it is gone, so is the drain process.
    server: OwnedFd,
    /// Where descriptors 0 to 2 lead.
    nowhere: OwnedFd,
    /// Raised when a tunnel ends.
    ended: OwnedFd,
    /// Where records go.
    records: Option<RawFd>,
}

impl Prepared {
    /// Makes it.
    ///
    /// # Errors
    /// Descriptors cannot be had, or the kernel is older than 5.3 (pidfd_open).
    pub fn new() -> io::Result<Self> {
        let nowhere = match std::fs::OpenOptions::new().read(true).write(true).open("/dev/null") {
            Ok(null) => null.into(),
            // In a chroot.
            Err(_) => process::event()?,
        };
        Ok(Self {
            server: process::watch(process::parent())?,
            nowhere,
            ended: process::event()?,
            records: shared().and_then(|shared| shared.records()).map(|[_, write]| write),
        })
    }
}

/// This process, if it is a drain process.
static DRAIN: OnceCell<Drain> = OnceCell::new();

struct Drain {
    ended: RawFd,
    records: Option<RawFd>,
}

/// Whether this is a drain process.
pub fn is_here() -> bool {
    DRAIN.get().is_some()
}

/// A tunnel ended. `false` unless this is a drain process: then its line goes to
/// a child that logs it.
pub fn ended(line: &dyn std::fmt::Display) -> bool {
    let Some(drain) = DRAIN.get() else { return false };
    say(&line.to_string());
    process::raise(drain.ended);
    true
}

/// Has a child log a line. A pipe that is full loses it.
fn say(line: &str) {
    if let Some(records) = DRAIN.get().and_then(|drain| drain.records) {
        process::send_line(records, line.to_owned());
    }
}

/// How tunnels are to go on.
#[derive(Clone, Copy)]
pub struct Terms {
    /// For each relay thread.
    pub buffer_size: usize,
    /// WSForwardDrainTimeout; `None` is until they end.
    pub timeout: Option<Duration>,
    /// WSForwardMaxDrainProcesses.
    pub max_processes: usize,
}

/// Forks the process in which `tunnels` go on. In the old process, which must
/// not touch them again. Returns how many older drain processes must end for it.
///
/// # Errors
/// The tunnels, if there is no process for them.
pub fn hand_on(
    prepared: &Prepared,
    slot: &'static Slot,
    terms: Terms,
    tunnels: Vec<Tunnel>,
) -> Result<usize, (io::Error, Vec<Tunnel>)> {
    let (mut tunnels, claim) = collector::leave(slot, tunnels);
    if tunnels.is_empty() && claim.is_none() {
        return Ok(0);
    }
    let evicted = make_room(terms.max_processes);
    let sockets: Vec<RawFd> =
        tunnels.iter().flat_map(|tunnel| tunnel.descriptors().map(|fd| fd.as_raw_fd())).collect();
    let mut keep: Vec<RawFd> = sockets
        .iter()
        .copied()
        .chain([prepared.server.as_raw_fd(), prepared.ended.as_raw_fd()])
        .chain(prepared.records)
        .chain(claim.as_ref().map(|claim| claim.queue))
        .collect();
    // Room for 0 to 2.
    keep.reserve(3);
    match process::fork() {
        Ok(None) => {
            // What others know a drain process by.
            process::set_name(process::DRAIN_NAME);
            process::end_in(HANG);
            process::close_all_but(&mut keep, &prepared.nowhere);
            drop(keep);
            run(prepared, slot, terms, tunnels, claim);
            process::exit_now()
        }
        Ok(Some(pid)) => {
            let now = SystemTime::now().duration_since(UNIX_EPOCH);
            slot.become_drain(pid, now.map_or(0, |now| now.as_micros() as u64));
            if let Some(claim) = claim {
                claim.pass_to(pid);
            }
            // Copies, whose sessions are the other process's now. The sockets are
            // closed, so that it is alone with them: this process may yet take its
            // time to exit.
            std::mem::forget(tunnels);
            sockets.into_iter().for_each(process::close);
            Ok(evicted)
        }
        Err(error) => {
            if let Some(claim) = claim {
                let came = collector::received(claim.give_up(), slot);
                tunnels.extend(came.filter_map(|one| match one {
                    Received::Tunnel(tunnel) => Some(tunnel),
                    Received::Lost(_) => None,
                }));
            }
            Err((error, tunnels))
        }
    }
}

/// Ends the oldest drain processes until there is room for one more, and says how
/// many.
fn make_room(max_processes: usize) -> usize {
    let Some(shared) = shared() else { return 0 };
    // The one that collects has the youngest too.
    let collector = collector::pid(shared);
    let mut drains: Vec<(bool, u64, u32)> = shared
        .processes()
        .filter(|slot| slot.kind() == Kind::Drain)
        .map(|slot| (slot.pid() == collector, slot.since(), slot.pid()))
        .collect();
    drains.sort_unstable();
    let surplus = (drains.len() + 1).saturating_sub(max_processes.max(1));
    drains.truncate(surplus);
    drains.iter().for_each(|(.., pid)| process::terminate(*pid));
    drains.len()
}

/// The life of a drain process.
fn run(
    prepared: &Prepared,
    slot: &'static Slot,
    terms: Terms,
    tunnels: Vec<Tunnel>,
    claim: Option<Claim>,
) {
    let ended = prepared.ended.as_raw_fd();
    // Before anything that might have something to say.
    let _ = DRAIN.set(Drain { ended, records: prepared.records });
    let Ok(term) = process::own_signals() else { return };
    let settings =
        RelaySettings { threads: 1, buffer_size: terms.buffer_size, ..RelaySettings::default() };
    let Ok(relay) = Relay::start(&settings, &slot.counts.relay) else { return };
    for tunnel in tunnels {
        adopt(&relay, tunnel);
    }
    let mut collecting = claim.map(|claim| Collecting::start(claim, terms.timeout));
    process::trim_memory();
    // SAFETY: this process calls nothing of httpd, which is who used them.
    let mut title = unsafe { Title::find() };
    let over = terms.timeout.map(|timeout| Instant::now() + timeout);
    let mut shown = String::new();
    loop {
        process::end_in(HANG);
        collecting = collecting.and_then(|collecting| collecting.go_on(&relay, slot));
        let open = relay.open();
        if open == 0 || relay.alive() == 0 {
            // Unless a child has just left one.
            let Some(collecting) = collecting.take() else { break };
            collecting.end(&relay, slot);
            continue;
        }
        if let Some(title) = &mut title {
            let text = format!("mod_wsforward: {open} tunnels of a child that is gone");
            if shown != text {
                title.set(&text);
                shown = text;
            }
        }
        let left = |until: Instant| until.saturating_duration_since(Instant::now());
        let until = collecting.as_ref().and_then(|collecting| collecting.until).or(over);
        let round = until.map_or(ROUND, |until| {
            i32::try_from(left(until).as_millis()).unwrap_or(ROUND).clamp(1, ROUND)
        });
        let server = prepared.server.as_raw_fd();
        let queue = collecting.as_ref().map_or(-1, |collecting| collecting.claim.queue);
        let [stop, server_gone, one_ended, _] =
            process::wait([term.as_raw_fd(), server, ended, queue], round);
        if one_ended {
            process::swallow(ended);
        }
        let stop = stop || server_gone;
        if stop || over.is_some_and(|over| left(over).is_zero()) {
            if let Some(collecting) = collecting {
                collecting.end(&relay, slot);
            }
            let (order, within) =
                if stop { (Order::Stop, STOP) } else { (Order::DrainTimeout, OVER) };
            relay.end_all(order, Some(GOING_AWAY), within);
            break;
        }
    }
    slot.release();
}

fn adopt(relay: &Relay, tunnel: Tunnel) {
    if let Err(tunnel) = relay.adopt(tunnel) {
        tunnel.end(relay::By::Us, relay::Why::ThreadDied);
    }
}

/// A drain process that takes in the tunnels of other children.
struct Collecting {
    claim: Claim,
    /// No longer than this: all its tunnels end at one time, and none much too early.
    until: Option<Instant>,
    /// No more than so many.
    most: usize,
}

impl Collecting {
    fn start(mut claim: Claim, timeout: Option<Duration>) -> Self {
        claim.take_over();
        let until = timeout.map(|timeout| Instant::now() + timeout / 8);
        Self { claim, until, most: collector::most() }
    }

    /// Takes what came. `None` if the time for it is over.
    fn go_on(self, relay: &Relay, slot: &Slot) -> Option<Self> {
        if !self.claim.is_held() {
            return None;
        }
        if relay.open() >= self.most || self.until.is_some_and(|until| until <= Instant::now()) {
            self.end(relay, slot);
            return None;
        }
        take_in(self.claim.queue, relay, slot);
        Some(self)
    }

    fn end(self, relay: &Relay, slot: &Slot) {
        take_in(self.claim.give_up(), relay, slot);
    }
}

fn take_in(queue: RawFd, relay: &Relay, slot: &Slot) {
    for one in collector::received(queue, slot) {
        match one {
            Received::Tunnel(tunnel) => adopt(relay, tunnel),
            Received::Lost(why) => say(&format!("a tunnel of another child is lost: {why}")),
        }
    }
}

/// The server stops, or restarts without grace: tells every drain process, and
/// waits for them, at most a second. In the parent, which has no children now, and
/// logs for them.
pub fn end_all(server: Server) {
    // With what is logged meanwhile no more than the second.
    const PATIENCE: Duration = Duration::from_millis(900);
    let Some(shared) = shared() else { return };
    let drains: Vec<u32> =
        shared.processes().filter(|slot| slot.kind() == Kind::Drain).map(Slot::pid).collect();
    if drains.is_empty() {
        return;
    }
    let watched: Vec<OwnedFd> =
        drains.iter().filter_map(|pid| process::watch(i32::try_from(*pid).ok()?).ok()).collect();
    drains.iter().copied().for_each(process::terminate);
    let until = Instant::now() + PATIENCE;
    let lines = shared.records().map_or(-1, |[read, _]| read);
    let mut buffer = Vec::new();
    for drain in watched {
        loop {
            let left = until.saturating_duration_since(Instant::now()).as_millis();
            let left = i32::try_from(left).unwrap_or(0);
            let [ended, said] = process::wait([drain.as_raw_fd(), lines], left);
            if said {
                log_lines(lines, server, &mut buffer);
            }
            if ended || left == 0 {
                break;
            }
        }
    }
    log_lines(lines, server, &mut buffer);
}
