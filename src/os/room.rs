//! How many drain processes a machine has room for.

use std::path::{Path, PathBuf};

use rustix::process::{Resource, getrlimit};

/// What one takes, in bytes: one that carries a few TLS tunnels has 1 to 2 MiB of its own.
const PROCESS_BYTES: u64 = 2 << 20;
/// The share of memory that they may have all together: one part of so many.
const MEMORY_SHARE: u64 = 4;
/// Each has three threads, which count as processes, and half of all is left to others.
const TASKS_FOR_PROCESS: u64 = 3 * 2;

/// How many drain processes there may be. As many as a server has children are within its memory by
/// its configuration: a drain process takes less than a child of httpd.
pub fn processes(children: u64, most: u64) -> u64 {
    let groups = Groups::of(Path::new("/"));
    bound(memory(&groups), tasks(&groups), children, most)
}

fn bound(memory: u64, tasks: u64, children: u64, most: u64) -> u64 {
    let by_memory = memory / MEMORY_SHARE / PROCESS_BYTES;
    by_memory.max(children).min(tasks / TASKS_FOR_PROCESS).clamp(1, most)
}

/// The memory of the machine or of the control group, in bytes.
fn memory(groups: &Groups) -> u64 {
    let info = rustix::system::sysinfo();
    let machine = match (info.totalram as u64).saturating_mul(info.mem_unit.into()) {
        0 => u64::MAX,
        bytes => bytes,
    };
    groups.limit("memory", ["memory.max", "memory.limit_in_bytes"]).min(machine)
}

/// The processes, and threads of them, that the user or the control group may have.
fn tasks(groups: &Groups) -> u64 {
    let user = getrlimit(Resource::Nproc).current.unwrap_or(u64::MAX);
    groups.limit("pids", ["pids.max", "pids.max"]).min(user)
}

/// The control groups of this process (cgroups(7)).
struct Groups {
    /// As /proc/self/cgroup has them: a line for each hierarchy.
    text: String,
    /// Where hierarchies are mounted.
    mounted: PathBuf,
}

impl Groups {
    /// Those of the system whose files are in `root`.
    fn of(root: &Path) -> Self {
        let text = std::fs::read_to_string(root.join("proc/self/cgroup")).unwrap_or_default();
        Self { text, mounted: root.join("sys/fs/cgroup") }
    }

    /// The smallest limit: files of version 2 and of version 1. No limit where there is none, or
    /// nothing can be read.
    fn limit(&self, controller: &str, [file, file_v1]: [&str; 2]) -> u64 {
        let mut least = u64::MAX;
        for line in self.text.lines() {
            let mut fields = line.splitn(3, ':').skip(1);
            let (Some(controllers), Some(path)) = (fields.next(), fields.next()) else { continue };
            let (root, file) = match controllers {
                "" => (self.mounted.clone(), file),
                some if some.split(',').any(|one| one == controller) => {
                    (self.mounted.join(controller), file_v1)
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
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    const GIB: u64 = 1 << 30;

    #[test]
    fn what_there_is_least_of_decides() {
        // Memory.
        assert_eq!(bound(2 * GIB, u64::MAX, 16, 1536), 256);
        // A small machine with many children.
        assert_eq!(bound(GIB / 2, u64::MAX, 256, 1536), 256);
        // Processes.
        assert_eq!(bound(64 * GIB, 600, 256, 1536), 100);
        assert_eq!(bound(64 * GIB, 1, 256, 1536), 1);
        // The places in memory.
        assert_eq!(bound(u64::MAX, u64::MAX, 16, 1536), 1536);
    }

    /// The root directory of a system, with these files and no others.
    struct Root(PathBuf);

    impl Root {
        fn new(name: &str, files: &[(&str, &str)]) -> Self {
            let root =
                Self(std::env::temp_dir().join(format!("os-room-{}-{name}", std::process::id())));
            let _ = fs::remove_dir_all(&root.0);
            for (path, text) in files {
                let file = root.0.join(path);
                fs::create_dir_all(file.parent().expect("a directory")).expect("made");
                fs::write(file, text).expect("written");
            }
            root
        }

        fn memory(&self) -> u64 {
            Groups::of(&self.0).limit("memory", ["memory.max", "memory.limit_in_bytes"])
        }
    }

    impl Drop for Root {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    #[test]
    fn the_smallest_limit_of_a_group_and_those_above_it_counts() {
        let root = Root::new(
            "v2",
            &[
                ("proc/self/cgroup", "0::/system.slice/apache2.service\n"),
                ("sys/fs/cgroup/system.slice/apache2.service/memory.max", "max\n"),
                ("sys/fs/cgroup/system.slice/apache2.service/pids.max", "400\n"),
                ("sys/fs/cgroup/system.slice/memory.max", "1073741824\n"),
                ("sys/fs/cgroup/other.slice/memory.max", "4096\n"),
            ],
        );
        assert_eq!(root.memory(), GIB);
        let groups = Groups::of(&root.0);
        assert_eq!(memory(&groups).min(GIB), memory(&groups));
        assert!(tasks(&groups) <= 400);
        assert_eq!(bound(memory(&groups), u64::MAX, 1, 1536), memory(&groups) / 4 / PROCESS_BYTES);
    }

    #[test]
    fn a_container_has_its_own_files_at_the_top() {
        // The path is the one outside.
        let root = Root::new(
            "container",
            &[
                ("proc/self/cgroup", "0::/docker/0123456789abcdef\n"),
                ("sys/fs/cgroup/memory.max", "536870912\n"),
            ],
        );
        assert_eq!(root.memory(), GIB / 2);
    }

    #[test]
    fn hierarchies_of_version_1_have_files_of_their_own() {
        let root = Root::new(
            "v1",
            &[
                ("proc/self/cgroup", "5:pids:/web\n4:cpu,memory:/web\n1:name=systemd:/web\n0::/\n"),
                ("sys/fs/cgroup/memory/web/memory.limit_in_bytes", "268435456\n"),
                // Without a limit.
                ("sys/fs/cgroup/memory/memory.limit_in_bytes", "9223372036854771712\n"),
                ("sys/fs/cgroup/pids/web/pids.max", "100\n"),
            ],
        );
        assert_eq!(root.memory(), GIB / 4);
        assert!(tasks(&Groups::of(&root.0)) <= 100);
    }

    #[test]
    fn what_cannot_be_read_is_no_limit() {
        let nothing = Root::new("nothing", &[]);
        assert_eq!(nothing.memory(), u64::MAX);
        let strange = Root::new(
            "strange",
            &[
                ("proc/self/cgroup", "\nx\n0:\n0::/a\n"),
                ("sys/fs/cgroup/a/memory.max", "much\n"),
                ("sys/fs/cgroup/memory.max", "-5\n"),
            ],
        );
        assert_eq!(strange.memory(), u64::MAX);
    }
}
