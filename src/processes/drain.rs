//! The end of a child: its tunnels go on in a process forked for them, outside
//! of httpd's scoreboard, while the child exits at once.
//!
//! The forked process begins with one thread and must not rely on anything that another
//! thread may have held at the fork: it never calls httpd, APR or a log, runs no
//! cleanup of a pool, and leaves by `_exit`. Then it has the relay's thread as well,
//! which does all the work; the first one watches.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::{Duration, Instant};

use messages::{NoThread, NotCounted, OthersTunnelLost};
use os::process::{self, Title};
use os::room;
use relay::{GOING_AWAY, KeepAlive, Order, Relay, Settings as RelaySettings, Tunnel};

use crate::ffi::log::Server;
use crate::ffi::role::Parent;
use crate::ffi::server::most_children;
use crate::processes::collector::{self, Claim, Received};
use crate::processes::line_kind::{self, Kind};
use crate::processes::{lines, record};
use crate::registry::{self, Drain, Entry, Registry, registry};
use crate::shared::{Slot, shared};

/// A drain process whose relay hangs ends after once or twice this many seconds.
const HANG: u32 = 30;
/// How often it looks around although nothing happens, in milliseconds.
const ROUND: i32 = 10_000;
/// How long the child waits until it can be found, at the most, in milliseconds.
const FIND: i32 = 1000;
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
    /// Raised once it can be found.
    found: OwnedFd,
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
        let server = process::watch(process::parent())?;
        Ok(Self { server, nowhere, ended: process::event()?, found: process::event()? })
    }
}

/// How tunnels are to go on.
#[derive(Clone, Copy)]
pub struct Terms {
    /// For each relay thread.
    pub buffer_size: usize,
    /// WSForwardKeepAlive.
    pub keep_alive: Option<KeepAlive>,
    /// WSForwardDrainTimeout; `None` is until they end.
    pub timeout: Option<Duration>,
    /// WSForwardMaxDrainProcesses.
    pub max_processes: usize,
    /// Whether lines about usual ends are logged.
    pub ends_are_logged: bool,
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
    let sockets: Vec<RawFd> =
        tunnels.iter().flat_map(|tunnel| tunnel.descriptors().map(|fd| fd.as_raw_fd())).collect();
    let mut keep: Vec<RawFd> = sockets
        .iter()
        .copied()
        .chain([&prepared.server, &prepared.ended, &prepared.found].map(AsRawFd::as_raw_fd))
        .chain(registry::lines().map(|[_, write]| write))
        .chain(registry::lock_file())
        .chain(claim.as_ref().map(|claim| claim.queue))
        .collect();
    // Room for 0 to 2.
    keep.reserve(3);
    let entry = registry().and_then(Registry::claim);
    let child = std::process::id();
    // One that nobody finds would outlive a restart.
    let forked = match (registry(), entry) {
        (Some(_), None) => Err(io::Error::other("there are as many as can be")),
        _ => process::fork_drain(),
    };
    match forked {
        Ok(None) => process::never_back(|| {
            process::end_unless_alive(HANG);
            process::close_all_but(&mut keep, &prepared.nowhere);
            drop(keep);
            // Before anything that might have something to say.
            lines::install_in_drain_process(terms.ends_are_logged);
            record::signal_ends(prepared.ended.as_raw_fd());
            let here = Here::take(slot, entry, child);
            process::raise(prepared.found.as_raw_fd());
            run(prepared, &here, terms, tunnels, claim);
            lines::finish();
            here.leave();
        }),
        Ok(Some(pid)) => {
            slot.become_drain(child, pid);
            if let Some(entry) = entry {
                entry.pass(child, pid);
            }
            if let Some(claim) = claim {
                claim.pass_to(pid);
            }
            // Copies, whose sessions are the other process's now. The sockets are
            // closed, so that it is alone with them: this process may yet take its
            // time to exit.
            std::mem::forget(tunnels);
            sockets.into_iter().for_each(process::close);
            // The server may stop as soon as this process is gone, and the next look is to count it.
            process::wait([prepared.found.as_raw_fd()], FIND);
            Ok(make_room(terms.max_processes))
        }
        Err(error) => {
            if let Some(entry) = entry {
                entry.release(child);
            }
            tunnels.extend(claim.into_iter().flat_map(|claim| arrived(claim.give_up(), slot)));
            Err((error, tunnels))
        }
    }
}

/// What WSForwardMaxDrainProcesses stands for without a number. Written by [`measure`].
static AUTOMATIC: AtomicUsize = AtomicUsize::new(1);

/// Finds out how many drain processes there may be where the configuration does not say.
pub fn measure(_: &Parent) {
    let most = room::processes(most_children(), registry::MOST as u64);
    AUTOMATIC.store(usize::try_from(most).unwrap_or(registry::MOST), Relaxed);
}

/// The same, once it was found out.
pub fn automatic() -> usize {
    AUTOMATIC.load(Relaxed)
}

/// Those drain processes that are more than may be, the oldest of them.
fn surplus(max_processes: usize) -> Vec<Drain> {
    let most = max_processes.max(1);
    let Some(registry) = registry().filter(|registry| registry.taken() > most) else {
        return Vec::new();
    };
    let mut drains = registry.drains();
    let surplus = drains.len().saturating_sub(most);
    // The one that collects has the youngest too.
    let collector = shared().map_or(0, collector::pid);
    drains.sort_by_key(|drain| drain.pid == collector);
    drains.truncate(surplus);
    drains
}

/// Ends the oldest drain processes if there are too many, and says how many. Children that end
/// together may not see each other here: each process looks for itself too, when it begins.
fn make_room(max_processes: usize) -> usize {
    let surplus = surplus(max_processes);
    surplus.iter().copied().for_each(Drain::terminate);
    surplus.len()
}

/// Where a drain process is counted.
struct Here {
    slot: &'static Slot,
    entry: Option<&'static Entry>,
}

impl Here {
    /// Takes over what `child` had. A slot that was given to somebody else meanwhile, because the
    /// child ended before it could say whose it is, is not ours.
    fn take(slot: &'static Slot, entry: Option<&'static Entry>, child: u32) -> Self {
        /// Nobody looks at it.
        static UNSEEN: Slot = Slot::new();
        let pid = std::process::id();
        slot.become_drain(child, pid);
        if let Some(entry) = entry {
            entry.pass(child, pid);
            let held = registry().map(|registry| registry.hold(entry));
            if let Some(Err(error)) = held {
                lines::say(Kind::NoProcess, &NotCounted { error: &error });
            }
        }
        let is_ours = !slot.is_shared() || slot.pid() == pid;
        Self { slot: if is_ours { slot } else { &UNSEEN }, entry }
    }

    fn leave(&self) {
        self.slot.release();
        if let Some(entry) = self.entry {
            entry.release(std::process::id());
        }
    }
}

/// The life of a drain process.
fn run(
    prepared: &Prepared,
    here: &Here,
    terms: Terms,
    mut tunnels: Vec<Tunnel>,
    mut claim: Option<Claim>,
) {
    let slot = here.slot;
    if let Some(claim) = &mut claim {
        claim.take_over();
    }
    let settings = RelaySettings {
        threads: 1,
        buffer_size: terms.buffer_size,
        keep_alive: terms.keep_alive,
        ..RelaySettings::default()
    };
    let started = process::own_signals()
        .and_then(|term| Ok((term, Relay::start(&settings, &slot.counts.relay)?)));
    let (term, relay) = match started {
        Ok(started) => started,
        Err(error) => {
            // Nobody else empties the queue of one who is about to go.
            tunnels.extend(claim.into_iter().flat_map(|claim| arrived(claim.give_up(), slot)));
            let count = tunnels.len();
            lines::say(Kind::NoProcess, &NoThread { count: &count, error: &error });
            let how = (Order::DrainTimeout, Some(GOING_AWAY), OVER);
            let counters = &slot.counts.relay;
            return relay::end_inline(&settings, counters, tunnels, || true, how);
        }
    };
    for tunnel in tunnels {
        adopt(&relay, tunnel);
    }
    let mut collecting = claim.map(|claim| Collecting::start(claim, terms.timeout));
    process::trim_memory();
    // SAFETY: this process calls nothing of httpd, which is who used them.
    let mut title = unsafe { Title::find() };
    let over = terms.timeout.map(|timeout| Instant::now() + timeout);
    let mut shown = String::new();
    let ended = prepared.ended.as_raw_fd();
    let own = std::process::id();
    let mut is_surplus = surplus(terms.max_processes).iter().any(|drain| drain.pid == own);
    loop {
        if relay.is_responsive() {
            process::end_unless_alive(HANG);
        }
        collecting = collecting.and_then(|collecting| collecting.go_on(&relay, slot));
        let open = relay.open();
        if relay.alive() == 0 {
            // A thread that died still tells how its tunnels ended.
            drop(relay.stop());
        }
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
        let [stop, server_gone, one_ended, _] = if is_surplus {
            [true, false, false, false]
        } else {
            process::wait([term.as_raw_fd(), server, ended, queue], round)
        };
        is_surplus = false;
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
    fn start(claim: Claim, timeout: Option<Duration>) -> Self {
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
    arrived(queue, slot).for_each(|tunnel| adopt(relay, tunnel));
}

/// The tunnels that came through the queue. Those that are lost are said to be.
fn arrived(queue: RawFd, slot: &Slot) -> impl Iterator<Item = Tunnel> {
    collector::received(queue, slot).filter_map(|one| match one {
        Received::Tunnel(tunnel) => Some(tunnel),
        Received::Lost(why) => {
            lines::say(Kind::Lost, &OthersTunnelLost { why: &why });
            None
        }
    })
}

/// Tells every drain process to end.
pub fn tell_all() {
    registry().map(Registry::drains).into_iter().flatten().for_each(Drain::terminate);
}

/// The server stops, or restarts without grace: tells every drain process, and
/// waits for them, at most a second. The parent has no children now, and logs for them.
pub fn end_all(_: &Parent, server: Server<'_>) {
    // With what is logged meanwhile no more than the second.
    const PATIENCE: Duration = Duration::from_millis(900);
    /// After so many milliseconds they are told again: one that was just being forked may not
    /// have been found.
    const ROUND: i32 = 50;
    let Some(registry) = registry() else { return };
    let pipe = registry::lines().map_or(-1, |[read, _]| read);
    let until = Instant::now() + PATIENCE;
    let mut buffer = Vec::new();
    let mut log = || {
        line_kind::read_lines(pipe, &mut buffer, |level, id, text| {
            server.log(level, id, &text);
        });
    };
    loop {
        let drains = registry.drains();
        let Some(first) = drains.first() else { break };
        drains.iter().copied().for_each(Drain::terminate);
        let watched = i32::try_from(first.pid).map(process::watch);
        let ended = watched.as_ref().map_or(-1, |fd| fd.as_ref().map_or(-1, OwnedFd::as_raw_fd));
        let [_, said] = process::wait([ended, pipe], ROUND);
        if said {
            log();
        }
        if until <= Instant::now() {
            break;
        }
    }
    log();
}
