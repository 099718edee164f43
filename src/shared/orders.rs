//! What orders say beside their code: why, and whose they are. The last few are kept.

use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};

use crate::bits::{index, low_u16};
use crate::sync::{AtomicU64, fence};
use crate::text;

/// So many.
const KEPT: usize = if cfg!(loom) { 2 } else { 64 };
/// A Close frame has no room for more.
const REASON_BYTES: usize = 123;
const WHO_BYTES: usize = 64;
const REASON_WORDS: usize = if cfg!(loom) { 1 } else { REASON_BYTES.div_ceil(8) };
const WHO_WORDS: usize = if cfg!(loom) { 1 } else { WHO_BYTES.div_ceil(8) };

/// The number of an order, by which its text is found as long as it is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OrderNumber(pub(crate) u16);

/// The text of one order.
#[repr(C)]
struct Text {
    /// Of the order. 0 while it is written.
    number: AtomicU64,
    /// The length of the reason, and 256 times that of who it is.
    lengths: AtomicU64,
    reason: [AtomicU64; REASON_WORDS],
    who: [AtomicU64; WHO_WORDS],
}

/// The texts of orders.
#[repr(C)]
pub(crate) struct OrderTexts {
    /// Of the last order.
    last: AtomicU64,
    texts: [Text; KEPT],
}

impl OrderTexts {
    #[cfg(loom)]
    pub fn new() -> Self {
        let text = |_| Text {
            number: AtomicU64::new(0),
            lengths: AtomicU64::new(0),
            reason: std::array::from_fn(|_| AtomicU64::new(0)),
            who: std::array::from_fn(|_| AtomicU64::new(0)),
        };
        Self { last: AtomicU64::new(0), texts: std::array::from_fn(text) }
    }

    /// Takes the place of the oldest.
    pub fn add(&self, reason: &[u8], who: &[u8]) -> OrderNumber {
        let number = self.last.fetch_add(1, Relaxed).wrapping_add(1);
        if let Some(text) = self.texts.get(index(number) % KEPT) {
            let (reason, who) = (text::cut(reason, REASON_BYTES), text::cut(who, WHO_BYTES));
            text.number.store(0, Relaxed);
            // Whoever reads some of what follows sees that it is written.
            fence(Release);
            text.lengths.store((reason.len() | who.len() << 8) as u64, Relaxed);
            text::store(&text.reason, reason);
            text::store(&text.who, who);
            text.number.store(number, Release);
        }
        OrderNumber(low_u16(number))
    }

    /// The reason, and who it is. `None` if it is not kept any more.
    pub fn get(&self, number: OrderNumber) -> Option<(Vec<u8>, Vec<u8>)> {
        let text = self.texts.get(usize::from(number.0) % KEPT)?;
        let found = text.number.load(Acquire);
        if found == 0 || low_u16(found) != number.0 {
            return None;
        }
        let lengths = index(text.lengths.load(Acquire));
        let mut reason = vec![0; (lengths & 0xff).min(REASON_BYTES)];
        let mut who = vec![0; (lengths >> 8 & 0xff).min(WHO_BYTES)];
        text::load(&text.reason, &mut reason);
        text::load(&text.who, &mut who);
        (text.number.load(Relaxed) == found).then_some((reason, who))
    }
}
