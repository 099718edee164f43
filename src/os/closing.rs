//! Closing all descriptors of a process but some.

use std::ffi::c_int;

use crate::descriptors;

/// Closes every descriptor but these, which are sorted.
///
/// # Safety
/// Nobody uses or owns any other one any more.
pub(crate) unsafe fn close_all_but(keep: &[u32]) {
    let mut first = 0;
    for fd in keep.iter().map(|fd| Some(*fd)).chain([None]) {
        let last = fd.map_or(Some(u32::MAX), |fd| fd.checked_sub(1));
        if let Some(last) = last.filter(|last| first <= *last) {
            // SAFETY: by the caller.
            if unsafe { libc::syscall(libc::SYS_close_range, first, last, 0) } != 0 {
                // SAFETY: by the caller.
                return unsafe { close_each_but(keep) };
            }
        }
        first = fd.map_or(u32::MAX, |fd| fd.saturating_add(1));
    }
}

/// The same for kernels before 5.9, and where something filters their calls: one by one. There may be many
/// numbers, but few are open.
///
/// # Safety
/// As above.
unsafe fn close_each_but(keep: &[u32]) {
    let open = listed().unwrap_or_else(|| {
        // A limit that was lowered since is none for what was open before.
        let kept = keep.last().map_or(0, |last| u64::from(*last) + 1);
        found(descriptors::limit().max(kept))
    });
    for fd in open.into_iter().filter(|fd| keep.binary_search(fd).is_err()) {
        if let Ok(fd) = c_int::try_from(fd) {
            // SAFETY: by the caller; that of the directory is closed already.
            unsafe { libc::close(fd) };
        }
    }
}

/// The descriptors that are open, and some that are not any more. `None` where there is no /proc, as for a
/// child with ChrootDir.
fn listed() -> Option<Vec<u32>> {
    let entries = std::fs::read_dir("/proc/self/fd").ok()?;
    let numbers = entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    Some(numbers.collect::<Vec<_>>()).filter(|numbers| !numbers.is_empty())
}

/// The same by asking for each number below `limit`. That may be a billion: the kernel gives the lowest
/// number that is free, so that they lie together, and nobody looks for more behind a long gap.
fn found(limit: u64) -> Vec<u32> {
    /// poll(2) takes no more at once than there may be open, see getrlimit(2).
    const BLOCK: u64 = 1024;
    /// This many take some ten milliseconds. It is what one process may have where fs.nr_open is not raised.
    const LONGEST_GAP: u64 = 1 << 20;
    let block = BLOCK.min(descriptors::limit()).max(1);
    let limit = limit.min(c_int::MAX as u64);
    let (mut open, mut first, mut last_open) = (Vec::new(), 0, 0);
    while first < limit && first - last_open <= LONGEST_GAP {
        let end = (first + block).min(limit);
        let mut asked: Vec<libc::pollfd> = (first..end)
            .filter_map(|fd| c_int::try_from(fd).ok())
            .map(|fd| libc::pollfd { fd, events: 0, revents: 0 })
            .collect();
        // SAFETY: so many, which are ours; it waits for nothing.
        let answered =
            unsafe { libc::poll(asked.as_mut_ptr(), asked.len() as libc::nfds_t, 0) } >= 0;
        // Where it says nothing all may be.
        let is_open = |one: &&libc::pollfd| !answered || one.revents & libc::POLLNVAL == 0;
        let numbers = asked.iter().filter(is_open).filter_map(|one| u32::try_from(one.fd).ok());
        let before = open.len();
        open.extend(numbers);
        if answered && open.len() > before {
            last_open = end;
        }
        first = end;
    }
    open
}

#[cfg(test)]
mod tests {
    use std::os::fd::{AsFd, AsRawFd, OwnedFd};

    use rustix::io::fcntl_dupfd_cloexec;

    use super::{found, listed};
    use crate::descriptors;

    fn at(lowest: i32) -> OwnedFd {
        fcntl_dupfd_cloexec(std::io::stdin().as_fd(), lowest).expect("a descriptor")
    }

    #[test]
    fn without_proc_each_open_one_is_found() {
        let highest = i32::try_from(descriptors::limit().min(40_000)).expect("a number") - 8;
        let made = [at(100), at(highest / 2), at(highest)];
        let numbers = made.each_ref().map(|fd| u32::try_from(fd.as_raw_fd()).expect("a number"));
        // As many as systemd allows in some containers.
        for limit in [descriptors::limit(), 1_073_741_816] {
            let open = found(limit);
            assert!(numbers.iter().all(|number| open.contains(number)), "{numbers:?}, {open:?}");
            // Other tests of this process open some at the same time.
            let listed = listed().expect("/proc");
            assert!(open.len() <= 2 * listed.len() + 100, "{} and {}", open.len(), listed.len());
        }
        let few = found(u64::from(numbers[2]));
        assert!(few.contains(&numbers[1]) && !few.contains(&numbers[2]));
    }
}
