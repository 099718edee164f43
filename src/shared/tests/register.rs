//! The register, as tunnels come and go, move and are ordered to end.

mod common;

use std::collections::HashSet;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use common::*;
use shared::{About, Listed, Name, Order, Shared, TunnelEntry};

fn list(shared: Shared<'_>) -> Vec<Listed> {
    shared.tunnels().collect()
}

fn other() -> About<'static> {
    about(Name::OTHER, Name::OTHER)
}

#[test]
fn a_tunnel_is_listed_as_it_was_registered() {
    let world = World::default();
    let (_, _, shared) = registered(&world, 10);
    let slot = shared.claim().expect("a slot");
    world.wait(7);
    let [vhost, backend] = [shared.vhost_name(b"v:80"), shared.backend_name(b"ws://b:81")];
    let client = IpAddr::from([0x2001, 0xdb8, 1, 2, 3, 4, 5, 6]);
    let six = About { client, is_client_tls: false, is_backend_tls: true, ..other() };
    let mapped = Ipv6Addr::new(0, 0, 0, 0, 0, 0xffff, 0xc000, 0x0201).into();
    let bare = About { client: mapped, port: 0, id: b"", user: b"", path: b"", ..other() };
    for about in [about(vhost, backend), six, bare] {
        let entry = shared.register_tunnel(&about, slot).expect("room");
        let [listed] = list(shared)[..] else { panic!("{:?}", list(shared)) };
        let texts = [listed.id(), listed.user(), listed.subprotocol(), listed.path()];
        assert_eq!(texts, [about.id, about.user, about.subprotocol, about.path]);
        assert_eq!((listed.client, listed.port), (about.client, about.port));
        assert_eq!((listed.vhost, listed.backend), (about.vhost, about.backend));
        let tls = (listed.is_client_tls, listed.is_backend_tls);
        assert_eq!(tls, (about.is_client_tls, about.is_backend_tls));
        assert_eq!((listed.entry, listed.pid, listed.is_relayed), (entry, 100, false));
        assert_eq!((listed.started_micros, listed.opened, listed.last), (1_000_000, 7, 7));
        assert_eq!((listed.bytes, listed.messages), ([0; 2], [[0; 2]; 2]));

        let activity = shared.activity(entry).expect("it is there");
        let [[text, binary], _] = &activity.messages;
        let counts = [&activity.bytes[0], &activity.bytes[1], text, binary];
        (1..).zip(counts).for_each(|(value, count)| count.store(value, Relaxed));
        activity.last.store(9, Relaxed);
        activity.seat.store(5, Relaxed);
        shared.mark_relayed(entry);
        let [listed] = list(shared)[..] else { panic!("{:?}", list(shared)) };
        assert_eq!((listed.bytes, listed.messages), ([1, 2], [[3, 4], [0; 2]]));
        assert_eq!((listed.opened, listed.last, listed.is_relayed), (7, 9, true));

        shared.forget_tunnel(entry);
        shared.forget_tunnel(entry);
        assert_eq!(list(shared), []);
        assert!(shared.activity(entry).is_none());
        assert!(shared.move_tunnel(entry, slot).is_none());
    }
    assert_eq!(shared.text_of_vhost(vhost), b"v:80");
    assert_eq!(shared.text_of_backend(backend), b"ws://b:81");
}

#[test]
fn texts_are_cut() {
    let world = World::default();
    let (_, _, shared) = registered(&world, 10);
    let slot = shared.claim().expect("a slot");
    let long = [b'x'; 1000];
    let lengths = |about: About<'_>| {
        let entry = shared.register_tunnel(&about, slot).expect("room");
        let [listed] = list(shared)[..] else { panic!("{:?}", list(shared)) };
        shared.forget_tunnel(entry);
        [listed.id(), listed.user(), listed.subprotocol(), listed.path()].map(<[u8]>::len)
    };
    let all = About { id: &long, user: &long, subprotocol: &long, path: &long, ..other() };
    // The path has what the others leave.
    assert_eq!(lengths(all), [32, 64, 32, 88]);
    assert_eq!(lengths(About { user: b"me", ..all }), [32, 2, 32, 128]);
    assert_eq!(lengths(About { id: b"", user: b"", subprotocol: b"", ..all }), [0, 0, 0, 128]);
    // Between characters.
    let euros = "\u{20ac}".repeat(50);
    assert_eq!(lengths(About { id: euros.as_bytes(), ..all })[0], 30);
}

#[test]
fn a_tunnel_moves_with_its_process_or_to_another() {
    let world = World::default();
    let (_, _, shared) = registered(&world, 10);
    let child = shared.claim().expect("a slot");
    world.become_process(101);
    let collector = shared.claim().expect("a slot");
    let [stays, goes, lost] =
        [(); 3].map(|()| shared.register_tunnel(&other(), child).expect("room"));
    let pids = || {
        let all = list(shared).into_iter();
        let mut pids: Vec<_> = all.map(|listed| (listed.entry, listed.pid)).collect();
        pids.sort_unstable_by_key(|(_, pid)| *pid);
        pids
    };
    assert_eq!(shared.move_tunnel(goes, collector), Some(goes));
    assert_eq!(shared.move_tunnel(goes, collector), Some(goes));
    shared.forget_tunnel(lost);
    assert_eq!(pids(), [(stays, 100), (goes, 101)]);
    child.become_drain(100, 102);
    assert_eq!(pids(), [(goes, 101), (stays, 102)]);
    world.kill(100);
    assert_eq!(pids().len(), 2);
    world.kill(102);
    assert_eq!(pids(), [(goes, 101)]);
    assert!(shared.move_tunnel(stays, collector).is_none());
    assert!(shared.activity(stays).is_none());
    shared.release(collector);
    assert_eq!(pids(), []);
}

/// A relay that is slow to learn that its tunnel is another process's, or has ended.
#[test]
fn what_is_written_too_late_is_not_the_next_ones() {
    let world = World::default();
    let (_, _, shared) = registered(&world, 1);
    let slot = shared.claim().expect("a slot");
    let entry = shared.register_tunnel(&other(), slot).expect("room");
    let activity = shared.activity(entry).expect("it is there");
    shared.forget_tunnel(entry);
    activity.bytes.iter().chain(activity.messages.iter().flatten()).for_each(|count| {
        count.store(9, Relaxed);
    });
    activity.last.store(9, Relaxed);
    activity.seat.store(9, Relaxed);
    let next = shared.register_tunnel(&other(), slot).expect("room");
    let [listed] = list(shared)[..] else { panic!("{:?}", list(shared)) };
    assert_eq!((listed.entry, listed.last), (next, 0));
    assert_eq!((listed.bytes, listed.messages), ([0; 2], [[0; 2]; 2]));
    assert_eq!(activity.seat.load(Relaxed), 0);
}

#[test]
fn of_a_process_that_is_gone_the_relayed_tunnels_are_told() {
    let world = World::default();
    let (_, _, shared) = registered(&world, 10);
    let slot = shared.claim().expect("a slot");
    let entries = [(); 6].map(|()| shared.register_tunnel(&other(), slot).expect("room"));
    entries[..3].iter().for_each(|entry| shared.mark_relayed(*entry));
    shared.forget_tunnel(entries[0]);
    world.become_process(101);
    world.kill(100);
    assert_eq!(shared.tunnels().count(), 0);
    assert_eq!(world.gone(), [(100, 2)]);
}

/// Of what they are ordered.
#[test]
fn tunnels_that_nobody_would_tell_are_not_ordered() {
    let world = World::default();
    let (_, _, shared) = registered(&world, 10);
    let slot = shared.claim().expect("a slot");
    let [in_thread, relayed] =
        [(); 2].map(|()| shared.register_tunnel(&other(), slot).expect("room"));
    shared.mark_relayed(relayed);
    let of = |entry| list(shared).into_iter().find(|listed| listed.entry == entry).expect("there");
    let [in_thread, relayed] = [in_thread, relayed].map(of);
    let number = shared.new_order(b"", b"");
    let order = |tunnel| shared.order_close(tunnel, 1001, number);
    let ordered = || shared.ordered(slot).map(|one| (one.tunnel, one.is_relayed));
    slot.make_deaf(false);
    assert!(!order(&in_thread));
    slot.make_deaf(true);
    assert!(!order(&relayed) && world.woken() == 0);
    // The process that goes on with them listens again.
    slot.become_drain(100, 102);
    assert!(order(&relayed));
    assert_eq!(ordered().collect::<Vec<_>>(), [(relayed.entry, true)]);
    slot.make_deaf(true);
    assert!(order(&in_thread));
    let all = [(in_thread.entry, false), (relayed.entry, true)];
    assert!(ordered().count() == 2 && ordered().all(|one| all.contains(&one)));
    // So does whoever gets the slot next.
    world.become_process(102);
    shared.release(slot);
    let slot = shared.claim().expect("a slot");
    let entry = shared.register_tunnel(&other(), slot).expect("room");
    shared.mark_relayed(entry);
    assert!(order(&of(entry)));
}

#[test]
fn an_entry_of_a_later_tunnel_is_left_alone() {
    let world = World::default();
    let (_, _, shared) = registered(&world, 1);
    let slot = shared.claim().expect("a slot");
    let first = shared.register_tunnel(&other(), slot).expect("room");
    let [seen] = list(shared)[..] else { panic!("it is listed") };
    assert!(shared.register_tunnel(&other(), slot).is_none());
    shared.forget_tunnel(first);
    let second = shared.register_tunnel(&other(), slot).expect("room");
    assert_ne!(first, second);
    shared.forget_tunnel(first);
    shared.mark_relayed(first);
    assert!(!shared.order_close(&seen, 1001, shared.new_order(b"", b"")));
    let [listed] = list(shared)[..] else { panic!("it is listed") };
    assert_eq!((listed.entry, listed.is_relayed), (second, false));
    let activity = shared.activity(second).expect("it is there");
    assert_eq!(activity.order(second), None);
}

#[test]
fn an_order_reaches_its_tunnel_alone() {
    let world = World::default();
    let (_, _, shared) = registered(&world, 10);
    let slot = shared.claim().expect("a slot");
    let entries = [(); 3].map(|()| shared.register_tunnel(&other(), slot).expect("room"));
    let [one, two, three] = entries;
    let activity = |entry| shared.activity(entry).expect("it is there");
    activity(two).seat.store(12, Relaxed);
    let listed = list(shared).into_iter().find(|listed| listed.entry == two).expect("it is there");
    let number = shared.new_order(b"maintenance", b"admin");
    let before = slot.orders().load(Relaxed);
    assert!(shared.order_close(&listed, 1012, number));
    assert_ne!(slot.orders().load(Relaxed), before);
    assert_eq!(world.woken(), 1);
    // It has one already.
    assert!(!shared.order_close(&listed, 1001, number));
    let orders = entries.map(|entry| activity(entry).order(entry));
    assert_eq!(orders, [None, Some(Order { code: 1012, number }), None]);
    assert_eq!(
        shared.ordered(slot).map(|one| (one.tunnel, one.seat)).collect::<Vec<_>>(),
        [(two, 12)]
    );
    let (reason, who) = shared.order_text(number).expect("it is kept");
    assert_eq!((&*reason, &*who), (&b"maintenance"[..], &b"admin"[..]));

    // It goes with the tunnel.
    world.become_process(101);
    let to = shared.claim().expect("a slot");
    for entry in [one, two, three] {
        shared.move_tunnel(entry, to).expect("it is there");
    }
    assert_eq!(shared.ordered(slot).count(), 0);
    assert_eq!(
        shared.ordered(to).map(|one| (one.tunnel, one.seat)).collect::<Vec<_>>(),
        [(two, 12)]
    );
    shared.forget_tunnel(two);
    assert_eq!(shared.ordered(to).count(), 0);
    assert!(!shared.order_close(&listed, 1001, number));
}

#[test]
fn the_texts_of_the_last_orders_are_kept() {
    let world = World::default();
    let (_, _, shared) = registered(&world, 10);
    let numbers: Vec<_> =
        (0..70_000).map(|n: u32| shared.new_order(&n.to_le_bytes(), &[b'w'; 99])).collect();
    for (n, number) in numbers.iter().enumerate().skip(numbers.len() - 64) {
        let (reason, who) = shared.order_text(*number).expect("it is kept");
        assert_eq!((&*reason, who.len()), (&(n as u32).to_le_bytes()[..], 64));
    }
    assert!(shared.order_text(numbers[numbers.len() - 65]).is_none());
    let number = shared.new_order("\u{e4}".repeat(99).as_bytes(), b"");
    assert_eq!(shared.order_text(number).expect("it is kept").0.len(), 122);
}

#[test]
fn names_are_told_apart_as_long_as_there_is_room() {
    let world = World::default();
    let (_, _, shared) = registered(&world, 10);
    let text = |n: usize| format!("host{n}.example.com:443").into_bytes();
    let names: Vec<_> = (0..1024).map(|n| shared.vhost_name(&text(n))).collect();
    assert_eq!(names.iter().collect::<HashSet<_>>().len(), 1024);
    assert!(!names.contains(&Name::OTHER));
    assert_eq!(shared.vhost_name(b"one more"), Name::OTHER);
    for (n, name) in names.iter().enumerate() {
        assert_eq!(shared.vhost_name(&text(n)), *name);
        assert_eq!(shared.text_of_vhost(*name), text(n));
    }
    assert_eq!(shared.text_of_vhost(Name::OTHER), b"other");
    // The other table has room, and more of it.
    let backends: Vec<_> = (0..8190).map(|n| shared.backend_name(&text(n))).collect();
    assert_eq!(backends.iter().collect::<HashSet<_>>().len(), 8190);
    assert!(!backends.contains(&Name::OTHER));
    let [long, longer] = [300, 400].map(|length| shared.backend_name(&vec![b'b'; length]));
    assert!(long == longer && long != Name::OTHER);
    assert_eq!(shared.text_of_backend(long), [b'b'; 240]);
    assert_eq!(shared.text_of_backend(Name::from_number(u16::MAX)), b"other");
    let empty = shared.backend_name(b"");
    assert!(empty != Name::OTHER && shared.text_of_backend(empty).is_empty());
}

#[test]
fn without_a_register_nothing_is_listed() {
    let world = World::default();
    let (_, shared) = shared(&world);
    let slot = shared.claim().expect("a slot");
    assert_eq!(shared.vhost_name(b"v"), Name::OTHER);
    assert!(shared.register_tunnel(&other(), slot).is_none());
    assert_eq!((shared.tunnels().count(), shared.ordered(slot).count()), (0, 0));
    let number = shared.new_order(b"", b"");
    assert!(shared.order_text(number).is_none());
    // Nor is it the number of anybody's order.
    let (_, _, shared) = registered(&world, 10);
    assert!(shared.order_text(number).is_none());
}

#[test]
fn a_slot_of_no_memory_lists_nothing() {
    let world = World::default();
    let (_, _, shared) = registered(&world, 10);
    let slot = shared::Slot::new();
    assert!(shared.register_tunnel(&other(), &slot).is_none());
    assert_eq!(shared.tunnels().count(), 0);
}

/// Wherever it is.
#[test]
fn the_only_free_entry_is_found() {
    let world = World::default();
    let (_, _, shared) = registered(&world, 800);
    let slot = shared.claim().expect("a slot");
    let register = || shared.register_tunnel(&other(), slot);
    let entries: Vec<_> = (0..800).map(|_| register().expect("room")).collect();
    for entry in entries {
        assert!(register().is_none());
        shared.forget_tunnel(entry);
        assert!(register().is_some());
    }
}

#[test]
fn a_smaller_register_keeps_what_is_listed() {
    let world = World::default();
    let (_, register, shared) = registered(&world, 100);
    let slot = shared.claim().expect("a slot");
    let entries: Vec<_> =
        (0..100).map(|_| shared.register_tunnel(&other(), slot).expect("room")).collect();
    register.begin(10, || Err("it has a key")).expect("it has a key");
    assert_eq!(shared.tunnels().count(), 100);
    for entry in &entries[10..] {
        shared.forget_tunnel(*entry);
    }
    assert!(shared.register_tunnel(&other(), slot).is_none());
    shared.forget_tunnel(entries[0]);
    assert!(shared.register_tunnel(&other(), slot).is_some());
    assert_eq!(shared.tunnels().count(), 10);
}

/// What one takes, while so many are there: the best of many rounds.
#[test]
fn registration_costs_the_same_with_any_number_of_tunnels() {
    const SIZE: usize = 65_536;
    const TIMES: usize = 1000;
    let world = World::default();
    let (_, _, shared) = registered(&world, SIZE);
    let slot = shared.claim().expect("a slot");
    let mut entries = Vec::with_capacity(SIZE);
    let mut costs = Vec::new();
    for until in [1000, 16_384, 32_768, 49_152, 62_000, SIZE - 2 * TIMES] {
        entries.extend(
            (entries.len()..until).map(|_| shared.register_tunnel(&other(), slot).expect("room")),
        );
        let round = || {
            let begun = Instant::now();
            let more: Vec<_> =
                (0..TIMES).map(|_| shared.register_tunnel(&other(), slot).expect("room")).collect();
            more.into_iter().for_each(|entry| shared.forget_tunnel(entry));
            begun.elapsed() / TIMES as u32
        };
        costs.push((until, (0..30).map(|_| round()).min().unwrap_or(Duration::MAX)));
    }
    println!("registered and forgotten again, with so many there: {costs:?}");
    // The very last ones may not be found.
    let last = (0..2 * TIMES).filter(|_| shared.register_tunnel(&other(), slot).is_some()).count();
    assert!(last > 2 * TIMES * 9 / 10, "{last}");
    assert_eq!(shared.tunnels().count(), entries.len() + last);
    let look_at_each = || {
        let begun = Instant::now();
        assert!(shared.tunnels().count() > 0);
        begun.elapsed()
    };
    let all = (0..5).map(|_| look_at_each()).min().unwrap_or_default();
    let most = costs.iter().map(|(_, cost)| *cost).max().unwrap_or(Duration::MAX);
    assert!(most < all / 50, "{costs:?}, and a look at each {all:?}");
}

#[test]
fn an_entry_is_the_same_as_bytes() {
    let world = World::default();
    let (_, _, shared) = registered(&world, 10);
    let slot = shared.claim().expect("a slot");
    for _ in 0..3 {
        let entry = shared.register_tunnel(&other(), slot);
        assert!(entry.is_some());
        assert_eq!(TunnelEntry::thaw(TunnelEntry::freeze(entry)), entry);
    }
    assert_eq!(TunnelEntry::freeze(None), [0; 8]);
    assert_eq!(TunnelEntry::thaw([0; 8]), None);
}
