//! What signals ask of httpd's parent. One test: handlers are those of the whole process.

use std::os::fd::AsFd;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::SeqCst};

use os::{StopSignals, asked, poll, process};

static HANDLED: AtomicU32 = AtomicU32::new(0);
static TOLD: AtomicU64 = AtomicU64::new(0);

extern "C" fn of_the_mpm(_: i32) {
    HANDLED.fetch_add(1, SeqCst);
}

fn told(since: u64) {
    TOLD.store(since, SeqCst);
}

fn handler(signal: i32) -> usize {
    // SAFETY: plain numbers and a pointer, for which zero is valid; the call only asks.
    unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        libc::sigaction(signal, std::ptr::null(), &raw mut action);
        action.sa_sigaction
    }
}

fn set(signal: i32, handler: usize) {
    // SAFETY: one that does nothing, or stores a number.
    unsafe { libc::signal(signal, handler) };
}

fn raise(signal: i32) {
    // SAFETY: it has a handler, or is blocked.
    unsafe { libc::raise(signal) };
}

#[test]
fn who_asks_for_a_stop() {
    let mpm: extern "C" fn(i32) = of_the_mpm;
    let mpm = mpm as usize;
    set(libc::SIGWINCH, mpm);
    set(libc::SIGTERM, mpm);
    asked::watch(told);
    asked::watch(told);
    assert_eq!(asked::to_stop_gracefully(), None);
    let before = process::now();
    raise(libc::SIGWINCH);
    let since = asked::to_stop_gracefully().expect("it was noted");
    assert!(before <= since && since <= process::now());
    assert_eq!((TOLD.load(SeqCst), HANDLED.load(SeqCst)), (since, 1));
    raise(libc::SIGWINCH);
    assert_eq!(asked::to_stop_gracefully(), Some(since), "the first one is when it began");
    // Another one's is left alone.
    asked::leave();
    assert_eq!(handler(libc::SIGWINCH), mpm);
    assert_eq!(asked::to_stop_gracefully(), None, "the MPM forgets it too");
    asked::watch(told);
    raise(libc::SIGWINCH);
    let again = asked::to_stop_gracefully().expect("it was noted again");
    assert!(since <= again && TOLD.load(SeqCst) == again);
    set(libc::SIGWINCH, libc::SIG_IGN);
    asked::leave();
    assert_eq!(handler(libc::SIGWINCH), libc::SIG_IGN);
    // Those for a stop at once are seen, and come when they are held back no longer.
    let held = StopSignals::hold().expect("descriptors");
    assert!(!poll::is_readable(held.as_fd()));
    raise(libc::SIGTERM);
    assert!(poll::is_readable(held.as_fd()));
    assert_eq!(HANDLED.load(SeqCst), 3);
    drop(held);
    assert_eq!(HANDLED.load(SeqCst), 4);
}
