//! A thread of a child that ends tunnels where a signal handler must not.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use crate::process;

/// How long a signal handler waits for tunnels to end, in milliseconds.
const PATIENCE: i32 = 1500;

/// The thread, and how it is told.
pub struct Keeper {
    orders: OwnedFd,
    done: OwnedFd,
    /// What the order is: to end the tunnels, or only itself.
    end_tunnels: Arc<AtomicBool>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl Keeper {
    /// Starts it. `end` ends all tunnels.
    ///
    /// # Errors
    /// No thread or descriptor can be had.
    pub fn start(end: impl Fn() + Send + 'static) -> io::Result<Self> {
        let (orders, done) = (process::event()?, process::event()?);
        let end_tunnels = Arc::new(AtomicBool::new(false));
        let told = Arc::clone(&end_tunnels);
        let (orders_fd, done_fd) = (orders.as_raw_fd(), done.as_raw_fd());
        let thread = relay::spawn_without_signals("wsf-keeper", move || {
            while process::wait([orders_fd], -1) != [true] {}
            if told.load(SeqCst) {
                end();
                process::raise(done_fd);
            }
        })?;
        Ok(Self { orders, done, end_tunnels, thread: Mutex::new(Some(thread)) })
    }

    /// Has the tunnels ended, and waits for it. For signal handlers: takes no lock
    /// and no memory.
    pub fn end_tunnels(&self) {
        self.end_tunnels.store(true, SeqCst);
        process::raise(self.orders.as_raw_fd());
        process::wait([self.done.as_raw_fd()], PATIENCE);
    }

    /// Stops and joins it.
    pub fn stop(&self) {
        process::raise(self.orders.as_raw_fd());
        let thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        // Its panic, if it had one, is in the log.
        let _ = thread.map(JoinHandle::join);
    }
}
