//! Wakes worker threads whose tunnels have a time to end. mod_proxy's loop waits for the tunnel's
//! sockets and nothing else, so at that time one of them is shut down for reading: the loop reads, and
//! finds out. It is the back end's, which every tunnel has, unless that is no TCP: a peer that sends
//! into a unix socket that nobody reads any more gets an error. A loop that is not waiting for that,
//! since neither side takes what it is sent, loses both sockets a little later.

use std::collections::{BTreeMap, HashSet};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use os::descriptors;
use relay::{Rules, socket, spawn_lasting};
use shared::TunnelEntry;

/// How long a tunnel gets to end once its worker was woken: its peers have the usual time for an
/// answer to their Close.
const GRACE: Duration = Rules::DEFAULT_LINGER.saturating_add(Duration::from_secs(1));

/// Longer than any process lives.
const NEVER: Duration = Duration::from_secs(100 * 365 * 24 * 60 * 60);

struct State {
    /// What is to be woken, by time.
    sleepers: BTreeMap<(Instant, u32), Sleeper>,
    /// The number given out last.
    last: u32,
    /// The thread, and the process that it runs in.
    thread: Option<(u32, JoinHandle<()>)>,
    is_over: bool,
}

struct Sleeper {
    /// Which tunnel it is, if others see it.
    tunnel: Option<TunnelEntry>,
    origin: OwnedFd,
    client: Option<OwnedFd>,
    /// See [`Alarm::shuts_client`].
    shuts_client: bool,
    /// It was woken.
    is_woken: bool,
}

static STATE: Mutex<State> =
    Mutex::new(State { sleepers: BTreeMap::new(), last: 0, thread: None, is_over: false });
static CHANGED: Condvar = Condvar::new();

/// The process in which alarms were set; 0 is none. One that has set none takes no lock here: it may be
/// forked at any time (mpm_itk's), and its copy would hold the lock for ever.
static SET_IN: AtomicU32 = AtomicU32::new(0);

fn state() -> MutexGuard<'static, State> {
    STATE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// An alarm that is set, until it is dropped.
#[derive(Debug)]
pub(crate) struct Alarm {
    number: u32,
    shuts_client: bool,
}

impl Alarm {
    /// Whether it is the client's socket that is shut down for reading, and not the back end's.
    pub(crate) fn shuts_client(&self) -> bool {
        self.shuts_client
    }
}

impl Drop for Alarm {
    fn drop(&mut self) {
        state().sleepers.retain(|(_, number), _| *number != self.number);
    }
}

/// Sets an alarm for the worker thread that waits for these sockets; without a time only [`ring`]
/// sets it off. Whoever looks for an order to the tunnel after this sees those that rang before.
///
/// # Errors
/// There is no descriptor or no thread for it.
pub(crate) fn set(
    at: Option<Instant>,
    tunnel: Option<TunnelEntry>,
    origin: BorrowedFd<'_>,
    client: Option<BorrowedFd<'_>>,
) -> io::Result<Alarm> {
    let shuts_client = client.is_some() && socket::peer_has_ended(origin).is_none();
    let sleeper = Sleeper {
        tunnel,
        shuts_client,
        origin: descriptors::duplicate(origin)?,
        client: client.map(descriptors::duplicate).transpose()?,
        is_woken: false,
    };
    let pid = std::process::id();
    SET_IN.store(pid, Relaxed);
    let mut state = state();
    // A process that was forked has what its parent had, but for the thread.
    if state.thread.as_ref().is_none_or(|(of, _)| *of != pid) {
        state.sleepers.clear();
        state.thread = Some((pid, spawn_lasting("alarm", run)?));
    }
    state.last = state.last.wrapping_add(1).max(1);
    let number = state.last;
    let at = at.unwrap_or_else(|| Instant::now() + NEVER);
    state.sleepers.insert((at, number), sleeper);
    drop(state);
    CHANGED.notify_one();
    Ok(Alarm { number, shuts_client })
}

/// Sets off the alarms of tunnels. Those that went off before go on as they would.
pub(crate) fn ring(tunnels: &HashSet<TunnelEntry>) {
    if SET_IN.load(Relaxed) != std::process::id() {
        return;
    }
    let mut state = state();
    let is_to_ring = |sleeper: &Sleeper| {
        !sleeper.is_woken && sleeper.tunnel.is_some_and(|tunnel| tunnels.contains(&tunnel))
    };
    let ringing = state.sleepers.iter().filter(|(_, sleeper)| is_to_ring(sleeper));
    let ringing: Vec<_> = ringing.map(|(key, _)| *key).collect();
    let at = Instant::now() + GRACE;
    for key in ringing {
        if let Some(mut sleeper) = state.sleepers.remove(&key) {
            sleeper.wake();
            state.sleepers.insert((at, key.1), sleeper);
        }
    }
    drop(state);
    CHANGED.notify_one();
}

/// The child ends: nobody is woken any more.
pub(crate) fn finish() {
    let mut state = state();
    state.is_over = true;
    let thread = state.thread.take().filter(|(of, _)| *of == std::process::id());
    drop(state);
    CHANGED.notify_one();
    if let Some((_, thread)) = thread {
        // It does not panic.
        let _ = thread.join();
    }
}

fn run() {
    let mut state = state();
    while !state.is_over {
        let now = Instant::now();
        let Some(due) = state.sleepers.first_key_value().map(|((at, _), _)| *at) else {
            state = CHANGED.wait(state).unwrap_or_else(PoisonError::into_inner);
            continue;
        };
        if let Some(left) = due.checked_duration_since(now).filter(|left| !left.is_zero()) {
            let waited = CHANGED.wait_timeout(state, left);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
            continue;
        }
        if let Some(((_, number), mut sleeper)) = state.sleepers.pop_first()
            && sleeper.wake()
        {
            state.sleepers.insert((now + GRACE, number), sleeper);
        }
    }
}

impl Sleeper {
    /// Wakes who waits for it. `true` if that may have to be done again.
    fn wake(&mut self) -> bool {
        if !std::mem::replace(&mut self.is_woken, true) {
            let client = self.client.as_ref().filter(|_| self.shuts_client);
            socket::shutdown_read(client.unwrap_or(&self.origin).as_fd());
            return true;
        }
        for fd in [Some(&self.origin), self.client.as_ref()].into_iter().flatten() {
            socket::shutdown_both(fd.as_fd());
        }
        false
    }
}
