//! When httpd's parent was asked to stop gracefully: the MPM keeps that to itself.

use std::ffi::c_int;
use std::sync::atomic::{AtomicPtr, AtomicU32, AtomicU64, AtomicUsize, Ordering::SeqCst};
use std::sync::{Mutex, PoisonError};

use crate::process;
use crate::signals::current;

/// What asks for it.
const GRACEFUL: c_int = libc::SIGWINCH;

/// The process that is asked: those that it forks have its handler for a while.
static OWNER: AtomicU32 = AtomicU32::new(0);

/// When it was asked, see [`process::now`]; 0 if it was not.
static SINCE: AtomicU64 = AtomicU64::new(0);

/// A `fn(u64)`, which is told of that.
static ON_GRACEFUL: AtomicPtr<()> = AtomicPtr::new(std::ptr::null_mut());

/// The MPM's own handler, 0 if it has none.
static NEXT: AtomicUsize = AtomicUsize::new(0);

/// What there was before this module's handler, for as long as that is there.
static BEFORE: Mutex<Option<libc::sigaction>> = Mutex::new(None);

extern "C" fn on_signal(signal: c_int) {
    if std::process::id() == OWNER.load(SeqCst) {
        note(process::now());
    }
    let next = NEXT.load(SeqCst);
    if next != 0 {
        // SAFETY: what sigaction gave as a handler without SA_SIGINFO, which takes the number.
        let next: extern "C" fn(c_int) = unsafe { std::mem::transmute(next) };
        next(signal);
    }
}

/// A graceful stop has begun, if none has yet.
pub fn note(since: u64) {
    let told = ON_GRACEFUL.load(SeqCst);
    if SINCE.compare_exchange(0, since, SeqCst, SeqCst).is_ok() && !told.is_null() {
        // SAFETY: what `watch` stored.
        let told: fn(u64) = unsafe { std::mem::transmute(told) };
        told(since);
    }
}

fn is_ours(action: &libc::sigaction) -> bool {
    let ours: extern "C" fn(c_int) = on_signal;
    action.sa_sigaction == ours as libc::sighandler_t
}

/// Has it noted when this process is asked to stop gracefully, besides what the MPM does about it.
/// `on_graceful` is told, within the handler of the signal: it takes no lock and no memory. To be called
/// again when the MPM may have set its handler anew. Another module's, of the wider kind, is left alone.
pub fn watch(on_graceful: fn(u64)) {
    let ours: extern "C" fn(c_int) = on_signal;
    let mut before = BEFORE.lock().unwrap_or_else(PoisonError::into_inner);
    OWNER.store(std::process::id(), SeqCst);
    ON_GRACEFUL.store(on_graceful as *mut (), SeqCst);
    let Ok(now) = current(GRACEFUL) else { return };
    let has_next = now.sa_sigaction != libc::SIG_DFL && now.sa_sigaction != libc::SIG_IGN;
    if is_ours(&now) || now.sa_flags & libc::SA_SIGINFO != 0 || !has_next {
        return;
    }
    NEXT.store(now.sa_sigaction, SeqCst);
    let mut action = now;
    action.sa_sigaction = ours as libc::sighandler_t;
    // SAFETY: the handler calls nothing that a handler may not, and is there until `leave`.
    if unsafe { libc::sigaction(GRACEFUL, &raw const action, std::ptr::null_mut()) } == 0 {
        *before = Some(now);
    }
}

/// Puts back what was there, unless somebody has done so meanwhile: the code of the handler may be
/// unloaded before the process ends. What was asked for is forgotten: either it is done, or the MPM has
/// forgotten it too.
pub fn leave() {
    let before = BEFORE.lock().unwrap_or_else(PoisonError::into_inner).take();
    if let Some(before) = before
        && current(GRACEFUL).is_ok_and(|now| is_ours(&now))
    {
        // SAFETY: what the kernel itself gave.
        unsafe { libc::sigaction(GRACEFUL, &raw const before, std::ptr::null_mut()) };
    }
    SINCE.store(0, SeqCst);
}

/// When this process was asked to stop gracefully, see [`process::now`].
pub fn to_stop_gracefully() -> Option<u64> {
    Some(SINCE.load(SeqCst)).filter(|since| *since != 0)
}
