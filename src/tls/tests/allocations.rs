//! No allocation of ours per message through TLS, and few by OpenSSL. Alone in its binary, as it
//! counts the process's.

mod common;

use std::alloc::{GlobalAlloc, Layout, System};
use std::ffi::{c_char, c_int, c_void};
use std::io::{Read, Write};
use std::sync::atomic::{AtomicI32, AtomicUsize, Ordering::Relaxed};

use common::*;
use openssl::ssl::SslVersion;

/// Allocations by the relay's thread: the peers' OpenSSL, on the test's own, is not of interest.
static OURS: AtomicUsize = AtomicUsize::new(0);
static OPENSSLS: AtomicUsize = AtomicUsize::new(0);

const ROUNDS: usize = 2000;

/// The thread whose allocations count.
static THREAD: AtomicI32 = AtomicI32::new(0);

/// So many a message are OpenSSL's own: its buffer, which it gives back when there is nothing
/// left in it (SSL_MODE_RELEASE_BUFFERS) so that idle sessions are small, and bookkeeping of
/// what it writes.
const OF_OPENSSL: usize = 3;

fn count(calls: &AtomicUsize) {
    // SAFETY: takes nothing, returns a number.
    if unsafe { libc::gettid() } == THREAD.load(Relaxed) {
        calls.fetch_add(1, Relaxed);
    }
}

struct Counting;

// SAFETY: everything is the system allocator's; counting changes nothing.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(&OURS);
        // SAFETY: as our caller's.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: as our caller's.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

unsafe extern "C" fn malloc(size: usize, _: *const c_char, _: c_int) -> *mut c_void {
    count(&OPENSSLS);
    // SAFETY: any size will do.
    unsafe { libc::malloc(size) }
}

unsafe extern "C" fn realloc(
    pointer: *mut c_void,
    size: usize,
    _: *const c_char,
    _: c_int,
) -> *mut c_void {
    count(&OPENSSLS);
    // SAFETY: OpenSSL gives back what it got from one of these.
    unsafe { libc::realloc(pointer, size) }
}

unsafe extern "C" fn free(pointer: *mut c_void, _: *const c_char, _: c_int) {
    // SAFETY: OpenSSL gives back what it got from one of these.
    unsafe { libc::free(pointer) }
}

type Malloc = unsafe extern "C" fn(usize, *const c_char, c_int) -> *mut c_void;
type Realloc = unsafe extern "C" fn(*mut c_void, usize, *const c_char, c_int) -> *mut c_void;
type Free = unsafe extern "C" fn(*mut c_void, *const c_char, c_int);

unsafe extern "C" {
    fn CRYPTO_set_mem_functions(malloc: Malloc, realloc: Realloc, free: Free) -> c_int;
}

/// The relay's thread, once it has its name.
fn relay_thread() -> Option<i32> {
    std::fs::read_dir("/proc/self/task").expect("tasks").flatten().find_map(|task| {
        let name = std::fs::read_to_string(task.path().join("comm")).ok()?;
        (name.trim() == "relay-0").then(|| task.file_name().to_str()?.parse().ok())?
    })
}

#[test]
fn messages_allocate_nothing_of_ours() {
    // SAFETY: OpenSSL has allocated nothing yet, or else it refuses; the functions are the system
    // allocator's.
    assert_eq!(unsafe { CRYPTO_set_mem_functions(malloc, realloc, free) }, 1);
    let relay = start_relay();
    until("the relay's thread has its name", || {
        THREAD.store(relay_thread().unwrap_or(0), Relaxed);
        THREAD.load(Relaxed) != 0
    });
    // A tunnel that ends meanwhile may allocate.
    let mut kept = Vec::new();
    for version in [SslVersion::TLS1_2, SslVersion::TLS1_3] {
        let (mut client, mut backend) = tls_client_tunnel(&relay, version);
        let up = masked_frame(4096);
        let down = [&[0x82, 126], &up[2..4], &up[8..]].concat();
        let mut got = vec![0; up.len()];
        let mut exchange = |times| {
            for _ in 0..times {
                client.write_all(&up).expect("write");
                backend.read_exact(&mut got).expect("read");
                backend.write_all(&down).expect("write");
                client.read_exact(&mut got[..down.len()]).expect("read");
            }
        };
        exchange(100);
        let (ours, openssls) = (OURS.load(Relaxed), OPENSSLS.load(Relaxed));
        assert!(ours > 0 && openssls > 0, "it counts: the first messages of a tunnel allocate");
        exchange(ROUNDS);
        assert_eq!(OURS.load(Relaxed) - ours, 0, "{version:?}");
        let openssls = OPENSSLS.load(Relaxed) - openssls;
        println!("{version:?}: {openssls} allocations by OpenSSL for {} messages", 2 * ROUNDS);
        assert!(openssls <= OF_OPENSSL * 2 * ROUNDS, "{version:?}: {openssls} by OpenSSL");
        OURS.store(0, Relaxed);
        OPENSSLS.store(0, Relaxed);
        kept.push((client, backend));
    }
}
