//! Rust's memory in this module: malloc's, with a stock of the blocks that every tunnel needs.
//!
//! tokio begins a task, and each of its two sockets, at a cache line of their own. glibc looks
//! for such a block in all of its memory and cuts it to size, ten times the work of a malloc
//! (2.36, malloc.c, `_int_memalign`: its cache for each thread does not serve aligned blocks), so
//! a thread keeps some for the next tunnel.

#![cfg_attr(
    not(test),
    warn(clippy::cast_possible_truncation, clippy::cast_possible_wrap, clippy::cast_sign_loss)
)]

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

/// What the module's Rust code allocates with.
#[derive(Debug)]
pub struct BlockCache;

/// None is kept for AddressSanitizer, which is to see a use of what was freed.
fn is_kept(layout: Layout) -> bool {
    !cfg!(sanitizer) && layout.align() == ALIGNMENT && layout.size() >= ALIGNMENT
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
unsafe impl GlobalAlloc for BlockCache {
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

#[cfg(test)]
mod tests {
    use std::alloc::{GlobalAlloc, Layout};

    use super::{ALIGNMENT, BlockCache, MOST, SIZES, is_kept};

    const MEMORY: BlockCache = BlockCache;

    fn aligned(size: usize) -> Layout {
        Layout::from_size_align(size, ALIGNMENT).expect("a layout")
    }

    /// Allocates `count` blocks, writes all over them, frees them, and returns their addresses.
    fn round(layout: Layout, count: usize) -> Vec<usize> {
        // SAFETY: each block is written within its size, and freed once with its layout.
        unsafe {
            let blocks: Vec<_> = (0..count).map(|_| MEMORY.alloc(layout)).collect();
            for (n, block) in blocks.iter().enumerate() {
                assert!(!block.is_null() && block.addr() % layout.align() == 0);
                block.write_bytes(n as u8, layout.size());
            }
            for (n, block) in blocks.iter().enumerate() {
                assert_eq!((block.read(), block.add(layout.size() - 1).read()), (n as u8, n as u8));
            }
            let mut addresses: Vec<_> = blocks.iter().map(|block| block.addr()).collect();
            blocks.into_iter().for_each(|block| MEMORY.dealloc(block, layout));
            addresses.sort_unstable();
            addresses
        }
    }

    /// Smaller ones have no room for what the stock writes, others would not be aligned.
    #[test]
    fn only_aligned_blocks_are_kept() {
        assert!(is_kept(aligned(ALIGNMENT)) && is_kept(aligned(384)));
        for (size, align) in [(384, 64), (384, 256), (384, 8), (8, ALIGNMENT)] {
            assert!(!is_kept(Layout::from_size_align(size, align).expect("a layout")));
        }
        alone(|| {
            // Of one size, with less alignment first: none of it may come from the other's stock.
            for align in [8, 64, ALIGNMENT, 8, 512, ALIGNMENT, 4096] {
                round(Layout::from_size_align(1024, align).expect("a layout"), 2 * MOST);
            }
        });
    }

    /// In a thread of its own, with a stock of its own.
    fn alone(test: impl FnOnce() + Send + 'static) {
        std::thread::spawn(test).join().expect("the test");
    }

    #[test]
    fn what_was_freed_is_given_out_again() {
        alone(|| {
            let first = round(aligned(384), MOST);
            assert_eq!(round(aligned(384), MOST), first);
        });
    }

    #[test]
    fn every_size_and_every_crowd_is_served() {
        alone(|| {
            for size in (1..=2 * SIZES).rev().chain(1..=2 * SIZES).map(|n| n * ALIGNMENT) {
                round(aligned(size), 3 * MOST);
                round(aligned(size), MOST / 2);
            }
            for layout in [aligned(8), aligned(0x10_0000), Layout::new::<[u64; 100]>()] {
                round(layout, 3 * MOST);
            }
        });
    }

    #[test]
    fn a_block_may_be_freed_by_another_thread() {
        let blocks: Vec<usize> = std::thread::spawn(|| {
            // SAFETY: freed below, with the same layout.
            (0..MOST).map(|_| unsafe { MEMORY.alloc(aligned(640)) }.expose_provenance()).collect()
        })
        .join()
        .expect("the blocks");
        alone(move || {
            let freed = blocks.clone();
            for block in blocks {
                let block = std::ptr::with_exposed_provenance_mut(block);
                // SAFETY: allocated above, and freed once.
                unsafe { MEMORY.dealloc(block, aligned(640)) };
            }
            let again = round(aligned(640), MOST);
            assert!(again.iter().all(|block| freed.contains(block)));
        });
    }
}
