//! Long frames one behind the other: their headers are read alone, and go before them in the pipe. Alone in
//! its binary, whose `write` stands in for libc's.

// A static C library, as Rust links musl's, lets no other function stand in for its own.
#![cfg(target_env = "gnu")]

mod common;

use std::ffi::{c_int, c_void};
use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::sync::atomic::{AtomicI32, AtomicUsize, Ordering::SeqCst};
use std::thread;
use std::time::{Duration, Instant};

use common::*;
use libc::{size_t, ssize_t};
use relay::{By, Ending, Order, Rules, Side, Tunnel, Why};

/// How many headers went into pipes, and how many were refused.
static PUT: AtomicUsize = AtomicUsize::new(0);
static REFUSED: AtomicUsize = AtomicUsize::new(0);
/// What the kernel says of them, if not 0.
static ERROR: AtomicI32 = AtomicI32::new(0);

// SAFETY: as libc's: the memory is what the caller lends to the kernel.
#[unsafe(no_mangle)]
unsafe extern "C" fn write(fd: c_int, bytes: *const c_void, length: size_t) -> ssize_t {
    // SAFETY: a descriptor and a number.
    if unsafe { libc::fcntl(fd, libc::F_GETPIPE_SZ) } > 1 << 16 {
        assert!(length <= 14, "{length} bytes are no header");
        let error = ERROR.load(SeqCst);
        if error != 0 {
            REFUSED.fetch_add(1, SeqCst);
            // SAFETY: the errno of this thread.
            unsafe { *libc::__errno_location() = error };
            return -1;
        }
        PUT.fetch_add(1, SeqCst);
    }
    // SAFETY: the caller's own arguments.
    unsafe { libc::syscall(libc::SYS_write, fd, bytes, length) as ssize_t }
}

/// Frames of one direction, which its receiver can make again.
struct Frames {
    masked: bool,
    sizes: Random,
    pattern: Pattern,
    /// Lengths of payloads: one of them each time.
    lengths: &'static [usize],
}

impl Frames {
    fn new(masked: bool, lengths: &'static [usize]) -> Self {
        Self { masked, sizes: Random::new(7), pattern: Pattern::new(7), lengths }
    }

    /// The next one.
    fn take(&mut self) -> Vec<u8> {
        let length = self.lengths[self.sizes.below(self.lengths.len())];
        let mut frame = frame_header(0x82, self.masked, length);
        let begin = frame.len();
        frame.resize(begin + length + if self.masked { 4 } else { 0 }, 0);
        self.pattern.take(&mut frame[begin..]);
        frame
    }
}

/// Sends frames from one peer to the other until `enough`, and has each of them checked. Says how many bytes
/// that was.
fn carry(
    from: &TcpStream,
    to: &TcpStream,
    mut frames: [Frames; 2],
    enough: impl Fn() -> bool + Sync,
) -> u64 {
    let [sending, receiving] = &mut frames;
    let pong: &[u8] = if sending.masked { &[0x8a, 0x80, 1, 2, 3, 4] } else { &[0x8a, 0] };
    thread::scope(|scope| {
        scope.spawn(|| {
            let until = Instant::now() + PATIENCE;
            while !enough() {
                assert!(Instant::now() < until, "{PUT:?} put, {REFUSED:?} refused");
                // Many at once, so that the relay finds much to read.
                let many: Vec<u8> = (0..64).flat_map(|_| sending.take()).collect();
                { from }.write_all(&many).expect("write");
            }
            { from }.write_all(pong).expect("a Pong");
        });
        let mut total = 0;
        loop {
            let mut start = [0; 2];
            { to }.read_exact(&mut start).expect("read");
            if start[0] == 0x8a {
                { to }.read_exact(&mut vec![0; pong.len() - 2]).expect("read");
                return total + pong.len() as u64;
            }
            let frame = receiving.take();
            let mut came = vec![0; frame.len() - 2];
            { to }.read_exact(&mut came).expect("read");
            assert!(start == frame[..2] && came == frame[2..], "a wrong byte came through");
            total += frame.len() as u64;
        }
    })
}

fn adopted(relay: &relay::Relay, rules: Rules) -> (Ends, [TcpStream; 2]) {
    let (client, a) = tcp_pair();
    let (backend, b) = tcp_pair();
    let (record, ends) = record();
    let tunnel =
        Tunnel::new(Side::plain(a.into()), Side::plain(b.into()), websocket(), rules, record);
    relay.adopt(tunnel).expect("adopted");
    (ends, [client, backend])
}

const LONG: &[usize] = &[65_536];
/// The shortest that are long.
const LEAST: &[usize] = &[32_768];
const MIXED: &[usize] =
    &[0, 5, 125, 126, 32_753, 32_754, 32_758, 32_767, 32_768, 50_000, 65_535, 65_536, 300_000];

/// One test, since others would count too.
#[test]
fn headers_go_before_their_payload_in_the_pipe() {
    let (relay, _) = relay(1);
    let (ends, [client, backend]) = adopted(&relay, Rules::default());
    let mut bytes = [0; 2];
    for (round, lengths) in [LONG, MIXED, LONG, LEAST].into_iter().enumerate() {
        ERROR.store(if round == 2 { libc::EPERM } else { 0 }, SeqCst);
        for (by, masked) in [true, false].into_iter().enumerate() {
            let [from, to] = if masked { [&client, &backend] } else { [&backend, &client] };
            let count = if round == 2 { &REFUSED } else { &PUT };
            let before = count.load(SeqCst);
            let frames = [Frames::new(masked, lengths), Frames::new(masked, lengths)];
            bytes[by] += carry(from, to, frames, || count.load(SeqCst) >= before + 50);
        }
    }
    ERROR.store(0, SeqCst);
    // The frames were followed: a Close can stand here.
    let how = Ending::at_once(Order::Stop, Some(1001), Duration::from_millis(100));
    assert_eq!(relay.end_all(how), 0);
    let mut close = [0; 4];
    { &client }.read_exact(&mut close).expect("a Close");
    assert_eq!(close, [0x88, 2, 0x03, 0xe9]);
    let end = ends.wait();
    assert_eq!((end.by, end.why), (By::Us, Why::Stopped));
    assert_eq!((end.bytes_up, end.bytes_down), (bytes[0] + 8, bytes[1] + 4));
    judged_headers_are_not_cut();
    headers_alone_arrive();
}

/// Where a rule judges frames, no header is read alone: a refused one has nothing of it go on, whatever comes
/// before it.
fn judged_headers_are_not_cut() {
    let (relay, _) = relay(1);
    let rules = Rules { max_message_client: Some(65_536), ..Rules::default() };
    let (ends, [client, backend]) = adopted(&relay, rules);
    let before = PUT.load(SeqCst);
    let sent = AtomicUsize::new(0);
    let frames = [Frames::new(true, LONG), Frames::new(true, LONG)];
    carry(&client, &backend, frames, || sent.fetch_add(1, SeqCst) >= 20);
    let mut frames = Frames::new(true, LONG);
    let pong = [0x8a, 0x80, 1, 2, 3, 4];
    let refused = [&frame_header(0x82, true, 65_537)[..], &[0; 4]].concat();
    let many: Vec<u8> = (0..16).flat_map(|_| frames.take()).chain(pong).chain(refused).collect();
    { &client }.write_all(&many).expect("write");
    let mut came = vec![0; many.len() - 14];
    { &backend }.read_exact(&mut came).expect("read");
    assert!(came == many[..many.len() - 14]);
    let mut close = [0; 4];
    { &client }.read_exact(&mut close).expect("a Close");
    assert_eq!(close, [0x88, 2, 0x03, 0xf1]);
    drop(client);
    let mut rest = Vec::new();
    { &backend }.read_to_end(&mut rest).expect("read");
    assert_eq!(rest.first(), Some(&0x88), "the back end is told, and has nothing of the frame");
    drop(backend);
    assert_eq!(ends.wait().why, Why::MessageTooBig);
    assert_eq!(PUT.load(SeqCst), before);
}

/// What comes of a header whose payload does not come: it is not held back for it, nor is it lost.
fn headers_alone_arrive() {
    let (relay, _) = relay(1);
    let (ends, [client, backend]) = adopted(&relay, Rules::default());
    let header = frame_header(0x82, false, 65_536);
    let mut pattern = Pattern::new(1);
    let mut alone = 0;
    let until = Instant::now() + PATIENCE;
    // As often as it takes for one to be read alone: not where its payload before it came late.
    while alone < 5 {
        assert!(Instant::now() < until, "no header came alone");
        let before = PUT.load(SeqCst);
        thread::scope(|scope| {
            scope.spawn(|| {
                for _ in 0..20 {
                    let mut payload = vec![0; 65_536];
                    pattern.take(&mut payload);
                    { &backend }.write_all(&[&header[..], &payload].concat()).expect("write");
                }
                { &backend }.write_all(&header).expect("write");
            });
            let mut came = vec![0; 20 * (header.len() + 65_536) + header.len()];
            { &client }.read_exact(&mut came).expect("the last header too");
            assert!(came.ends_with(&header));
        });
        alone += usize::from(PUT.load(SeqCst) > before);
        { &backend }.write_all(&[0; 65_536]).expect("write");
        { &client }.read_exact(&mut [0; 65_536]).expect("read");
    }
    { &backend }.write_all(&header).expect("write");
    drop(backend);
    let mut rest = Vec::new();
    match { &client }.read_to_end(&mut rest) {
        Ok(_) => {}
        Err(error) => assert_eq!(error.kind(), ErrorKind::ConnectionReset),
    }
    assert_eq!(rest, header);
    drop(client);
    ends.wait();
}
