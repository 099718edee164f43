//! What it costs to show many tunnels. `cargo bench -p report`

use std::hint::black_box;

use criterion::{Criterion, Throughput};
use report::filter::Filter;
use report::json;
use report::view::{Place, Tunnel};

const TUNNELS: usize = 20_000;

fn tunnel() -> Tunnel<'static> {
    Tunnel {
        id: b"aTq0x9AAB@AAABhSk3nQAAAAM",
        client: [192, 0, 2, 7].into(),
        port: 54321,
        user: "Jürgen".as_bytes(),
        vhost: b"www.example.com:443",
        path: b"/api/v1/events/0123456789abcdef0123456789abcdef",
        subprotocol: b"graphql-transport-ws",
        backend: b"http://10.1.0.11:8080",
        place: Place::Relay,
        pid: 4711,
        started_micros: 1_700_000_000_123_456,
        seconds: 3725,
        idle_seconds: 12,
        bytes_up: 1_500_000,
        bytes_down: 2_500_000_000,
        messages_up: 10_000,
        messages_down: 20_000,
        is_client_tls: true,
        is_backend_tls: false,
    }
}

fn main() {
    let mut criterion = Criterion::default().configure_from_args();
    let tunnels = vec![tunnel(); TUNNELS];
    let mut group = criterion.benchmark_group("20,000 tunnels");
    group.throughput(Throughput::Elements(TUNNELS as u64)).sample_size(20);
    group.bench_function("JSON", |b| b.iter(|| json::tunnels(black_box(&tunnels))));
    let filter = Filter { user: Some(b"nobody".to_vec()), idle: Some(1), ..Filter::default() };
    group.bench_function("filter", |b| {
        b.iter(|| black_box(&tunnels).iter().filter(|tunnel| filter.matches(tunnel)).count());
    });
    group.finish();
    criterion.final_summary();
}
