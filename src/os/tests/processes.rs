//! Other processes, as the kernel knows them: locks, ends, signals.

use std::fs::File;
use std::io::{ErrorKind, Read};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::process::{Child, Command};
use std::time::Duration;

use os::descriptors::{Place, duplicate, keep_open};
use os::forked::{Fork, Forked, fork_drain};
use os::signal_safe::EventFd;
use os::{Notice, locks, poll, process};

const LONG: Duration = Duration::from_secs(30);

/// A forked process that does `body`, sets a flag that it must keep, and waits to be told to end.
struct Other {
    pid: u32,
    ended: OwnedFd,
}

impl Other {
    fn start(body: impl FnOnce(&Forked, &EventFd)) -> Self {
        let done = EventFd::new().expect("descriptors");
        // SAFETY: what the tests do there needs nothing that another thread has.
        let forked = unsafe { fork_drain() }.expect("a process");
        let pid = match forked {
            Fork::Child(forked) => forked.run(|forked| {
                body(&forked, &done);
                let notices = forked.leave().expect("descriptors").notices;
                done.signal();
                poll::wait([Some(notices.as_fd())], Some(LONG));
            }),
            Fork::Parent(pid) => pid,
        };
        assert!(done.wait(LONG));
        Self { pid, ended: process::watch(pid).expect("it runs") }
    }

    fn ends(&self) -> bool {
        poll::wait([Some(self.ended.as_fd())], Some(LONG)) == [true]
    }
}

impl Drop for Other {
    fn drop(&mut self) {
        process::tell(self.pid, Notice::End, || true);
        self.ends();
    }
}

#[test]
fn a_lock_is_held_for_as_long_as_its_process_lives() {
    let file = locks::file().expect("descriptors");
    assert_eq!(locks::holder(file.as_fd(), 7), None);
    let other = Other::start(|_, _| locks::take(file.as_fd(), 7).expect("nobody has it"));
    assert_eq!(locks::holder(file.as_fd(), 7), Some(other.pid));
    assert_eq!(locks::holder(file.as_fd(), 8), None);
    assert!(locks::take(file.as_fd(), 7).is_err());
    drop(other);
    assert_eq!(locks::holder(file.as_fd(), 7), None);
    locks::take(file.as_fd(), 7).expect("nobody has it any more");
    let heir = Other::start(|_, _| assert_eq!(locks::holder(file.as_fd(), 7), Some(parent())));
    locks::give_back(file.as_fd(), 7);
    drop(heir);
}

fn parent() -> u32 {
    std::os::unix::process::parent_id()
}

#[test]
fn nothing_can_be_written_to_the_file_of_locks() {
    let file = File::from(locks::file().expect("descriptors"));
    assert_eq!(file.set_len(1).map_err(|error| error.kind()), Err(ErrorKind::PermissionDenied));
}

#[test]
fn a_drain_process_ends_when_it_is_told() {
    let other = Other::start(|_, _| {});
    assert!(process::runs(other.pid) && process::is_alive(other.pid));
    process::tell(other.pid, Notice::End, || false);
    assert!(!poll::is_readable(other.ended.as_fd()));
    process::tell(other.pid, Notice::End, || true);
    assert!(other.ends());
    // It is not reaped yet.
    assert!(process::is_alive(other.pid) && !process::runs(other.pid));
}

#[test]
fn a_forked_process_hears_every_notice() {
    let all = [Notice::ServerEnds, Notice::Evicted, Notice::End];
    let heard = EventFd::new().expect("descriptors");
    // SAFETY: what it does needs nothing that another thread has.
    let pid = match unsafe { fork_drain() }.expect("a process") {
        Fork::Child(forked) => forked.run(|forked| {
            let left = forked.leave().expect("descriptors");
            for expected in all {
                poll::wait([Some(left.notices.as_fd())], Some(LONG));
                if left.notices.take() != Some(expected) || left.notices.take().is_some() {
                    return;
                }
                heard.signal();
            }
        }),
        Fork::Parent(pid) => pid,
    };
    for notice in all {
        // The first one comes while the process begins, and waits there.
        process::tell(pid, notice, || true);
        assert!(heard.wait(LONG), "{notice:?}");
        heard.clear();
    }
}

struct Reaped(Child);

impl Drop for Reaped {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn who_has_another_name_is_not_told_to_end() {
    let mut other = Reaped(Command::new("sleep").arg("60").spawn().expect("it is there"));
    // Until then it has the name of this process, and that is another one too.
    process::tell(other.0.id(), Notice::End, || true);
    let ended = process::watch(other.0.id()).expect("it runs");
    assert_eq!(poll::wait([Some(ended.as_fd())], Some(Duration::from_millis(100))), [false]);
    assert!(other.0.try_wait().expect("it is ours").is_none());
}

#[test]
fn numbers_of_nobody() {
    for pid in [0, u32::MAX, i32::MAX as u32] {
        assert!(!process::runs(pid) && !process::is_alive(pid), "{pid}");
        process::tell(pid, Notice::End, || true);
    }
    assert!(process::watch_parent().is_ok());
}

#[test]
fn a_forked_process_keeps_the_descriptors_that_it_is_told_to() {
    let [keep, close, wrong] = [(); 3].map(|()| EventFd::new().expect("descriptors"));
    let null = File::open("/dev/null").expect("it is there");
    let other = Other::start(|forked, done| {
        let kept = [keep.as_fd(), wrong.as_fd(), done.as_fd()];
        // SAFETY: nothing else is used from here on, or closed.
        unsafe { forked.close_all_but(kept, null.as_fd()) };
        let is_open = |fd: BorrowedFd<'_>| duplicate(fd).is_ok();
        let standard = std::fs::read_link("/proc/self/fd/2");
        let leads_nowhere = standard.is_ok_and(|to| to.to_str() == Some("/dev/null"));
        if !is_open(keep.as_fd()) || is_open(close.as_fd()) || !leads_nowhere {
            wrong.signal();
        }
    });
    assert!(!wrong.wait(Duration::ZERO));
    drop(other);
}

#[test]
fn a_forked_process_has_a_title_and_no_environment() {
    let done = EventFd::new().expect("descriptors");
    // SAFETY: what it does needs nothing that another thread has.
    let pid = match unsafe { fork_drain() }.expect("a process") {
        Fork::Child(forked) => forked.run(|forked| {
            let left = forked.leave().expect("descriptors");
            left.title.expect("/proc is there").set("a title");
            if std::env::vars_os().next().is_none() {
                done.signal();
            }
            poll::wait([Some(left.notices.as_fd())], Some(LONG));
        }),
        Fork::Parent(pid) => pid,
    };
    assert!(done.wait(LONG));
    let shown = command_line(pid);
    process::tell(pid, Notice::End, || true);
    assert_eq!(shown.trim_end_matches('\0'), "a title");
}

fn command_line(pid: u32) -> String {
    let mut text = String::new();
    let mut file = File::open(format!("/proc/{pid}/cmdline")).expect("it runs");
    file.read_to_string(&mut text).expect("text");
    text
}

#[test]
fn a_descriptor_that_is_kept_open_has_a_place() {
    static PLACE: Place = Place::new();
    assert!(PLACE.get().is_none());
    let kept = keep_open(File::open("/dev/null").expect("it is there").into());
    PLACE.set(kept);
    assert_eq!(PLACE.get().map(|fd| fd.as_raw_fd()), Some(kept.as_raw_fd()));
}
