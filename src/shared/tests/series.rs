//! Figures that have names, which never go back.

mod common;

use std::collections::HashMap;
use std::sync::atomic::Ordering::Relaxed;

use common::*;
use shared::{
    About, By, Direction, Handshake, Metric, Name, Opcode, Reason, Shared, Timed, TunnelEntry, Why,
};

fn values(shared: Shared<'_>) -> HashMap<Metric, u64> {
    shared.series().collect()
}

#[test]
fn each_figure_is_counted_by_itself() {
    let world = World::default();
    let (_, _, shared) = registered(&world, 10);
    let [a, b] = [b"a", b"b"].map(|text| shared.vhost_name(text));
    let backend = shared.backend_name(b"ws://b");
    let reason = Reason::from(&Why::Closed);
    let closed = |code| Metric::Closed { vhost: a, by: By::Client, reason, code };
    let mut metrics = vec![
        Metric::Opened { vhost: a, backend },
        Metric::Opened { vhost: b, backend },
        Metric::Opened { vhost: a, backend: Name::OTHER },
        closed(1000),
        closed(1015),
        closed(0),
        Metric::Closed { vhost: a, by: By::Us, reason: Reason::PROCESS_ENDED, code: 1000 },
        Metric::Handshakes { vhost: a, result: Handshake::Switched },
        Metric::Handshakes { vhost: a, result: Handshake::Origin },
        Metric::Durations { of: Timed::Tunnel, bucket: 7 },
        Metric::Durations { of: Timed::Handshake, bucket: 7 },
        Metric::Micros { of: Timed::Tunnel },
        Metric::Micros { of: Timed::Handshake },
    ];
    for direction in Direction::ALL {
        metrics.push(Metric::Bytes { vhost: a, direction });
        let messages = Opcode::ALL.map(|opcode| Metric::Messages { vhost: a, direction, opcode });
        metrics.extend(messages);
    }
    for (metric, by) in metrics.iter().zip(1..) {
        shared.count(*metric, by);
        shared.count(*metric, 1);
    }
    // Codes that a client made up are told apart by nobody.
    for code in [1, 999, 1016, 3000, u16::MAX] {
        shared.count(closed(code), 1);
    }
    let counted = values(shared);
    assert_eq!(counted.len(), metrics.len());
    for (metric, by) in metrics.iter().zip(1..) {
        let others = if *metric == closed(0) { 5 } else { 0 };
        assert_eq!(counted[metric], by + 1 + others, "{metric:?}");
    }
}

/// Whoever draws figures of many servers has them in his queries.
#[test]
fn bounds_are_those_of_the_reference() {
    let tunnel = Timed::Tunnel.bounds_micros().iter().map(|bound| *bound as f64 / 1e6);
    assert_eq!(tunnel.collect::<Vec<_>>(), [1.0, 10.0, 60.0, 600.0, 3600.0, 21_600.0, 86_400.0]);
    let handshake = Timed::Handshake.bounds_micros().iter().map(|bound| *bound as f64 / 1e6);
    assert_eq!(
        handshake.collect::<Vec<_>>(),
        [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0]
    );
}

#[test]
fn durations_are_counted_up_to_their_bounds() {
    let world = World::default();
    let (_, _, shared) = registered(&world, 10);
    for of in Timed::ALL {
        let bounds = of.bounds_micros();
        assert!(bounds.is_sorted());
        bounds.iter().for_each(|bound| shared.count_duration(of, *bound));
        shared.count_duration(of, bounds.last().expect("there are some") + 1);
        shared.count_duration(of, 0);
        let counted = values(shared);
        let bucket = |bucket| counted.get(&Metric::Durations { of, bucket }).copied();
        assert_eq!((bucket(0), bucket(1), bucket(2)), (Some(2), Some(1), Some(1)));
        assert_eq!(bucket(bounds.len() as u8), Some(1));
        let sum = bounds.iter().sum::<u64>() + bounds.last().expect("there are some") + 1;
        assert_eq!(counted[&Metric::Micros { of }], sum);
    }
}

#[test]
fn virtual_hosts_that_there_is_no_room_for_are_counted_together() {
    let world = World::default();
    let (_, _, shared) = registered(&world, 10);
    let hosts: Vec<_> = (0..1000_u32).map(|n| shared.vhost_name(&n.to_le_bytes())).collect();
    let reasons = [Why::Closed, Why::Reset, Why::Stopped].map(|why| Reason::from(&why));
    let mut counted = 0;
    for vhost in &hosts {
        for reason in reasons {
            for code in 1000..=1015 {
                shared.count(Metric::Closed { vhost: *vhost, by: By::Us, reason, code }, 1);
                counted += 1;
            }
        }
    }
    let all = values(shared);
    // A quarter is for what has no virtual host of its own.
    let named =
        all.keys().filter(|metric| !matches!(metric, Metric::Closed { vhost: Name::OTHER, .. }));
    let named = named.count();
    assert!((24_000..=24_576).contains(&named), "{named}");
    assert_eq!(all.values().sum::<u64>(), counted);
    let others = |(metric, value): (&Metric, &u64)| {
        matches!(metric, Metric::Closed { vhost: Name::OTHER, .. }).then_some(*value)
    };
    let others: u64 = all.iter().filter_map(others).sum();
    assert!(others > 0 && others < counted / 2, "{others} of {counted}");
    // What has a place keeps it.
    let first = Metric::Closed { vhost: hosts[0], by: By::Us, reason: reasons[0], code: 1000 };
    shared.count(first, 1);
    assert_eq!(values(shared)[&first], 2);
}

#[test]
fn what_was_shown_does_not_go_back() {
    let world = World::default();
    let (_, _, shared) = registered(&world, 10);
    let shown = Metric::Micros { of: Timed::Handshake };
    let bytes = Metric::Bytes { vhost: Name::OTHER, direction: Direction::Up };
    for metric in [shown, bytes] {
        let seen = [5, 3, 9, 0].map(|value| shared.never_less(metric, value));
        assert_eq!(seen, [5, 5, 9, 9]);
    }
    let other = Metric::Micros { of: Timed::Tunnel };
    assert_eq!(shared.never_less(other, 1), 1);
    // Of what is counted it changes nothing.
    assert_eq!(values(shared), [shown, bytes, other].map(|metric| (metric, 0)).into());
}

#[test]
fn what_a_tunnel_did_outlives_it() {
    let world = World::default();
    let (_, _, shared) = registered(&world, 10);
    let slot = shared.claim().expect("a slot");
    let vhost = shared.vhost_name(b"v");
    let about = About { vhost, ..about(vhost, Name::OTHER) };
    let open = || {
        let entry = shared.register_tunnel(&about, slot).expect("room");
        let activity = shared.activity(entry).expect("it is there");
        activity.bytes[0].store(3, Relaxed);
        activity.bytes[1].store(5, Relaxed);
        activity.messages[1][1].store(7, Relaxed);
        entry
    };
    let left = Metric::Closed { vhost, by: By::Us, reason: Reason::PROCESS_ENDED, code: 1006 };
    let did = |tunnels: u64| {
        let [up, down] = Direction::ALL.map(|direction| Metric::Bytes { vhost, direction });
        let (direction, opcode) = (Direction::Down, Opcode::Binary);
        let messages = Metric::Messages { vhost, direction, opcode };
        HashMap::from([(up, 3 * tunnels), (down, 5 * tunnels), (messages, 7 * tunnels)])
    };
    let entries: [TunnelEntry; 3] = std::array::from_fn(|_| open());
    assert_eq!(values(shared), HashMap::new());
    shared.forget_tunnel(entries[0]);
    shared.forget_tunnel(entries[0]);
    assert_eq!(values(shared), did(1));
    // Whoever gets its entry begins with nothing.
    let entry = shared.register_tunnel(&about, slot).expect("room");
    shared.forget_tunnel(entry);
    assert_eq!(values(shared), did(1));
    // The others end with their process.
    world.become_process(101);
    world.kill(100);
    assert_eq!(shared.tunnels().count(), 0);
    let mut all = did(3);
    all.insert(left, 2);
    assert_eq!(values(shared), all);
}

#[test]
fn without_a_register_nothing_is_counted() {
    let world = World::default();
    let (_, shared) = shared(&world);
    let metric = Metric::Micros { of: Timed::Tunnel };
    shared.count(metric, 1);
    shared.count_duration(Timed::Tunnel, 1);
    assert_eq!((shared.series().count(), shared.never_less(metric, 4)), (0, 4));
}
