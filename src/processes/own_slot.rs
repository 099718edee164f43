//! The place of this process in shared memory, where all that it does is counted.

use std::sync::atomic::Ordering::Relaxed;

use once_cell::sync::OnceCell;
use shared::{Fallback, Refusal, Shared, Slot, TlsSession};

use crate::ffi::server::Process;
use crate::processes::memory::shared;

/// The slot of a child, or of the drain process that was forked from it. Set once, by the child when
/// it starts; never in the parent.
static OWN: OnceCell<&'static Slot> = OnceCell::new();

/// Where a process counts for which no slot is left.
static UNSHARED: Slot = Slot::new();

/// Takes a slot for a child that starts.
pub(crate) fn claim(_: &Process<'_>) -> &'static Slot {
    let found = || failpoint::check!("child.slot").ok().and_then(|()| shared());
    OWN.get_or_init(|| found().and_then(Shared::claim).unwrap_or(&UNSHARED))
}

/// This process's slot. `None` in the parent.
pub(crate) fn slot() -> Option<&'static Slot> {
    OWN.get().copied()
}

/// A tunnel was handed over.
pub(crate) fn count_handed_over() {
    if let Some(slot) = slot() {
        slot.counts.handed_over.fetch_add(1, Relaxed);
    }
}

/// A tunnel stayed in its thread.
pub(crate) fn count_fallback(why: Fallback) {
    if let Some(slot) = slot() {
        slot.counts.fallen_back.of(&why).fetch_add(1, Relaxed);
    }
}

/// A TLS session was handed over.
pub(crate) fn count_tls_session(what: TlsSession) {
    if let Some(slot) = slot() {
        slot.counts.tls_sessions.of(&what).fetch_add(1, Relaxed);
    }
}

/// An upgrade request was refused.
pub(crate) fn count_refusal(why: Refusal) {
    if let Some(slot) = slot() {
        slot.counts.refused.of(&why).fetch_add(1, Relaxed);
    }
}

/// A tunnel was lost on its way to the relay.
pub(crate) fn count_lost() {
    if let Some(slot) = slot() {
        slot.counts.relay.count_lost();
    }
}

/// Lines of access logs were lost.
pub(crate) fn count_lost_access_lines(lines: u64) {
    if let Some(slot) = slot() {
        slot.counts.access_lines_lost.fetch_add(lines, Relaxed);
    }
}

/// Lines were lost.
pub(crate) fn count_lost_lines(lines: u64) {
    if let Some(slot) = slot() {
        slot.counts.lines_lost.fetch_add(lines, Relaxed);
    }
}
