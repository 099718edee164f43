//! A thread of a child that ends tunnels where a signal handler must not.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::atomic::{AtomicU32, Ordering::SeqCst};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use os::process;

use crate::ffi::role::SignalHandler;

/// How long a signal handler waits for tunnels to end, in milliseconds.
const PATIENCE: i32 = 1500;

/// How often, in milliseconds, and how many times at the most a child that starts is looked at.
const LOOK: i32 = 20;
const LOOKS: u32 = 1500;

/// The thread, and how it is told.
pub struct Keeper {
    orders: OwnedFd,
    done: OwnedFd,
    /// What is ordered: a sum of the four below.
    ordered: Arc<AtomicU32>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

/// To end the tunnels of this process.
const END: u32 = 1;
/// To tell all drain processes to end.
const TELL: u32 = 2;
/// To end itself.
const STOP: u32 = 4;
/// With [`END`]: the process ends behind it.
const LAST: u32 = 8;

impl Keeper {
    /// Starts it. `end` ends all tunnels, and is told whether the process ends behind that; `tell`
    /// has drain processes end theirs; `is_watched` has the server's end noticed, and says whether
    /// that is settled. It is asked again until then, since the MPM is still starting the child.
    ///
    /// # Errors
    /// No thread or descriptor can be had.
    pub fn start(
        end: impl Fn(bool) + Send + 'static,
        tell: impl Fn() + Send + 'static,
        is_watched: impl Fn() -> bool + Send + 'static,
    ) -> io::Result<Self> {
        let (orders, done) = (process::event()?, process::event()?);
        let ordered = Arc::new(AtomicU32::new(0));
        let told = Arc::clone(&ordered);
        let (orders_fd, done_fd) = (orders.as_raw_fd(), done.as_raw_fd());
        let thread = relay::spawn_without_signals("wsf-keeper", move || {
            let mut looks = LOOKS;
            loop {
                if looks > 0 && is_watched() {
                    looks = 0;
                }
                let patience = if looks > 0 { LOOK } else { -1 };
                looks = looks.saturating_sub(1);
                if process::wait([orders_fd], patience) != [true] {
                    continue;
                }
                process::swallow(orders_fd);
                let told = told.swap(0, SeqCst);
                if told & TELL != 0 {
                    tell();
                }
                if told & END != 0 {
                    end(told & LAST != 0);
                    process::raise(done_fd);
                }
                if told & STOP != 0 {
                    break;
                }
            }
        })?;
        Ok(Self { orders, done, ordered, thread: Mutex::new(Some(thread)) })
    }

    /// For signal handlers, as what calls it.
    fn order(&self, orders: u32) {
        self.ordered.fetch_or(orders, SeqCst);
        process::raise(self.orders.as_raw_fd());
    }

    /// Has the tunnels ended, and waits for it.
    pub fn end_tunnels(&self, _: &SignalHandler) {
        self.order(END | LAST);
        process::wait([self.done.as_raw_fd()], PATIENCE);
    }

    /// Has the tunnels ended, now and as often as it is told, those of drain processes as well if
    /// `everywhere`. Does not wait, and is for signal handlers too.
    pub fn begin_end(&self, everywhere: bool) {
        self.order(if everywhere { END | TELL } else { END });
    }

    /// Stops and joins it.
    pub fn stop(&self) {
        self.order(STOP);
        let thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        // Its panic, if it had one, is in the log.
        let _ = thread.map(JoinHandle::join);
    }
}
