//! What signal handlers may use: flags, orders, waiting.

use std::fs::File;
use std::io::Write;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::os::unix::thread::JoinHandleExt;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use os::forked::{Fork, fork_drain};
use os::poll;
use os::signal_safe::{EventFd, Orders};

const LONG: Duration = Duration::from_secs(30);

#[test]
fn an_event_is_set_until_it_is_cleared() {
    let event = EventFd::new().expect("descriptors");
    assert!(!event.wait(Duration::ZERO));
    event.clear();
    event.signal();
    event.signal();
    assert!(event.wait(Duration::ZERO) && event.wait(Duration::ZERO));
    event.clear();
    assert!(!event.wait(Duration::ZERO));
}

#[test]
fn whoever_waits_for_an_event_is_woken() {
    let event = Arc::new(EventFd::new().expect("descriptors"));
    let other = Arc::clone(&event);
    let waiting = thread::spawn(move || other.wait(LONG));
    event.signal();
    assert!(waiting.join().expect("no panic"));
}

#[test]
fn signals_do_not_end_the_wait_for_an_event() {
    extern "C" fn nothing(_: libc::c_int) {}
    let handler: extern "C" fn(libc::c_int) = nothing;
    // SAFETY: the handler does nothing.
    unsafe { libc::signal(libc::SIGUSR1, handler as libc::sighandler_t) };
    let event = Arc::new(EventFd::new().expect("descriptors"));
    let other = Arc::clone(&event);
    let waiting = thread::spawn(move || other.wait(LONG));
    for _ in 0..20 {
        thread::sleep(Duration::from_millis(1));
        // SAFETY: the thread is not joined yet.
        unsafe { libc::pthread_kill(waiting.as_pthread_t() as libc::pthread_t, libc::SIGUSR1) };
    }
    event.signal();
    assert!(waiting.join().expect("no panic"));
}

#[test]
fn it_is_said_which_descriptors_are_readable() {
    let (mut ours, theirs) = UnixStream::pair().expect("a pair");
    let event = EventFd::new().expect("descriptors");
    let null = File::open("/dev/null").expect("it is there");
    let all = [None, Some(event.as_fd()), Some(theirs.as_fd()), None];
    assert_eq!(poll::wait(all, Some(Duration::ZERO)), [false; 4]);
    ours.write_all(b"x").expect("room");
    assert_eq!(poll::wait(all, Some(LONG)), [false, false, true, false]);
    event.signal();
    assert_eq!(poll::wait(all, None), [false, true, true, false]);
    assert!(poll::is_readable(null.as_fd()));
    // An end is something to read.
    let (left, gone) = UnixStream::pair().expect("a pair");
    drop(gone);
    assert!(poll::is_readable(left.as_fd()));
}

#[test]
fn with_nothing_to_wait_for_the_time_passes() {
    let begun = Instant::now();
    let short = Duration::from_millis(20);
    assert_eq!(poll::wait([None, None], Some(short)), [false, false]);
    assert!(begun.elapsed() >= short);
}

#[test]
fn a_full_queue_is_waited_for() {
    let (ours, mut theirs) = UnixStream::pair().expect("a pair");
    theirs.set_nonblocking(true).expect("it can be");
    while theirs.write(&[0; 4096]).is_ok() {}
    let begun = Instant::now();
    let short = Duration::from_millis(20);
    poll::wait_for_room(theirs.as_fd(), short);
    assert!(begun.elapsed() >= short);
    drop(ours);
    poll::wait_for_room(theirs.as_fd(), LONG);
    assert!(begun.elapsed() < LONG);
}

#[test]
fn orders_add_up_until_they_are_taken() {
    let orders = Orders::new().expect("descriptors");
    assert_eq!(orders.take(Some(Duration::ZERO)), 0);
    orders.give(1);
    orders.give(4);
    assert_eq!(orders.take(None), 5);
    assert_eq!(orders.take(Some(Duration::ZERO)), 0);
    assert!(orders.were_given(1) && orders.were_given(5) && !orders.were_given(2));
}

#[test]
fn orders_are_not_for_a_forked_process() {
    let orders = Orders::new().expect("descriptors");
    // SAFETY: the new process makes system calls, and ends.
    let forked = unsafe { fork_drain() }.expect("a process");
    let pid = match forked {
        Fork::Child(forked) => forked.run(|_| orders.give(1)),
        Fork::Parent(pid) => pid,
    };
    let ended = os::process::watch(pid).expect("it is not reaped yet");
    assert!(poll::wait([Some(ended.as_fd())], Some(LONG)) == [true]);
    assert_eq!(orders.take(Some(Duration::ZERO)), 0);
    assert!(!orders.were_given(1));
}
