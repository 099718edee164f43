//! What a tunnel does, as whoever carries it writes it, and what it is told.

use std::sync::atomic::AtomicU32;
use std::sync::atomic::AtomicU64 as Count;
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};

use crate::bits::Bits;
use crate::orders::OrderNumber;
use crate::sync::AtomicU64;
use crate::tunnel_entry::TunnelEntry;

/// What a tunnel does: one line of the processor's cache, next to nothing that others write.
///
/// Whoever carries the tunnel stores to it, relaxed, for as long as the tunnel is registered: the
/// entry is another tunnel's afterwards.
#[repr(C, align(64))]
#[derive(Debug)]
pub struct Activity {
    /// Bytes delivered: from the client (up), and from the back end (down).
    pub bytes: [Count; 2],
    /// Messages delivered, up and down: of text, and of other bytes.
    pub messages: [[Count; 2]; 2],
    /// When something was delivered last: seconds of CLOCK_MONOTONIC.
    pub last: AtomicU32,
    /// Where in its relay it is: the thread (the upper 8 bits), and the number of its task, plus 1
    /// (24 bits). 0 is nowhere.
    pub seat: AtomicU32,
    /// What it is told, see [`Activity::order`]. 0 is nothing.
    pub order: AtomicU64,
}

/// A tunnel is to end, because an administrator wants it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Order {
    /// Of the Close frames. Whoever reads it looks whether it may be sent.
    pub code: u16,
    /// Whose order it is, and why: see [`Shared::order_text`](crate::Shared::order_text).
    pub number: OrderNumber,
}

/// An order as it stands in an entry.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct OrderWord(pub u64);

impl OrderWord {
    const CODE: Bits = Bits { from: 0, count: 16 };
    const NUMBER: Bits = Bits::above(Self::CODE, 16);
    /// Of the entry. An order to one that was in it before, or is later, is none.
    const LIFE: Bits = Bits::above(Self::NUMBER, 32);

    pub fn new(life: u32, order: Order) -> Self {
        let word = Self::CODE.set(0, u64::from(order.code));
        let word = Self::NUMBER.set(word, u64::from(order.number.0));
        Self(Self::LIFE.set(word, u64::from(life)))
    }

    /// Whether it is for the tunnel that is in the entry in this life.
    pub const fn is_for(self, life: u32) -> bool {
        Self::LIFE.get(self.0) == life as u64
    }

    fn order(self, life: u32) -> Option<Order> {
        let number = OrderNumber(Self::NUMBER.get_u16(self.0));
        self.is_for(life).then_some(Order { code: Self::CODE.get_u16(self.0), number })
    }
}

#[cfg(not(loom))]
const _: () = assert!(size_of::<Activity>() == 64);

#[cfg(not(loom))]
impl Default for Activity {
    fn default() -> Self {
        Self::new()
    }
}

impl Activity {
    /// All zero, in no register.
    #[cfg(not(loom))]
    pub const fn new() -> Self {
        Self {
            bytes: [const { Count::new(0) }; 2],
            messages: [const { [const { Count::new(0) }; 2] }; 2],
            last: AtomicU32::new(0),
            seat: AtomicU32::new(0),
            order: AtomicU64::new(0),
        }
    }

    #[cfg(loom)]
    pub(crate) fn new() -> Self {
        Self {
            bytes: std::array::from_fn(|_| Count::new(0)),
            messages: std::array::from_fn(|_| std::array::from_fn(|_| Count::new(0))),
            last: AtomicU32::new(0),
            seat: AtomicU32::new(0),
            order: AtomicU64::new(0),
        }
    }

    /// What the tunnel that has this entry is told. One load; whoever looks for the first time has
    /// stored the seat before.
    pub fn order(&self, entry: TunnelEntry) -> Option<Order> {
        OrderWord(self.order.load(Acquire)).order(entry.life())
    }

    pub(crate) fn begin(&self, seconds: u32) {
        for count in self.counts() {
            count.store(0, Relaxed);
        }
        self.last.store(seconds, Relaxed);
        self.seat.store(0, Relaxed);
        self.order.store(0, Release);
    }

    /// The bytes and the messages, which are somebody else's from now on.
    pub(crate) fn take_counts(&self) -> ([u64; 2], [[u64; 2]; 2]) {
        let take = |count: &Count| count.swap(0, Relaxed);
        let messages = self.messages.each_ref().map(|way| way.each_ref().map(take));
        (self.bytes.each_ref().map(take), messages)
    }

    fn counts(&self) -> impl Iterator<Item = &Count> {
        self.bytes.iter().chain(self.messages.iter().flatten())
    }
}
