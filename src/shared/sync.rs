//! The atomics of the protocols: std's, or loom's, which tries every order of their accesses.

#[cfg(not(loom))]
pub use std::sync::atomic::{AtomicU32, AtomicU64, fence};

#[cfg(loom)]
pub use self::mortal::{AtomicU32, AtomicU64, dies_after};
#[cfg(loom)]
pub use loom::sync::atomic::fence;

/// Where to look in the nth try of a search: no two searches look at the same places, so that
/// processes do not get in each other's way.
#[cfg(not(loom))]
pub fn somewhere(_nth: usize) -> u64 {
    use std::sync::atomic::Ordering::Relaxed;
    use std::time::{SystemTime, UNIX_EPOCH};

    static LAST: std::sync::atomic::AtomicU64 = std::sync::atomic::AtomicU64::new(0);
    // SplitMix64, from another place each time: those that are forked from one process have the same
    // numbers otherwise.
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let seed = u64::from(now.subsec_nanos()) << 32;
    let state = LAST.fetch_add(1, Relaxed).wrapping_add(seed).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let mixed = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

/// loom has to find the same in each of its runs.
#[cfg(loom)]
pub fn somewhere(nth: usize) -> u64 {
    nth as u64
}

/// Atomics of processes that may die before any of their stores.
#[cfg(loom)]
mod mortal {
    use std::cell::Cell;
    use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
    use std::sync::atomic::Ordering;

    loom::thread_local! {
        /// Stores that are left to this process; for ever, if none.
        static LEFT: Cell<Option<u32>> = Cell::new(None);
    }

    struct Died;

    fn store() {
        LEFT.with(|left| match left.get() {
            Some(0) => resume_unwind(Box::new(Died)),
            other => left.set(other.map(|left| left - 1)),
        });
    }

    /// What `body` returns, or `None` if its process died before the store after so many.
    pub fn dies_after<R>(stores: u32, body: impl FnOnce() -> R) -> Option<R> {
        LEFT.with(|left| left.set(Some(stores)));
        let result = catch_unwind(AssertUnwindSafe(body));
        LEFT.with(|left| left.set(None));
        match result {
            Ok(value) => Some(value),
            Err(why) if why.is::<Died>() => None,
            Err(other) => resume_unwind(other),
        }
    }

    macro_rules! atomic {
        ($name:ident, $value:ty) => {
            /// As std's.
            #[derive(Debug)]
            pub struct $name(loom::sync::atomic::$name);

            #[allow(missing_docs, dead_code, reason = "as std's")]
            impl $name {
                pub fn new(value: $value) -> Self {
                    Self(loom::sync::atomic::$name::new(value))
                }

                pub fn load(&self, order: Ordering) -> $value {
                    self.0.load(order)
                }

                pub fn store(&self, value: $value, order: Ordering) {
                    store();
                    self.0.store(value, order);
                }

                pub fn swap(&self, value: $value, order: Ordering) -> $value {
                    store();
                    self.0.swap(value, order)
                }

                pub fn fetch_add(&self, value: $value, order: Ordering) -> $value {
                    store();
                    self.0.fetch_add(value, order)
                }

                pub fn fetch_max(&self, value: $value, order: Ordering) -> $value {
                    store();
                    self.0.fetch_max(value, order)
                }

                pub fn compare_exchange(
                    &self,
                    current: $value,
                    new: $value,
                    success: Ordering,
                    failure: Ordering,
                ) -> Result<$value, $value> {
                    store();
                    self.0.compare_exchange(current, new, success, failure)
                }
            }
        };
    }

    atomic!(AtomicU32, u32);
    atomic!(AtomicU64, u64);
}
