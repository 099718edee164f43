//! What httpd's parent does in a graceful stop: tunnels live within GracefulShutdownTimeout, and the
//! parent with them, since whatever it leaves behind ends with it. It may be root and has one thread:
//! nothing that a child can write makes it wait beyond its bounds, or trust.

use std::collections::HashSet;
use std::fmt;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use messages::{AskedToStop, StopOver, StopWaits, TimeIsOver, TunnelsForever, TunnelsUntil};
use os::{Notice, StopSignals, asked, process};
use shared::Times;

use crate::config;
use crate::ffi::ending::is_to_end_at_once;
use crate::ffi::log::Server;
use crate::ffi::role::Parent;
use crate::ffi::server::graceful_timeout;
use crate::processes::parent::Lines;
use crate::processes::registry;

/// GracefulShutdownTimeout, 0 if there is none, and WSForwardCloseSpread, in microseconds: as a signal
/// handler can read them. Written by [`watch`].
static TIMEOUT: AtomicU64 = AtomicU64::new(0);
static SPREAD: AtomicU64 = AtomicU64::new(0);

/// The drain processes that were told, by process id.
static TOLD: Mutex<Vec<u32>> = Mutex::new(Vec::new());

/// Of GracefulShutdownTimeout this much is left when the last tunnel is told, for its peers to answer
/// and its process to end; and no more than this part of it.
const REST: Duration = Duration::from_secs(1);
const REST_SHARE: u32 = 4;

/// How often the parent looks around although nothing happens.
const LOOK_AROUND: Duration = Duration::from_secs(10);
/// The same at first: a drain process that was just being forked may not have been found.
const FIRST_LOOK: Duration = Duration::from_millis(50);
/// How long drain processes may take beyond WSForwardDrainTimeout.
const BEYOND: Duration = Duration::from_secs(10);

fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

/// Has it noticed when a graceful stop is asked for.
pub(crate) fn watch(parent: &Parent) {
    TIMEOUT.store(graceful_timeout(parent).map_or(0, micros), Relaxed);
    SPREAD.store(micros(config::settings().close_spread), Relaxed);
    asked::watch(announce);
}

/// The stop is over.
pub(crate) fn forget(_: &Parent) {
    *TOLD.lock().unwrap_or_else(PoisonError::into_inner) = Vec::new();
}

/// Says to all processes when tunnels end, if they do. Takes no lock and no memory: this is called in
/// the handler of a signal.
fn announce(since: u64) {
    let timeout = TIMEOUT.load(Relaxed);
    if timeout > 0 {
        let rest = micros(REST).min(timeout / u64::from(REST_SHARE));
        let end = since.saturating_add(timeout - rest);
        let begin = end.saturating_sub(SPREAD.load(Relaxed)).max(since);
        registry::stop_gracefully(Times { begin, end });
    }
}

/// When the graceful stop began that goes on. Where the signal came while there was nobody to notice
/// it, that is now.
fn since() -> u64 {
    asked::to_stop_gracefully().unwrap_or_else(|| {
        let now = process::now();
        asked::note(now);
        now
    })
}

/// A child has ended in a graceful stop: drain processes are told of that.
pub(crate) fn tell(_: &Parent) {
    since();
    tell_drains();
}

/// Tells those that were not told yet, and returns the oldest that there is.
fn tell_drains() -> Option<registry::Drain> {
    let drains = registry::drains();
    if registry::stops_gracefully().is_some() {
        let mut told = TOLD.lock().unwrap_or_else(PoisonError::into_inner);
        let before: HashSet<u32> = told.iter().copied().collect();
        let new = drains.iter().filter(|drain| !before.contains(&drain.pid));
        // One that does not understand is told in the end.
        told.extend(new.filter(|drain| drain.tell(Notice::ServerEnds)).map(|drain| drain.pid));
    }
    drains.first().copied()
}

/// The children have ended. Waits for drain processes: until the last has ended, the time is over, or
/// the parent is asked to stop at once.
pub(crate) fn wait(parent: &Parent, server: Server<'_>) {
    // Those that come from now on are for the MPM, when this is over. Where they cannot be held back the
    // MPM takes note of them meanwhile.
    let asked = StopSignals::hold().ok();
    let count = registry::drains().len();
    if count == 0 || is_to_end_at_once(parent) {
        return;
    }
    let until = until(parent);
    let seconds = until.map(|until| until.saturating_duration_since(Instant::now()).as_secs());
    let at_most = seconds.as_ref().map(|seconds| TunnelsUntil { seconds });
    let at_most: &dyn fmt::Display = match &at_most {
        Some(at_most) => at_most,
        None => &TunnelsForever,
    };
    let mut lines = Lines::new(server);
    lines.say(&StopWaits { processes: &count, until: at_most });
    let mut look_around = FIRST_LOOK;
    while let Some(first) = tell_drains() {
        let ended = process::watch(first.pid).ok();
        let next_look = Instant::now() + look_around;
        look_around = LOOK_AROUND;
        loop {
            let now = Instant::now();
            if until.is_some_and(|until| until <= now) {
                lines.log();
                lines.say(&StopOver { why: &TimeIsOver });
                return;
            }
            if next_look <= now {
                break;
            }
            let left = until.into_iter().chain([next_look]).min().unwrap_or(now) - now;
            let fds = [ended.as_ref().map(OwnedFd::as_fd), asked.as_ref().map(StopSignals::as_fd)];
            let [has_ended, is_asked] = lines.wait(fds, left);
            if is_asked || asked.is_none() && is_to_end_at_once(parent) {
                lines.log();
                lines.say(&StopOver { why: &AskedToStop });
                return;
            }
            if has_ended {
                break;
            }
        }
    }
    // The last of them may have ended since.
    lines.log();
}

/// Until when tunnels may live.
fn until(parent: &Parent) -> Option<Instant> {
    let passed = Duration::from_micros(process::now().saturating_sub(since()));
    let left = |timeout: Duration| Instant::now() + timeout.saturating_sub(passed);
    match graceful_timeout(parent) {
        Some(timeout) => Some(left(timeout)),
        // Those of the last child may have begun just now.
        None => config::settings().drain_timeout.map(|timeout| Instant::now() + timeout + BEYOND),
    }
}
