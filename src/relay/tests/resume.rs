//! Tunnels given back and adopted again while bytes flow.

mod common;

use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::atomic::Ordering::Relaxed;
use std::thread;
use std::time::Duration;

use common::*;
use relay::{Record, Relay, Settings, Why};

#[test]
fn nothing_is_lost_or_doubled_under_full_traffic() {
    const TUNNELS: usize = 8;
    const TOTAL: usize = 64 << 20;
    let mut settings = Settings::default();
    let mut relay = Relay::start(&settings, counters()).expect("relay");
    let mut ends = Vec::new();
    let mut stops = 0;
    thread::scope(|scope| {
        let mut running = Vec::new();
        for index in 0..TUNNELS {
            let (client, a) = tcp_pair();
            let (backend, b) = tcp_pair();
            let (tunnel, end) = tunnel(a, b);
            relay.adopt(tunnel).expect("adopted");
            ends.push(end);
            let seed = index as u64 * 2;
            for (writer, reader, seed) in
                [(clone(&client), clone(&backend), seed), (backend, client, seed + 1)]
            {
                running.push(scope.spawn(move || {
                    send_pattern(&writer, seed, TOTAL);
                    writer.shutdown(Shutdown::Write).expect("shutdown");
                }));
                // Slow now and then, so that bytes are kept at a stop.
                running.push(scope.spawn(move || {
                    let mut pattern = Pattern::new(seed);
                    let mut random = Random::new(seed);
                    let mut buffer = vec![0; 300_000];
                    let mut came = 0;
                    loop {
                        let most = 1 + random.below(300_000);
                        let n = (&reader).read(&mut buffer[..most]).expect("read");
                        if n == 0 {
                            break;
                        }
                        pattern.check(&buffer[..n]);
                        came += n;
                        if random.below(200) == 0 {
                            thread::sleep(Duration::from_millis(3));
                        }
                    }
                    assert_eq!(came, TOTAL);
                }));
            }
        }
        while running.iter().any(|thread| !thread.is_finished()) {
            thread::sleep(Duration::from_millis(2));
            let tunnels = relay.stop();
            stops += 1;
            // Another number of threads and another buffer than before.
            settings.threads = 1 + stops % 2;
            settings.buffer_size = [65_536, 4096, 20_000][stops % 3];
            let counters = counters();
            relay = Relay::start(&settings, counters).expect("relay");
            let given_back = tunnels.len() as u64;
            for tunnel in tunnels {
                relay.adopt(tunnel).expect("adopted");
            }
            assert_eq!(counters.adopted.load(Relaxed), given_back);
        }
    });
    for end in ends {
        let end = end.wait();
        assert_eq!(end.why, Why::Closed);
        assert_eq!((end.bytes_up, end.bytes_down), (TOTAL as u64, TOTAL as u64));
    }
    assert!(stops > 20, "only {stops} stops");
}

fn clone(socket: &TcpStream) -> TcpStream {
    socket.try_clone().expect("dup")
}

#[test]
fn what_waits_in_a_thread_is_given_back_too() {
    let (relay, counters) = relay(1);
    let mut peers = Vec::new();
    for _ in 0..200 {
        let (client, a) = unix_pair();
        let (backend, b) = unix_pair();
        let (tunnel, ends) = tunnel(a, b);
        relay.adopt(tunnel).expect("adopted");
        peers.push((client, backend, ends));
    }
    // At once: most of them were never polled.
    let tunnels = relay.stop();
    assert_eq!(tunnels.len(), 200);
    assert_eq!(counters.returned.load(Relaxed), 200);
    assert_eq!(counters.open.load(Relaxed), 0);
    assert_eq!(counters.ended.load(Relaxed), 0);
    let (client, _) = unix_pair();
    let (backend, _) = unix_pair();
    let (late, late_ends) = tunnel(client, backend);
    let late = relay.adopt(late).expect_err("nobody is there to adopt it");
    assert!(late.is_plain());
    assert!(late_ends.0.try_recv().is_err(), "it has not ended");
    assert_eq!(counters.adopted.load(Relaxed), 200);
    let again = Relay::start(&Settings::default(), common::counters()).expect("relay");
    for tunnel in tunnels {
        again.adopt(tunnel).expect("adopted");
    }
    for (client, backend, _) in &mut peers {
        client.write_all(b"on").expect("write");
        backend.read_exact(&mut [0; 2]).expect("read");
    }
}

struct Named(&'static str);

impl Record for Named {
    fn ended(&mut self, _: &relay::End) {}
}

#[test]
fn a_tunnel_gives_its_record_back() {
    let (client, _) = unix_pair();
    let (backend, _) = unix_pair();
    let (mut tunnel, _) = tunnel(client, backend);
    assert!(tunnel.record::<Named>().is_none());
    tunnel.replace_record(Box::new(Named("one")));
    assert_eq!(tunnel.record::<Named>().expect("the record").0, "one");
}

/// A process forked between stop and start goes on with the tunnels, as a drain process does.
#[test]
fn a_forked_process_goes_on() {
    const TOTAL: usize = 8 << 20;
    let (relay, _) = relay(1);
    let (client, a) = tcp_pair();
    let (backend, b) = tcp_pair();
    let (tunnel, _ends) = tunnel(a, b);
    relay.adopt(tunnel).expect("adopted");
    thread::scope(|scope| {
        scope.spawn(|| {
            send_pattern(&client, 5, TOTAL);
            client.shutdown(Shutdown::Write).expect("shutdown");
        });
        // Read half before the fork, so that it happens in the middle.
        let mut pattern = Pattern::new(5);
        let mut half = vec![0; TOTAL / 2];
        (&backend).read_exact(&mut half).expect("read");
        pattern.check(&half);
        let tunnels = relay.stop();
        assert_eq!(tunnels.len(), 1);
        let expected = client.peer_addr().expect("address");
        // SAFETY: the child uses nothing that another thread of the test may hold but malloc,
        // which glibc makes usable after a fork, and leaves by _exit.
        let child = unsafe { libc::fork() };
        if child == 0 {
            let code = drain(tunnels);
            // SAFETY: ends the process without running anything of the test's.
            unsafe { libc::_exit(code) };
        }
        assert!(child > 0);
        // The parent's copies go, the child's stay.
        drop(tunnels);
        let mut rest = vec![0; TOTAL - half.len()];
        (&backend).read_exact(&mut rest).expect("read");
        pattern.check(&rest);
        expect_end(&backend);
        assert_eq!(client.peer_addr().expect("still connected"), expected);
        backend.shutdown(Shutdown::Write).expect("shutdown");
        expect_end(&client);
        let mut status = 0;
        // SAFETY: waits for the child made above; status lives on the stack.
        assert_eq!(unsafe { libc::waitpid(child, &raw mut status, 0) }, child);
        assert_eq!(status, 0, "the drain process failed");
    });
}

fn drain(tunnels: Vec<relay::Tunnel>) -> i32 {
    let Ok(relay) = Relay::start(&Settings::default(), counters()) else {
        return 2;
    };
    let mut ends = Vec::new();
    for mut tunnel in tunnels {
        let (record, end) = record();
        tunnel.replace_record(record);
        if relay.adopt(tunnel).is_err() {
            return 3;
        }
        ends.push(end);
    }
    for end in ends {
        match end.0.recv_timeout(PATIENCE) {
            Ok(end) if end.why == Why::Closed => {}
            _ => return 4,
        }
    }
    0
}
