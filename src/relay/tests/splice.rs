//! A kernel that splices no more, at any step of a flood: its bytes are copied, and none is lost. Alone
//! in its binary, whose `splice` stands in for libc's.

// A static C library, as Rust links musl's, lets no other function stand in for its own.
#![cfg(target_env = "gnu")]

mod common;
#[path = "common/flood.rs"]
mod flood;

use std::ffi::c_int;
use std::io::{Read, Write};
use std::sync::atomic::{AtomicI32, AtomicUsize, Ordering::SeqCst};
use std::time::Duration;

use common::*;
use flood::*;
use libc::{size_t, ssize_t};
use relay::{By, Ending, Order, Why};

/// Where bytes are spliced.
#[derive(Clone, Copy, Debug)]
enum Into {
    Pipe,
    Socket,
}

/// Calls of one kind.
struct Calls {
    /// What the kernel answers: as it is meant to if this is 0, else with this error,
    error: AtomicI32,
    /// once so many have moved bytes, few each.
    after: AtomicUsize,
    /// How many had this error.
    refused: AtomicUsize,
    /// How many moved bytes.
    moved: AtomicUsize,
    /// How many found no room, or nothing.
    waited: AtomicUsize,
}

static CALLS: [Calls; 2] = [const {
    Calls {
        error: AtomicI32::new(0),
        after: AtomicUsize::new(0),
        refused: AtomicUsize::new(0),
        moved: AtomicUsize::new(0),
        waited: AtomicUsize::new(0),
    }
}; 2];

impl Into {
    fn calls(self) -> &'static Calls {
        &CALLS[self as usize]
    }
}

const FEW_BYTES: usize = 1000;

fn forget_calls() {
    for Calls { error, after, refused, moved, waited } in &CALLS {
        error.store(0, SeqCst);
        [after, refused, moved, waited].iter().for_each(|count| count.store(0, SeqCst));
    }
}

// SAFETY: as libc's: no memory is involved but what the caller lends to the kernel.
#[unsafe(no_mangle)]
unsafe extern "C" fn splice(
    from: c_int,
    from_offset: *mut i64,
    to: c_int,
    to_offset: *mut i64,
    length: size_t,
    flags: libc::c_uint,
) -> ssize_t {
    // SAFETY: a descriptor and a number.
    let is_pipe = unsafe { libc::fcntl(to, libc::F_GETPIPE_SZ) } > 0;
    let calls = if is_pipe { Into::Pipe } else { Into::Socket }.calls();
    let error = calls.error.load(SeqCst);
    if error != 0 && calls.moved.load(SeqCst) >= calls.after.load(SeqCst) {
        calls.refused.fetch_add(1, SeqCst);
        // SAFETY: the errno of this thread.
        unsafe { *libc::__errno_location() = error };
        return -1;
    }
    let length = if error == 0 { length } else { length.min(FEW_BYTES) };
    // SAFETY: the caller's own arguments.
    let n = unsafe {
        let call = libc::SYS_splice;
        libc::syscall(call, from, from_offset, to, to_offset, length, flags) as ssize_t
    };
    let count = if n > 0 { &calls.moved } else { &calls.waited };
    count.fetch_add(1, SeqCst);
    n
}

/// When splicing is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum When {
    /// From the beginning.
    AtFirst,
    /// In the middle of what is to be moved.
    AfterSome,
    /// When bytes are in a pipe that the client has no room for.
    WithBytesInPipe,
}

/// A flood in which this is refused with this error. Says how it ended.
fn flood(into: Into, when: When, error: c_int) -> Why {
    const LENGTH: u64 = 1 << 40;
    forget_calls();
    let (relay, _) = relay(1);
    let (tunnel, ends, client, backend) = flooded(websocket());
    let refuse = || into.calls().error.store(error, SeqCst);
    if when != When::WithBytesInPipe {
        into.calls().after.store(usize::from(when == When::AfterSome), SeqCst);
        refuse();
    }
    relay.adopt(tunnel).expect("adopted");
    (&backend).write_all(&header(LENGTH)).expect("write");
    let sent = fill(&backend, &mut Pattern::new(1));
    if when == When::WithBytesInPipe {
        until("the client has no room", || Into::Socket.calls().waited.load(SeqCst) > 0);
        refuse();
    }
    let mut head = [0; 10];
    (&client).read_exact(&mut head).expect("read");
    assert_eq!(head[..], header(LENGTH));
    if error == libc::EIO {
        // What is no refusal to splice is an error of the socket.
        while (&client).read(&mut [0; 4096]).is_ok_and(|n| n > 0) {}
        return ends.wait().why;
    }
    expect_pattern(&client, 1, sent);
    let case = format!("{into:?} {when:?} {error}");
    // Once more where the first time is in the middle.
    let refused = into.calls().refused.load(SeqCst);
    assert!((1..=2).contains(&refused), "{case}: it is tried again {refused} times");
    // It goes on without.
    let moved = || CALLS.each_ref().map(|calls| calls.moved.load(SeqCst));
    let before = moved();
    into.calls().error.store(0, SeqCst);
    let again = 1 << 18;
    send_pattern(&backend, 2, again);
    expect_pattern(&client, 2, again);
    assert_eq!(moved(), before, "{case}");
    let how = Ending::at_once(Order::Stop, Some(1001), Duration::from_millis(100));
    assert_eq!(relay.end_all(how), 0);
    expect_end(&client);
    let end = ends.wait();
    assert_eq!(end.bytes_down, (header(LENGTH).len() + sent + again) as u64, "{case}");
    assert_eq!(end.by, By::Us);
    end.why
}

#[test]
fn what_cannot_be_spliced_is_copied() {
    for into in [Into::Pipe, Into::Socket] {
        for when in [When::AtFirst, When::AfterSome, When::WithBytesInPipe] {
            assert_eq!(flood(into, when, libc::ENOMEM), Why::Stopped, "{into:?} {when:?}");
        }
    }
    for error in [libc::EINVAL, libc::ENOSYS, libc::EPERM, libc::EACCES] {
        assert_eq!(flood(Into::Pipe, When::AtFirst, error), Why::Stopped, "{error}");
    }
    assert_eq!(flood(Into::Socket, When::WithBytesInPipe, libc::EIO), Why::Error(libc::EIO));
}
