//! Three system calls per message and direction, counted by strace where there is one.

mod common;

use std::io::{Read, Write};
use std::process::Command;

use common::*;

const MESSAGES: usize = 3000;

/// Not a test by itself: what strace watches. Blocking peers, so that their calls are known.
#[test]
#[ignore = "run by the other test, under strace"]
fn ping_pong() {
    let (relay, _) = relay(1);
    let (mut client, a) = tcp_pair();
    let (mut backend, b) = tcp_pair();
    let (tunnel, _ends) = tunnel(a, b);
    relay.adopt(tunnel).expect("adopted");
    let mut got = [0; 1000];
    for _ in 0..MESSAGES {
        client.write_all(&[1; 1000]).expect("write");
        backend.read_exact(&mut got).expect("read");
        backend.write_all(&[2; 1000]).expect("write");
        client.read_exact(&mut got).expect("read");
    }
}

#[test]
fn three_per_message() {
    if Command::new("strace").arg("-V").output().is_err() {
        println!("skipped: there is no strace");
        return;
    }
    let program = std::env::current_exe().expect("this program");
    let output = Command::new("strace")
        .args(["-f", "-qq", "-e", "trace=epoll_wait,epoll_pwait,recvfrom,sendto"])
        .args(["-e", "signal=none"])
        .arg(program)
        .args(["ping_pong", "--exact", "--ignored", "--test-threads=1"])
        .output()
        .expect("strace runs");
    assert!(output.status.success(), "ping_pong fails under strace");
    let trace = String::from_utf8_lossy(&output.stderr);
    // The relay's thread is the one that waits by epoll; "[pid N] name(" begins a call, and a
    // call that strace shows in two parts has that only once.
    let thread = trace
        .lines()
        .find(|line| line.contains("epoll_wait(") || line.contains("epoll_pwait("))
        .and_then(|line| line.split(']').next());
    let Some(thread) = thread else {
        println!("skipped: strace may not trace here");
        return;
    };
    let calls = |name: &str| {
        trace
            .lines()
            .filter_map(|line| line.strip_prefix(thread)?.strip_prefix("] "))
            .filter(|call| call.starts_with(name))
            .count()
    };
    let (waits, receives, sends) = (calls("epoll_"), calls("recvfrom("), calls("sendto("));
    println!("{waits} waits, {receives} receives, {sends} sends for {} messages", 2 * MESSAGES);
    let most = 2 * MESSAGES + MESSAGES / 10;
    for (what, count) in [("waits", waits), ("receives", receives), ("sends", sends)] {
        assert!(count <= most, "{count} {what} for {} messages", 2 * MESSAGES);
        assert!(count >= MESSAGES, "only {count} {what}: the count is wrong");
    }
}
