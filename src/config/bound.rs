//! How many tunnels the server may have where the configuration does not say: what fits its
//! memory. The limit of descriptors alone may allow hundreds of thousands in each process.

use std::fmt;
use std::fs;
use std::path::Path;

use messages::HalfOfMemory;

/// Bytes that a tunnel is reckoned to take: two sockets in the kernel, and TLS on one side, which
/// is most of it (docs/performance.md).
const TUNNEL: u64 = 32 * 1024;

/// Tunnels may take one part in so many of the memory.
const SHARE: u64 = 2;

/// A bound by memory.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Bound {
    /// Tunnels, at least 1.
    pub tunnels: u32,
    bytes: u64,
    is_cgroup: bool,
}

impl Bound {
    /// What the machine, or the control group of this process, has.
    pub(crate) fn find() -> Option<Self> {
        let groups = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
        let cgroup = groups.lines().filter_map(of_group).min();
        let machine = fs::read_to_string("/proc/meminfo").ok().and_then(|text| total(&text));
        let (bytes, is_cgroup) = match (machine, cgroup) {
            (Some(machine), Some(cgroup)) if cgroup < machine => (cgroup, true),
            (Some(machine), _) => (machine, false),
            (None, cgroup) => (cgroup?, true),
        };
        let tunnels = u32::try_from(bytes / SHARE / TUNNEL).unwrap_or(u32::MAX).max(1);
        Some(Self { tunnels, bytes, is_cgroup })
    }
}

impl fmt::Display for Bound {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { tunnels, bytes, is_cgroup } = self;
        let (kib, mib, whose) = (
            TUNNEL / 1024,
            bytes / (1024 * 1024),
            if *is_cgroup { "control group" } else { "machine" },
        );
        let bound = HalfOfMemory { tunnels, mib: &mib, whose: &whose, kib: &kib };
        bound.fmt(f)
    }
}

/// `MemTotal` of /proc/meminfo, in bytes.
pub(crate) fn total(meminfo: &str) -> Option<u64> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    line.split_whitespace().next()?.parse::<u64>().ok()?.checked_mul(1024)
}

/// The least limit of memory of a line of /proc/self/cgroup: of the group and of those around it.
pub(crate) fn of_group(line: &str) -> Option<u64> {
    let mut fields = line.splitn(3, ':');
    let (_, controllers, path) = (fields.next()?, fields.next()?, fields.next()?);
    let (root, file) = match controllers {
        "" => ("/sys/fs/cgroup", "memory.max"),
        _ if controllers.split(',').any(|controller| controller == "memory") => {
            ("/sys/fs/cgroup/memory", "memory.limit_in_bytes")
        }
        _ => return None,
    };
    let path = Path::new(path.trim_start_matches('/'));
    path.ancestors()
        // "max" is none.
        .filter_map(|group| fs::read_to_string(Path::new(root).join(group).join(file)).ok())
        .filter_map(|text| text.trim().parse().ok())
        .min()
}
