//! What the tests show.

use crate::ready;
use crate::view::{
    Counter, Direction, Histogram, Opcode, Open, Overview, Place, Process, ProcessKind,
    RelayThread, Sample, Tunnel,
};

/// A harmless tunnel.
pub(crate) fn tunnel() -> Tunnel<'static> {
    Tunnel {
        id: b"abc",
        client: [192, 0, 2, 7].into(),
        port: 54321,
        user: b"alice",
        vhost: b"example.com:443",
        path: b"/chat",
        subprotocol: b"graphql-ws",
        backend: b"http://127.0.0.1:8080",
        place: Place::Relay,
        pid: 4711,
        started_micros: 1_700_000_000_123_456,
        seconds: 3725,
        idle_seconds: 12,
        bytes_up: 1500,
        bytes_down: 2_500_000,
        messages_up: 10,
        messages_down: 20,
        is_client_tls: true,
        is_backend_tls: false,
    }
}

/// One whose texts are what a client may think of.
pub(crate) fn hostile() -> Tunnel<'static> {
    Tunnel {
        id: b"\xff\xfe\0",
        user: b"</script><script>alert(1)</script>",
        path: b"/\"><img src=x onerror='a&amp;'>\x1b[2J\xc3",
        subprotocol: "\u{202e}\u{9b}\\".as_bytes(),
        vhost: b"\\u0022:80\n",
        backend: b"unix:/run/<a>|http://b",
        ..tunnel()
    }
}

fn sample(vhost: &[u8], counter: Counter, value: u64) -> Sample {
    Sample { vhost: vhost.to_vec(), counter, value }
}

pub(crate) const HOSTILE_VHOST: &[u8] = b"quo\"te\xff<b>:80";

/// Some of everything.
pub(crate) fn overview() -> Overview {
    let (vhost, other) = (b"example.com:443", HOSTILE_VHOST);
    let backend = b"http://127.0.0.1:8080".to_vec();
    let open = |vhost: &[u8], backend: &[u8], place, tunnels| Open {
        vhost: vhost.to_vec(),
        backend: backend.to_vec(),
        place,
        tunnels,
    };
    Overview {
        version: "0.1.0".into(),
        httpd: "Apache/2.4.58 (Debian)".into(),
        openssl: "OpenSSL 3.0.15".into(),
        mpm: "event".into(),
        started: 1_700_000_000,
        ready: ready::room(8, 1000, 95),
        is_closing_allowed: true,
        nonce: "7-1700000000-0123456789abcdef".into(),
        possible: 1000,
        unlisted: 0,
        open: vec![
            open(vhost, &backend, Place::Relay, 4),
            open(vhost, &backend, Place::Drain, 2),
            open(vhost, &backend, Place::Thread, 1),
            open(other, b"unix:/run/a\\b|http://b\n", Place::Relay, 1),
        ],
        samples: vec![
            sample(vhost, Counter::Opened { backend: backend.clone() }, 60),
            sample(vhost, Counter::Opened { backend }, 40),
            sample(other, Counter::Opened { backend: b"unix:/run/a\\b|http://b\n".to_vec() }, 10),
            sample(vhost, Counter::Closed { by: "client", reason: "closed", code: 1000 }, 80),
            sample(vhost, Counter::Closed { by: "client", reason: "closed", code: 4999 }, 6),
            sample(vhost, Counter::Closed { by: "client", reason: "closed", code: 3000 }, 4),
            sample(other, Counter::Closed { by: "backend", reason: "reset", code: 1006 }, 7),
            sample(vhost, Counter::Handshakes { result: "101" }, 100),
            sample(other, Counter::Handshakes { result: "101" }, 10),
            sample(other, Counter::Handshakes { result: "refused_max_tunnels" }, 3),
            sample(vhost, Counter::Bytes(Direction::Up), 1000),
            sample(vhost, Counter::Bytes(Direction::Down), 2_000_000),
            sample(vhost, Counter::Messages(Direction::Up, Opcode::Text), 10),
            sample(vhost, Counter::Messages(Direction::Up, Opcode::Binary), 2),
            sample(vhost, Counter::Messages(Direction::Down, Opcode::Text), 7),
        ],
        fallbacks: vec![("http2", 5), ("filter", 0)],
        tls_sessions: vec![("native", 4), ("unproved", 1)],
        tunnel_durations: Histogram {
            bounds_micros: &[
                1_000_000,
                10_000_000,
                60_000_000,
                600_000_000,
                3_600_000_000,
                21_600_000_000,
                86_400_000_000,
            ],
            counts: vec![1, 2, 3, 4, 5, 6, 7, 8],
            sum_micros: 123_456_789_500_000,
        },
        handshake_durations: Histogram {
            bounds_micros: &[5000, 10_000_000],
            counts: vec![100, 10],
            sum_micros: 250_000,
        },
        processes: vec![
            Process {
                pid: 4711,
                kind: ProcessKind::Child,
                tunnels: 5,
                possible: 1000,
                threads: vec![
                    RelayThread { number: 0, cpu_micros: 1_250_000 },
                    RelayThread { number: 1, cpu_micros: 0 },
                ],
            },
            Process {
                pid: 4700,
                kind: ProcessKind::Drain,
                tunnels: 2,
                possible: 0,
                threads: vec![RelayThread { number: 0, cpu_micros: 3_000_001 }],
            },
        ],
    }
}
