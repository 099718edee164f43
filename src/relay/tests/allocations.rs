//! No allocation per message, and none kept. Alone in its binary, as it counts the process's.

mod common;

use std::alloc::{GlobalAlloc, Layout, System};
use std::io::{Read, Write};
use std::sync::atomic::{AtomicIsize, AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use common::*;
use relay::{Rules, Side, Tunnel};

struct Counting;

static CALLS: AtomicUsize = AtomicUsize::new(0);
static BYTES: AtomicIsize = AtomicIsize::new(0);

// SAFETY: everything is the system allocator's; counting changes nothing.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        CALLS.fetch_add(1, Relaxed);
        BYTES.fetch_add(layout.size() as isize, Relaxed);
        // SAFETY: as our caller's.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        BYTES.fetch_sub(layout.size() as isize, Relaxed);
        // SAFETY: as our caller's.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

#[test]
fn messages_allocate_nothing_and_tunnels_little() {
    let (relay, _) = relay(1);
    for timeout in [None, Some(Duration::from_secs(3600))] {
        let (mut client, a) = tcp_pair();
        let (mut backend, b) = tcp_pair();
        let (record, _ends, activity) = registered("");
        let side = |fd: std::net::TcpStream| Side::plain(fd.into());
        let rules = Rules { idle_timeout: timeout, ..Rules::default() };
        let tunnel = Tunnel::new(side(a), side(b), websocket(), rules, record);
        relay.adopt(tunnel).expect("adopted");
        let mut message = vec![0x82, 0x80 | 126, 0x10, 0, 1, 2, 3, 4];
        message.resize(8 + 4096, 7);
        let mut got = vec![0; message.len()];
        let mut exchange = |times| {
            for _ in 0..times {
                client.write_all(&message).expect("write");
                backend.read_exact(&mut got).expect("read");
                backend.write_all(&message[8..]).expect("write");
                client.read_exact(&mut got[8..]).expect("read");
            }
        };
        exchange(100);
        let before = CALLS.load(Relaxed);
        exchange(2000);
        assert_eq!(CALLS.load(Relaxed) - before, 0, "timeout {timeout:?}");
        let messages = activity.messages[0][1].load(Relaxed);
        assert_eq!(messages, 2100, "it is counted where others see it");
    }

    // A tunnel at rest, between the two ends of one socket pair each.
    const TUNNELS: usize = 2000;
    let mut ends = Vec::with_capacity(TUNNELS);
    until("those have ended", || relay.open() == 0);
    let before = BYTES.load(Relaxed);
    for _ in 0..TUNNELS {
        let (a, b) = std::os::unix::net::UnixStream::pair().expect("pair");
        let (tunnel, end) = tunnel(a, b);
        relay.adopt(tunnel).expect("adopted");
        ends.push(end);
    }
    let tunnels = relay.stop();
    assert_eq!(tunnels.len(), TUNNELS);
    let (again, _) = common::relay(1);
    for tunnel in tunnels {
        again.adopt(tunnel).expect("adopted");
    }
    until("all are carried", || again.open() == TUNNELS);
    // The channel has given all of them to the thread once it answers a later one.
    let (mut client, a) = unix_pair();
    let (mut backend, b) = unix_pair();
    let (probe, _ends) = tunnel(a, b);
    again.adopt(probe).expect("adopted");
    client.write_all(b"x").expect("write");
    backend.read_exact(&mut [0]).expect("read");
    let each = (BYTES.load(Relaxed) - before) / TUNNELS as isize;
    println!("{each} bytes asked of the allocator per tunnel at rest, the test's own included");
    // tokio has the memory of a task in steps of 128 bytes. With the features that the module builds it
    // with it is one step less than with those that all crates together ask for.
    assert!(each < 1780, "{each} bytes per tunnel");
}
