//! Slots and the counts of clients, as processes come and go.

mod common;

use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use common::*;
use shared::{Full, Memory, Shared};

#[test]
fn what_a_process_counted_outlives_it() {
    let world = World::default();
    let (_, shared) = shared(&world);
    let slot = shared.claim().expect("a slot");
    slot.counts.handed_over.fetch_add(3, Relaxed);
    slot.counts.relay.open.fetch_add(2, Relaxed);
    slot.reserved.fetch_add(5, Relaxed);
    slot.capacity.fetch_add(6, Relaxed);
    world.become_process(101);
    let other = shared.claim().expect("a slot");
    other.counts.handed_over.fetch_add(4, Relaxed);
    assert_eq!((shared.total(|counts| &counts.handed_over), shared.open()), (7, 2));
    world.kill(100);
    assert_eq!((shared.total(|counts| &counts.handed_over), shared.open()), (7, 0));
    assert_eq!((shared.slots().count(), shared.processes().count()), (2, 1));
    assert_eq!(world.gone(), [(100, 0)]);
    // Whoever gets its slot begins with nothing.
    world.become_process(102);
    let next = shared.claim().expect("a slot");
    assert!(std::ptr::eq(slot, next) && slot.is_shared());
    let gauges = [&slot.counts.relay.open, &slot.reserved, &slot.capacity];
    assert_eq!(gauges.map(|gauge| gauge.load(Relaxed)), [0; 3]);
    shared.release(next);
    world.become_process(101);
    shared.release(other);
    assert_eq!(shared.total(|counts| &counts.handed_over), 7);
    assert!(shared.slot_of(101).is_none());
}

#[test]
fn clients_are_counted_by_process_and_in_all() {
    let world = World::default();
    let (_, shared) = shared(&world);
    let one = shared.claim().expect("a slot");
    world.become_process(101);
    let two = shared.claim().expect("a slot");
    let [a, b] = [b"a", b"b"].map(|network| shared.client_key(network));
    let open = |key| shared.open_of_client(key);

    let first = shared.count_client(a, one, usize::MAX).expect("no limit").expect("room");
    let second = shared.count_client(a, two, usize::MAX).expect("no limit").expect("room");
    shared.count_client(b, one, usize::MAX).expect("no limit").expect("room");
    assert_eq!((open(a), open(b)), (2, 1));

    // To another process, and once only.
    let moved = shared.move_client(first, two).expect("room");
    shared.forget_client(first);
    assert_eq!(open(a), 2);
    world.kill(100);
    assert_eq!(shared.processes().count(), 1);
    assert_eq!((open(a), open(b)), (2, 0));
    shared.forget_client(second);
    shared.forget_client(second);
    assert_eq!(open(a), 1);
    shared.forget_client(moved);
    assert_eq!(open(a), 0);

    // One that was cleared with its process is counted anew.
    let again = shared.move_client(moved, two).expect("room");
    assert_eq!(open(a), 1);
    shared.release(two);
    assert_eq!(open(a), 0);
    shared.forget_client(again);
    assert_eq!(open(a), 0);
}

#[test]
fn back_ends_are_counted_beside_clients() {
    let world = World::default();
    let (_, shared) = shared(&world);
    let one = shared.claim().expect("a slot");
    world.become_process(101);
    let two = shared.claim().expect("a slot");
    let [a, b] = [b"a", b"b"].map(|name| shared.backend_key(name));
    let open = || (shared.open_of_backend(a), shared.open_of_backend(b));

    let first = shared.count_backend(a, one, usize::MAX).expect("no limit").expect("room");
    let second = shared.count_backend(a, two, usize::MAX).expect("no limit").expect("room");
    shared.count_backend(b, one, usize::MAX).expect("no limit").expect("room");
    assert_eq!(open(), (2, 1));
    assert_eq!(shared.open_of_client(shared.client_key(b"a")), 0);

    let moved = shared.move_backend(first, two).expect("room");
    assert_eq!(open(), (2, 1));
    shared.forget_backend(first);
    assert_eq!(open(), (2, 1));
    world.kill(100);
    shared.clear_dead();
    assert_eq!(open(), (2, 0));
    shared.forget_backend(second);
    shared.forget_backend(moved);
    shared.forget_backend(moved);
    assert_eq!(open(), (0, 0));
}

#[test]
fn no_more_are_counted_than_may_be() {
    let world = World::default();
    let (_, shared) = shared(&world);
    let one = shared.claim().expect("a slot");
    world.become_process(101);
    let two = shared.claim().expect("a slot");
    let key = shared.client_key(b"a");
    let count = |slot| shared.count_client(key, slot, 2);
    let first = count(one).expect("the first").expect("room");
    assert!(count(two).is_ok());
    assert_eq!((count(one), count(two), shared.open_of_client(key)), (Err(Full), Err(Full), 2));
    shared.forget_client(first);
    assert!(count(one).is_ok());
    // Those of a process that died are found when it matters.
    world.kill(100);
    assert!(count(two).is_ok());
    assert_eq!((count(two), shared.open_of_client(key)), (Err(Full), 2));
}

#[test]
fn a_slot_of_no_memory_is_not_counted() {
    let world = World::default();
    let (_, shared) = shared(&world);
    let slot = shared::Slot::new();
    assert_eq!(shared.count_client(shared.client_key(b"a"), &slot, 0), Ok(None));
    assert!(!slot.is_shared());
    shared.release(&slot);
}

/// Seconds that admitting a tunnel takes: it is counted, its client's are looked up, and it ends.
fn cost(counted: usize) -> f64 {
    let world = World::default();
    let (_, shared) = shared(&world);
    let slot = shared.claim().expect("a slot");
    let network = |n: usize| shared.client_key(&(n as u64).to_le_bytes());
    for n in 0..counted {
        // A third of them are one client's.
        shared
            .count_client(network(if n % 3 == 0 { 0 } else { n }), slot, usize::MAX)
            .expect("no limit")
            .expect("room");
    }
    assert_eq!(shared.open_of_client(network(0)), counted.div_ceil(3));
    let round = |from: usize| {
        const TIMES: usize = 2000;
        let begun = Instant::now();
        for n in from..from + TIMES {
            let key = network(n % (counted + 1));
            let entry =
                shared.count_client(key, slot, usize::MAX).expect("no limit").expect("room");
            assert!(shared.open_of_client(key) > 0);
            shared.forget_client(entry);
        }
        begun.elapsed().as_secs_f64() / TIMES as f64
    };
    // The best of many: what else the machine does is not to count.
    (0..50).map(|n| round(n * 2000)).fold(f64::MAX, f64::min)
}

#[test]
fn admission_costs_the_same_with_any_number_of_tunnels() {
    let costs = [100, 10_000, 100_000].map(cost);
    println!("{:?}", costs.map(Duration::from_secs_f64));
    // What is in no cache takes longer. A look at each entry would take a thousand times as long.
    assert!(costs[2] < 30.0 * costs[0], "{costs:?}");
}

#[test]
fn entries_run_out_without_harm() {
    let world = World::default();
    let (_, shared) = shared(&world);
    let slot = shared.claim().expect("a slot");
    let key = shared.client_key(b"one");
    let counted = (0..140_000)
        .filter(|_| shared.count_client(key, slot, usize::MAX).is_ok_and(|entry| entry.is_some()))
        .count();
    assert_eq!(shared.open_of_client(key), counted);
    assert!(counted > 130_000, "{counted}");
    // Who cannot be counted any more is held to what was counted before.
    assert_eq!(shared.count_client(key, slot, counted), Err(Full));
    assert_eq!(shared.count_client(key, slot, counted + 1), Ok(None));
    assert_eq!(shared.count_client(shared.client_key(b"two"), slot, 1), Ok(None));
    shared.release(slot);
    assert_eq!(shared.open_of_client(key), 0);
}

#[test]
fn a_process_finds_its_slot_and_says_what_it_takes() {
    let world = World::default();
    let (_, shared) = shared(&world);
    let one = shared.claim().expect("a slot");
    world.become_process(101);
    let two = shared.claim().expect("a slot");
    for (pid, slot) in [(100, one), (101, two)] {
        assert!(shared.slot_of(pid).is_some_and(|found| std::ptr::eq(found, slot)));
    }
    assert!(shared.slot_of(102).is_none());
    assert!(!one.takes_tunnels());
    one.capacity.store(1, Relaxed);
    assert!(one.takes_tunnels() && !two.takes_tunnels());
}

#[test]
fn another_configuration_makes_those_before_it_old() {
    let world = World::default();
    let (_, memory) = mapping::<Memory>();
    let memory = memory.get::<Memory>().expect("it fits");
    let [one, two] = [(); 2].map(|()| {
        let generation = memory.begin(|| Ok::<_, ()>([1, 2])).expect("numbers");
        Shared::new(memory, None, &world, generation)
    });
    assert!(!one.is_current() && two.is_current());
}
