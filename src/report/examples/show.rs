//! Prints an answer of the status handler, of a server that is made up:
//! `show page|json|metrics|openmetrics [TUNNELS [QUERY]]`.

use std::net::{IpAddr, Ipv4Addr};

use report::query::Query;
use report::view::{
    Counter, Direction, Histogram, Opcode, Open, Overview, Place, Process, ProcessKind,
    RelayThread, Sample, Tunnel,
};
use report::{html, json, metrics, ready};

const VHOSTS: [&str; 3] =
    ["www.example.com:443", "chat.example.com:443", "intranet.example.com:80"];
const BACKENDS: [&str; 4] = [
    "http://10.1.0.11:8080",
    "http://10.1.0.12:8080",
    "https://backend.internal:8443",
    "unix:/run/app/socket|http://localhost",
];
const USERS: [&str; 4] = ["", "alice", "bob@example.com", "<b>mallory</b>"];
const PATHS: [&str; 4] = [
    "/ws",
    "/api/v1/graphql",
    "/socket.io/",
    "/a/very/long/path/that/goes/on/and/on/without/any/place/to/break/it/as-some-applications-have-with-tokens-in-them-0123456",
];
const SUBPROTOCOLS: [&str; 3] = ["", "graphql-transport-ws", "mqtt"];
const REASONS: [(&str, &str, u16); 5] = [
    ("client", "closed", 1000),
    ("client", "closed", 1001),
    ("backend", "closed", 1011),
    ("server", "idle-timeout", 1001),
    ("client", "reset", 1006),
];
const NOW: u64 = 1_796_000_000;

fn pick<T: Copy>(from: &[T], number: usize) -> T {
    from[number % from.len()]
}

fn tunnel(number: usize, id: &str) -> Tunnel<'_> {
    let seconds = (number as u64 * 7919) % 400_000;
    let [_, a, b, c] = ((number as u32).wrapping_mul(2_654_435) % 16_777_216).to_be_bytes();
    let client = match number % 5 {
        0 => IpAddr::from([0x2001, 0xdb8, 0, 0, 0xa1b2, 0xc3d4, u16::from(a), u16::from(b)]),
        _ => Ipv4Addr::new(203, a, b, c).into(),
    };
    Tunnel {
        id: id.as_bytes(),
        client,
        port: (number * 31 % 64_000 + 1024) as u16,
        user: pick(&USERS, number / 3).as_bytes(),
        vhost: pick(&VHOSTS, number).as_bytes(),
        path: pick(&PATHS, number / 2).as_bytes(),
        subprotocol: pick(&SUBPROTOCOLS, number / 5).as_bytes(),
        backend: pick(&BACKENDS, number / 7).as_bytes(),
        place: match number % 20 {
            0 => Place::Thread,
            1..4 => Place::Drain,
            _ => Place::Relay,
        },
        pid: 4711 + (number % 4) as u32,
        started_micros: (NOW - seconds) * 1_000_000 + 123_456,
        seconds,
        idle_seconds: seconds % 97,
        bytes_up: seconds * 131,
        bytes_down: seconds * 13_131,
        messages_up: seconds / 3,
        messages_down: seconds,
        is_client_tls: number % 3 != 2,
        is_backend_tls: number / 7 % 4 == 2,
    }
}

fn overview(tunnels: &[Tunnel<'_>]) -> Overview {
    let mut open: Vec<Open> = Vec::new();
    for tunnel in tunnels {
        let same = |open: &&mut Open| {
            open.vhost == tunnel.vhost
                && open.backend == tunnel.backend
                && open.place == tunnel.place
        };
        match open.iter_mut().find(same) {
            Some(open) => open.tunnels += 1,
            None => open.push(Open {
                vhost: tunnel.vhost.to_vec(),
                backend: tunnel.backend.to_vec(),
                place: tunnel.place,
                tunnels: 1,
            }),
        }
    }
    let count = |place| tunnels.iter().filter(|tunnel| tunnel.place == place).count() as u64;
    let process = |pid, kind, tunnels, possible| Process {
        pid,
        kind,
        tunnels,
        possible,
        threads: (0..2)
            .map(|number| RelayThread {
                number,
                cpu_micros: u64::from(pid) * 1_000 + u64::from(number) * 10_000,
            })
            .collect(),
    };
    let possible = 25_000;
    Overview {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        httpd: "Apache/2.4.62 (Debian)".into(),
        openssl: "OpenSSL 3.0.15 3 Sep 2024".into(),
        mpm: "event".into(),
        started: NOW - 500_000,
        ready: ready::room(tunnels.len() as u64, possible, 95),
        is_closing_allowed: true,
        nonce: "17-6b0d-0123456789abcdef".into(),
        possible,
        unlisted: 0,
        open,
        samples: samples(),
        fallbacks: vec![
            ("http2", 12),
            ("filter", 0),
            ("tls", 0),
            ("descriptors", 0),
            ("ended", 3),
            ("no-relay", 0),
        ],
        tls_sessions: vec![("native", 24_000), ("off", 0), ("unproved", 2)],
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
            counts: vec![100, 900, 3000, 2000, 1500, 300, 70, 2],
            sum_micros: 9_876_543_210_000,
        },
        handshake_durations: Histogram {
            bounds_micros: &[
                5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 500_000, 1_000_000, 2_500_000,
                5_000_000, 10_000_000,
            ],
            counts: vec![5000, 2000, 700, 100, 50, 20, 1, 0, 0, 0, 1],
            sum_micros: 61_234_567,
        },
        processes: vec![
            process(4711, ProcessKind::Child, count(Place::Relay) / 2, possible / 2),
            process(4712, ProcessKind::Child, count(Place::Relay).div_ceil(2), possible / 2),
            process(4713, ProcessKind::Drain, count(Place::Drain), 0),
        ],
    }
}

fn samples() -> Vec<Sample> {
    let mut samples = Vec::new();
    for (number, vhost) in (1..).zip(VHOSTS) {
        let mut add = |counter, value: u64| {
            samples.push(Sample { vhost: vhost.into(), counter, value: value * number });
        };
        for (number, backend) in (1..).zip(BACKENDS) {
            add(Counter::Opened { backend: backend.into() }, 5000 / number);
        }
        for (by, reason, code) in REASONS {
            add(Counter::Closed { by, reason, code }, 700);
        }
        for (result, value) in [
            ("101", 10_416),
            ("answer", 30),
            ("bad_101", 2),
            ("bad_head", 1),
            ("timeout", 4),
            ("origin", 9),
            ("refused_max_tunnels", 1),
        ] {
            add(Counter::Handshakes { result }, value);
        }
        for direction in [Direction::Up, Direction::Down] {
            add(Counter::Bytes(direction), 123_456_789);
            for opcode in [Opcode::Text, Opcode::Binary] {
                add(Counter::Messages(direction, opcode), 1_234_567);
            }
        }
    }
    samples
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let argument = |at: usize| arguments.get(at).map_or("", String::as_str);
    let number: usize = argument(1).parse().unwrap_or(3);
    let ids: Vec<String> = (0..number).map(|number| format!("aTq0{number:07}x9AAB@AAAB")).collect();
    let tunnels: Vec<_> = ids.iter().enumerate().map(|(at, id)| tunnel(at, id)).collect();
    let overview = overview(&tunnels);
    let answer = match argument(0) {
        "json" => json::overview(&overview, &tunnels),
        "metrics" => metrics::render(&overview, metrics::Format::Text),
        "openmetrics" => metrics::render(&overview, metrics::Format::OpenMetrics),
        "page" => {
            let Query::Page { filter, page } = Query::parse(argument(2).as_bytes())? else {
                return Err("not a query of the page".into());
            };
            let tunnels: Vec<_> =
                tunnels.into_iter().filter(|tunnel| filter.matches(tunnel)).collect();
            html::page(&overview, &html::List { tunnels: &tunnels, filter: &filter, page })
        }
        _ => return Err("show page|json|metrics|openmetrics [TUNNELS [QUERY]]".into()),
    };
    print!("{answer}");
    Ok(())
}
