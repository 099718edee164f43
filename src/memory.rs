//! Rust's memory in this module: malloc's, with a stock of the blocks that every tunnel needs.
//!
//! tokio begins a task, and each of its two sockets, at a cache line of their own. glibc looks
//! for such a block in all of its memory and cuts it to size, ten times the work of a malloc
//! (2.36, malloc.c, `_int_memalign`: its cache for each thread does not serve aligned blocks), so
//! a thread keeps some for the next tunnel.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

/// The alignment, in bytes: x86-64 and AArch64 fetch cache lines in pairs.
const ALIGNMENT: usize = 128;
/// How many sizes there are, and how many blocks of each a thread keeps.
const SIZES: usize = 4;
const MOST: usize = 32;

/// Free blocks of one size, each with the address of the next in its first bytes.
#[derive(Clone, Copy)]
struct Stock {
    size: usize,
    count: usize,
    first: *mut u8,
}

thread_local! {
    // Without a destructor: it is there whenever something is freed.
    static STOCKS: [Cell<Stock>; SIZES] = const {
        [const { Cell::new(Stock { size: 0, count: 0, first: std::ptr::null_mut() }) }; SIZES]
    };
}

/// What Rust code here allocates with.
pub struct Memory;

#[global_allocator]
static MEMORY: Memory = Memory;

fn is_kept(layout: Layout) -> bool {
    layout.align() == ALIGNMENT && layout.size() >= ALIGNMENT
}

/// A block of this size from the thread's stock.
fn take(size: usize) -> Option<*mut u8> {
    STOCKS.with(|stocks| {
        let place = stocks.iter().find(|place| place.get().size == size)?;
        let Stock { count, first, .. } = place.get();
        let count = count.checked_sub(1)?;
        // SAFETY: a block in stock is free, of at least ALIGNMENT bytes, and `put` wrote the next
        // one's address there.
        let next = unsafe { first.cast::<*mut u8>().read() };
        place.set(Stock { size, count, first: next });
        Some(first)
    })
}

/// Adds a block to the thread's stock. Whether there is room.
///
/// # Safety
/// `block` is of `size` bytes, at least ALIGNMENT, and nobody uses it.
unsafe fn put(block: *mut u8, size: usize) -> bool {
    STOCKS.with(|stocks| {
        let of_size = stocks.iter().find(|place| place.get().size == size);
        let Some(place) = of_size.or_else(|| stocks.iter().find(|place| place.get().count == 0))
        else {
            return false;
        };
        let Stock { count, first, .. } = place.get();
        if count == MOST {
            return false;
        }
        // SAFETY: the block is free by the caller, and has room for an address, aligned for it.
        unsafe { block.cast::<*mut u8>().write(first) };
        place.set(Stock { size, count: count + 1, first: block });
        true
    })
}

// SAFETY: every block is System's, of the layout that was asked for: one in stock was of the same
// size and alignment, belongs to nobody, and is given out once. Nothing here panics.
unsafe impl GlobalAlloc for Memory {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        if is_kept(layout)
            && let Some(block) = take(layout.size())
        {
            return block;
        }
        // SAFETY: the caller's.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        // SAFETY: the caller gives the block up.
        if is_kept(layout) && unsafe { put(block, layout.size()) } {
            return;
        }
        // SAFETY: the caller's; blocks are System's.
        unsafe { System.dealloc(block, layout) };
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller's.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, block: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        // SAFETY: the caller's; blocks are System's.
        unsafe { System.realloc(block, layout, size) }
    }
}
