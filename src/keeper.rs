//! The one thread of a child that is neither httpd's nor the relay's. It logs the
//! lines of drain processes, which have no log, and ends tunnels where a signal
//! handler must not.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use crate::ffi::log::{Level, Server};
use crate::message::{NO_DRAIN, TUNNEL_ENDED, TUNNEL_LOST};
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

/// Logs what drain processes have said.
pub fn log_lines(pipe: RawFd, server: Server, buffer: &mut Vec<u8>) {
    let lines = String::from_utf8_lossy(process::read_lines(pipe, buffer));
    for line in lines.lines() {
        let (level, number, text) = match line.split_at_checked(1) {
            Some((LOST, text)) => (Level::Error, TUNNEL_LOST, text),
            Some((NO_PROCESS, text)) => (Level::Error, NO_DRAIN, text),
            Some((BUG, text)) => (Level::Error, TUNNEL_ENDED, text),
            Some((_, text)) => (Level::Info, TUNNEL_ENDED, text),
            None => continue,
        };
        server.log(level, number, format_args!("{text}"));
    }
}

/// What the first byte of a line says of it: a tunnel ended,
pub const ENDED: &str = "i";
/// a tunnel ended by a bug of this module,
pub const BUG: &str = "b";
/// a tunnel was lost,
pub const LOST: &str = "l";
/// tunnels end because a process cannot carry them.
pub const NO_PROCESS: &str = "n";

impl Keeper {
    /// Starts it. `pipe` is where lines come from, open for as long as the process
    /// is; `end` ends all tunnels.
    ///
    /// # Errors
    /// No thread or descriptor can be had.
    pub fn start(pipe: RawFd, server: Server, end: impl Fn() + Send + 'static) -> io::Result<Self> {
        let (orders, done) = (process::event()?, process::event()?);
        let end_tunnels = Arc::new(AtomicBool::new(false));
        let told = Arc::clone(&end_tunnels);
        let (orders_fd, done_fd) = (orders.as_raw_fd(), done.as_raw_fd());
        let thread = relay::spawn_without_signals("wsf-keeper", move || {
            let mut buffer = Vec::new();
            loop {
                let [some, ordered] = process::wait([pipe, orders_fd], -1);
                if some {
                    log_lines(pipe, server, &mut buffer);
                }
                if ordered {
                    break;
                }
            }
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
