//! The parent's SIGTERM to a child of event or worker: it stops all of its children at once. The
//! MPM itself takes no notice of that signal, but of a word in a pipe, which it no longer reads in
//! a child that is ending already; and the end of a child waits for its workers.

use std::ffi::{c_int, c_void};
use std::sync::atomic::{
    AtomicPtr, AtomicU32, AtomicUsize,
    Ordering::{Relaxed, SeqCst},
};
use std::sync::{Mutex, PoisonError};

use crate::process;
use crate::signal_safe::Orders;
use crate::signals::current;

/// What [`watch`] was told.
static ORDERS: AtomicPtr<Orders> = AtomicPtr::new(std::ptr::null_mut());
static BY_PARENT: AtomicU32 = AtomicU32::new(0);
static BY_ITSELF: AtomicU32 = AtomicU32::new(0);

/// The MPM's own handler, 0 if it has none.
static NEXT: AtomicUsize = AtomicUsize::new(0);

/// What there was before this module's handler, for as long as that is there.
static BEFORE: Mutex<Option<libc::sigaction>> = Mutex::new(None);

extern "C" fn on_sigterm(signal: c_int, info: *mut libc::siginfo_t, _context: *mut c_void) {
    // SAFETY: the kernel passes what it says of the signal, the number that it has for this one.
    let from = unsafe { (*info).si_pid() };
    // SAFETY: these ask for numbers, which a handler may.
    let bits = match unsafe { (libc::getppid(), libc::getpid()) } {
        (parent, _) if from == parent => BY_PARENT.load(SeqCst),
        (_, own) if from == own => BY_ITSELF.load(SeqCst),
        _ => 0,
    };
    // SAFETY: NULL, or what `watch` stored: a reference for ever.
    if let (1.., Some(orders)) = (bits, unsafe { ORDERS.load(SeqCst).as_ref() }) {
        orders.give(bits);
    }
    let next = NEXT.load(SeqCst);
    if next != 0 {
        // SAFETY: what sigaction gave as a handler without SA_SIGINFO, which takes the number.
        let next: extern "C" fn(c_int) = unsafe { std::mem::transmute(next) };
        next(signal);
    }
}

/// While a process starts, its MPM may set its handler at any time. Later on nobody is known to do
/// such a thing, and it is looked after once a second.
const START_SECONDS: u32 = 30;

/// Whether it is time to look which handler there is.
fn is_due() -> bool {
    static FIRST: AtomicU32 = AtomicU32::new(0);
    static LAST: AtomicU32 = AtomicU32::new(0);
    let now = process::seconds().max(1);
    let first = match FIRST.load(Relaxed) {
        0 => {
            FIRST.store(now, Relaxed);
            now
        }
        first => first,
    };
    now.wrapping_sub(first) < START_SECONDS
        || (LAST.load(Relaxed) != now && LAST.swap(now, Relaxed) != now)
}

/// Whether the MPM's own handler was found, and goes on being called: it sets no other.
pub fn is_chained() -> bool {
    NEXT.load(SeqCst) != 0
}

/// Has orders given when the parent sends SIGTERM, and when the process sends one to itself: the
/// MPM's listener wakes the main thread like that when it ends. The parent's signal may be lost to
/// that one, since the kernel keeps one that waits, not two.
///
/// The MPM sets its own handler while the first workers run already: this is to be called again, at
/// times when it matters, and does nothing while all is as it should be.
pub fn watch(orders: &'static Orders, by_parent: u32, by_itself: u32) {
    let ours: extern "C" fn(c_int, *mut libc::siginfo_t, *mut c_void) = on_sigterm;
    let is_ours = |action: &libc::sigaction| action.sa_sigaction == ours as libc::sighandler_t;
    if is_chained() && !is_due() {
        return;
    }
    let Ok(now) = current(libc::SIGTERM) else { return };
    if is_ours(&now) {
        return;
    }
    let mut before = BEFORE.lock().unwrap_or_else(PoisonError::into_inner);
    // Another thread may have done it meanwhile. Another module's handler of the wider kind is
    // left alone.
    let Ok(now) = current(libc::SIGTERM) else { return };
    if is_ours(&now) || now.sa_flags & libc::SA_SIGINFO != 0 {
        return;
    }
    let has_next = now.sa_sigaction != libc::SIG_DFL && now.sa_sigaction != libc::SIG_IGN;
    NEXT.store(if has_next { now.sa_sigaction } else { 0 }, SeqCst);
    BY_PARENT.store(by_parent, SeqCst);
    BY_ITSELF.store(by_itself, SeqCst);
    ORDERS.store(std::ptr::from_ref(orders).cast_mut(), SeqCst);
    let mut action = now;
    action.sa_sigaction = ours as libc::sighandler_t;
    action.sa_flags |= libc::SA_SIGINFO;
    // SAFETY: the handler calls nothing that a handler may not, and is there until `leave`.
    if unsafe { libc::sigaction(libc::SIGTERM, &raw const action, std::ptr::null_mut()) } == 0 {
        *before = Some(now);
    }
}

/// Puts back what was there: the code of the handler may be unloaded before the process ends.
pub fn leave() {
    let before = BEFORE.lock().unwrap_or_else(PoisonError::into_inner).take();
    if let Some(before) = before {
        // SAFETY: what the kernel itself gave.
        unsafe { libc::sigaction(libc::SIGTERM, &raw const before, std::ptr::null_mut()) };
    }
}
