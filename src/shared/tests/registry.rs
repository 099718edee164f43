//! The places of drain processes, as these come and go.

mod common;

use common::*;
use shared::{Processes, Registry, Says};

fn registry() -> &'static Registry {
    mapping::<Registry>().1.get::<Registry>().expect("it fits")
}

fn places(registry: &Registry) -> Vec<(usize, u64)> {
    registry.places().collect()
}

#[test]
fn a_place_is_given_back_by_whoever_has_it() {
    let (world, registry) = (World::default(), registry());
    world.become_process(100);
    let [one, two] = [5, 6].map(|now| registry.claim(&world, now).expect("room"));
    assert_eq!((one.number(), two.number()), (0, 1));
    assert_eq!((registry.taken(), places(registry)), (2, vec![(0, 5), (1, 6)]));
    // Parent and child of the fork both say whose it is.
    one.pass(100, 101);
    one.pass(100, 101);
    one.release(100);
    assert_eq!(registry.taken(), 2);
    one.release(101);
    one.release(101);
    assert_eq!((registry.taken(), places(registry)), (1, vec![(1, 6)]));
    let again = registry.claim(&world, 7).expect("room");
    assert_eq!((again.number(), places(registry)), (0, vec![(0, 7), (1, 6)]));
}

#[test]
fn when_all_are_taken_those_of_dead_processes_are_free() {
    let (world, registry) = (World::default(), registry());
    for number in 0..Registry::PLACES {
        world.become_process(if number == 7 { 100 } else { 101 });
        let place = registry.claim(&world, 1).expect("room");
        assert_eq!(place.number(), number);
        place.say(world.own(), false);
    }
    world.become_process(102);
    assert!(registry.claim(&world, 2).is_none());
    world.kill(100);
    // The kernel may have given its number to the one that asks.
    world.become_process(100);
    assert!(registry.claim(&world, 2).is_none());
    world.become_process(102);
    let place = registry.claim(&world, 2).expect("one is free");
    assert_eq!((place.number(), registry.taken()), (7, Registry::PLACES));
    // What the dead one said of itself is not its own.
    assert_eq!(registry.says(7, 102), Says::Nothing);
    assert!(registry.claim(&world, 3).is_none());
}
