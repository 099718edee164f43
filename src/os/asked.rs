//! What signals ask of httpd's parent. The MPM keeps that to itself, and forgets part of it: when a
//! graceful stop has begun, and, with prefork, whether it was told since to stop at once. At the end
//! of a graceful stop prefork's parent sends SIGTERM to itself, with its process group.

use std::ffi::{c_int, c_void};
use std::io;
use std::os::fd::OwnedFd;
use std::sync::atomic::{
    AtomicBool, AtomicPtr, AtomicU32, AtomicU64, AtomicUsize, Ordering::SeqCst,
};
use std::sync::{Mutex, PoisonError};

use crate::process;
use crate::signals::{current, descriptor};

/// Those that ask for a stop at once, and the one that asks for a graceful stop.
const AT_ONCE: [c_int; 2] = [libc::SIGTERM, libc::SIGINT];
const GRACEFUL: c_int = libc::SIGWINCH;
const SIGNALS: [c_int; 3] = [AT_ONCE[0], AT_ONCE[1], GRACEFUL];

/// The process that is asked: those that it forks have its handlers for a while.
static OWNER: AtomicU32 = AtomicU32::new(0);

/// When a graceful stop was asked for, see [`process::now`]; 0 if it was not.
static SINCE: AtomicU64 = AtomicU64::new(0);
static IS_AT_ONCE: AtomicBool = AtomicBool::new(false);

/// A `fn(u64)`, which is told of the graceful stop.
static ON_GRACEFUL: AtomicPtr<()> = AtomicPtr::new(std::ptr::null_mut());

/// The MPM's own handlers of [`SIGNALS`], 0 if it has none.
static NEXT: [AtomicUsize; SIGNALS.len()] = [const { AtomicUsize::new(0) }; SIGNALS.len()];

/// What there was before this module's handler, for as long as that is there.
static BEFORE: Mutex<[Option<libc::sigaction>; SIGNALS.len()]> = Mutex::new([None; SIGNALS.len()]);

extern "C" fn on_signal(signal: c_int, info: *mut libc::siginfo_t, _context: *mut c_void) {
    // SAFETY: the kernel passes what it says of the signal, the number that it has for these.
    let from = unsafe { (*info).si_pid() };
    // SAFETY: asks for a number, which a handler may.
    let own = unsafe { libc::getpid() };
    if u32::try_from(own) == Ok(OWNER.load(SeqCst)) && from != own {
        note(signal);
    }
    let place = SIGNALS.iter().position(|known| *known == signal);
    let next = place.map_or(0, |place| NEXT[place].load(SeqCst));
    if next != 0 {
        // SAFETY: what sigaction gave as a handler without SA_SIGINFO, which takes the number.
        let next: extern "C" fn(c_int) = unsafe { std::mem::transmute(next) };
        next(signal);
    }
}

fn note(signal: c_int) {
    if signal != GRACEFUL {
        IS_AT_ONCE.store(true, SeqCst);
        return;
    }
    note_graceful(process::now());
}

/// A graceful stop has begun, if none has yet.
pub fn note_graceful(since: u64) {
    let told = ON_GRACEFUL.load(SeqCst);
    if SINCE.compare_exchange(0, since, SeqCst, SeqCst).is_ok() && !told.is_null() {
        // SAFETY: what `watch` stored.
        let told: fn(u64) = unsafe { std::mem::transmute(told) };
        told(since);
    }
}

/// Has signals noted in this process, besides what the MPM does about them. `on_graceful` is told
/// when a graceful stop is asked for, within the handler: it takes no lock and no memory. To be called
/// again when the MPM may have set its handlers anew. Another module's are left alone.
pub fn watch(on_graceful: fn(u64)) {
    let ours: extern "C" fn(c_int, *mut libc::siginfo_t, *mut c_void) = on_signal;
    let mut before = BEFORE.lock().unwrap_or_else(PoisonError::into_inner);
    OWNER.store(std::process::id(), SeqCst);
    ON_GRACEFUL.store(on_graceful as *mut (), SeqCst);
    for (place, signal) in SIGNALS.into_iter().enumerate() {
        let Ok(now) = current(signal) else { continue };
        let has_next = now.sa_sigaction != libc::SIG_DFL && now.sa_sigaction != libc::SIG_IGN;
        if now.sa_flags & libc::SA_SIGINFO != 0 || !has_next {
            continue;
        }
        NEXT[place].store(now.sa_sigaction, SeqCst);
        let mut action = now;
        action.sa_sigaction = ours as libc::sighandler_t;
        action.sa_flags |= libc::SA_SIGINFO;
        // SAFETY: the handler calls nothing that a handler may not, and is there until `leave`.
        if unsafe { libc::sigaction(signal, &raw const action, std::ptr::null_mut()) } == 0 {
            before[place] = Some(now);
        }
    }
}

/// Puts back what was there, where nobody has done so meanwhile: the code of the handler may be
/// unloaded before the process ends.
pub fn leave() {
    let ours: extern "C" fn(c_int, *mut libc::siginfo_t, *mut c_void) = on_signal;
    let mut all = BEFORE.lock().unwrap_or_else(PoisonError::into_inner);
    for (signal, before) in SIGNALS.into_iter().zip(&mut *all) {
        let Some(before) = before.take() else { continue };
        if current(signal).is_ok_and(|now| now.sa_sigaction == ours as libc::sighandler_t) {
            // SAFETY: what the kernel itself gave.
            unsafe { libc::sigaction(signal, &raw const before, std::ptr::null_mut()) };
        }
    }
}

/// Whether this process was asked by another to stop at once. `None` if that was not noted.
pub fn to_stop_at_once() -> Option<bool> {
    let before = BEFORE.lock().unwrap_or_else(PoisonError::into_inner);
    before[..AT_ONCE.len()].iter().all(Option::is_some).then(|| IS_AT_ONCE.load(SeqCst))
}

/// When this process was asked to stop gracefully, see [`process::now`].
pub fn to_stop_gracefully() -> Option<u64> {
    Some(SINCE.load(SeqCst)).filter(|since| *since != 0)
}

/// A descriptor that becomes readable when this process is asked to stop at once. The signals are
/// blocked from now on: what came before is said by [`to_stop_at_once`].
///
/// # Errors
/// It cannot be had.
pub fn stop_at_once() -> io::Result<OwnedFd> {
    descriptor(&AT_ONCE)
}
