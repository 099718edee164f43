//! Memory that all processes of a server share, across reloads.

use std::ffi::{CStr, c_void};
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::ptr::NonNull;

use os::descriptors::keep_open;
use shared::{Mapping, Shareable};

use super::sys;

/// What httpd keeps for us in the parent while modules are unloaded and loaded.
#[repr(C)]
struct Retained {
    memory: *mut c_void,
    layout: u64,
}

/// The one `T` of this server: that of the last configuration, if it has the
/// same layout, or a new one, all zero. In the parent, before children are made.
///
/// # Errors
/// The memory cannot be mapped.
pub(crate) fn retained<T: Shareable + 'static>(key: &CStr) -> std::io::Result<&'static T> {
    // SAFETY: looks up memory that httpd keeps for the life of the parent.
    let kept = unsafe { sys::ap_retained_data_get(key.as_ptr()) };
    let kept = if kept.is_null() {
        // SAFETY: makes that memory, all zero.
        unsafe { sys::ap_retained_data_create(key.as_ptr(), size_of::<Retained>()) }
    } else {
        kept
    };
    // SAFETY: made above, now or before, in this size; the parent has one thread.
    let Some(kept) = (unsafe { kept.cast::<Retained>().as_mut() }) else {
        return Err(std::io::ErrorKind::OutOfMemory.into());
    };
    if kept.memory.is_null() || kept.layout != T::LAYOUT {
        // The memory of another layout stays with the processes that still use it.
        // SAFETY: asks for new memory; nothing of ours is replaced.
        let memory = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                size_of::<T>(),
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_SHARED | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE,
                -1,
                0,
            )
        };
        if memory == libc::MAP_FAILED {
            return Err(std::io::Error::last_os_error());
        }
        *kept = Retained { memory, layout: T::LAYOUT };
    }
    let memory = NonNull::new(kept.memory.cast::<u8>()).ok_or(std::io::ErrorKind::OutOfMemory)?;
    // SAFETY: mapped above, now or before, in the size of a T of this layout, readable and writable,
    // and never unmapped; nobody else knows of it.
    let mapping = unsafe { Mapping::new(memory, size_of::<T>(), kept.layout) };
    mapping.get().ok_or_else(|| std::io::ErrorKind::InvalidData.into())
}

/// Descriptors that httpd keeps for us in the same way.
#[repr(C)]
struct RetainedDescriptors<const N: usize> {
    /// 0 if there are none yet.
    layout: u64,
    fds: [RawFd; N],
}

/// The descriptors of this name: those of the last configuration, if what goes through them is
/// still of the same `layout`, or new ones by `make`. They stay open in the parent, and so in all
/// its children. Their numbers are in memory of the parent's own, to which no child can write: it
/// uses some of them as root. In the parent, before children are made.
///
/// # Errors
/// They cannot be made.
pub(crate) fn retained_descriptors<const N: usize>(
    key: &CStr,
    layout: u64,
    make: impl FnOnce() -> std::io::Result<[OwnedFd; N]>,
) -> std::io::Result<[BorrowedFd<'static>; N]> {
    // SAFETY: looks up memory that httpd keeps for the life of the parent.
    let kept = unsafe { sys::ap_retained_data_get(key.as_ptr()) };
    let kept = if kept.is_null() {
        // SAFETY: makes that memory, all zero.
        unsafe { sys::ap_retained_data_create(key.as_ptr(), size_of::<RetainedDescriptors<N>>()) }
    } else {
        kept
    };
    // SAFETY: made above, now or before, in this size; the parent has one thread.
    let Some(kept) = (unsafe { kept.cast::<RetainedDescriptors<N>>().as_mut() }) else {
        return Err(std::io::ErrorKind::OutOfMemory.into());
    };
    if kept.layout != layout {
        // Those of another layout stay with the processes that still use them.
        let fds = make()?.map(|fd| keep_open(fd).as_raw_fd());
        *kept = RetainedDescriptors { layout, fds };
    }
    // SAFETY: kept open above, now or before.
    Ok(kept.fds.map(|fd| unsafe { BorrowedFd::borrow_raw(fd) }))
}
