//! Memory that the caller has mapped, and what is laid out in it.

use std::ptr::NonNull;

/// A type that may live in memory shared by processes.
///
/// # Safety
/// Implementors are made of atomics only, laid out as C would, and valid whatever bytes are there:
/// another process may write any.
pub unsafe trait Shareable {
    /// Changes whenever the layout or its meaning does, so that another build of the module does
    /// not take this one's memory for its own.
    const LAYOUT: u64;
}

/// Memory shared by processes, mapped for as long as this one lives.
#[derive(Clone, Copy, Debug)]
pub struct Mapping {
    start: NonNull<u8>,
    length: usize,
    layout: u64,
}

impl Mapping {
    /// Memory of `length` bytes that has, or is to have, a layout.
    ///
    /// # Safety
    /// It stays mapped at `start`, readable and writable, until the process ends, and is accessed
    /// by [`Shareable`] types alone, or by other processes. It was all zero in the beginning.
    pub const unsafe fn new(start: NonNull<u8>, length: usize, layout: u64) -> Self {
        Self { start, length, layout }
    }

    /// What is laid out in it. `None` if that is something else, or does not fit.
    pub fn get<T: Shareable + 'static>(self) -> Option<&'static T> {
        let start = self.start.cast::<T>();
        let fits = self.layout == T::LAYOUT && self.length >= size_of::<T>() && start.is_aligned();
        if !fits {
            return None;
        }
        // SAFETY: as long as a T, aligned, mapped for ever (`new`); any bytes are a T, and atomics
        // may be written to by others (`Shareable`).
        Some(unsafe { start.as_ref() })
    }
}

// SAFETY: says where memory is that all threads may use, by atomics alone.
unsafe impl Send for Mapping {}
// SAFETY: as above.
unsafe impl Sync for Mapping {}
