//! How many drain processes a machine has room for.

use std::path::{Path, PathBuf};

/// What one takes, in bytes: one that carries a few TLS tunnels has 1 to 2 MiB of its own.
const PROCESS: u64 = 2 << 20;
/// The share of memory that they may have all together: one part of so many.
const SHARE: u64 = 4;
/// Each has two threads, which count as processes, and half of all is left to others.
const TASKS: u64 = 2 * 2;

/// How many drain processes there may be. As many as a server has children are within its memory by
/// its configuration: a drain process takes less than a child of httpd.
pub fn processes(children: u64, most: u64) -> u64 {
    bound(memory(), tasks(), children, most)
}

fn bound(memory: u64, tasks: u64, children: u64, most: u64) -> u64 {
    (memory / SHARE / PROCESS).max(children).min(tasks / TASKS).clamp(1, most)
}

/// The memory of the machine or of the control group, in bytes.
fn memory() -> u64 {
    // SAFETY: takes a number.
    let [pages, size] = [libc::_SC_PHYS_PAGES, libc::_SC_PAGESIZE]
        .map(|what| u64::try_from(unsafe { libc::sysconf(what) }).unwrap_or(0));
    let machine = match pages.saturating_mul(size) {
        0 => u64::MAX,
        bytes => bytes,
    };
    group_limit("memory", ["memory.max", "memory.limit_in_bytes"]).min(machine)
}

/// The processes, and threads of them, that the user or the control group may have.
fn tasks() -> u64 {
    let mut limit = libc::rlimit { rlim_cur: libc::RLIM_INFINITY, rlim_max: 0 };
    // SAFETY: the structure is ours. It stays as it is if the call fails.
    unsafe { libc::getrlimit(libc::RLIMIT_NPROC, &raw mut limit) };
    group_limit("pids", ["pids.max", "pids.max"]).min(crate::process::limit(limit.rlim_cur))
}

/// The smallest limit of this process's control groups (cgroups(7)): files of version 2 and of
/// version 1 of it. No limit where there is none, or nothing can be read.
fn group_limit(controller: &str, [file, file_v1]: [&str; 2]) -> u64 {
    let groups = std::fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    let mut least = u64::MAX;
    for line in groups.lines() {
        let mut fields = line.splitn(3, ':').skip(1);
        let (Some(controllers), Some(path)) = (fields.next(), fields.next()) else { continue };
        let (root, file) = match controllers {
            "" => (PathBuf::from("/sys/fs/cgroup"), file),
            some if some.split(',').any(|one| one == controller) => {
                (Path::new("/sys/fs/cgroup").join(controller), file_v1)
            }
            _ => continue,
        };
        // A container may see the path outside of it, and the files inside.
        let group = root.join(path.trim_start_matches('/'));
        for group in group.ancestors().take_while(|group| group.starts_with(&root)) {
            let text = std::fs::read_to_string(group.join(file)).unwrap_or_default();
            least = least.min(text.trim().parse().unwrap_or(u64::MAX));
        }
    }
    least
}

#[cfg(test)]
mod tests {
    use super::bound;

    const GIB: u64 = 1 << 30;

    #[test]
    fn what_there_is_least_of_decides() {
        // Memory.
        assert_eq!(bound(2 * GIB, u64::MAX, 16, 1536), 256);
        // A small machine with many children.
        assert_eq!(bound(GIB / 2, u64::MAX, 256, 1536), 256);
        // Processes.
        assert_eq!(bound(64 * GIB, 400, 256, 1536), 100);
        assert_eq!(bound(64 * GIB, 1, 256, 1536), 1);
        // The places in memory.
        assert_eq!(bound(u64::MAX, u64::MAX, 16, 1536), 1536);
    }
}
