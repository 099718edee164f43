//! What signals ask of httpd's parent. One test: the handlers are those of the whole process.

use std::process::Command;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::SeqCst};
use std::time::{Duration, Instant};

use os::{asked, process};

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

/// A signal of another process, and that it was handled.
fn sent(name: &str) {
    let before = HANDLED.load(SeqCst);
    let pid = std::process::id().to_string();
    assert!(Command::new("kill").args([name, &pid]).status().expect("it is there").success());
    let until = Instant::now() + Duration::from_secs(30);
    while HANDLED.load(SeqCst) == before && Instant::now() < until {
        std::thread::yield_now();
    }
    assert_eq!(HANDLED.load(SeqCst), before + 1, "the MPM's handler is called");
}

#[test]
fn who_asks_for_a_stop() {
    const SIGNALS: [i32; 3] = [libc::SIGTERM, libc::SIGINT, libc::SIGWINCH];
    let mpm: extern "C" fn(i32) = of_the_mpm;
    assert_eq!(asked::to_stop_at_once(), None, "nobody looks");
    for signal in SIGNALS {
        // SAFETY: the handler stores a number.
        unsafe { libc::signal(signal, mpm as libc::sighandler_t) };
    }
    asked::watch(told);
    asked::watch(told);
    // The process itself, as prefork's parent does.
    for (count, signal) in (1..).zip(SIGNALS) {
        // SAFETY: a signal with a handler, to this thread.
        unsafe { libc::raise(signal) };
        assert_eq!(HANDLED.load(SeqCst), count);
    }
    assert_eq!((asked::to_stop_at_once(), asked::to_stop_gracefully()), (Some(false), None));
    let before = process::now();
    sent("-WINCH");
    let since = asked::to_stop_gracefully().expect("it was noted");
    assert!(before <= since && since <= process::now());
    assert_eq!(TOLD.load(SeqCst), since);
    sent("-WINCH");
    assert_eq!(asked::to_stop_gracefully(), Some(since), "the first one is when it began");
    assert_eq!(asked::to_stop_at_once(), Some(false));
    sent("-TERM");
    assert_eq!(asked::to_stop_at_once(), Some(true));
    // Somebody else's is left alone.
    // SAFETY: the signal is ignored.
    unsafe { libc::signal(libc::SIGINT, libc::SIG_IGN) };
    asked::leave();
    assert_eq!(SIGNALS.map(handler), [mpm as usize, libc::SIG_IGN, mpm as usize]);
}
