//! The system calls of the relay's thread in a steady state, counted by strace.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::process::Command;

/// Blocking peers with one message under way at a time: `up`, a client's frame with a payload from
/// 126 bytes on, and the same from the back end. So many `rounds` are between the two marks.
pub(crate) fn ping_pong(
    client: &mut (impl Read + Write),
    backend: &mut (impl Read + Write),
    up: &[u8],
    rounds: usize,
) {
    let down = [&[0x82, 126], &up[2..4], &up[8..]].concat();
    let mut got = vec![0; up.len()];
    for round in 0..100 + rounds {
        if round == 100 {
            mark();
        }
        client.write_all(up).expect("write");
        backend.read_exact(&mut got).expect("read");
        backend.write_all(&down).expect("write");
        client.read_exact(&mut got[..down.len()]).expect("read");
    }
    mark();
}

/// Marks in the trace where the steady state begins and where it ends: by a call (getppid) that
/// nothing else makes meanwhile.
pub(crate) fn mark() {
    std::hint::black_box(std::os::unix::process::parent_id());
}

/// Runs an ignored test of this program under strace: how often the relay's thread made which
/// call between the two marks. `None` where there is no strace, or where it may not trace; a run
/// for CI must have it.
pub(crate) fn calls_of(test: &str) -> Option<BTreeMap<String, usize>> {
    let trace = trace(test);
    if let Err(missing) = &trace {
        assert!(std::env::var_os("CI").is_none_or(|ci| ci != "true"), "{missing}");
        println!("skipped: {missing}");
    }
    let trace = trace.ok()?;
    // Each line is "PID CALL(...", or "PID <... CALL resumed>" for the second half of one that
    // another thread's line came between.
    let lines = || trace.lines().filter_map(|line| line.split_once(' '));
    let (thread, _) = lines()
        .find(|(_, call)| call.trim_start().starts_with("prctl(PR_SET_NAME, \"relay-0\""))
        .expect("a thread named relay-0");
    let mut calls = BTreeMap::new();
    let mut marks = 0;
    for (pid, call) in lines() {
        let Some((name, _)) = call.trim_start().split_once('(') else { continue };
        if name.starts_with('<') {
            continue;
        }
        if name == "getppid" {
            marks += 1;
        } else if marks == 1 && pid == thread {
            *calls.entry(name.to_owned()).or_default() += 1;
        }
    }
    assert_eq!(marks, 2, "the trace has its two marks");
    Some(calls)
}

fn trace(test: &str) -> Result<String, String> {
    let name = format!("relay-strace-{}-{test}", std::process::id());
    let path = std::env::temp_dir().join(name);
    let program = std::env::current_exe().expect("this program");
    let output = Command::new("strace")
        .args(["-f", "-qq", "-e", "signal=none", "-s", "16", "-o"])
        .arg(&path)
        .arg(program)
        .args([test, "--exact", "--ignored", "--test-threads=1"])
        .output()
        .map_err(|error| format!("there is no strace: {error}"))?;
    let trace = std::fs::read_to_string(&path).unwrap_or_default();
    let _ = std::fs::remove_file(&path);
    if trace.is_empty() {
        let said = String::from_utf8_lossy(&output.stderr);
        return Err(format!("strace may not trace here: {said}"));
    }
    assert!(output.status.success(), "{test} fails under strace");
    Ok(trace)
}

/// Three calls a message: wait, receive, send. `calls` are those for so many messages.
pub(crate) fn assert_three_each(calls: &BTreeMap<String, usize>, messages: usize) {
    println!("{calls:?} for {messages} messages");
    let total: usize = calls.values().sum();
    // Some messages may come in two parts on a busy machine, and a wait may have begun before
    // the first mark.
    let most = 3 * messages + messages / 200;
    assert!(total <= most, "{total} calls for {messages} messages: {calls:?}");
    // Fewer than two would be a miscount: what is received has to be sent.
    assert!(total >= 2 * messages, "only {total} calls for {messages} messages: {calls:?}");
}
