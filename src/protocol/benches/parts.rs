//! What a handshake costs in the pure parts: lists, the decision, the head of the answer.
//! `cargo bench -p protocol`

use std::hint::black_box;

use criterion::{Criterion, Throughput};
use protocol::handshake::{Offer, Rigour, check};
use protocol::head::{Scanner, inspect};
use protocol::list::has_token;
use protocol::upgrade::{Request, decide};

/// As a back end with a cookie and a few headers of its own answers.
const HEAD: &[u8] = b"HTTP/1.1 101 Switching Protocols\r\n\
    Date: Sun, 06 Nov 1994 08:49:37 GMT\r\n\
    Server: backend/1.0\r\n\
    Set-Cookie: session=0123456789abcdef0123456789abcdef; Path=/; HttpOnly; SameSite=Lax\r\n\
    Upgrade: websocket\r\n\
    Connection: Upgrade\r\n\
    Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\
    Sec-WebSocket-Protocol: binary\r\n\
    X-Request-Id: 6f1c1f9e-3a55-4a0c-9a53-2f8f5f6a7c11\r\n\r\n";

fn lists(c: &mut Criterion) {
    let mut group = c.benchmark_group("token list");
    for (name, value) in [
        ("one member", &b"Upgrade"[..]),
        ("two members", b"keep-alive, Upgrade"),
        ("ten members", b"a, b, c, d, e, f, g, h, keep-alive, Upgrade"),
    ] {
        group.bench_function(name, |b| {
            b.iter(|| assert!(has_token(black_box(value), black_box(b"upgrade"))));
        });
    }
    group.finish();
}

fn decision(c: &mut Criterion) {
    let upgrade = Request {
        is_get: true,
        is_http_1_1: true,
        connection: Some(b"keep-alive, Upgrade"),
        upgrade: Some(b"websocket"),
        ..Request::default()
    };
    let plain = Request { upgrade: None, connection: Some(b"keep-alive"), ..upgrade };
    let mut group = c.benchmark_group("decide");
    group.bench_function("upgrade request", |b| {
        b.iter(|| assert!(decide(black_box(&upgrade), black_box(b"websocket")).is_ok()));
    });
    group.bench_function("plain request", |b| {
        b.iter(|| assert!(decide(black_box(&plain), black_box(b"websocket")).is_err()));
    });
    group.finish();
}

fn heads(c: &mut Criterion) {
    let offer = Offer {
        token: b"websocket".to_vec(),
        accept: Some(b"s3pPLMBiTxaQ9kYGzzhZRbK+xOo=".to_vec()),
        protocols: Some(b"binary, base64".to_vec()),
        extensions: Some(b"permessage-deflate".to_vec()),
        extensions_are_ruled: false,
    };
    let mut group = c.benchmark_group("response head");
    group.throughput(Throughput::Bytes(HEAD.len() as u64));
    group.bench_function("scan, whole", |b| {
        b.iter(|| assert_eq!(Scanner::default().end(black_box(HEAD)), Ok(Some(HEAD.len()))));
    });
    group.bench_function("scan, byte by byte", |b| {
        b.iter(|| {
            let mut scanner = Scanner::default();
            let ends = (1..=HEAD.len()).filter(|n| scanner.end(black_box(&HEAD[..*n])) != Ok(None));
            assert_eq!(ends.count(), 1);
        });
    });
    group.bench_function("inspect", |b| {
        b.iter(|| assert_eq!(inspect(black_box(HEAD)).map(|status| status.code), Ok(101)));
    });
    group.bench_function("check of a 101", |b| {
        b.iter(|| assert!(check(black_box(HEAD), black_box(&offer), Rigour::Strict).is_ok()));
    });
    group.finish();
}

fn main() {
    let mut criterion = Criterion::default().configure_from_args();
    lists(&mut criterion);
    decision(&mut criterion);
    heads(&mut criterion);
    criterion.final_summary();
}
