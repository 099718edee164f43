//! CPU of the relay's thread per message and per GiB, beside a bare tokio relay, and with rules. By hand:
//! `cargo test -p relay --release --test cost -- --ignored --nocapture`

mod common;

use std::io::{Read, Write};
use std::net::TcpStream;
use std::thread;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use common::*;
use relay::{Rules, Side, Strict, Tunnel};

/// CPU time of the thread of that name, in nanoseconds.
fn cpu(name: &str) -> u64 {
    for task in std::fs::read_dir("/proc/self/task").expect("tasks") {
        let path = task.expect("task").path();
        if std::fs::read_to_string(path.join("comm")).is_ok_and(|comm| comm.trim() == name) {
            let stat = std::fs::read_to_string(path.join("schedstat")).expect("schedstat");
            let ns = stat.split_whitespace().next().expect("a field");
            return ns.parse().expect("a number");
        }
    }
    panic!("no thread named {name}");
}

/// Carries the tunnels by tokio's copy_bidirectional on one thread.
fn bare(tunnels: Vec<(TcpStream, TcpStream)>) {
    thread::Builder::new()
        .name("bare".into())
        .spawn(move || {
            let runtime =
                tokio::runtime::Builder::new_current_thread().enable_io().build().expect("runtime");
            runtime.block_on(async {
                let mut tasks = Vec::new();
                for (a, b) in tunnels {
                    a.set_nonblocking(true).expect("nonblocking");
                    b.set_nonblocking(true).expect("nonblocking");
                    let mut a = tokio::net::TcpStream::from_std(a).expect("a");
                    let mut b = tokio::net::TcpStream::from_std(b).expect("b");
                    tasks.push(tokio::spawn(async move {
                        let size = 65_536;
                        let _ =
                            tokio::io::copy_bidirectional_with_sizes(&mut a, &mut b, size, size)
                                .await;
                    }));
                }
                for task in tasks {
                    let _ = task.await;
                }
            });
        })
        .expect("thread");
}

fn measure(tunnels: usize, which: &str) {
    let mut peers = Vec::new();
    let mut insides = Vec::new();
    for _ in 0..tunnels {
        let (client, a) = tcp_pair();
        let (backend, b) = tcp_pair();
        peers.push((client, backend));
        insides.push((a, b));
    }
    let (relay, _) = relay(1);
    let mut ends = Vec::new();
    if which == "bare" {
        bare(insides);
    } else {
        for (a, b) in insides {
            let (record, end, _) = registered("");
            let side = |fd: TcpStream| Side::plain(fd.into());
            let tunnel = Tunnel::new(side(a), side(b), websocket(), Rules::default(), record);
            relay.adopt(tunnel).expect("adopted");
            ends.push(end);
        }
    }
    for size in [32, 1024, 16_384] {
        // Frames of that size, for the tracker to follow.
        let mut up = vec![0x82, 0x80 | 126];
        up.extend_from_slice(&(size as u16).to_be_bytes());
        up.resize(8 + size, 1);
        let down = [&[0x82, 126][..], &up[2..4][..], &up[8..]].concat();
        let down = if size < 126 { [&[0x82, size as u8][..], &up[8..]].concat() } else { down };
        let up = if size < 126 {
            [&[0x82, 0x80 | size as u8, 0, 0, 0, 0][..], &up[8..]].concat()
        } else {
            up
        };
        let mut got = vec![0; size + 8];
        let rounds = 40_000 / tunnels;
        let mut before = 0;
        for round in 0..rounds + 10 {
            if round == 10 {
                before = cpu(which);
            }
            for (client, _) in &mut peers {
                client.write_all(&up).expect("write");
            }
            for (_, backend) in &mut peers {
                backend.read_exact(&mut got[..up.len()]).expect("read");
                backend.write_all(&down).expect("write");
            }
            for (client, _) in &mut peers {
                client.read_exact(&mut got[..down.len()]).expect("read");
            }
        }
        let each = (cpu(which) - before) / (2 * rounds * tunnels) as u64;
        println!("{which:8} {tunnels:4} tunnels, {size:5} bytes: {each} ns per message");
    }
    let (client, backend) = &mut peers[0];
    const TOTAL: usize = 2 << 30;
    let before = cpu(which);
    thread::scope(|scope| {
        scope.spawn(|| {
            // One endless frame.
            let mut head = vec![0x82, 127];
            head.extend_from_slice(&(1_u64 << 40).to_be_bytes());
            backend.write_all(&head).expect("write");
            let chunk = vec![0; 1 << 17];
            for _ in 0..TOTAL / chunk.len() {
                backend.write_all(&chunk).expect("write");
            }
        });
        let mut bytes = vec![0; 1 << 18];
        let mut came = 0;
        while came < TOTAL {
            came += client.read(&mut bytes).expect("read");
        }
    });
    let ms = (cpu(which) - before) / 2_000_000;
    println!("{which:8} bulk: {ms} ms per GiB");
}

/// All of them, none of which is broken.
fn all_rules() -> Rules {
    let hour = Duration::from_secs(3600);
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970");
    Rules {
        idle_timeout: Some(hour),
        linger: None,
        max_message_client: Some(1 << 30),
        max_message_backend: Some(1 << 30),
        ping_interval: Some(Duration::from_secs(30)),
        ping_timeout: Some(Duration::from_secs(20)),
        report_interval: Some(hour),
        strict: Some(Strict::On),
        max_lifetime: Some(12 * hour),
        expires: Some(now + 24 * hour),
        message_rate: Some(1_000_000),
        message_burst: None,
        bandwidth: Some(100_000_000_000),
    }
}

/// A tunnel with these rules, and a way to have messages go to the back end and back.
fn echo(rules: Rules) -> impl FnMut(usize) -> u64 {
    let (relay, _) = relay(1);
    let (mut client, a) = tcp_pair();
    let (mut backend, b) = tcp_pair();
    let (record, ends, _) = registered("");
    let side = |fd: TcpStream| Side::plain(fd.into());
    relay.adopt(Tunnel::new(side(a), side(b), websocket(), rules, record)).expect("adopted");
    let up = [&[0x82, 0x80 | 126, 4, 0, 0, 0, 0, 0][..], &[7; 1024]].concat();
    let down = [&up[..1], &[126, 4, 0], &up[8..]].concat();
    let mut got = vec![0; up.len()];
    move |count| {
        let _open = (&relay, &ends);
        let before = cpu("relay-0");
        for _ in 0..count {
            client.write_all(&up).expect("write");
            backend.read_exact(&mut got).expect("read");
            backend.write_all(&down).expect("write");
            client.read_exact(&mut got[..down.len()]).expect("read");
        }
        (cpu("relay-0") - before) / (2 * count as u64)
    }
}

/// In rounds, as what else runs on the machine changes. With `RULES=none` or `all` and few messages under
/// `valgrind --tool=callgrind --separate-threads=yes` it tells instructions, whatever else runs.
#[test]
#[ignore = "a measurement, not a test"]
fn with_rules() {
    let number = |name, default| {
        std::env::var(name).map_or(default, |value| value.parse().expect("a number"))
    };
    let (rounds, count) = (number("ROUNDS", 40), number("MESSAGES", 5000));
    let all = |is_on| if is_on { all_rules() } else { Rules::default() };
    if let Ok(which) = std::env::var("RULES") {
        echo(all(which == "all"))(count);
        return;
    }
    let mut ratios: Vec<_> = (0..rounds)
        .map(|round| {
            // Another first each time: their threads have the same name, and one lives at a time.
            let [one, other] =
                [round % 2 == 0, round % 2 != 0].map(|is_on| echo(all(is_on))(count));
            let (with, without) = if round % 2 == 0 { (one, other) } else { (other, one) };
            println!("{with} ns a message with all rules, {without} ns without");
            with as f64 / without as f64
        })
        .collect();
    ratios.sort_by(f64::total_cmp);
    println!("the median of the ratios is {:.3}", ratios[rounds / 2]);
}

#[test]
#[ignore = "a measurement, not a test"]
fn beside_a_bare_relay() {
    for _ in 0..2 {
        for tunnels in [1, 64] {
            for which in ["bare", "relay-0"] {
                measure(tunnels, which);
            }
        }
    }
}
