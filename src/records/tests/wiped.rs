//! Secrets are overwritten before their memory is given back.

mod common;

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::Mutex;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering::Relaxed;

use common::{Direction, Ring};
use records::{Keys, Secret, Suite, Version, wipe};

/// What no memory has by chance.
const MARK: [u8; 16] = *b"\xf3\x91\x0c\xd7\x5e\x88\x1b\xe2\x6d\xa9\x34\xc1\x7f\x02\xbd\x46";

/// How many blocks were given back with the mark in them.
static SEEN: AtomicUsize = AtomicUsize::new(0);

struct Looking;

// SAFETY: memory is the system's, and is looked at before it goes back.
unsafe impl GlobalAlloc for Looking {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller's promise. All of it has a value, so that all of it can be read.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        // SAFETY: a block of this layout, which `alloc` wrote, and which nobody uses any more.
        let bytes = unsafe { std::slice::from_raw_parts(block, layout.size()) };
        if bytes.windows(MARK.len()).any(|bytes| *bytes == MARK) {
            SEEN.fetch_add(1, Relaxed);
        }
        // SAFETY: the caller's promise.
        unsafe { System.dealloc(block, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Looking = Looking;

/// In how many blocks the mark was that were given back meanwhile.
fn seen(meanwhile: impl FnOnce()) -> usize {
    static ALONE: Mutex<()> = Mutex::new(());
    let _alone = ALONE.lock().expect("no panic");
    let before = SEEN.load(Relaxed);
    meanwhile();
    SEEN.load(Relaxed) - before
}

#[test]
fn what_is_wiped_is_gone() {
    let mut bytes = MARK.to_vec();
    assert_eq!(seen(|| drop(MARK.to_vec())), 1, "the mark is seen");
    wipe(&mut bytes);
    assert_eq!(bytes, [0; 16]);
    assert_eq!(seen(|| drop(bytes)), 0);
}

#[test]
fn keys_and_secrets_leave_nothing() {
    let suite = Suite::Aes128Gcm;
    let secret = [MARK, MARK].concat();
    let made = seen(|| {
        let secret = Secret::new(suite, &secret).expect("its length");
        let keys = Keys::tls12(suite, &MARK, &[1; 4]).expect("its length");
        assert_eq!(keys.key(suite), MARK);
        drop((secret, keys));
    });
    assert_eq!(made, 0);
}

#[test]
fn a_record_that_proved_something_leaves_nothing() {
    let mut direction = Direction::new(Version::Tls13, Suite::Aes128Gcm);
    let last = direction.seal(23, &MARK);
    let made = seen(|| {
        let (proved, opened) = direction.keys().prove(&Ring, &last, 0..=0).expect("proved");
        assert!(opened.is_data());
        drop((proved, opened));
    });
    assert_eq!(made, 0);
}
