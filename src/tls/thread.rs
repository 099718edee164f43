//! What native sessions of one thread share: cipher contexts, and room for the records of a moment.

use std::cell::RefCell;

use records::MAX_RECORD_BYTES;

use crate::algorithms::Algorithms;
use crate::evp::Evp;

/// The most ciphertext that is received at once, in bytes: four full records.
pub(crate) const INBOX_BYTES: usize = 4 * MAX_RECORD_BYTES;

/// The most text that is sealed at once, in bytes: as many records.
pub(crate) const OUTBOX_TEXT_BYTES: usize = 4 * records::MAX_TEXT_BYTES;

/// Belongs to a thread.
#[derive(Debug)]
pub(crate) struct Scratch {
    pub evp: Evp<'static>,
    /// [`INBOX_BYTES`].
    pub inbox: Vec<u8>,
    pub outbox: Vec<u8>,
}

thread_local! {
    static SCRATCH: RefCell<Option<Box<Scratch>>> = const { RefCell::new(None) };
}

/// Calls `with` with the thread's, which is made at the first call. Not to be called within it.
pub(crate) fn with<T>(algorithms: &'static Algorithms, with: impl FnOnce(&mut Scratch) -> T) -> T {
    SCRATCH.with_borrow_mut(|scratch| {
        let scratch = scratch.get_or_insert_with(|| {
            Box::new(Scratch {
                evp: Evp::new(algorithms),
                inbox: vec![0; INBOX_BYTES],
                outbox: Vec::new(),
            })
        });
        with(scratch)
    })
}

/// Has no keys in this thread's contexts any more. Those of sessions that go on are put into them
/// again.
pub(crate) fn forget_keys() {
    // Where the thread ends they are gone already.
    let _ = SCRATCH.try_with(|scratch| {
        if let Ok(scratch) = scratch.try_borrow()
            && let Some(scratch) = &*scratch
        {
            scratch.evp.forget_keys();
        }
    });
}
