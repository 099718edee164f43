//! A thread of a child that ends tunnels where a signal handler must not.

use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use os::signal_safe::{EventFd, Orders};
use os::stop;

use crate::ffi::role::SignalHandler;

/// How long a signal handler waits for tunnels to end.
const END_WAIT: Duration = Duration::from_millis(1500);

/// How often, and how many times at the most a child that starts is looked at.
const LOOK_INTERVAL: Duration = Duration::from_millis(20);
const MAX_LOOKS: u32 = 1500;

/// The thread, and how it is told.
pub(super) struct Keeper {
    told: Arc<Told>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

struct Told {
    /// A sum of those below.
    orders: Orders,
    /// Set when tunnels have ended.
    done: EventFd,
}

/// To end the tunnels of this process.
const END: u32 = 1;
/// To tell all drain processes to end.
const TELL: u32 = 2;
/// To end itself.
const STOP: u32 = 4;
/// With [`END`]: the process ends behind it, whatever becomes of the server.
const LAST: u32 = 8;
/// Nothing yet: the MPM's listener has ended, which sends this process a SIGTERM, to which the
/// parent's may have been lost. If tunnels are to end too it is the server that stops. A child that
/// could not start ends without a listener.
const LISTENER_ENDED: u32 = 16;
/// To follow the plan by which tunnels end.
const FOLLOW: u32 = 32;

impl Keeper {
    /// Starts it. `end` ends all tunnels, and is told whether the process ends behind that; `tell`
    /// has drain processes end theirs; `is_watched` has the server's end noticed, and says whether
    /// that is settled. It is asked again until then, since the MPM is still starting the child.
    /// `follow` does what is due of the plan by which tunnels end, from its beginning if it is told so, and
    /// says for how long nothing will be.
    ///
    /// # Errors
    /// No thread or descriptor can be had.
    pub(super) fn start(
        end: impl Fn(bool) + Send + 'static,
        tell: impl Fn() + Send + 'static,
        is_watched: impl Fn() -> bool + Send + 'static,
        follow: impl Fn(bool) -> Option<Duration> + Send + 'static,
    ) -> io::Result<Self> {
        let told = Arc::new(Told { orders: Orders::new()?, done: EventFd::new()? });
        let of_thread = Arc::clone(&told);
        let thread = relay::spawn_lasting("wsf-keeper", move || {
            let Told { orders, done } = &*of_thread;
            let mut looks = MAX_LOOKS;
            let mut has_told = false;
            let mut next = None;
            loop {
                if looks > 0 && is_watched() {
                    looks = 0;
                }
                let look = (looks > 0).then_some(LOOK_INTERVAL);
                let ordered = orders.take(look.into_iter().chain(next).min());
                looks = looks.saturating_sub(1);
                let server_stops =
                    orders.were_given(END | LISTENER_ENDED) && !orders.were_given(LAST);
                if ordered & TELL != 0 || (server_stops && !has_told) {
                    tell();
                    has_told = true;
                }
                if ordered & END != 0 {
                    end(ordered & LAST != 0);
                    done.signal();
                }
                if orders.were_given(FOLLOW) {
                    next = follow(ordered & FOLLOW != 0);
                }
                if ordered & STOP != 0 {
                    break;
                }
            }
        })?;
        Ok(Self { told, thread: Mutex::new(Some(thread)) })
    }

    /// Has the tunnels ended, and waits for it.
    pub(super) fn end_tunnels(&self, _: &SignalHandler) {
        self.told.orders.give(END | LAST);
        self.told.done.wait(END_WAIT);
    }

    /// Has the tunnels ended, now and as often as it is told. Does not wait, and is for signal
    /// handlers.
    pub(super) fn begin_end(&self) {
        self.told.orders.give(END);
    }

    /// Whether it was told to end the tunnels.
    pub(super) fn is_ending(&self) -> bool {
        self.told.orders.were_given(END)
    }

    /// Has the plan followed by which tunnels end, and anew whenever it is told. Does not wait.
    pub(super) fn follow_plan(&self) {
        self.told.orders.give(FOLLOW);
    }

    /// Whether it follows a plan.
    pub(super) fn is_following(&self) -> bool {
        self.told.orders.were_given(FOLLOW)
    }

    /// Has the same done, and those of drain processes ended as well, when the parent sends SIGTERM:
    /// it comes to tell drain processes only after the last child.
    pub(super) fn watch_stop(&'static self) {
        stop::watch(&self.told.orders, END | TELL, LISTENER_ENDED);
    }

    /// Stops and joins it.
    pub(super) fn stop(&self) {
        self.told.orders.give(STOP);
        let thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        // Its panic, if it had one, is in the log.
        let _ = thread.map(JoinHandle::join);
    }
}
