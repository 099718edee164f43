//! What is counted by client: tallies.

use super::*;

#[test]
fn a_count_survives_the_death_of_whoever_changes_it() {
    for_each_death(10, |stores| {
        let [dying, other] = processes();
        let thread = {
            let dying = dying.clone();
            thread::spawn(move || {
                dying.dies_after(stores, |own| {
                    let entry = own.count();
                    own.shared().forget_client(entry.expect("there is room"));
                });
            })
        };
        let entry = other.count().expect("there is room");
        assert!((1..=2).contains(&other.open()));
        other.clear_dead();
        thread.join().expect("it died in good order");
        other.clear_dead();
        assert_eq!(other.open(), 1);
        other.shared().forget_client(entry);
        assert_eq!(other.open(), 0);
    });
}

#[test]
fn a_count_survives_the_death_of_whoever_clears() {
    for_each_death(7, |stores| {
        let [gone, dying, other] = processes();
        let first = gone.count();
        gone.die();
        assert!(first.is_some());
        let thread = {
            let dying = dying.clone();
            thread::spawn(move || dying.dies_after(stores, Process::clear_dead))
        };
        let entry = other.count().expect("there is room");
        other.clear_dead();
        thread.join().expect("it died in good order");
        other.clear_dead();
        assert_eq!(other.open(), 1);
        other.shared().forget_client(entry);
        assert_eq!(other.open(), 0);
        assert_eq!(other.shared().processes().count(), 1);
    });
}

#[test]
fn a_dead_process_leaves_while_others_come_and_go() {
    for_each_death(5, |stores| {
        let [dying, coming, other] = processes();
        let one = {
            let dying = dying.clone();
            thread::spawn(move || {
                dying.dies_after(stores, |own| {
                    assert!(own.count().is_some());
                })
            })
        };
        let two = {
            let coming = coming.clone();
            thread::spawn(move || {
                let entry = coming.count().expect("there is room");
                coming.shared().forget_client(entry);
            })
        };
        other.clear_dead();
        one.join().expect("it died in good order");
        two.join().expect("it went");
        other.clear_dead();
        assert_eq!(other.open(), 0);
    });
}

#[test]
fn of_two_that_come_for_one_place_one_gets_it() {
    model(|| {
        let [one, two, _] = processes();
        let thread = thread::spawn(move || one.count_within(1).is_ok());
        let is_in = two.count_within(1).is_ok();
        assert!(thread.join().expect("no panic") != is_in);
        assert_eq!(two.open(), 1);
    });
}

#[test]
fn a_tunnel_that_moves_is_counted_once() {
    for_each_death(7, |stores| {
        let [from, to, other] = processes();
        let entry = from.count().expect("there is room");
        let thread = {
            let from = from.clone();
            // It is sent before it is moved: either of them may come first.
            thread::spawn(move || {
                from.dies_after(stores, |own| own.shared().release(own.slot()));
            })
        };
        let clearing = {
            let other = other.clone();
            thread::spawn(move || other.clear_dead())
        };
        let moved = to.shared().move_client(entry, to.slot()).expect("there is room");
        thread.join().expect("it died in good order");
        clearing.join().expect("it cleared");
        to.clear_dead();
        assert_eq!(to.open(), 1);
        to.shared().forget_client(entry);
        assert_eq!(to.open(), 1);
        to.shared().forget_client(moved);
        assert_eq!(to.open(), 0);
    });
}
