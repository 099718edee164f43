//! CPU of the relay's thread for idle tunnels that are pinged on both sides. By hand:
//! `cargo test -p relay --release --test ping_cost -- --ignored --nocapture`
//!
//! `TUNNELS=2000`, of which each needs four descriptors, `INTERVAL=30` seconds, `INTERVALS=3`. With
//! `NETNS=NAME ADDRESS=OURS` the peers are in that network namespace, from which this machine has that
//! address: what their side of the network costs is not this thread's then, as it is on loopback
//! (tests/harness/network.py says how its ends have to be set).

mod common;

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::fd::AsRawFd;
use std::thread;
use std::time::{Duration, Instant};

use common::*;
use relay::{KeepAlive, Relay, Rules, Settings, Side, Tunnel};

fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |value| value.parse().expect("a number"))
}

/// CPU time of the relay's thread, in nanoseconds.
fn cpu() -> u64 {
    for task in std::fs::read_dir("/proc/self/task").expect("tasks") {
        let path = task.expect("task").path();
        if std::fs::read_to_string(path.join("comm")).is_ok_and(|comm| comm.trim() == "relay-0") {
            let stat = std::fs::read_to_string(path.join("schedstat")).expect("schedstat");
            let ns = stat.split_whitespace().next().expect("a field");
            return ns.parse().expect("a number");
        }
    }
    panic!("no thread named relay-0");
}

/// As many descriptors as there may be.
fn raise_limit() {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: the kernel writes the limits, and reads them, which live on the stack.
    let raised = unsafe {
        libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit);
        limit.rlim_cur = limit.rlim_max;
        libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit)
    };
    assert_eq!(raised, 0, "limit");
}

/// Moves this thread into the namespace of that name, if there is one.
fn enter() {
    let Ok(name) = std::env::var("NETNS") else { return };
    let file = std::fs::File::open(format!("/run/netns/{name}")).expect("namespace");
    // SAFETY: it takes a descriptor, which is open, and concerns this thread alone.
    assert_eq!(unsafe { libc::setns(file.as_raw_fd(), libc::CLONE_NEWNET) }, 0, "setns");
}

/// Answers every Ping: of clients, whose sockets come first, masked.
fn answer(mut peers: Vec<[TcpStream; 2]>) {
    // SAFETY: it takes flags, and returns a descriptor.
    let epoll = unsafe { libc::epoll_create1(0) };
    for (tunnel, peer) in peers.iter().enumerate() {
        for (side, socket) in peer.iter().enumerate() {
            let mut event =
                libc::epoll_event { events: libc::EPOLLIN as u32, u64: (2 * tunnel + side) as u64 };
            let fd = socket.as_raw_fd();
            // SAFETY: both descriptors are open; the kernel reads the event.
            let added = unsafe { libc::epoll_ctl(epoll, libc::EPOLL_CTL_ADD, fd, &raw mut event) };
            assert_eq!(added, 0, "epoll_ctl");
        }
    }
    let mut events = [libc::epoll_event { events: 0, u64: 0 }; 64];
    loop {
        // SAFETY: the kernel writes at most so many events.
        let came = unsafe { libc::epoll_wait(epoll, events.as_mut_ptr(), 64, -1) };
        for event in &events[..came.max(0) as usize] {
            let at = event.u64 as usize;
            let (socket, is_client) = (&mut peers[at / 2][at % 2], at.is_multiple_of(2));
            let mut buffer = [0; 64];
            let Ok(n) = socket.read(&mut buffer) else { return };
            if n == 0 {
                return;
            }
            let mut bytes = &buffer[..n];
            while let [first, second, ..] = bytes {
                if *first == 0x89 {
                    let pong: &[u8] =
                        if is_client { &[0x8a, 0x80, 0, 0, 0, 0] } else { &[0x8a, 0] };
                    let _ = socket.write(pong);
                }
                bytes = &bytes[if second & 0x80 != 0 { 6 } else { 2 }..];
            }
        }
    }
}

/// `TUNNELS`, each pinged on both sides every `INTERVAL` seconds, looked at for `INTERVALS` of these.
#[test]
#[ignore = "a measurement, not a test"]
fn pings() {
    let (tunnels, interval) = (number("TUNNELS", 2000), number("INTERVAL", 30));
    let intervals = number("INTERVALS", 3);
    raise_limit();
    let address = std::env::var("ADDRESS").unwrap_or_else(|_| "127.0.0.1".into());
    let listeners = [(); 2].map(|()| TcpListener::bind((address.as_str(), 0)).expect("bind"));
    let addresses = [0, 1].map(|at: usize| listeners[at].local_addr().expect("address"));
    let (next, wanted) = std::sync::mpsc::sync_channel(0);
    thread::spawn(move || {
        enter();
        let mut peers = Vec::new();
        while wanted.recv().is_ok() {
            peers.push(addresses.map(|address| TcpStream::connect(address).expect("connect")));
        }
        answer(peers);
    });
    let counters = counters();
    let keep_alive = Some(KeepAlive { idle_seconds: 60, interval_seconds: 20, probes: 3 });
    let relay = Relay::start(&Settings { keep_alive, ..Settings::default() }, counters);
    let relay = relay.expect("the relay starts");
    let rules = Rules {
        ping_interval: Some(Duration::from_secs(interval)),
        ping_timeout: Some(Duration::from_secs(interval)),
        ..Rules::default()
    };
    let mut ends = Vec::new();
    let mut sides = Vec::new();
    for _ in 0..tunnels {
        next.send(()).expect("a peer");
        sides.push([0, 1].map(|at: usize| {
            let (socket, _) = listeners[at].accept().expect("accept");
            socket.set_nodelay(true).expect("nodelay");
            Side::plain(socket.into())
        }));
    }
    drop(next);
    for [client, backend] in sides {
        let (record, end, _) = registered("");
        relay.adopt(Tunnel::new(client, backend, websocket(), rules, record)).expect("adopted");
        ends.push(end);
    }
    thread::sleep(Duration::from_secs(interval + interval / 4));
    let (before, begin) = (cpu(), Instant::now());
    let count = || counters.bytes_down.load(std::sync::atomic::Ordering::Relaxed);
    let bytes = count();
    println!("begin");
    thread::sleep(Duration::from_secs(interval * intervals));
    let (used, took) = (cpu() - before, begin.elapsed());
    // To a client goes a Ping and a Pong, of two bytes each.
    let rounds = (count() - bytes) / 4;
    assert_eq!(relay.open(), tunnels as usize);
    println!(
        "{tunnels} tunnels, {interval} s: {rounds} rounds of a Ping to each side in {:.1} s: {} ns each, {:.2} % of a processor",
        took.as_secs_f64(),
        used / rounds.max(1),
        used as f64 / took.as_nanos() as f64 * 100.0
    );
}
