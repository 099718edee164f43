//! What the relay's tests share: records that can be waited for, tunnels, random bytes.
#![allow(dead_code, reason = "each test binary uses its own part")]

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::sync::atomic::Ordering::{Relaxed, SeqCst};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::{Duration, Instant};

use relay::{
    Activity, Close, Counters, End, Record, Relay, Rules, Settings, Side, Tracker, Tunnel,
};

/// Longer than anything here takes on a busy machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// A record that sends the end to the test.
pub(crate) struct Told(pub Sender<End>);

impl Record for Told {
    fn ended(&mut self, end: &End) {
        let _ = self.0.send(end.clone());
    }
}

/// A record whose tunnel is in a register, in this life of its entry.
pub(crate) struct Registered {
    pub told: Sender<End>,
    pub activity: &'static Activity,
    pub life: u32,
    pub reason: &'static str,
}

impl Record for Registered {
    fn ended(&mut self, end: &End) {
        let _ = self.told.send(end.clone());
    }

    fn activity(&self) -> Option<&'static Activity> {
        Some(self.activity)
    }

    fn ordered(&self) -> Option<Close> {
        let word = self.activity.order.load(Relaxed);
        let is_own = word >> 32 == u64::from(self.life);
        is_own.then(|| Close::new(word as u16, self.reason.as_bytes()))
    }
}

/// An order to the tunnel that is in an entry in this life.
pub(crate) fn order(activity: &Activity, life: u32, code: u16) {
    activity.order.store(u64::from(life) << 32 | u64::from(code), SeqCst);
}

/// Has the relay look for an order.
pub(crate) fn look(relay: &Relay, activity: &Activity) {
    relay.look_at_orders([activity.seat.load(SeqCst)].into_iter());
}

/// A record with an entry in a register, in its life number 7.
pub(crate) fn registered(reason: &'static str) -> (Box<dyn Record>, Ends, &'static Activity) {
    let activity: &'static Activity = Box::leak(Box::default());
    let (told, receiver) = channel();
    (Box::new(Registered { told, activity, life: 7, reason }), Ends(receiver), activity)
}

/// The end of one tunnel.
pub(crate) struct Ends(pub Receiver<End>);

impl Ends {
    pub(crate) fn wait(&self) -> End {
        self.0.recv_timeout(PATIENCE).expect("the tunnel ends in time")
    }
}

pub(crate) fn record() -> (Box<dyn Record>, Ends) {
    let (sender, receiver) = channel();
    (Box::new(Told(sender)), Ends(receiver))
}

pub(crate) fn counters() -> &'static Counters {
    Box::leak(Box::new(Counters::new()))
}

pub(crate) fn relay(threads: usize) -> (Relay, &'static Counters) {
    let counters = counters();
    let settings = Settings { threads, ..Settings::default() };
    let relay = Relay::start(&settings, counters).expect("the relay starts");
    (relay, counters)
}

/// The header of a frame with this first byte, without the masking key (RFC 6455 5.2).
pub(crate) fn frame_header(first: u8, masked: bool, length: usize) -> Vec<u8> {
    let mask = if masked { 0x80 } else { 0 };
    let mut bytes = vec![first];
    match length {
        0..126 => bytes.push(mask | length as u8),
        126..65_536 => {
            bytes.push(mask | 126);
            bytes.extend_from_slice(&(length as u16).to_be_bytes());
        }
        _ => {
            bytes.push(mask | 127);
            bytes.extend_from_slice(&(length as u64).to_be_bytes());
        }
    }
    bytes
}

/// A connected pair of TCP sockets on loopback.
pub(crate) fn tcp_pair() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind(("127.0.0.1", 0)).expect("bind");
    let one = TcpStream::connect(listener.local_addr().expect("address")).expect("connect");
    let (two, _) = listener.accept().expect("accept");
    for socket in [&one, &two] {
        socket.set_nodelay(true).expect("nodelay");
    }
    one.set_read_timeout(Some(PATIENCE)).expect("timeout");
    one.set_write_timeout(Some(PATIENCE)).expect("timeout");
    (one, two)
}

/// Buffers of few bytes, so that they are full soon.
pub(crate) fn limit_buffers(socket: &TcpStream) {
    let bytes: libc::c_int = 16_384;
    for option in [libc::SO_SNDBUF, libc::SO_RCVBUF] {
        // SAFETY: the kernel reads a number, which lives on the stack.
        let result = unsafe {
            libc::setsockopt(
                socket.as_raw_fd(),
                libc::SOL_SOCKET,
                option,
                (&raw const bytes).cast(),
                size_of::<libc::c_int>() as u32,
            )
        };
        assert_eq!(result, 0);
    }
}

pub(crate) fn unix_pair() -> (UnixStream, UnixStream) {
    let (one, two) = UnixStream::pair().expect("pair");
    one.set_read_timeout(Some(PATIENCE)).expect("timeout");
    one.set_write_timeout(Some(PATIENCE)).expect("timeout");
    (one, two)
}

pub(crate) fn opaque() -> [Tracker; 2] {
    [Tracker::opaque(), Tracker::opaque()]
}

pub(crate) fn websocket() -> [Tracker; 2] {
    [Tracker::client_to_backend(), Tracker::backend_to_client()]
}

/// A plain opaque tunnel between two sockets.
pub(crate) fn tunnel(client: impl Into<OwnedFd>, backend: impl Into<OwnedFd>) -> (Tunnel, Ends) {
    let (record, ends) = record();
    let tunnel = Tunnel::new(
        Side::plain(client.into()),
        Side::plain(backend.into()),
        opaque(),
        Rules::default(),
        record,
    );
    (tunnel, ends)
}

/// Waits until `condition` holds.
pub(crate) fn until(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !condition() {
        assert!(Instant::now() < deadline, "in vain: {what}");
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// xorshift64*: the same bytes for the same seed.
#[derive(Clone)]
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    pub(crate) fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound as u64) as usize
    }

    pub(crate) fn fill(&mut self, bytes: &mut [u8]) {
        for chunk in bytes.chunks_mut(8) {
            let next = self.next().to_le_bytes();
            chunk.copy_from_slice(&next[..chunk.len()]);
        }
    }
}

/// An endless stream of known bytes, whatever sizes it is taken in.
pub(crate) struct Pattern {
    random: Random,
    block: [u8; 4096],
    at: usize,
}

impl Pattern {
    pub(crate) fn new(seed: u64) -> Self {
        Pattern { random: Random::new(seed), block: [0; 4096], at: 4096 }
    }

    fn refill(&mut self) {
        if self.at == self.block.len() {
            self.random.fill(&mut self.block);
            self.at = 0;
        }
    }

    pub(crate) fn take(&mut self, out: &mut [u8]) {
        let mut done = 0;
        while done < out.len() {
            self.refill();
            let n = (out.len() - done).min(self.block.len() - self.at);
            out[done..done + n].copy_from_slice(&self.block[self.at..self.at + n]);
            self.at += n;
            done += n;
        }
    }

    /// Panics at the first byte that is not the next one.
    pub(crate) fn check(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            self.refill();
            let n = bytes.len().min(self.block.len() - self.at);
            assert!(bytes[..n] == self.block[self.at..self.at + n], "a wrong byte came through");
            self.at += n;
            bytes = &bytes[n..];
        }
    }
}

/// Writes `total` bytes of a pattern in random sizes.
pub(crate) fn send_pattern(mut to: impl Write, seed: u64, total: usize) {
    let mut pattern = Pattern::new(seed);
    let mut sizes = Random::new(seed ^ 0x5151);
    let mut buffer = vec![0; 100_000];
    let mut left = total;
    while left > 0 {
        let most = if sizes.below(4) == 0 { 100_000 } else { 1500 };
        let n = (1 + sizes.below(most)).min(left);
        pattern.take(&mut buffer[..n]);
        to.write_all(&buffer[..n]).expect("write");
        left -= n;
    }
}

/// Reads and checks a pattern until `total` bytes came.
pub(crate) fn expect_pattern(mut from: impl Read, seed: u64, total: usize) {
    let mut pattern = Pattern::new(seed);
    let mut buffer = vec![0; 65_536];
    let mut left = total;
    while left > 0 {
        let most = left.min(buffer.len());
        let n = from.read(&mut buffer[..most]).expect("read");
        assert!(n > 0, "the end came {left} bytes early");
        pattern.check(&buffer[..n]);
        left -= n;
    }
}

/// Expects an end of file.
pub(crate) fn expect_end(mut from: impl Read) {
    let mut byte = [0];
    assert_eq!(from.read(&mut byte).expect("an end, no error"), 0);
}
