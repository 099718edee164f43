//! The threads of a process, as /proc shows them.

use std::fs;
use std::time::Duration;

use rustix::param::clock_ticks_per_second;

/// A thread of a process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Thread {
    /// Its name, of at most 15 bytes.
    pub name: String,
    /// The time for which it ran, in user mode and in the kernel.
    pub cpu: Duration,
}

/// The threads of a process. None if it is gone, or not shown to this one.
pub fn of(pid: u32) -> Vec<Thread> {
    let Ok(tasks) = fs::read_dir(format!("/proc/{pid}/task")) else { return Vec::new() };
    let stats =
        tasks.flatten().filter_map(|task| fs::read_to_string(task.path().join("stat")).ok());
    stats.filter_map(|stat| parse(&stat, clock_ticks_per_second())).collect()
}

/// A line of /proc/PID/task/TID/stat (proc_pid_stat(5)), with this many ticks in a second.
fn parse(stat: &str, ticks: u64) -> Option<Thread> {
    /// Of the fields behind the name: time in user mode, time in the kernel.
    const USER: usize = 11;
    // A name may have blanks and parentheses.
    let (before, behind) = stat.rsplit_once(") ")?;
    let (_, name) = before.split_once(" (")?;
    let mut times = behind.split_ascii_whitespace().skip(USER).map(str::parse::<u64>);
    let (user, kernel) = (times.next()?.ok()?, times.next()?.ok()?);
    let millis = user.saturating_add(kernel).saturating_mul(1000) / ticks.max(1);
    Some(Thread { name: name.to_owned(), cpu: Duration::from_millis(millis) })
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{Thread, of, parse};

    #[test]
    fn a_line_has_a_name_and_a_time() {
        let line = "7 (a) (b) S 1 7 7 0 -1 4194560 1 0 0 0 150 25 9 9 20 0 1 0 5 6 7";
        let thread = Thread { name: "a) (b".to_owned(), cpu: Duration::from_millis(1750) };
        assert_eq!(parse(line, 100), Some(thread));
        for wrong in ["", "7 (a", "7 (a) S 1", "7 (a) S 1 7 7 0 -1 4194560 1 0 0 0 x y 9"] {
            assert_eq!(parse(wrong, 100), None);
        }
    }

    #[test]
    fn this_process_has_threads() {
        let found = std::thread::Builder::new().name("looked-for".to_owned()).spawn(|| {
            let threads = of(std::process::id());
            threads.iter().any(|thread| thread.name == "looked-for")
        });
        assert!(found.expect("a thread").join().expect("it ends"));
        assert_eq!(of(u32::MAX), Vec::new());
    }
}
