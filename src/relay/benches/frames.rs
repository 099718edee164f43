//! What following the frames of a direction costs. `cargo bench -p relay --bench frames`

use std::hint::black_box;

use criterion::{BenchmarkId, Criterion, Throughput};
use relay::Tracker;

/// As many masked frames of that payload as a read of 64 KiB holds, and at least one.
fn frames(payload: usize) -> Vec<u8> {
    let mut frame = match payload {
        0..126 => vec![0x82, 0x80 | payload as u8],
        126..0x1_0000 => {
            let [high, low] = (payload as u16).to_be_bytes();
            vec![0x82, 0x80 | 126, high, low]
        }
        _ => [&[0x82, 0x80 | 127][..], &(payload as u64).to_be_bytes()].concat(),
    };
    frame.extend_from_slice(&[1, 2, 3, 4]);
    frame.resize(frame.len() + payload, 0x55);
    frame.repeat((65_536 / frame.len()).max(1))
}

fn tracker(c: &mut Criterion) {
    let mut group = c.benchmark_group("tracker");
    for payload in [32, 1024, 16_384, 65_536] {
        let bytes = frames(payload);
        group.throughput(Throughput::Bytes(bytes.len() as u64));
        group.bench_with_input(BenchmarkId::new("whole reads", payload), &bytes, |b, bytes| {
            let mut tracker = Tracker::client_to_backend();
            b.iter(|| tracker.feed(black_box(bytes)));
            assert!(tracker.at_boundary());
        });
        group.bench_with_input(BenchmarkId::new("reads of 1000", payload), &bytes, |b, bytes| {
            let mut tracker = Tracker::client_to_backend();
            b.iter(|| bytes.chunks(1000).for_each(|chunk| tracker.feed(black_box(chunk))));
            assert!(tracker.at_boundary());
        });
    }
    group.finish();
}

fn main() {
    let mut criterion = Criterion::default().configure_from_args();
    tracker(&mut criterion);
    criterion.final_summary();
}
