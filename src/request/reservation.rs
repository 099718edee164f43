//! What a request holds until it is over, or until its tunnel does: a place among the relayed tunnels,
//! and one among those of its back end.

use std::cell::Cell;
use std::mem::ManuallyDrop;
use std::sync::atomic::Ordering::SeqCst;

use shared::{Full, Slot, TallyEntry, TallyKey};

use crate::ffi::request::Request;
use crate::processes::memory::shared;

/// Kept with a request.
#[derive(Default)]
pub(crate) struct Reservation {
    /// Its place among the relayed tunnels.
    pub place: Cell<Option<Place>>,
    /// Its place among the tunnels of its back end.
    pub backend: Cell<Option<BackendPlace>>,
    /// The handler refused it with this status.
    pub refused: Cell<Option<u16>>,
}

impl Reservation {
    /// Looks at that of a request, if it has one.
    pub(crate) fn look<T>(r: Request<'_>, look: impl FnOnce(&Self) -> Option<T>) -> Option<T> {
        r.kept::<Self>().and_then(look)
    }

    /// Changes that of a request, which has one from now on.
    pub(crate) fn change(r: Request<'_>, change: impl FnOnce(&Self)) {
        match r.kept::<Self>() {
            Some(reservation) => change(reservation),
            None => {
                let reservation = Self::default();
                change(&reservation);
                r.keep(reservation);
            }
        }
    }
}

/// A place among the tunnels, for one that is not counted as open yet.
pub(crate) struct Place {
    slot: &'static Slot,
    /// Where its client is counted, until the tunnel's record has it.
    pub client_entry: Option<TallyEntry>,
}

impl Place {
    /// Takes one of a process's.
    pub(crate) fn take(slot: &'static Slot) -> Self {
        slot.reserved.fetch_add(1, SeqCst);
        Self { slot, client_entry: None }
    }

    /// Makes the client's entry the record's.
    pub(crate) fn take_client_entry(&mut self) -> Option<TallyEntry> {
        self.client_entry.take()
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.slot.reserved.fetch_sub(1, SeqCst);
        if let (Some(entry), Some(shared)) = (self.client_entry.take(), shared()) {
            shared.forget_client(entry);
        }
    }
}

/// A place among the tunnels of a back end.
pub(crate) struct BackendPlace {
    /// Which back end.
    pub key: TallyKey,
    entry: TallyEntry,
}

impl BackendPlace {
    /// Takes one of this back end's `most`. `None` if it cannot be counted.
    ///
    /// # Errors
    /// All are taken.
    pub(crate) fn take(key: TallyKey, slot: &Slot, most: usize) -> Result<Option<Self>, Full> {
        let Some(shared) = shared() else { return Ok(None) };
        let entry = shared.count_backend(key, slot, most)?;
        Ok(entry.map(|entry| Self { key, entry }))
    }

    /// Makes the entry the tunnel's record's.
    pub(crate) fn into_entry(self) -> TallyEntry {
        ManuallyDrop::new(self).entry
    }
}

impl Drop for BackendPlace {
    fn drop(&mut self) {
        if let Some(shared) = shared() {
            shared.forget_backend(self.entry);
        }
    }
}
