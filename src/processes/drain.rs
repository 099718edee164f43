//! The end of a child: its tunnels go on in a process forked for them, outside
//! of httpd's scoreboard, while the child exits at once.
//!
//! The forked process begins with one thread and must not rely on anything that another
//! thread may have held at the fork: it never calls httpd, APR or a log, runs no
//! cleanup of a pool, and leaves by `_exit`. Then it has the relay's thread as well,
//! which does all the work; the first one watches.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::{Duration, Instant};

use messages::{NoThread, NotCounted, OthersTunnelLost};
use os::forked::{Fork, Forked, Left, end_unless_alive, fork_drain};
use os::line_pipe::Reader;
use os::signal_safe::EventFd;
use os::{poll, process, room};
use relay::{GOING_AWAY, KeepAlive, Order, Relay, Settings as RelaySettings, Tunnel};
use shared::{Place, Shared, Slot};

use crate::ffi::log::Server;
use crate::ffi::role::Parent;
use crate::ffi::server::most_children;
use crate::processes::collector::{self, Claim, Received};
use crate::processes::line_kind::{self, Kind};
use crate::processes::memory::{self, shared};
use crate::processes::registry::{self, Drain};
use crate::processes::{lines, record};

/// A drain process whose relay hangs ends after once or twice this many seconds.
const HANG: u32 = 30;
/// How often it looks around although nothing happens.
const ROUND: Duration = Duration::from_secs(10);
/// How long the child waits until it can be found, at the most.
const FIND: Duration = Duration::from_secs(1);
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
    /// Set when a tunnel ends.
    ended: EventFd,
    /// Set once it can be found.
    found: EventFd,
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
            Err(_) => EventFd::new()?.into(),
        };
        let server = process::watch_parent()?;
        Ok(Self { server, nowhere, ended: EventFd::new()?, found: EventFd::new()? })
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
    prepared: &'static Prepared,
    slot: &'static Slot,
    terms: Terms,
    tunnels: Vec<Tunnel>,
) -> Result<usize, (io::Error, Vec<Tunnel>)> {
    let (mut tunnels, claim) = collector::leave(slot, tunnels);
    if tunnels.is_empty() && claim.is_none() {
        return Ok(0);
    }
    let place = registry::claim();
    let child = std::process::id();
    // One that nobody finds would outlive a restart.
    let forked = match place {
        None if registry::is_there() => Err(io::Error::other("there are as many as can be")),
        // SAFETY: the new process calls nothing of httpd, and takes no lock that its child had: it
        // has the tunnels, what was prepared for it, and its place in shared memory.
        _ => unsafe { fork_drain() },
    };
    match forked {
        Ok(Fork::Child(forked)) => forked.run(|forked| {
            end_unless_alive(HANG);
            let Prepared { server, nowhere, ended, found } = prepared;
            let own = [server.as_fd(), ended.as_fd(), found.as_fd()].into_iter();
            let sockets = tunnels.iter().flat_map(Tunnel::descriptors);
            let write = registry::lines().map(|[_, write]| write);
            let of_server = write.into_iter().chain(registry::lock_file());
            let queue = claim.as_ref().map(|claim| claim.queue);
            let keep = own.chain(sockets).chain(of_server).chain(queue);
            // SAFETY: all that this process goes on with is kept. The rest is the child's, which
            // lives on in statics that are not used here.
            unsafe { forked.close_all_but(keep, nowhere.as_fd()) };
            // Before anything that might have something to say.
            lines::install_in_drain_process(terms.ends_are_logged);
            record::signal_ends(ended);
            let here = Here::take(slot, place, child);
            found.signal();
            run(forked, prepared, &here, terms, tunnels, claim);
            lines::finish();
            here.leave();
        }),
        Ok(Fork::Parent(pid)) => {
            slot.become_drain(child, pid);
            if let Some(place) = place {
                place.pass(child, pid);
            }
            if let Some(claim) = claim {
                claim.pass_to(pid);
            }
            // This process may yet take its time to exit.
            tunnels.into_iter().for_each(Tunnel::leave_to_fork);
            // The server may stop as soon as this process is gone, and the next look is to count it.
            prepared.found.wait(FIND);
            Ok(make_room(terms.max_processes))
        }
        Err(error) => {
            if let Some(place) = place {
                registry::release(place, child);
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
    if registry::taken() <= most {
        return Vec::new();
    }
    let mut drains = registry::drains();
    let surplus = drains.len().saturating_sub(most);
    // The one that collects has the youngest too.
    let collector = shared().map_or(0, Shared::collector);
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
    place: Option<Place<'static>>,
}

impl Here {
    /// Takes over what `child` had. A slot that was given to somebody else meanwhile, because the
    /// child ended before it could say whose it is, is not ours.
    fn take(slot: &'static Slot, place: Option<Place<'static>>, child: u32) -> Self {
        /// Nobody looks at it.
        static UNSEEN: Slot = Slot::new();
        let pid = std::process::id();
        slot.become_drain(child, pid);
        if let Some(place) = place {
            place.pass(child, pid);
            if let Err(error) = registry::hold(place) {
                lines::say(Kind::NoProcess, &NotCounted { error: &error });
            }
        }
        let is_ours = !slot.is_shared() || slot.pid() == pid;
        Self { slot: if is_ours { slot } else { &UNSEEN }, place }
    }

    fn leave(&self) {
        memory::release(self.slot);
        if let Some(place) = self.place {
            registry::release(place, std::process::id());
        }
    }
}

/// The life of a drain process.
fn run(
    forked: Forked,
    prepared: &'static Prepared,
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
    let started =
        forked.leave().and_then(|left| Ok((left, Relay::start(&settings, &slot.counts.relay)?)));
    let (Left { term, mut title }, relay) = match started {
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
    let over = terms.timeout.map(|timeout| Instant::now() + timeout);
    let mut shown = String::new();
    let own = std::process::id();
    let mut is_surplus = surplus(terms.max_processes).iter().any(|drain| drain.pid == own);
    loop {
        if relay.is_responsive() {
            end_unless_alive(HANG);
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
        let round = until.map_or(ROUND, |until| left(until).min(ROUND));
        let queue = collecting.as_ref().map(|collecting| collecting.claim.queue);
        let [stop, server_gone, one_ended, _] = if is_surplus {
            [true, false, false, false]
        } else {
            let Prepared { server, ended, .. } = prepared;
            let watched = [Some(term.as_fd()), Some(server.as_fd()), Some(ended.as_fd()), queue];
            poll::wait(watched, Some(round))
        };
        is_surplus = false;
        if one_ended {
            prepared.ended.clear();
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

fn take_in(queue: BorrowedFd<'_>, relay: &Relay, slot: &Slot) {
    arrived(queue, slot).for_each(|tunnel| adopt(relay, tunnel));
}

/// The tunnels that came through the queue. Those that are lost are said to be.
fn arrived(queue: BorrowedFd<'_>, slot: &Slot) -> impl Iterator<Item = Tunnel> {
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
    registry::drains().into_iter().for_each(Drain::terminate);
}

/// The server stops, or restarts without grace: tells every drain process, and
/// waits for them, at most a second. The parent has no children now, and logs for them.
pub fn end_all(_: &Parent, server: Server<'_>) {
    // With what is logged meanwhile no more than the second.
    const PATIENCE: Duration = Duration::from_millis(900);
    /// After this long they are told again: one that was just being forked may not have been found.
    const ROUND: Duration = Duration::from_millis(50);
    let pipe = registry::lines().map(|[read, _]| read);
    let until = Instant::now() + PATIENCE;
    let mut reader = pipe.and_then(|pipe| Reader::new(pipe).ok());
    let mut log = || {
        let Some(reader) = &mut reader else { return };
        line_kind::read_lines(reader.receive(), |level, id, text| {
            server.log(level, id, &text);
        });
    };
    loop {
        let drains = registry::drains();
        let Some(first) = drains.first() else { break };
        drains.iter().copied().for_each(Drain::terminate);
        let ended = process::watch(first.pid).ok();
        let [_, said] = poll::wait([ended.as_ref().map(OwnedFd::as_fd), pipe], Some(ROUND));
        if said {
            log();
        }
        if until <= Instant::now() {
            break;
        }
    }
    log();
}
