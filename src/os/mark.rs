//! Whether this is still the process that something was made in, without asking the kernel each time.

use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

/// Left by the process that made it. One that is forked from it does not find it.
#[derive(Debug)]
pub struct Mark {
    /// Its process.
    pid: u32,
    /// 1 there, in memory that a fork wipes; none where the kernel is older than that (4.14).
    page: Option<&'static AtomicU32>,
}

impl Mark {
    /// Leaves one for as long as the process lives.
    #[must_use]
    pub fn leave() -> Self {
        Self { pid: std::process::id(), page: wiped_page() }
    }

    /// Whether this process left it.
    #[must_use]
    pub fn is_ours(&self) -> bool {
        match self.page {
            Some(page) => page.load(Relaxed) == 1,
            None => self.pid == std::process::id(),
        }
    }

    /// The process that left it.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.pid
    }
}

/// A page that has a 1 in this process, and a 0 in those that are forked from it.
fn wiped_page() -> Option<&'static AtomicU32> {
    const PAGE_BYTES: usize = 4096;
    // SAFETY: fresh memory of the kernel's choice, which nobody else has.
    let page = unsafe {
        libc::mmap(
            std::ptr::null_mut(),
            PAGE_BYTES,
            libc::PROT_READ | libc::PROT_WRITE,
            libc::MAP_PRIVATE | libc::MAP_ANONYMOUS,
            -1,
            0,
        )
    };
    if page == libc::MAP_FAILED {
        return None;
    }
    // SAFETY: that memory, and nothing is in it yet.
    if unsafe { libc::madvise(page, PAGE_BYTES, libc::MADV_WIPEONFORK) } != 0 {
        // SAFETY: nobody knows of it.
        unsafe { libc::munmap(page, PAGE_BYTES) };
        return None;
    }
    // SAFETY: a whole page, aligned, all zero, and never unmapped: there for as long as the process.
    let page = unsafe { &*page.cast::<AtomicU32>() };
    page.store(1, Relaxed);
    Some(page)
}

#[cfg(test)]
mod tests {
    use super::Mark;

    #[test]
    fn a_forked_process_does_not_find_it() {
        let with_page = Mark::leave();
        let without = Mark { page: None, ..Mark::leave() };
        assert!(with_page.page.is_some());
        for mark in [&with_page, &without] {
            assert!(mark.is_ours());
            assert_eq!(mark.pid(), std::process::id());
            // SAFETY: the new process calls nothing that is not for signal handlers.
            let pid = unsafe { libc::fork() };
            if pid == 0 {
                // SAFETY: ends the process, at once.
                unsafe { libc::_exit(mark.is_ours().into()) };
            }
            let mut status = 0;
            // SAFETY: waits for that process, and writes to `status`.
            assert_eq!(unsafe { libc::waitpid(pid, &raw mut status, 0) }, pid);
            assert_eq!(status, 0, "it found the mark");
            assert!(mark.is_ours());
        }
    }
}
