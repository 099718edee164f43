//! Three system calls per message and direction through TLS, of whatever kind: OpenSSL makes none.

mod common;
#[path = "../../relay/tests/common/strace.rs"]
mod strace;

use common::*;
use openssl::ssl::SslVersion;

const ROUNDS: usize = 1000;

fn ping_pong(version: SslVersion) {
    let relay = start_relay();
    let (mut client, mut backend) = tls_client_tunnel(&relay, version);
    strace::ping_pong(&mut client, &mut backend, &masked_frame(1000), ROUNDS);
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
    // Where this file is a module of another test's.
    let path =
        module_path!().split_once("::").map_or(String::new(), |(_, path)| format!("{path}::"));
    for test in ["tls_1_2", "tls_1_3"] {
        if let Some(calls) = strace::calls_of(&format!("{path}{test}")) {
            strace::assert_three_each(&calls, 2 * ROUNDS);
        }
    }
}
