//! What happens to the tunnels of one seed, and what must then be true of them.

use std::collections::VecDeque;
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::JoinHandle;
use std::time::Duration;

use relay::{
    Activity, By, Close, Counters, End, Ending, KeepAlive, Order, Record, Relay, Rules, Settings,
    Side, Tls, Tracker, Tunnel, Why,
};

use crate::common::{Random, frame_header};
use crate::{NOW, kernel, toy_tls};

const SECOND: u64 = 1_000_000_000;

/// What an administrator says, and why.
const KILL_CODE: u16 = 4007;
const REASON: &str = "schluß";

/// The most tunnels of a seed.
const MOST_PAIRS: usize = 6;

/// What all seeds came to, so that it can be seen that everything was tried.
#[derive(Debug, Default)]
pub(crate) struct Sums {
    tunnels: usize,
    steps: usize,
    bytes: u64,
    closed: usize,
    truncated: usize,
    reset: usize,
    reset_both: usize,
    tls: usize,
    idle: usize,
    paced: usize,
    ordered: usize,
    killed: usize,
    moved: usize,
    close_frames: usize,
}

/// Told of one tunnel.
#[derive(Debug)]
enum Told {
    Ended(End),
    Settled,
}

struct Teller {
    told: Sender<Told>,
    activity: &'static Activity,
    life: u32,
}

impl Record for Teller {
    fn ended(&mut self, end: &End) {
        let _ = self.told.send(Told::Ended(end.clone()));
    }

    fn settled(&mut self) {
        let _ = self.told.send(Told::Settled);
    }

    fn activity(&self) -> Option<&'static Activity> {
        Some(self.activity)
    }

    fn ordered(&self) -> Option<Close> {
        let word = self.activity.order.load(Relaxed);
        let is_own = word >> 32 == u64::from(self.life);
        is_own.then(|| Close::new(word as u16, REASON.as_bytes()))
    }
}

/// One end of a tunnel: the peer, and the relay's socket to it.
struct Peer {
    socket: usize,
    has_tls: bool,
    is_websocket: bool,
    is_client: bool,
    random: Random,
    /// How much it will send.
    left: usize,
    /// What it sent, and where frames end in it.
    said: Vec<u8>,
    boundaries: Vec<usize>,
    /// The same as it goes over the wire, as far as it is still to arrive.
    wire: VecDeque<u8>,
    wants_end: bool,
    has_ended: bool,
    /// It left, or the network did.
    is_gone: bool,
    /// What it heard, and what of that is no whole record.
    heard: Vec<u8>,
    ciphertext: VecDeque<u8>,
    heard_close: bool,
    /// So much of it was sent by the other peer.
    right: usize,
    /// What the relay's TLS sealed for it.
    sealed: Arc<AtomicU64>,
}

impl Peer {
    fn say_bytes(&mut self, count: usize) {
        let count = count.min(self.left);
        self.left -= count;
        let before = self.said.len();
        if self.is_websocket {
            // A frame, of which the last may stay without its end.
            while self.said.len() < before + count {
                let length = [0, 3, 125, 126, 5000, 70_000][self.random.below(6)].min(count);
                self.say_frame(length);
            }
        } else {
            self.said.resize(before + count, 0);
            self.random.fill(&mut self.said[before..]);
        }
        self.send_from(before);
    }

    fn say_frame(&mut self, length: usize) {
        let frame = &mut self.said;
        frame.extend(frame_header(0x82, self.is_client, length));
        let payload = frame.len();
        frame.resize(payload + length + if self.is_client { 4 } else { 0 }, 0);
        self.random.fill(&mut frame[payload..]);
        self.boundaries.push(self.said.len());
    }

    /// Puts what was said on the wire.
    fn send_from(&mut self, before: usize) {
        if !self.has_tls {
            self.wire.extend(&self.said[before..]);
            return;
        }
        let mut rest = &self.said[before..];
        while !rest.is_empty() {
            if self.random.below(20) == 0 {
                toy_tls::seal(&mut self.wire, &[]);
            }
            let most = [10, 300, toy_tls::MOST][self.random.below(3)];
            let n = (1 + self.random.below(most)).min(rest.len());
            toy_tls::seal(&mut self.wire, &rest[..n]);
            rest = &rest[n..];
        }
    }

    fn hear(&mut self, bytes: Vec<u8>) {
        if !self.has_tls {
            self.heard.extend(bytes);
            return;
        }
        self.ciphertext.extend(bytes);
        while let Some(record) = toy_tls::open(&mut self.ciphertext) {
            assert!(!self.heard_close, "nothing follows close_notify");
            match record {
                toy_tls::Record::Body(body) => self.heard.extend(body),
                toy_tls::Record::Close => self.heard_close = true,
                toy_tls::Record::Bad => panic!("the relay sends whole records"),
            }
        }
    }
}

/// One tunnel.
struct Pair {
    /// The client's, the back end's.
    peers: [Peer; 2],
    told: Receiver<Told>,
    end: Option<End>,
    ended_at: u64,
    activity: &'static Activity,
    life: u32,
    /// The bytes that others saw last.
    seen: [u64; 2],
    /// An administrator has ended it, when nothing else had.
    is_killed: bool,
    /// Its peers are waited for until then.
    killed_until: u64,
    /// There was such an order.
    may_be_killed: bool,
    idle: Option<u64>,
    /// How fast its client may send.
    paces: Option<Paces>,
    linger: u64,
    /// Bytes that the relay sent or sealed, and when that was last seen to grow.
    sent: u64,
    moved_at: u64,
    opened_at: u64,
    may_be_idle: bool,
    /// When it was seen that nothing moved for as long as it may.
    idle_since: Option<u64>,
    /// A RST, a failure, a bad record.
    is_broken: bool,
    /// Who was the first to end, if the relay could tell.
    first_end: Option<Option<By>>,
    /// The first of them said nothing of it before.
    is_truncated: bool,
}

/// How many bytes and messages a client may send in a second, and what came ahead of that.
#[derive(Clone, Copy, Debug)]
struct Paces {
    bytes: Option<u64>,
    messages: Option<u64>,
    ahead: u64,
}

impl Paces {
    /// The most bytes that may have come after so many nanoseconds.
    fn most(self, time: u64) -> u64 {
        let saved = |rate: u64| u128::from(rate) * (1 + u128::from(time / 1000) / 1_000_000 + 1);
        self.bytes.map_or(u64::MAX, |rate| self.ahead + saved(rate) as u64)
    }
}

/// All of one seed.
struct Script<'a> {
    random: Random,
    relay: Arc<Relay>,
    settings: Settings,
    counters: &'static Counters,
    register: &'static [Activity],
    pairs: Vec<Pair>,
    /// The code of the Close frame, once there was an order.
    ordered: Option<Option<u16>>,
    order_ends: u64,
    order_linger: u64,
    /// Nobody is cut off before,
    order_cuts: u64,
    /// and nobody is carried on after.
    order_spreads: u64,
    waiting: Vec<JoinHandle<usize>>,
    moves: usize,
    is_told: bool,
    sums: &'a mut Sums,
}

/// Runs one seed.
pub(crate) fn run(seed: u64, is_told: bool, sums: &mut Sums) {
    let mut random = Random::new(seed);
    for _ in 0..10 {
        random.next();
    }
    let trouble = [0, 5, 50][random.below(3)];
    kernel::boot(random.clone(), trouble);
    // Given back at the end: the relay asks for `'static`, and is gone by then.
    let counters = Box::into_raw(Box::new(Counters::new()));
    let register: [Activity; MOST_PAIRS] = std::array::from_fn(|_| Activity::new());
    let register = Box::into_raw(Box::new(register));
    let settings = Settings {
        buffer_size: [4096, 40_000, 100_000, 256 * 1024][random.below(4)],
        keep_alive: (random.below(2) == 0).then_some(KeepAlive {
            idle_seconds: 5,
            interval_seconds: 1,
            probes: 3,
        }),
        ..Settings::default()
    };
    // SAFETY: freed below, when nobody has it any more.
    let counters_ref: &'static Counters = unsafe { &*counters };
    // SAFETY: as of the counters.
    let register_ref: &'static [Activity] = unsafe { &*register };
    let relay = Arc::new(Relay::start(&settings, counters_ref).expect("a relay"));
    kernel::settle();
    let mut script = Script {
        random,
        relay,
        settings,
        counters: counters_ref,
        register: register_ref,
        pairs: Vec::new(),
        ordered: None,
        order_ends: 0,
        order_linger: 0,
        order_cuts: 0,
        order_spreads: 0,
        waiting: Vec::new(),
        moves: 0,
        is_told,
        sums,
    };
    script.play();
    drop(script);
    kernel::halt();
    // SAFETY: made by Box::into_raw; the relay was stopped, and its threads joined.
    drop(unsafe { Box::from_raw(counters) });
    // SAFETY: the same.
    drop(unsafe { Box::from_raw(register) });
}

impl Script<'_> {
    fn tell(&self, what: impl FnOnce() -> String) {
        if self.is_told {
            println!("{}", what());
        }
    }

    fn play(&mut self) {
        let pairs = 1 + self.random.below(3);
        for _ in 0..pairs {
            self.open();
            self.check();
        }
        let steps = 5 + self.random.below(60);
        for _ in 0..steps {
            self.step();
            NOW[1].fetch_add(1, Relaxed);
            self.sums.steps += 1;
        }
        self.finish();
    }

    fn chance(&mut self, of: usize) -> bool {
        self.random.below(of) == 0
    }

    /// A new tunnel.
    fn open(&mut self) {
        let is_websocket = self.chance(2);
        let few = self.chance(2);
        let mut sides = Vec::new();
        let mut peers = Vec::new();
        for is_client in [true, false] {
            let sizes = [1, 50, 3000, 80_000, 300_000];
            let [inbox, outbox] = [(); 2].map(|()| {
                let least = if few { 0 } else { 2 };
                sizes[least + self.random.below(sizes.len() - least)]
            });
            let (socket, fd) = kernel::socket(inbox, outbox);
            let has_tls = self.chance(3);
            let sealed = Arc::new(AtomicU64::new(0));
            let tls: Option<Box<dyn Tls>> = if has_tls {
                Some(Box::new(toy_tls::Toy::new(fd.as_raw_fd(), Arc::clone(&sealed))))
            } else {
                None
            };
            let mut peer = Peer {
                socket,
                has_tls,
                is_websocket,
                is_client,
                random: Random::new(self.random.next()),
                left: if few { 500 } else { 300_000 },
                said: Vec::new(),
                boundaries: vec![0],
                wire: VecDeque::new(),
                wants_end: false,
                has_ended: false,
                is_gone: false,
                heard: Vec::new(),
                ciphertext: VecDeque::new(),
                heard_close: false,
                right: 0,
                sealed,
            };
            let mut read_ahead = Vec::new();
            if self.chance(3) {
                peer.say_bytes(1 + self.random.below(if few { 100 } else { 2000 }));
                peer.wire.clear();
                read_ahead = peer.said.clone();
            }
            sides.push(Side { fd, tls, read_ahead });
            peers.push(peer);
        }
        let frames = match is_websocket {
            true => [Tracker::client_to_backend(), Tracker::backend_to_client()],
            false => [Tracker::opaque(), Tracker::opaque()],
        };
        let pace = self.chance(4).then(|| {
            let rate = [500, 20_000, 2_000_000][self.random.below(3)];
            [[Some(rate), None], [None, Some(100)], [Some(rate), Some(20)]][self.random.below(3)]
        });
        let ahead = sides[0].read_ahead.len() as u64;
        let paces = pace.map(|[bytes, messages]| Paces { bytes, messages, ahead });
        self.sums.paced += usize::from(paces.is_some());
        let idle = self.chance(2) && paces.is_none();
        let idle = idle.then(|| (1 + self.random.below(20) as u64) * SECOND);
        let (sender, told) = channel();
        let (Some(backend), Some(client)) = (sides.pop(), sides.pop()) else { unreachable!() };
        let linger = 1 + self.random.below(3) as u64;
        let life = self.random.next() as u32;
        let rules = Rules {
            idle_timeout: idle.map(Duration::from_nanos),
            linger: Some(Duration::from_secs(linger)),
            bandwidth: paces.and_then(|paces| paces.bytes),
            message_rate: paces.and_then(|paces| paces.messages),
            message_burst: paces.and_then(|paces| paces.messages).filter(|_| life & 1 == 0),
            ..Rules::default()
        };
        let activity = &self.register[self.pairs.len()];
        let teller = Teller { told: sender, activity, life };
        let tunnel = Tunnel::new(client, backend, frames, rules, Box::new(teller));
        self.tell(|| {
            let tls: Vec<bool> = peers.iter().map(|peer| peer.has_tls).collect();
            format!("a tunnel, websocket: {is_websocket}, TLS: {tls:?}, idle: {idle:?}, {paces:?}")
        });
        let Ok(peers) = <[Peer; 2]>::try_from(peers) else { unreachable!() };
        self.pairs.push(Pair {
            peers,
            told,
            end: None,
            ended_at: 0,
            activity,
            life,
            seen: [0; 2],
            is_killed: false,
            killed_until: 0,
            may_be_killed: false,
            idle,
            paces,
            linger: linger * SECOND,
            sent: 0,
            moved_at: kernel::now(),
            opened_at: kernel::now(),
            may_be_idle: false,
            idle_since: None,
            is_broken: false,
            first_end: None,
            is_truncated: false,
        });
        self.sums.tunnels += 1;
        self.relay.adopt(tunnel).map_err(drop).expect("adopted");
        kernel::settle();
    }

    /// One thing happens.
    fn step(&mut self) {
        let which = self.random.below(self.pairs.len());
        let side = self.random.below(2);
        let most = [1, 100, 5000, 200_000][self.random.below(4)];
        let amount = 1 + self.random.below(most);
        let what = self.random.below(1000);
        self.tell(|| format!("tunnel {which}, side {side}, {what}, {amount}"));
        match what {
            0..350 => {
                let peer = &mut self.pairs[which].peers[side];
                if !peer.wants_end {
                    peer.say_bytes(amount);
                }
                self.arrive(which, side, amount);
            }
            350..500 => self.arrive(which, side, amount),
            500..750 => self.read(which, side, amount),
            750..800 => {
                let peer = &mut self.pairs[which].peers[side];
                if !peer.wants_end {
                    peer.wants_end = true;
                    let says_so = peer.random.below(4) > 0;
                    if peer.has_tls && says_so {
                        toy_tls::seal_close(&mut peer.wire);
                    } else if peer.has_tls {
                        self.pairs[which].is_truncated = true;
                    }
                }
                self.arrive(which, side, usize::MAX);
            }
            800..810 => self.fail(which, side, libc::ECONNRESET),
            810..815 => self.fail(which, side, libc::ETIMEDOUT),
            815..825 => self.leave(which, side),
            825..830 => self.corrupt(which, side),
            830..860 => kernel::with(|kernel| {
                kernel.sockets.iter_mut().for_each(kernel::Socket::touch);
            }),
            860..920 => {
                let time = [1, 10, 1000, 4000, 30_000][self.random.below(5)];
                kernel::pass(Duration::from_millis(time));
            }
            920..950 => self.relocate(),
            950..970 => self.order(),
            970..980 => self.kill(which),
            980..990
                if self.pairs.len() < MOST_PAIRS
                    && (self.ordered.is_none() || self.relay.open() > 0) =>
            {
                self.open();
            }
            _ => {
                // Several things at once.
                for _ in 0..2 {
                    let side = self.random.below(2);
                    self.arrive_unseen(which, side, amount);
                    self.read_unseen(which, 1 - side, amount);
                }
            }
        }
        kernel::settle();
        self.check();
    }

    fn arrive(&mut self, which: usize, side: usize, most: usize) {
        self.arrive_unseen(which, side, most);
        kernel::settle();
    }

    /// What a peer sent comes to the relay, its end too.
    fn arrive_unseen(&mut self, which: usize, side: usize, most: usize) {
        let pair = &mut self.pairs[which];
        let peer = &mut pair.peers[side];
        if peer.is_gone || peer.has_ended {
            return;
        }
        let by = if side == 0 { By::Client } else { By::Backend };
        kernel::with(|kernel| {
            let socket = &mut kernel.sockets[peer.socket];
            peer.is_gone |= socket.is_dead;
            if socket.closed || socket.is_dead {
                return;
            }
            socket.arrive(&mut peer.wire, most);
            if peer.wants_end && peer.wire.is_empty() {
                socket.end();
                peer.has_ended = true;
                // Of two that end at once nobody can tell, nor of one whose bytes have to wait.
                let can_wait = pair.paces.is_some() && side == 0;
                let before = pair.first_end.get_or_insert(Some(by).filter(|_| !can_wait));
                if *before != Some(by) {
                    *before = None;
                }
            }
        });
    }

    fn read(&mut self, which: usize, side: usize, most: usize) {
        self.read_unseen(which, side, most);
        kernel::settle();
    }

    /// A peer reads what the relay sent.
    fn read_unseen(&mut self, which: usize, side: usize, most: usize) {
        let peer = &mut self.pairs[which].peers[side];
        if peer.is_gone {
            return;
        }
        let bytes = kernel::with(|kernel| kernel.sockets[peer.socket].leave(most));
        peer.hear(bytes);
    }

    /// The connection to a peer fails.
    fn fail(&mut self, which: usize, side: usize, error: i32) {
        let pair = &mut self.pairs[which];
        let peer = &mut pair.peers[side];
        if peer.is_gone {
            return;
        }
        let is_open = kernel::with(|kernel| {
            let socket = &mut kernel.sockets[peer.socket];
            if !socket.closed {
                socket.fail(error);
            }
            !socket.closed
        });
        peer.is_gone |= is_open;
        pair.is_broken |= is_open;
    }

    /// A peer closes its socket: it reads no more.
    fn leave(&mut self, which: usize, side: usize) {
        let pair = &mut self.pairs[which];
        pair.is_truncated |= pair.peers[side].has_tls && !pair.peers[side].wants_end;
        pair.peers[side].wants_end = true;
        self.arrive(which, side, usize::MAX);
        let pair = &mut self.pairs[which];
        let peer = &mut pair.peers[side];
        if !peer.has_ended || peer.is_gone {
            return;
        }
        self.read(which, side, usize::MAX);
        let pair = &mut self.pairs[which];
        let peer = &mut pair.peers[side];
        peer.is_gone = true;
        pair.is_broken = true;
        kernel::with(|kernel| kernel.sockets[peer.socket].abandon());
    }

    /// A peer sends a record that is none.
    fn corrupt(&mut self, which: usize, side: usize) {
        let pair = &mut self.pairs[which];
        let peer = &mut pair.peers[side];
        if peer.has_tls && !peer.wants_end && !peer.is_gone {
            peer.wants_end = true;
            pair.is_broken = true;
            peer.wire.extend([0xff, 0xf0, 0]);
        }
    }

    /// The relay stops, and another goes on.
    fn relocate(&mut self) {
        if self.ordered.is_some() {
            return;
        }
        self.moves += 1;
        let tunnels = kernel::free(|| self.relay.stop());
        assert_eq!((self.relay.open(), self.relay.alive()), (0, 0));
        // The thread of the new one is waited for.
        self.relay = Arc::new(Relay::start(&self.settings, self.counters).expect("a relay"));
        kernel::settle();
        // Its time begins anew there.
        let now = kernel::now();
        for pair in &mut self.pairs {
            pair.moved_at = now;
            pair.idle_since = pair.idle_since.map(|_| now);
        }
        for tunnel in tunnels {
            self.sums.moved += 1;
            let again = if self.chance(2) { refrozen(tunnel) } else { tunnel };
            self.relay.adopt(again).map_err(drop).expect("adopted");
            if self.chance(2) {
                kernel::settle();
            }
        }
    }

    /// An administrator orders the end of a tunnel.
    fn kill(&mut self, which: usize) {
        let is_moved = self.ordered.is_none() && self.chance(4);
        let is_other = self.chance(4);
        let pair = &mut self.pairs[which];
        let life = if is_other { pair.life.wrapping_add(1) } else { pair.life };
        let order = u64::from(life) << 32 | u64::from(KILL_CODE);
        pair.activity.order.store(order, Relaxed);
        if !is_other {
            let has_ended = pair.peers.iter().any(|peer| peer.wants_end || peer.is_gone);
            let is_undisturbed = !pair.is_broken && !has_ended && !pair.may_be_idle;
            pair.is_killed |= is_undisturbed && pair.end.is_none() && self.ordered.is_none();
            // Another one changes nothing.
            if !std::mem::replace(&mut pair.may_be_killed, true) {
                pair.killed_until = kernel::now() + pair.linger;
            }
            pair.idle_since.get_or_insert(kernel::now());
        }
        let seats: Vec<u32> =
            self.pairs.iter().map(|pair| pair.activity.seat.load(Relaxed)).collect();
        if is_moved {
            self.relocate();
        } else if seats[which] != 0 {
            self.relay.look_at_orders([seats[which]].into_iter());
            kernel::wait_for_message();
        }
        kernel::settle();
    }

    /// The server stops.
    fn order(&mut self) {
        if self.ordered.is_some() {
            return;
        }
        let code = (!self.chance(3)).then_some(1001);
        let linger = [0, 1, 10][self.random.below(3)] * SECOND;
        let spread = [0, 0, 2, 30][self.random.below(4)] * SECOND;
        self.ordered = Some(code);
        self.order_linger = linger;
        self.order_cuts = kernel::now() + linger;
        self.order_ends = self.order_cuts + spread;
        let tick = if spread > 0 { SECOND / 100 } else { 0 };
        self.order_spreads = kernel::now() + spread + tick;
        let relay = Arc::clone(&self.relay);
        let [linger, spread] = [linger, spread].map(Duration::from_nanos);
        let wait = move || relay.end_all(Ending { order: Order::Stop, code, spread, linger });
        self.waiting.push(std::thread::spawn(wait));
        kernel::wait_for_message();
        kernel::settle();
    }

    /// All peers read, and end, and then all tunnels are over.
    fn finish(&mut self) {
        self.tell(|| "the end".to_owned());
        let mut futile = 0;
        let mut before = None;
        while futile < 10 && self.pairs.iter().any(|pair| pair.end.is_none()) {
            for which in 0..self.pairs.len() {
                for side in 0..2 {
                    let peer = &mut self.pairs[which].peers[side];
                    if !peer.wants_end {
                        peer.wants_end = true;
                        if peer.has_tls {
                            toy_tls::seal_close(&mut peer.wire);
                        }
                    }
                    self.read_unseen(which, side, usize::MAX);
                    self.arrive_unseen(which, side, usize::MAX);
                }
            }
            kernel::settle();
            self.check();
            if self.pairs.iter().any(|pair| pair.paces.is_some() && pair.end.is_none()) {
                kernel::pass(Duration::from_secs(1));
                self.check();
            }
            NOW[1].fetch_add(1, Relaxed);
            let peers = self.pairs.iter().flat_map(|pair| &pair.peers);
            let state: Vec<_> = peers
                .map(|peer| (peer.wire.len(), peer.heard.len(), peer.ciphertext.len()))
                .collect();
            futile = if before.as_ref() == Some(&state) { futile + 1 } else { 0 };
            before = Some(state);
        }
        for pair in &self.pairs {
            assert!(
                pair.end.is_some(),
                "it ends when both sides have: {:?}",
                [0, 1].map(|side| kernel::look(pair.peers[side].socket))
            );
        }
        for which in 0..self.pairs.len() {
            for side in 0..2 {
                self.read_unseen(which, side, usize::MAX);
            }
        }
        kernel::settle();
        self.check();
        for waiting in self.waiting.drain(..) {
            // How many it saw is a matter of when it looked: its thread is not part of the script.
            waiting.join().expect("it waited");
        }
        for which in 0..self.pairs.len() {
            self.check_end(which);
        }
        let tunnels = kernel::free(|| self.relay.stop());
        assert!(tunnels.is_empty());
        let counters = self.counters;
        assert_eq!(counters.open.load(Relaxed), 0);
        assert_eq!(counters.threads.load(Relaxed), 0);
        let ended = self.pairs.len() as u64;
        assert_eq!(counters.ended.load(Relaxed), ended);
        assert_eq!(counters.adopted.load(Relaxed) - counters.returned.load(Relaxed), ended);
    }

    /// What is true whenever the relay has nothing to do.
    fn check(&mut self) {
        let now = kernel::now();
        // The time of each of them has come, as far as a timer is exact.
        let is_ordered = self.ordered.is_some() && now >= self.order_spreads;
        for pair in &mut self.pairs {
            for told in pair.told.try_iter() {
                match told {
                    Told::Ended(end) => {
                        assert!(pair.end.is_none(), "it ends once");
                        pair.end = Some(end);
                        pair.ended_at = now;
                    }
                    Told::Settled => assert!(pair.end.is_some(), "it is settled after it ended"),
                }
            }
            let looks = [0, 1].map(|side| kernel::look(pair.peers[side].socket));
            let sealed = pair.peers.iter().map(|peer| peer.sealed.load(Relaxed));
            let sent = looks.iter().map(|look| look.sent).chain(sealed).sum();
            // What TLS says of its own, as close_notify, is nothing that moves.
            let has_tls = pair.peers.iter().any(|peer| peer.has_tls);
            let moved_at = if has_tls { pair.opened_at } else { pair.moved_at };
            pair.may_be_idle |= pair.idle.is_some_and(|idle| now - moved_at >= idle);
            if sent != pair.sent {
                (pair.sent, pair.moved_at) = (sent, now);
            }
            // Others see it as it is.
            let is_seated = pair.activity.seat.load(Relaxed) != 0;
            assert_eq!(is_seated, pair.end.is_none(), "it has a seat for as long");
            let delivered = pair.activity.bytes.each_ref().map(|bytes| bytes.load(Relaxed));
            for (bytes, sink) in [(delivered[0], 1), (delivered[1], 0)] {
                let peer = &pair.peers[sink];
                let written = peer.sealed.load(Relaxed);
                let expected = if peer.has_tls { written } else { looks[sink].sent };
                assert_eq!(bytes, expected, "what others see was sent");
            }
            if delivered != pair.seen {
                let last = u64::from(pair.activity.last.load(Relaxed));
                assert_eq!(last, now / SECOND, "others see when");
                pair.seen = delivered;
            }
            let is_within = |paces: Paces| delivered[0] <= paces.most(now - pair.opened_at);
            assert!(pair.paces.is_none_or(is_within), "{:?}: {delivered:?}", pair.paces);
            for look in looks {
                assert_eq!(look.closed, pair.end.is_some(), "its sockets are open for as long");
            }
            for (from, source, sink) in [(0, looks[0], looks[1]), (1, looks[1], looks[0])] {
                if pair.end.is_some() {
                    break;
                }
                let is_free = !sink.is_blocked && !sink.is_dead;
                // Who is being ended has said what it had to, and so has who ended both ways.
                let is_ending = self.ordered.is_some() || pair.may_be_idle || pair.may_be_killed;
                let is_ending = is_ending || source.peer_ended && source.shut;
                // Nobody reads on where TLS has failed.
                let is_left = pair.is_broken && (is_ending || has_tls);
                // A client that is held back is not looked at meanwhile.
                let is_held = pair.paces.is_some() && from == 0;
                assert!(is_ending || is_held || !source.has_failed, "a failure is seen: {looks:?}");
                assert!(
                    !is_free || source.is_blocked || source.unread == 0 || is_left || is_held,
                    "what can go on does: {looks:?}"
                );
                let is_over = source.peer_ended && source.unread == 0 || is_ordered;
                assert!(
                    !is_free || !is_over || sink.shut || is_held && !is_ordered,
                    "an end is carried: {looks:?}"
                );
            }
            if pair.idle.is_some_and(|idle| now - pair.moved_at > idle + SECOND / 10) {
                pair.idle_since.get_or_insert(now);
            }
            if let (Some(since), None) = (pair.idle_since, &pair.end) {
                // An order may have been there before.
                let most = pair.linger.max(self.order_linger) + SECOND / 10;
                assert!(now - since <= most, "who is idle is ended");
            }
            for (from, to) in [(0, 1), (1, 0)] {
                let [from, to] = match from < to {
                    true => pair.peers.each_mut(),
                    false => swapped(&mut pair.peers),
                };
                let (said, heard) = (&from.said[to.right..], &to.heard[to.right..]);
                let same = said.len().min(heard.len());
                if said[..same] == heard[..same] {
                    to.right += same;
                } else {
                    to.right += said.iter().zip(heard).take_while(|(a, b)| a == b).count();
                }
                let more = &to.heard[to.right..];
                let may_close = self.ordered.is_some() || pair.may_be_idle || pair.may_be_killed;
                assert!(
                    more.is_empty() || may_close && is_close(more, !to.is_client),
                    "{more:?} was not sent"
                );
                let stands_between = from.boundaries.contains(&to.right);
                assert!(more.is_empty() || stands_between, "a frame stands between frames");
            }
        }
        if self.ordered.is_some() && now > self.order_ends + SECOND {
            assert!(self.pairs.iter().all(|pair| pair.end.is_some()), "an order is kept in time");
        }
    }

    /// What is true of a tunnel that has ended.
    fn check_end(&mut self, which: usize) {
        let pair = &self.pairs[which];
        let Some(end) = &pair.end else { unreachable!() };
        let sums = &mut *self.sums;
        let by_us = self.ordered.is_some() || pair.may_be_idle || pair.may_be_killed;
        if pair.is_killed {
            assert_eq!((end.by, &end.why), (By::Us, &Why::ClosedByAdmin));
        }
        match &end.why {
            Why::Closed => sums.closed += 1,
            Why::Truncated => {
                assert!(pair.is_truncated);
                sums.truncated += 1;
            }
            Why::Reset | Why::Error(_) => {
                assert!(pair.is_broken, "{end:?}");
                sums.reset += 1;
            }
            Why::Tls(_) => {
                assert!(pair.is_broken, "{end:?}");
                sums.tls += 1;
            }
            Why::IdleTimeout => {
                assert!(pair.may_be_idle);
                sums.idle += 1;
            }
            Why::Stopped => {
                assert!(self.ordered.is_some());
                sums.ordered += 1;
            }
            Why::ClosedByAdmin => {
                assert!(pair.may_be_killed);
                sums.killed += 1;
            }
            why => panic!("{why:?}"),
        }
        if !pair.is_broken && !by_us && !pair.is_truncated {
            assert_eq!(end.why, Why::Closed);
        }
        if matches!(end.why, Why::Closed) && !pair.is_broken {
            if let Some(Some(by)) = pair.first_end {
                assert_eq!(end.by, by, "{end:?}");
            }
            for (from, to) in [(0, 1), (1, 0)] {
                let (from, to) = (&pair.peers[from], &pair.peers[to]);
                assert_eq!(from.said.len(), to.heard.len(), "all comes through");
                assert_eq!(to.heard_close, to.has_tls, "TLS is ended in its way");
            }
        }
        let [client, backend] = &pair.peers;
        for (bytes, sink) in [(end.bytes_up, backend), (end.bytes_down, client)] {
            let sent = kernel::look(sink.socket).sent;
            let expected = if sink.has_tls { sink.sealed.load(Relaxed) } else { sent };
            assert_eq!(bytes, expected, "what is counted was sent: {end:?}");
            sums.bytes += bytes;
        }
        // Who is cut off may have been sent half of it.
        let is_alone = !pair.may_be_idle && !pair.may_be_killed;
        let is_in_time = !pair.is_broken && is_alone && pair.ended_at < self.order_cuts;
        for peer in [client, backend] {
            let more = &peer.heard[peer.right..];
            let rest = if peer.is_client { 2 } else { 6 };
            let whole = [0, rest + 2, rest + 2 + REASON.len()];
            let is_whole = whole.contains(&more.len());
            assert!(!is_in_time || is_whole, "a Close frame is whole: {more:?}, {end:?}");
            sums.close_frames += usize::from(!more.is_empty());
        }
        // All of what was read went out, and behind it, unless that is within a frame, why it ends.
        let is_cut = self.ordered.is_some() && pair.ended_at >= self.order_cuts;
        let is_cut = is_cut || pair.ended_at >= pair.killed_until;
        let is_told = pair.is_killed && !pair.is_broken && !is_cut;
        for (from, to) in [(client, backend), (backend, client)] {
            let may_be_told = to.is_websocket && from.boundaries.contains(&to.right);
            let said = to.heard.len() - to.right;
            let length = if to.is_client { 4 } else { 8 } + REASON.len();
            assert!(!is_told || said == if may_be_told { length } else { 0 }, "{end:?}");
        }
        let resets = [client, backend].map(|peer| kernel::look(peer.socket).resets);
        match end.why {
            // To the other only if it has got all else, as the kernel of the simulation sees to.
            Why::Reset | Why::Error(_) => {
                assert!(resets[usize::from(end.by == By::Backend)], "a reset is kept to");
                sums.reset_both += usize::from(resets == [true; 2]);
            }
            Why::Closed => assert_eq!(resets, [false; 2], "an end is no reset"),
            _ => {}
        }
    }
}

fn swapped(peers: &mut [Peer; 2]) -> [&mut Peer; 2] {
    let [client, backend] = peers.each_mut();
    [backend, client]
}

/// Whether these can be a Close frame of the relay, as far as they go.
fn is_close(bytes: &[u8], is_masked: bool) -> bool {
    [(1001, ""), (KILL_CODE, REASON)].into_iter().any(|(code, reason)| {
        let payload = [&u16::to_be_bytes(code)[..], reason.as_bytes()].concat();
        let length = payload.len() as u8;
        if !is_masked {
            return [&[0x88, length][..], &payload].concat().starts_with(bytes);
        }
        let (head, rest) = bytes.split_at(bytes.len().min(2));
        let (key, masked) = rest.split_at(rest.len().min(4));
        let said: Vec<u8> =
            masked.iter().zip(key.iter().cycle()).map(|(byte, key)| byte ^ key).collect();
        [0x88, 0x80 | length].starts_with(head) && payload.starts_with(&said)
    })
}

/// The same tunnel, as another process would have it, if it can go there.
fn refrozen(mut tunnel: Tunnel) -> Tunnel {
    let record = tunnel.replace_record(Box::new(Nobody));
    match tunnel.freeze() {
        Ok(frozen) => {
            let [client, backend] =
                frozen.descriptors().map(|fd| -> OwnedFd { fd.try_clone_to_owned().expect("dup") });
            let bytes = frozen.bytes().to_vec();
            drop(frozen);
            Tunnel::thaw_with(&bytes, client, backend, record, &toy_tls::thaw)
                .ok()
                .expect("what was frozen")
        }
        Err(mut tunnel) => {
            tunnel.replace_record(record);
            tunnel
        }
    }
}

/// The record of a tunnel that is about to have another one.
struct Nobody;

impl Record for Nobody {
    fn ended(&mut self, _: &End) {}
}
