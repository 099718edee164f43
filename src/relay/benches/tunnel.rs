//! A message there and back through the relay, and bytes in one direction, over socket pairs,
//! beside the same without a relay. `cargo bench -p relay --bench tunnel`

use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::{self, JoinHandle};

use criterion::{BenchmarkId, Criterion, Throughput};
use relay::{Activity, Counters, End, Record, Relay, Rules, Settings, Side, Tracker, Tunnel};

/// Of a tunnel that others see, as they are.
struct Ended(Sender<()>, &'static Activity);

impl Record for Ended {
    fn ended(&mut self, _: &End) {
        let _ = self.0.send(());
    }

    fn activity(&self) -> Option<&'static Activity> {
        Some(self.1)
    }
}

/// The two outer ends of a tunnel, and what tells of its end.
struct Ends {
    client: UnixStream,
    backend: UnixStream,
    ended: Receiver<()>,
}

fn relay() -> Relay {
    let counters = Box::leak(Box::new(Counters::new()));
    Relay::start(&Settings { threads: 1, ..Settings::default() }, counters).expect("relay")
}

fn tunnel(relay: &Relay) -> Ends {
    let (client, a) = UnixStream::pair().expect("pair");
    let (backend, b) = UnixStream::pair().expect("pair");
    let (sender, ended) = channel();
    let frames = [Tracker::client_to_backend(), Tracker::backend_to_client()];
    let record = Box::new(Ended(sender, Box::leak(Box::default())));
    let tunnel =
        Tunnel::new(Side::plain(a.into()), Side::plain(b.into()), frames, Rules::default(), record);
    relay.adopt(tunnel).expect("adopted");
    Ends { client, backend, ended }
}

/// A masked frame with that payload, and one as a back end sends it.
fn messages(payload: usize) -> (Vec<u8>, Vec<u8>) {
    let [high, low] = (payload as u16).to_be_bytes();
    let mut down = vec![0x82, 126, high, low];
    let mut up = vec![0x82, 0x80 | 126, high, low, 0, 0, 0, 0];
    down.resize(down.len() + payload, 0x55);
    up.resize(up.len() + payload, 0x55);
    (up, down)
}

/// Answers each message until the client ends.
fn answer(mut backend: UnixStream, length: usize, answer: Vec<u8>) -> JoinHandle<()> {
    thread::spawn(move || {
        let mut message = vec![0; length];
        while backend.read_exact(&mut message).is_ok() && backend.write_all(&answer).is_ok() {}
    })
}

fn echo(c: &mut Criterion) {
    let mut group = c.benchmark_group("there and back");
    let relay = relay();
    for payload in [128, 1024, 16_384] {
        let (up, down) = messages(payload);
        for name in ["relay", "no relay"] {
            let (mut client, backend, ended) = if name == "relay" {
                let Ends { client, backend, ended } = tunnel(&relay);
                (client, backend, Some(ended))
            } else {
                let (client, backend) = UnixStream::pair().expect("pair");
                (client, backend, None)
            };
            let answering = answer(backend, up.len(), down.clone());
            let mut received = vec![0; down.len()];
            group.bench_function(BenchmarkId::new(name, payload), |b| {
                b.iter(|| {
                    client.write_all(&up).expect("sent");
                    client.read_exact(&mut received).expect("received");
                });
            });
            assert_eq!(received, down);
            drop(client);
            answering.join().expect("answered");
            if let Some(ended) = ended {
                ended.recv().expect("the tunnel ended");
            }
        }
    }
    group.finish();
}

const BULK: u64 = 16 << 20;

fn bulk(c: &mut Criterion) {
    let mut group = c.benchmark_group("bulk");
    group.throughput(Throughput::Bytes(BULK)).sample_size(20);
    let relay = relay();
    for name in ["relay", "no relay"] {
        let (client, backend, ended) = if name == "relay" {
            let Ends { client, backend, ended } = tunnel(&relay);
            (client, backend, Some(ended))
        } else {
            let (client, backend) = UnixStream::pair().expect("pair");
            (client, backend, None)
        };
        let (go, wanted) = channel::<()>();
        let sending = thread::spawn(move || -> io::Result<()> {
            // Frames of 16 KiB, which 16 MiB are not a multiple of: frames lie across the ends.
            let (_, frame) = messages(16_384);
            let chunk = frame.repeat(4);
            let (mut backend, mut at) = (backend, 0);
            while wanted.recv().is_ok() {
                let mut left = BULK as usize;
                while left > 0 {
                    let part = left.min(chunk.len() - at);
                    backend.write_all(&chunk[at..at + part])?;
                    at = (at + part) % chunk.len();
                    left -= part;
                }
            }
            Ok(())
        });
        group.bench_function(name, |b| {
            b.iter(|| {
                go.send(()).expect("asked");
                let copied = io::copy(&mut (&client).take(BULK), &mut io::sink());
                assert_eq!(copied.expect("received"), BULK);
            });
        });
        drop(go);
        sending.join().expect("no panic").expect("sent");
        drop(client);
        if let Some(ended) = ended {
            ended.recv().expect("the tunnel ended");
        }
    }
    group.finish();
}

fn main() {
    let mut criterion = Criterion::default().configure_from_args();
    echo(&mut criterion);
    bulk(&mut criterion);
    criterion.final_summary();
}
