//! One child process: its relay, from the first request to the process's end.

use std::fmt;
use std::io;
use std::os::fd::AsFd;
use std::sync::atomic::AtomicU32;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use messages::{
    Automatic, Evicted, HttpdTooOldForRelay, Level, NoDrain, NoNativeTls, NoProcess, NoRelay,
    NoRelayLeft, ProcessGone,
};
use once_cell::sync::OnceCell;
use os::descriptors::{self, SELECTABLE};
use os::mark::Mark;
use os::{poll, sigterm, stop};
use relay::{DESCRIPTORS_OF_PIPES, Ending, Order, Relay, Settings as RelaySettings, Tunnel, Why};
use shared::Slot;

use crate::config::{self, Settings};
use crate::ffi::ending::ChildExit;
use crate::ffi::log::Server;
use crate::ffi::server::{Process, Version, is_threaded, version, worker_threads};
use crate::ffi::tls;
use crate::processes::drain;
use crate::processes::drain_process::{Prepared, Terms};
use crate::processes::errorlog::ErrorLog;
use crate::processes::keeper::Keeper;
use crate::processes::line_kind::Kind;
use crate::processes::plan::Plan;
use crate::processes::record::TunnelRecord;
use crate::processes::{
    access, alarm, collecting, lines, logger, memory, orders, own_slot, parent, registry,
};

/// What a child has. Set once, by [`start`]; empty in the parent.
static CHILD: OnceCell<Child> = OnceCell::new();

struct Child {
    /// A process that is forked from the child (mpm_itk's) has none of its threads.
    mark: Mark,
    /// Whether its MPM is event or worker.
    is_threaded: bool,
    settings: Settings,
    /// For how long a side may leave a message of TLS's own incomplete.
    message_timeout: Duration,
    server: Server<'static>,
    relay: Option<Relay>,
    slot: &'static Slot,
    /// What a drain process will need.
    prepared: io::Result<Prepared>,
    keeper: Option<Keeper>,
}

/// Before it mod_proxy_http takes the end of its loop for the request's status, 500, which
/// balancers may hold against the back end.
const OLDEST_FOR_RELAY: Version = Version { major: 2, minor: 4, patch: 52 };

/// Descriptors that stay for httpd at least: listeners, logs, files, connections.
const RESERVE: u64 = 256;
/// Those that a worker thread may need: an event child has up to three connections for
/// each, and each may have one to a back end.
const RESERVE_FOR_THREAD: u64 = 4;

/// How many tunnels a process may have whose limit of descriptors is `limit`.
fn capacity(limit: u64, worker_threads: u64, relay_threads: u64) -> u64 {
    let selectable = u64::try_from(SELECTABLE).unwrap_or(0);
    let httpd = RESERVE.max(RESERVE_FOR_THREAD * worker_threads + RESERVE / 2);
    // Low numbers stay free where there are enough others.
    let httpd = if limit > 4 * selectable { httpd.max(selectable) } else { httpd };
    let pipes = DESCRIPTORS_OF_PIPES as u64 * relay_threads;
    // A small limit is shared half and half.
    (limit - (httpd + pipes).min(limit / 2)) / 2
}

/// The child has started. A relay is started if any section of the configuration
/// turns one on; its threads block all signals. Lines are read for tunnels of other processes too,
/// which a configuration without a relay may have been left with.
pub(crate) fn start(process: Process<'_>) {
    let settings = config::settings();
    let server = process.main_server();
    logger::install(&process);
    memory::tell_gone(&process, found_gone);
    let slot = own_slot::claim(&process);
    let uses_relay = config::uses_relay();
    let say_why = |error: &io::Error| server.say(&NoRelay { why: error });
    let has_logs = (uses_relay || are_tunnels_left())
        && start_logs(&process, settings.threads).inspect_err(say_why).is_ok();
    if !has_logs {
        lines::install_in_child(&process, None);
    }
    // As for one that comes before the tunnel leaves its worker thread.
    let message_timeout = process.timeout().unwrap_or(RelaySettings::default().message_timeout);
    let relay = if uses_relay && has_logs {
        start_relay(&settings, message_timeout, slot).inspect_err(say_why).ok()
    } else {
        None
    };
    if relay.is_none() {
        // Some may have been promised.
        slot.capacity.store(0, Relaxed);
    }
    let prepared = match relay {
        Some(_) => failpoint::check!("child.prepare").and_then(|()| Prepared::new()),
        None => Err(io::ErrorKind::Unsupported.into()),
    };
    if let Some(why) =
        config::uses_native_tls().then(|| tls::why_not_native_here(&process)).flatten()
    {
        server.say(&NoNativeTls { why: &why });
    }
    if let (Some(_), Err(error)) = (&relay, &prepared) {
        server.say(&NoDrain { error });
    }
    let keeper = has_logs.then(|| {
        let follow = |anew| follow_plan(anew);
        Keeper::start(end_tunnels, drain::tell_all, is_stop_watched, follow).ok()
    });
    let keeper = keeper.flatten();
    let mark = Mark::leave();
    let is_threaded = is_threaded();
    let child = Child {
        mark,
        is_threaded,
        settings,
        message_timeout,
        server,
        relay,
        slot,
        prepared,
        keeper,
    };
    // A child starts once.
    let _ = CHILD.set(child);
    watch_orders();
    let early = std::mem::take(&mut *EARLY.lock().unwrap_or_else(PoisonError::into_inner));
    early.into_iter().for_each(|(pid, tunnels)| found_gone(pid, tunnels));
    collect_left();
}

/// What was found gone while this child was starting.
static EARLY: Mutex<Vec<(u32, usize)>> = Mutex::new(Vec::new());

/// A process is gone that did not end its tunnels.
fn found_gone(pid: u32, tunnels: usize) {
    if CHILD.get().is_none() {
        EARLY.lock().unwrap_or_else(PoisonError::into_inner).push((pid, tunnels));
        return;
    }
    if tunnels > 0 {
        lines::say(Kind::Gone, &ProcessGone { pid: &pid, tunnels: &tunnels });
    }
    collect_left();
}

/// Takes in tunnels that are on their way to a process that is gone: nobody else would, before another
/// child ends. Without a relay in any child they are lost: nobody would ever carry them.
fn collect_left() {
    let Some((child, shared)) = here().zip(memory::shared()) else { return };
    if shared.is_collected() || (!has_relay() && shared.slots().any(Slot::takes_tunnels)) {
        return;
    }
    let Some([queue, _]) = memory::queue() else { return };
    for mut tunnel in collecting::arrived(queue, child.slot) {
        if has_relay() {
            adopt(tunnel, &mut || {});
        } else if let Some(record) = tunnel.record::<TunnelRecord>() {
            record.lost(&NoRelayLeft);
        }
    }
}

/// Has the tunnels of this process look at what they are ordered.
pub(crate) fn watch_orders() {
    /// The process that has the thread for it: one that was forked from it (mpm_itk's) has not.
    static WATCHING: AtomicU32 = AtomicU32::new(0);
    let Some(child) = CHILD.get() else { return };
    let (slot, pid) = (child.slot, std::process::id());
    // Those in threads look only where it is known from their beginning.
    if !child.settings.actions {
        slot.make_deaf(false);
    }
    // Relayed ones may be closed by a configuration that comes.
    let is_needed = child.settings.actions || child.relay.is_some();
    if !is_needed || WATCHING.swap(pid, Relaxed) == pid {
        return;
    }
    let mut told = orders::Told::default();
    let relay = move || relay().filter(|_| child.mark.pid() == pid);
    if orders::watch(slot, move || told.look(slot, relay())).is_err() {
        slot.make_deaf(false);
        slot.make_deaf(true);
    }
}

/// Whether other processes have tunnels, or may get some: those of a configuration before this one.
fn are_tunnels_left() -> bool {
    // In this order: a child takes a place for its drain process before that has its slot.
    memory::shared().is_some_and(|shared| shared.slots().any(Slot::takes_tunnels))
        || registry::taken() > 0
}

/// Starts what writes the lines of tunnels: of the relay's, which does not wait for any log, and of those
/// in drain processes, which have none.
fn start_logs(process: &Process<'_>, relay_threads: usize) -> io::Result<()> {
    let lines = registry::lines().map(|[read, _]| read);
    let errorlog = ErrorLog::start(process.main_server(), lines, relay_threads)?;
    access::start_in_child(relay_threads).inspect_err(|_| errorlog.finish())?;
    lines::install_in_child(process, Some(errorlog));
    Ok(())
}

fn start_relay(
    settings: &Settings,
    message_timeout: Duration,
    slot: &'static Slot,
) -> io::Result<Relay> {
    if version() < OLDEST_FOR_RELAY {
        let why = HttpdTooOldForRelay { oldest: &OLDEST_FOR_RELAY, found: &version() };
        return Err(io::Error::other(why.to_string()));
    }
    failpoint::check!("child.relay")?;
    let limit = descriptors::raise_limit();
    let capacity = capacity(limit, worker_threads(), settings.threads as u64);
    slot.capacity.store(capacity, Relaxed);
    // A child without threads has few tunnels, and there are many of them.
    descriptors::make_room(if worker_threads() > 1 { capacity } else { 0 });
    Relay::start(
        &RelaySettings {
            threads: settings.threads,
            buffer_size: settings.buffer_size,
            lowest_descriptor: descriptors::lowest(),
            keep_alive: settings.keep_alive,
            message_timeout,
            ..RelaySettings::default()
        },
        &slot.counts.relay,
    )
}

/// The settings of the server that this process was started with.
pub(crate) fn settings() -> &'static Settings {
    CHILD.get().map_or(&config::DEFAULTS, |child| &child.settings)
}

/// Whether a relay thread is there to take a tunnel.
pub(crate) fn has_relay() -> bool {
    here().is_some() && relay().is_some_and(|relay| relay.alive() > 0)
}

fn relay() -> Option<&'static Relay> {
    CHILD.get()?.relay.as_ref()
}

/// Gives a tunnel to the relay. Calls `counted` as soon as it is counted there.
pub(crate) fn adopt(tunnel: Tunnel, counted: &mut dyn FnMut()) {
    let is_taken = failpoint::check!("handover.adopt").is_ok();
    let refused = match relay().filter(|_| is_taken) {
        Some(relay) => relay.adopt_counted(tunnel, counted),
        None => Err(tunnel),
    };
    if let Err(tunnel) = refused {
        own_slot::count_lost();
        tunnel.end(relay::By::Us, Why::ThreadDied);
    }
    watch_stop();
    // It came after the order to end all, or that comes yet.
    if let Some(keeper) = keeper() {
        if keeper.is_ending() {
            keeper.begin_end();
        } else if keeper.is_following() {
            keeper.follow_plan();
        }
    }
}

fn keeper() -> Option<&'static Keeper> {
    here()?.keeper.as_ref()
}

/// What this process has, if it is the child itself: one that is forked from it shares its
/// keeper's eventfd, and has none of its threads.
fn here() -> Option<&'static Child> {
    CHILD.get().filter(|child| child.mark.is_ours())
}

/// The MPM begins to end this child. If not gracefully, its tunnels end now: until its end comes,
/// workers may have to be killed. If the server stops gracefully, they end when all do: a worker may
/// have work until then.
pub(crate) fn stopping(graceful: bool) {
    let Some(keeper) = keeper() else { return };
    if !graceful {
        keeper.begin_end();
    } else if registry::stops_gracefully().is_some() {
        keeper.follow_plan();
    }
}

/// The server stops gracefully: ends tunnels by its plan, for all of them `anew`. Returns when it is
/// to be called next.
fn follow_plan(anew: bool) -> Option<Duration> {
    static PLAN: Mutex<Option<Plan>> = Mutex::new(None);
    let mut plan = PLAN.lock().unwrap_or_else(PoisonError::into_inner);
    let times = registry::stops_gracefully();
    // Without times httpd has forgotten that it was to stop.
    if anew || times.is_none() {
        *plan = times.map(Plan::of_server);
    }
    let plan = plan.as_mut()?;
    if let Some(how) = plan.begin(settings().close_code)
        && let Some(relay) = relay()
    {
        relay.begin_end(how);
    }
    plan.until_begin()
}

/// A connection of this child is beginning. Has the end of the server noticed, whatever its workers
/// do then.
pub(crate) fn watch_stop() {
    if let Some(Child { is_threaded: true, keeper: Some(keeper), .. }) = CHILD.get() {
        keeper.watch_stop();
    }
}

/// Whether nothing can come between this child and the order to stop any more.
fn is_stop_watched() -> bool {
    watch_stop();
    CHILD.get().is_some_and(|child| !child.is_threaded) || stop::is_chained()
}

/// How long tunnels go on in a child that ends and has no process to leave them to,
/// at the most.
const INLINE_TIME: Duration = Duration::from_secs(30);
/// How long their peers get to answer a Close then.
const CLOSE_WAIT: Duration = Duration::from_secs(1);
/// The same when the server stops.
const STOP_CLOSE_WAIT: Duration = Duration::from_millis(200);

/// The child ends. Its tunnels go on in a drain process, or end in an orderly
/// way if the server stops.
pub(crate) fn stop(how: ChildExit) {
    let Some(child) = here() else { return };
    let is_graceful = match how {
        ChildExit::Graceful => true,
        ChildExit::AtOnce => false,
        ChildExit::InHandler(handler) => {
            // If a tunnel does not end, the slot is given back when the process is found dead.
            if let Some(keeper) = &child.keeper {
                keeper.end_tunnels(&handler);
            }
            return;
        }
    };
    stop::leave();
    alarm::finish();
    if let Some(keeper) = &child.keeper {
        keeper.stop();
    }
    if let Some(relay) = &child.relay {
        if relay.open() > 0 {
            // When the server stops too: the parent waits for its children in steps
            // that grow to a second, but for drain processes as long as they need.
            drain(child, relay, is_graceful);
        } else {
            drop(relay.stop());
        }
    }
    // After the fork, so that no tunnel waits for the logs.
    access::finish();
    lines::finish();
    failpoint::step!("child.end");
    // Does nothing if the slot is a drain process's by now.
    memory::release(child.slot);
}

/// Ends all tunnels because the server stops. If the process `ends_here`, what is to be logged of
/// them is logged now.
fn end_tunnels(ends_here: bool) {
    let how = Ending::at_once(Order::Stop, Some(settings().close_code), STOP_CLOSE_WAIT);
    let left = relay().map_or(0, |relay| relay.end_all(how));
    if ends_here {
        access::finish();
        lines::finish();
        // The worker will not go on. Was it about to hand a tunnel over, that ends with it: whoever finds
        // this process dead is not to take it for one that crashed.
        if let Some(child) = CHILD.get().filter(|_| left == 0) {
            memory::release(child.slot);
        }
    }
}

fn drain(child: &'static Child, relay: &Relay, is_graceful: bool) {
    failpoint::step!("drain.stop");
    let settings = &child.settings;
    let stops = !is_graceful;
    let terms = Terms {
        buffer_size: settings.buffer_size,
        keep_alive: settings.keep_alive,
        message_timeout: child.message_timeout,
        timeout: settings.drain_timeout,
        // They all end now.
        max_processes: if stops {
            usize::MAX
        } else {
            settings.max_drain_processes.unwrap_or_else(parent::automatic)
        },
        close_spread: settings.close_spread,
        close_code: settings.close_code,
        ends_are_logged: child.server.is_logged(Level::Info),
    };
    let handed_on = match &child.prepared {
        Ok(prepared) => drain::hand_on(prepared, child.slot, terms, relay.stop()),
        Err(error) => Err((io::Error::other(error.to_string()), relay.stop())),
    };
    let (error, tunnels) = match handed_on {
        Ok(0) => return,
        Ok(evicted) => {
            let number = &terms.max_processes;
            let most: &dyn fmt::Display = match settings.max_drain_processes {
                None => &Automatic { number },
                Some(_) => number,
            };
            lines::log(&Evicted { most, evicted: &evicted });
            return;
        }
        Err(left) => left,
    };
    let relay_settings = RelaySettings {
        buffer_size: settings.buffer_size,
        keep_alive: settings.keep_alive,
        ..RelaySettings::default()
    };
    let counters = &child.slot.counts.relay;
    // Where no process is to be had no thread may be.
    let end = |tunnels, is_time: &mut dyn FnMut() -> bool, order, within| {
        let how = Ending::at_once(order, Some(settings.close_code), within);
        relay::end_inline(&relay_settings, counters, tunnels, is_time, how);
    };
    if stops {
        return end(tunnels, &mut || true, Order::Stop, STOP_CLOSE_WAIT);
    }
    let count = tunnels.len();
    let within = settings.drain_timeout.map_or(INLINE_TIME, |timeout| timeout.min(INLINE_TIME));
    let text = format_args!("{within:?}");
    lines::log(&NoProcess { count: &count, within: &text, error: &error });
    let until = Instant::now() + within;
    // A stop is not to wait for them.
    let stopped = sigterm().ok();
    let is_stopped = || stopped.as_ref().is_some_and(|stopped| poll::is_readable(stopped.as_fd()));
    end(tunnels, &mut || until <= Instant::now() || is_stopped(), Order::DrainTimeout, CLOSE_WAIT);
}
