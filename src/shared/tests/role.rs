//! Who collects the tunnels that children leave.

mod common;

use common::*;
use shared::{Sent, Shared};

/// Leaves something, and says to whom it was sent.
fn leave<'a>(shared: Shared<'a>, may_send: bool) -> (Option<shared::Claim<'a>>, Vec<u32>) {
    let mut sent = Vec::new();
    let claim = shared.leave(may_send, |pid| {
        sent.push(pid);
        Sent::Some
    });
    (claim, sent)
}

#[test]
fn whoever_leaves_first_collects() {
    let world = World::default();
    let (_, shared) = shared(&world);
    assert_eq!((shared.collector(), shared.is_collected()), (0, false));
    let (claim, sent) = leave(shared, true);
    let mut claim = claim.expect("nobody collects");
    assert_eq!((sent.len(), shared.collector(), claim.is_held()), (0, 100, true));
    assert!(shared.is_collected());
    // Parent and child of the fork both say so.
    claim.take_over();
    assert!(claim.is_held());
    world.become_process(101);
    claim.take_over();
    claim.take_over();
    assert_eq!((shared.collector(), claim.is_held()), (101, true));
    // The one that it was forked from had it: what was sent to that one is for this.
    assert!(shared.is_collected_by_own());
    claim.give_up();
    assert_eq!((shared.collector(), shared.is_collected()), (0, false));
}

#[test]
fn the_parent_of_the_fork_passes_the_role_on() {
    let world = World::default();
    let (_, shared) = shared(&world);
    let claim = leave(shared, true).0.expect("nobody collects");
    let of_child = leave(shared, true);
    assert!(of_child.0.is_none() && of_child.1 == [100]);
    claim.pass_to(101);
    assert_eq!((shared.collector(), shared.is_collected()), (101, true));
    // Whoever has another role by now gives nothing up.
    world.kill(101);
    assert!(!shared.is_collected());
    world.become_process(102);
    let next = leave(shared, true).0.expect("nobody collects");
    assert_eq!(shared.collector(), 102);
    assert!(next.is_held());
}

#[test]
fn others_send_to_the_one_that_collects() {
    let world = World::default();
    let (_, shared) = shared(&world);
    let claim = leave(shared, true).0.expect("nobody collects");
    world.become_process(101);
    let (none, sent) = leave(shared, true);
    assert!(none.is_none() && sent == [100]);
    // Too many to be sent.
    let (none, sent) = leave(shared, false);
    assert!(none.is_none() && sent.is_empty());
    // Nothing was sent, so nobody looks after it.
    let mut asked = 0;
    let none = shared.leave(true, |_| {
        asked += 1;
        world.kill(100);
        Sent::Nothing
    });
    assert!(none.is_none() && asked == 1);
    // It is gone, and does not empty the queue any more.
    let (mine, sent) = leave(shared, false);
    let mine = mine.expect("nobody collects");
    assert!(sent.is_empty() && mine.is_held() && !claim.is_held());
    // It has nothing any more that it could give up.
    claim.give_up();
    assert!(mine.is_held());
}

#[test]
fn what_was_sent_to_one_that_is_gone_is_for_the_sender_to_collect() {
    let world = World::default();
    let (_, shared) = shared(&world);
    let claim = leave(shared, true).0.expect("nobody collects");
    world.become_process(101);
    let mut sent = Vec::new();
    let mine = shared.leave(true, |pid| {
        sent.push(pid);
        world.kill(100);
        Sent::Some
    });
    assert!(mine.is_some() && sent == [100] && !claim.is_held());
    assert_eq!(shared.collector(), 101);
}

/// Tunnels do not go to a process of another configuration.
#[test]
fn each_configuration_has_its_own() {
    let world = World::default();
    let (_, mapping) = mapping::<shared::Memory>();
    let memory = mapping.get::<shared::Memory>().expect("it fits");
    let begin = || memory.begin(|| Ok::<_, ()>([1, 2])).expect("numbers");
    let [older, newer] = [(); 2].map(|()| Shared::new(memory, None, &world, begin()));
    world.become_process(100);
    let former = leave(older, true).0.expect("nobody collects");
    assert!(older.is_collected_by_own() && !newer.is_collected_by_own());
    world.become_process(101);
    let (claim, sent) = leave(newer, true);
    assert!(newer.is_collected_by_own() && !older.is_collected_by_own());
    assert!(claim.is_some() && sent.is_empty() && !former.is_held());
    assert_eq!(older.collector(), 101);
    // One of an older configuration keeps its own.
    world.become_process(102);
    let (none, sent) = leave(older, true);
    assert!(none.is_none() && sent.is_empty());
    assert_eq!(older.collector(), 101);
    // What was sent stays with the process that it was sent to.
    world.become_process(103);
    let mut sent = Vec::new();
    let none = newer.leave(true, |pid| {
        sent.push(pid);
        Sent::Some
    });
    assert!(none.is_none() && sent == [101]);
}
