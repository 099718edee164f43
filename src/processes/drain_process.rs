//! The process in which the tunnels of a child go on that has ended, outside of httpd's scoreboard.
//!
//! It is forked from the child, begins with one thread, and must not rely on anything that another
//! thread may have held at the fork: it never calls httpd, APR or a log, runs no cleanup of a pool,
//! and leaves by `_exit`. It starts a relay thread, which does all the work; the first one watches.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::Ordering::Acquire;
use std::time::{Duration, Instant};

use messages::{NoThread, NotCounted};
use os::forked::{Forked, Left, Title, end_unless_alive};
use os::signal_safe::EventFd;
use os::{Notice, Notices, poll, process};
use relay::{Ending, KeepAlive, Order, Relay, Settings as RelaySettings, Tunnel};
use shared::{Place, Says, Shared, Slot, Times};

use crate::processes::access;
use crate::processes::collecting::{Collecting, adopt, arrived};
use crate::processes::collector::Claim;
use crate::processes::line_kind::Kind;
use crate::processes::lines;
use crate::processes::memory::{self, shared};
use crate::processes::orders;
use crate::processes::plan::{Plan, STOP_LINGER};
use crate::processes::registry::{self, Drain};

/// A drain process whose relay hangs ends after once or twice this many seconds.
pub(super) const HANG_SECONDS: u32 = 30;
/// How often it looks around although nothing happens.
const LOOK_AROUND: Duration = Duration::from_secs(10);
/// How long peers get to answer a Close at WSForwardDrainTimeout.
const TIMEOUT_LINGER: Duration = Duration::from_secs(5);

/// What a child makes at its start for the process that may follow it.
pub(crate) struct Prepared {
    /// httpd's parent process: when it is gone, so is the drain process.
    pub server: OwnedFd,
    /// Where descriptors 0 to 2 lead.
    pub nowhere: OwnedFd,
    /// Set when a tunnel ends.
    pub ended: EventFd,
    /// Set once it can be found.
    pub found: EventFd,
}

impl Prepared {
    /// Makes it.
    ///
    /// # Errors
    /// Descriptors cannot be had, or the kernel is older than 5.3 (pidfd_open).
    pub(crate) fn new() -> io::Result<Self> {
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
pub(crate) struct Terms {
    /// For each relay thread.
    pub buffer_size: usize,
    /// WSForwardKeepAlive.
    pub keep_alive: Option<KeepAlive>,
    /// For how long a side may leave a message of TLS's own incomplete.
    pub message_timeout: Duration,
    /// WSForwardDrainTimeout; `None` is until they end.
    pub timeout: Option<Duration>,
    /// WSForwardMaxDrainProcesses.
    pub max_processes: usize,
    /// WSForwardCloseSpread.
    pub close_spread: Duration,
    /// WSForwardCloseCode.
    pub close_code: u16,
    /// Whether lines about usual ends are logged.
    pub ends_are_logged: bool,
}

/// Besides those that are as many as may be, one in so many may be ending.
const ENDING_SHARE: usize = 4;

/// Those drain processes that are more than may be, the oldest of them, and how they are to end. Those
/// that are ending anyway do not count, unless they become too many: then the oldest end at once.
pub(super) fn surplus(max_processes: usize) -> Vec<(Drain, Notice)> {
    let most = max_processes.max(1);
    if registry::taken() <= most {
        return Vec::new();
    }
    let mut drains = registry::drains();
    // The collector comes last: it carries the newest tunnels too.
    let collector = shared().map_or(0, Shared::collector);
    drains.sort_by_key(|drain| drain.pid == collector);
    let is_ending = |drain: &Drain| drain.says() == Says::Ending;
    let carrying = drains.iter().filter(|drain| !is_ending(drain)).count();
    let in_all = most.saturating_add((most / ENDING_SHARE).max(1));
    let at_once = drains.len().saturating_sub(in_all);
    let mut evicted = carrying.saturating_sub(most);
    let mut surplus = Vec::new();
    for (number, drain) in drains.into_iter().enumerate() {
        let is_evicted = evicted > 0 && !is_ending(&drain);
        evicted -= usize::from(is_evicted);
        if number < at_once {
            surplus.push((drain, Notice::End));
        } else if is_evicted {
            surplus.push((drain, Notice::Evicted));
        }
    }
    surplus
}

/// How long it waits for room in the way to a child, when that is full.
const FOR_ROOM: Duration = Duration::from_millis(20);

/// Where a drain process is counted.
pub(super) struct DrainSlot {
    pub slot: &'static Slot,
    place: Option<Place<'static>>,
}

impl DrainSlot {
    /// Takes over what `child` had. If the child ended before it could pass its slot on, the slot may
    /// belong to another process by now: then it is not ours.
    ///
    /// `is_shared`: the slot was the child's own, in shared memory.
    pub(super) fn take(
        (slot, is_shared): (&'static Slot, bool),
        place: Option<Place<'static>>,
        child: u32,
    ) -> Self {
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
        let is_ours = !is_shared || slot.pid() == pid;
        Self { slot: if is_ours { slot } else { &UNSEEN }, place }
    }

    /// Says to all that its tunnels are being ended, or that they are not.
    fn say(&self, is_ending: bool) {
        if let Some(place) = self.place {
            place.say(std::process::id(), is_ending);
        }
    }

    /// The process ends, with so many tunnels open. Whoever finds it gone counts and tells those, as it
    /// does if it was killed.
    pub(super) fn leave(&self, tunnels: usize) {
        if tunnels == 0 {
            memory::release(self.slot);
        }
        if let Some(place) = self.place {
            registry::release(place, std::process::id());
        }
    }
}

/// A drain process at work.
struct DrainProcess<'d> {
    prepared: &'static Prepared,
    drain_slot: &'d DrainSlot,
    terms: Terms,
    relay: Relay,
    /// What it is told.
    notices: Notices,
    /// What `ps` shows, and what was shown last.
    title: Option<Title>,
    shown: String,
    /// How many tunnels there were when free memory was given back last, or later.
    trimmed: usize,
    collecting: Option<Collecting>,
    /// What the number of orders was when tunnels last looked for them.
    orders_seen: Option<u32>,
    /// When its tunnels end, if that is known.
    plan: Option<Plan>,
    /// What the server has said of its end.
    server_times: Option<Times>,
    /// The plan before that, while that of the server holds and has not begun.
    displaced: Option<Option<Plan>>,
    /// What it was told before it began: there are too many drain processes, and this is one of the
    /// oldest.
    surplus: Option<Notice>,
    /// It is to end at once, or the server is gone.
    is_to_end: bool,
    /// Those that have looked.
    told: orders::Told,
}

/// The life of a drain process. Returns how many tunnels it gave up.
pub(super) fn run(
    forked: Forked,
    prepared: &'static Prepared,
    drain_slot: &DrainSlot,
    terms: Terms,
    tunnels: Vec<Tunnel>,
    claim: Option<Claim>,
) -> usize {
    let started = DrainProcess::start(forked, prepared, drain_slot, terms, tunnels, claim);
    let Some(mut drain) = started else { return 0 };
    loop {
        if let Some(left) = drain.poll_once() {
            return left;
        }
    }
}

impl<'d> DrainProcess<'d> {
    /// Starts the relay with the tunnels. `None` if that cannot be: then they have ended.
    fn start(
        forked: Forked,
        prepared: &'static Prepared,
        drain_slot: &'d DrainSlot,
        terms: Terms,
        mut tunnels: Vec<Tunnel>,
        mut claim: Option<Claim>,
    ) -> Option<Self> {
        let slot = drain_slot.slot;
        if let Some(claim) = &mut claim {
            claim.take_over();
        }
        let settings = RelaySettings {
            threads: 1,
            buffer_size: terms.buffer_size,
            keep_alive: terms.keep_alive,
            message_timeout: terms.message_timeout,
            ..RelaySettings::default()
        };
        let started =
            failpoint::check!("drain.leave").and_then(|()| forked.leave()).and_then(|left| {
                failpoint::check!("drain.relay")?;
                Ok((left, Relay::start(&settings, &slot.counts.relay)?))
            });
        let (Left { notices, title }, relay) = match started {
            Ok(started) => started,
            Err(error) => {
                // Nobody else empties the queue of one who is about to go.
                tunnels.extend(claim.into_iter().flat_map(|claim| arrived(claim.give_up(), slot)));
                let count = tunnels.len();
                lines::say(Kind::NoProcess, &NoThread { count: &count, error: &error });
                let code = Some(terms.close_code);
                let how = Ending::at_once(Order::DrainTimeout, code, TIMEOUT_LINGER);
                let counters = &slot.counts.relay;
                relay::end_inline(&settings, counters, tunnels, || true, how);
                return None;
            }
        };
        for tunnel in tunnels {
            failpoint::step!("drain.adopt");
            adopt(&relay, tunnel);
        }
        process::trim_memory();
        // Without it, orders are seen when something else happens.
        let _ = orders::watch(slot, || prepared.ended.signal());
        let own = std::process::id();
        Some(Self {
            prepared,
            drain_slot,
            terms,
            relay,
            notices,
            title,
            shown: String::new(),
            trimmed: 0,
            collecting: claim.map(|claim| Collecting::start(claim, terms.timeout)),
            orders_seen: None,
            plan: terms.timeout.map(|timeout| {
                // The last are told when the timeout is over.
                let end = Instant::now() + timeout;
                let spread = terms.close_spread.min(timeout);
                Plan::new(end - spread, end, Order::DrainTimeout, TIMEOUT_LINGER)
            }),
            server_times: None,
            displaced: None,
            surplus: surplus(terms.max_processes)
                .into_iter()
                .find_map(|(drain, notice)| (drain.pid == own).then_some(notice)),
            is_to_end: false,
            told: orders::Told::default(),
        })
    }

    /// Has tunnels look that were ordered something since the last time.
    fn look_at_orders(&mut self) {
        let raised = self.drain_slot.slot.orders().load(Acquire);
        if self.orders_seen.replace(raised) != Some(raised) {
            self.told.look(self.drain_slot.slot, Some(&self.relay));
        }
    }

    /// Looks around, and waits until something happens. When it is time to end, it says how many tunnels
    /// are left: none, unless the relay hangs.
    fn poll_once(&mut self) -> Option<usize> {
        failpoint::step!("drain.watch");
        if self.relay.is_responsive() {
            end_unless_alive(HANG_SECONDS);
        }
        let slot = self.drain_slot.slot;
        if let Some(collecting) = self.collecting.take() {
            let (go_on, came) = collecting.go_on(&self.relay, slot);
            self.collecting = go_on;
            self.note_arrival(came);
        }
        self.look_at_orders();
        let open = self.relay.open();
        if self.relay.alive() == 0 {
            // A thread that died still tells how its tunnels ended.
            drop(self.relay.stop());
        }
        if open == 0 || self.relay.alive() == 0 {
            // Unless a child has just left one.
            let Some(collecting) = self.collecting.take() else {
                return Some(self.relay.open());
            };
            let came = collecting.end(&self.relay, slot);
            self.note_arrival(came);
            return None;
        }
        self.show(open);
        self.trim(open);
        self.look_at_server();
        self.follow_plan();
        let told = self.surplus.take().or_else(|| self.wait());
        match told {
            Some(Notice::End) => self.end_at_once(),
            Some(Notice::Evicted) => self.end_by_and_by(),
            Some(Notice::ServerEnds) | None => {}
        }
        let open = self.relay.open();
        let plan = self.plan.as_mut().filter(|_| open > 0);
        plan.is_some_and(|plan| plan.is_given_up(open, Instant::now())).then_some(open)
    }

    /// So many tunnels came, which are to end with the others.
    fn note_arrival(&mut self, count: usize) {
        if count > 0 {
            self.plan = self.plan.take().map(Plan::again);
        }
    }

    /// Begins to end the tunnels, if it is time.
    fn follow_plan(&mut self) {
        if let Some(how) = self.plan.as_mut().and_then(|plan| plan.begin(self.terms.close_code)) {
            self.displaced = None;
            self.drain_slot.say(true);
            self.relay.begin_end(how);
        }
    }

    /// Looks whether the server stops gracefully, and has said anything new about it.
    fn look_at_server(&mut self) {
        let times = registry::stops_gracefully();
        if times != self.server_times {
            self.server_times = times;
            // If there are none it goes on: it was asked to stop while it restarted, and httpd forgot that.
            if let Some(before) = self.displaced.take() {
                self.plan = before;
            }
            if let Some(times) = times {
                let before = self.plan;
                self.change_plan(Plan::of_server(times));
                self.displaced = Some(before);
            }
        }
    }

    /// Takes no tunnels of others any more.
    fn end_collecting(&mut self) {
        if let Some(collecting) = self.collecting.take() {
            let came = collecting.end(&self.relay, self.drain_slot.slot);
            self.note_arrival(came);
        }
    }

    /// The server stops, or there are far too many drain processes: the tunnels end now, whatever was
    /// planned.
    fn end_at_once(&mut self) {
        if std::mem::replace(&mut self.is_to_end, true) {
            return;
        }
        self.end_collecting();
        self.displaced = None;
        let now = Instant::now();
        self.plan = Some(Plan::new(now, now, Order::Stop, STOP_LINGER));
    }

    /// There are too many drain processes: the tunnels end over WSForwardCloseSpread.
    fn end_by_and_by(&mut self) {
        self.end_collecting();
        self.displaced = None;
        let now = Instant::now();
        self.change_plan(Plan::new(now, now + self.terms.close_spread, Order::Stop, STOP_LINGER));
    }

    /// What ends first is what holds.
    fn change_plan(&mut self, plan: Plan) {
        if self.plan.as_ref().is_none_or(|before| plan.ends_before(before)) {
            self.plan = Some(plan);
        }
    }

    /// Shows in `ps` how many tunnels there are.
    fn show(&mut self, open: usize) {
        let Some(title) = &mut self.title else { return };
        let text = format!("mod_wsforward: {open} tunnels of a child that is gone");
        if self.shown != text {
            title.set(&text);
            self.shown = text;
        }
    }

    /// Gives free memory back each time half of the tunnels have ended: it lies between that of the
    /// others, where the C library keeps it. A process with few tunnels of many would hold for days
    /// what all of them took. While it goes back, some 20 ms for 100 MiB, a thread that needs memory waits:
    /// not at a stop, which is short of time.
    fn trim(&mut self, open: usize) {
        if self.is_to_end {
            return;
        }
        self.trimmed = self.trimmed.max(open);
        if open <= self.trimmed / 2 {
            process::trim_memory();
            self.trimmed = open;
        }
    }

    /// Waits until something happens, or it is time to look around. Returns what it was told: to end,
    /// where the server is gone.
    fn wait(&self) -> Option<Notice> {
        let collecting = self.collecting.as_ref();
        let until = collecting.and_then(|collecting| collecting.until);
        let planned = self.plan.as_ref().map(Plan::next);
        let left = until.into_iter().chain(planned).min();
        let left = left.map(|until| until.saturating_duration_since(Instant::now()));
        let queue = collecting.map(|collecting| collecting.claim.queue);
        let Prepared { server, ended, .. } = self.prepared;
        // One that is gone stays readable.
        let server = Some(server.as_fd()).filter(|_| !self.is_to_end);
        let longest = if access::send_waiting() { FOR_ROOM } else { LOOK_AROUND };
        let [is_told, is_server_gone, one_ended, _] = poll::wait(
            [Some(self.notices.as_fd()), server, Some(ended.as_fd()), queue],
            Some(left.map_or(longest, |left| left.min(longest))),
        );
        if one_ended {
            ended.clear();
        }
        if is_server_gone {
            return Some(Notice::End);
        }
        if is_told { self.notices.take() } else { None }
    }
}
