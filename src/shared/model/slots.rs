//! Slots, the queue for tunnels, and the places of drain processes.

use super::*;

#[test]
fn a_slot_is_cleared_once_whoever_dies() {
    for_each_death(3, |stores| {
        let [gone, dying, other] = processes();
        gone.slot().counts.handed_over.fetch_add(1, Relaxed);
        gone.slot().counts.relay.open.fetch_add(1, Relaxed);
        gone.die();
        let thread = {
            let dying = dying.clone();
            thread::spawn(move || dying.dies_after(stores, Process::clear_dead))
        };
        other.clear_dead();
        thread.join().expect("it died in good order");
        other.clear_dead();
        assert_eq!(other.shared().total(|counts| &counts.handed_over), 1);
        assert_eq!(other.shared().open(), 0);
        // Both are free, and nobody else's is.
        let next = Process { own: 4, world: Arc::clone(&other.world) };
        assert!(next.shared().claim().is_some() && next.shared().claim().is_some());
        assert!(next.shared().claim().is_none());
        assert_eq!(other.slot().pid(), 3);
    });
}

#[test]
fn a_slot_goes_to_the_drain_process() {
    for_each_death(3, |stores| {
        let [child, other] = processes();
        let drain = Process { own: 3, world: Arc::clone(&child.world) };
        child.slot().counts.handed_over.fetch_add(1, Relaxed);
        let threads = [
            {
                let (child, slot_of) = (child.clone(), 1);
                thread::spawn(move || {
                    child.dies_after(stores, |own| {
                        let slot = own.shared().slot_of(slot_of);
                        slot.into_iter().for_each(|slot| slot.become_drain(1, 3));
                        // Does nothing if it is the drain process's by now.
                        slot.into_iter().for_each(|slot| own.shared().release(slot));
                    });
                })
            },
            {
                let drain = drain.clone();
                thread::spawn(move || {
                    // Forked: it knows the slot, not by its owner.
                    let slot = drain.shared().slot_of(1).or_else(|| drain.shared().slot_of(3));
                    slot.into_iter().for_each(|slot| slot.become_drain(1, 3));
                })
            },
        ];
        other.clear_dead();
        for thread in threads {
            thread.join().expect("in good order");
        }
        other.clear_dead();
        assert_eq!(other.shared().total(|counts| &counts.handed_over), 1);
        assert_ne!(other.shared().slot_of(1).map(Slot::pid), Some(1));
    });
}

/// Takes what is in the queue.
fn empty(process: &Process) -> usize {
    std::mem::take(&mut *process.world.queue.lock().expect("no panic")).len()
}

/// A child leaves a tunnel. Says how many it has in the end.
fn leave(process: &Process) -> usize {
    let mut own = 1;
    let claim = process.shared().leave(true, |_| {
        process.world.queue.lock().expect("no panic").push(process.own);
        own = 0;
        Sent::Some
    });
    let Some(claim) = claim else { return own };
    own += empty(process);
    claim.give_up();
    own + empty(process)
}

#[test]
fn no_tunnel_is_left_in_the_queue() {
    model(|| {
        let [collector, one, two] = processes();
        let claim = collector.shared().leave(true, |_| Sent::Nothing).expect("nobody collects");
        let threads = [&one, &two].map(|process| {
            let process = process.clone();
            thread::spawn(move || leave(&process))
        });
        let mut found = empty(&collector);
        claim.give_up();
        found += empty(&collector);
        found += threads.map(|thread| thread.join().expect("no panic")).iter().sum::<usize>();
        assert_eq!(found, 2);
        assert_eq!(empty(&collector), 0);
        assert_eq!(collector.shared().collector(), 0);
    });
}

#[test]
fn a_collector_that_died_before_is_replaced() {
    model(|| {
        let [collector, one, two] = processes();
        let claim = collector.shared().leave(true, |_| Sent::Nothing).expect("nobody collects");
        assert!(claim.is_held());
        collector.die();
        let other = {
            let two = two.clone();
            thread::spawn(move || leave(&two))
        };
        let found = leave(&one) + other.join().expect("no panic");
        assert_eq!(found + empty(&one), 2);
        assert!(!claim.is_held());
        // Nobody takes it from its successor.
        claim.give_up();
        assert_eq!(one.shared().collector(), 0);
    });
}

#[test]
fn a_place_is_one_processs() {
    for_each_death(3, |stores| {
        let [child, other] = processes();
        let drain = Process { own: 3, world: Arc::clone(&child.world) };
        let threads = [
            {
                let child = child.clone();
                thread::spawn(move || {
                    child.dies_after(stores, |own| {
                        let place = own.world.registry.claim(own, 5);
                        place.into_iter().for_each(|place| place.pass(1, 3));
                    });
                    None
                })
            },
            {
                let other = other.clone();
                thread::spawn(move || other.world.registry.claim(&other, 7).map(Place::number))
            },
        ];
        let [_, number] = threads.map(|thread| thread.join().expect("in good order"));
        let number = number.expect("there is room for both");
        let registry = &child.world.registry;
        assert!(registry.places().any(|place| place == (number, 7)));
        // What the child had is the drain process's, or is found to be nobody's.
        drain.die();
        let next = Process { own: 4, world: Arc::clone(&other.world) };
        let place = registry.claim(&next, 9).expect("one is free");
        assert_ne!(place.number(), number);
        assert!(registry.claim(&next, 9).is_none());
        place.release(4);
        assert_eq!(registry.taken(), 1);
    });
}
