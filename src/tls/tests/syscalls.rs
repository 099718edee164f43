//! Three system calls per message and direction through TLS, of whatever kind: OpenSSL makes none.

mod common;
#[path = "../../relay/tests/common/strace.rs"]
mod strace;

use std::io::{Read, Write};

use common::*;
use openssl::ssl::SslVersion;

const ROUNDS: usize = 1000;

/// Blocking peers with one message under way at a time.
fn ping_pong(version: SslVersion) {
    let relay = start_relay();
    let (mut client, mut backend) = tls_client_tunnel(&relay, version);
    let up = masked_frame(1000);
    let down = [&[0x82, 126], &up[2..4], &up[8..]].concat();
    let mut got = vec![0; up.len()];
    for round in 0..100 + ROUNDS {
        if round == 100 {
            strace::mark();
        }
        client.write_all(&up).expect("write");
        backend.read_exact(&mut got).expect("read");
        backend.write_all(&down).expect("write");
        client.read_exact(&mut got[..down.len()]).expect("read");
    }
    strace::mark();
}

/// Not tests by themselves: what strace watches.
#[test]
#[ignore = "run by the other test, under strace"]
fn tls_1_2() {
    ping_pong(SslVersion::TLS1_2);
}

#[test]
#[ignore = "run by the other test, under strace"]
fn tls_1_3() {
    ping_pong(SslVersion::TLS1_3);
}

#[test]
fn three_per_message() {
    for test in ["tls_1_2", "tls_1_3"] {
        if let Some(calls) = strace::calls_of(test) {
            strace::assert_three_each(&calls, 2 * ROUNDS);
        }
    }
}
