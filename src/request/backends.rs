//! How many tunnels each back end has: every open one of ours, in its thread, in the relay or in a
//! drain process, and every upgrade request on its way to it. Members of balancers are chosen by
//! that (`lbmethod=bytunnels`) and limited by it (`WSForwardMaxTunnelsPerBackend`).

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{SystemTime, UNIX_EPOCH};

use messages::MaxTunnelsPerBackend;
use protocol::backend;
use shared::{Refusal, Shared, TallyEntry, TallyKey};

use crate::config::DirConfig;
use crate::ffi::guard::poisoned;
use crate::ffi::request::Request;
use crate::processes::memory::shared;
use crate::processes::{child, own_slot};
use crate::request::reservation::{BackendPlace, Reservation};
use crate::request::{admission, decision};

/// Whether a request that mod_proxy is about to send may become a tunnel of ours.
pub(crate) fn may_be_tunnel(r: Request<'_>) -> bool {
    let config = DirConfig::of(r);
    config.forward()
        && !poisoned()
        && r.is_reverse_proxied()
        && !r.is_subrequest()
        && decision::is_no_error(r)
        && decision::decide(r, &config).is_ok()
}

/// Where the back end behind a URL, or behind the name of a worker, is counted.
fn key(url: &[u8]) -> Option<(Shared<'static>, TallyKey)> {
    let shared = shared()?;
    Some((shared, shared.backend_key(&backend::name(url)?)))
}

/// How many tunnels it has.
pub(crate) fn tunnels(worker: &[u8]) -> u64 {
    key(worker).map_or(0, |(shared, key)| shared.open_of_backend(key) as u64)
}

/// Whether it may have no more.
pub(crate) fn is_full(worker: &[u8]) -> bool {
    child::settings().max_per_backend.is_some_and(|most| tunnels(worker) >= u64::from(most))
}

/// Those of processes that died are not counted any more.
pub(crate) fn look_closer() {
    if let Some(shared) = shared() {
        shared.clear_dead();
    }
}

/// The same now and then: where nothing is limited, nobody else may look.
fn look_each_second() {
    static LAST: AtomicU64 = AtomicU64::new(0);
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |now| now.as_secs());
    if LAST.swap(now, Relaxed) != now {
        look_closer();
    }
}

/// A request goes to a back end, and is counted for it until it is over, or its tunnel. `false` if
/// that has too many then: it is not counted.
pub(crate) fn count(r: Request<'_>, worker: &[u8]) -> bool {
    look_each_second();
    let (Some((_, key)), Some(slot)) = (key(worker), own_slot::slot()) else {
        forget(r);
        return true;
    };
    let before = Reservation::look(r, |reservation| reservation.backend.take());
    // It may have been sent to another one before, in vain.
    let place = match before.filter(|place| place.key == key) {
        Some(place) => Some(place),
        None => {
            let most = child::settings().max_per_backend.map_or(usize::MAX, |most| most as usize);
            let Ok(place) = BackendPlace::take(key, slot, most) else { return false };
            place
        }
    };
    if place.is_some() {
        Reservation::change(r, |reservation| reservation.backend.set(place));
    }
    true
}

/// The handler sends a request to the back end behind `url`, or refuses it.
///
/// # Errors
/// The status to answer with.
pub(crate) fn admit(r: Request<'_>, url: &[u8]) -> Result<(), u16> {
    if count(r, url) {
        return Ok(());
    }
    admission::give_back(r);
    let most = child::settings().max_per_backend.unwrap_or_default();
    let name = backend::name(url).unwrap_or_default();
    let text = MaxTunnelsPerBackend { most: &most, backend: &name.escape_ascii() };
    Err(admission::refuse(r, Refusal::Backend, &text))
}

/// The place of a request, for the record of its tunnel.
pub(crate) fn take_entry(r: Request<'_>) -> Option<TallyEntry> {
    let place = Reservation::look(r, |reservation| reservation.backend.take());
    place.map(BackendPlace::into_entry)
}

/// A request is at no back end any more, or is not to become a tunnel.
pub(crate) fn forget(r: Request<'_>) {
    drop(Reservation::look(r, |reservation| reservation.backend.take()));
}
