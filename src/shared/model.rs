//! The protocols in every order of their accesses (loom), and with a process that dies before any of
//! its stores. ci/test runs them with two interruptions of a process at the most; with three, which
//! takes hours: `RUSTFLAGS="--cfg loom" LOOM_MAX_PREEMPTIONS=3 cargo test -p shared --release --lib`.

use std::sync::atomic::AtomicU32;
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};

use loom::sync::atomic::AtomicBool;
use loom::sync::{Arc, Mutex};
use loom::thread;

use crate::activity::Order;
use crate::entry::About;
use crate::labels::{By, Direction, Reason};
use crate::names::Name;
use crate::processes::Processes;
use crate::register::Register;
use crate::registry::{Place, Registry};
use crate::role::Sent;
use crate::series::Metric;
use crate::slot::Slot;
use crate::slots::{Memory, Shared};
use crate::sync::dies_after;
use crate::tally::{Full, TallyEntry, TallyKey};
use crate::tunnel_entry::TunnelEntry;

struct World {
    memory: Memory,
    register: Option<Register>,
    registry: Registry,
    /// Of the processes 1 to 4.
    dead: [AtomicBool; 4],
    queue: Mutex<Vec<u32>>,
}

/// A process.
#[derive(Clone)]
struct Process {
    own: u32,
    world: Arc<World>,
}

impl Processes for Process {
    fn own(&self) -> u32 {
        self.own
    }

    fn exists(&self, pid: u32) -> bool {
        let dead = (pid as usize).checked_sub(1).and_then(|at| self.world.dead.get(at));
        dead.is_some_and(|dead| !dead.load(Acquire))
    }

    fn runs(&self, pid: u32) -> bool {
        self.exists(pid)
    }

    fn seconds(&self) -> u32 {
        0
    }

    fn wake(&self, _word: &AtomicU32) {}
}

impl Process {
    fn shared(&self) -> Shared<'_> {
        Shared::new(&self.world.memory, self.world.register.as_ref(), self, 1)
    }

    fn slot(&self) -> &Slot {
        self.shared().slot_of(self.own).expect("it has claimed one")
    }

    fn key(&self) -> TallyKey {
        self.shared().client_key(b"client")
    }

    fn count(&self) -> Option<TallyEntry> {
        self.count_within(usize::MAX).expect("no limit")
    }

    fn count_within(&self, most: usize) -> Result<Option<TallyEntry>, Full> {
        self.shared().count_client(self.key(), self.slot(), most)
    }

    fn open(&self) -> usize {
        self.shared().open_of_client(self.key())
    }

    fn clear_dead(&self) {
        self.shared().clear_dead();
    }

    fn die(&self) {
        self.world.dead[self.own as usize - 1].store(true, Release);
    }

    /// Does what `body` does, and dies: before the store after so many, or behind it.
    fn dies_after(&self, stores: u32, body: impl FnOnce(&Self)) {
        dies_after(stores, || body(self));
        self.die();
    }
}

/// Processes with the numbers from 1 on, and with slots.
fn processes<const N: usize>() -> [Process; N] {
    processes_of(None)
}

/// The same, with a register.
fn registered<const N: usize>() -> [Process; N] {
    processes_of(Some(Register::new()))
}

fn processes_of<const N: usize>(register: Option<Register>) -> [Process; N] {
    let world = Arc::new(World {
        memory: Memory::new(),
        register,
        registry: Registry::new(),
        dead: std::array::from_fn(|_| AtomicBool::new(false)),
        queue: Mutex::new(Vec::new()),
    });
    let mut own = 0;
    [(); N].map(|()| {
        own += 1;
        let process = Process { own, world: Arc::clone(&world) };
        process.shared().claim().expect("there is room");
        process
    })
}

fn model(body: impl Fn() + Sync + Send + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound.get_or_insert(2);
    builder.check(body);
}

/// The same for each number of stores that a process may live, up to so many.
fn for_each_death(stores: u32, body: impl Fn(u32) + Copy + Sync + Send + 'static) {
    (0..=stores).for_each(|stores| model(move || body(stores)));
}

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

/// A tunnel whose parts all follow from a number.
fn about(number: u16, vhost: Name) -> About<'static> {
    const TEXTS: [&[u8]; 3] = [b"zero", b"one", b"two"];
    About {
        client: [0, 0, 0, number as u8].into(),
        port: number,
        vhost,
        backend: Name::OTHER,
        is_client_tls: false,
        is_backend_tls: false,
        started_micros: u64::from(number),
        id: TEXTS[usize::from(number)],
        user: b"",
        subprotocol: b"",
        path: b"",
    }
}

impl Process {
    fn register(&self, number: u16) -> Option<TunnelEntry> {
        self.shared().register_tunnel(&about(number, Name::OTHER), self.slot())
    }

    /// The numbers of those that are listed. No two tunnels are mixed up.
    fn list(&self) -> Vec<u16> {
        let numbers = self.shared().tunnels().map(|listed| {
            let expected = about(listed.port, Name::OTHER);
            assert_eq!(listed.client, expected.client);
            assert_eq!(listed.started_micros, expected.started_micros);
            assert_eq!(listed.id(), expected.id);
            listed.port
        });
        numbers.collect()
    }

    /// As many tunnels have room as there are entries.
    fn assert_all_free(&self) {
        assert_eq!(self.list(), []);
        let entries: Vec<_> = (0..Register::MAX_SIZE).filter_map(|_| self.register(0)).collect();
        assert_eq!(entries.len(), Register::MAX_SIZE);
        entries.into_iter().for_each(|entry| self.shared().forget_tunnel(entry));
    }

    fn value(&self, metric: Metric) -> u64 {
        let found = self.shared().series().filter(|(found, _)| *found == metric);
        let values: Vec<_> = found.map(|(_, value)| value).collect();
        assert!(values.len() <= 1);
        values.first().copied().unwrap_or(0)
    }
}

const UP: Metric = Metric::Bytes { vhost: Name::OTHER, direction: Direction::Up };

#[test]
fn a_tunnel_of_a_dead_process_is_no_more() {
    // As many stores as it takes to register one.
    for_each_death(24, |stores| {
        let [dying, other] = registered();
        let thread = {
            let dying = dying.clone();
            thread::spawn(move || {
                dying.dies_after(stores, |own| {
                    let entry = own.register(1).expect("there is room");
                    own.shared().mark_relayed(entry);
                    own.shared().forget_tunnel(entry);
                });
            })
        };
        assert!(matches!(other.list()[..], [] | [1]));
        thread.join().expect("it died in good order");
        other.assert_all_free();
    });
}

#[test]
fn an_entry_that_is_another_tunnels_is_not_mixed_up() {
    model(|| {
        let [one, other] = registered();
        let first = one.register(1).expect("there is room");
        let thread = {
            let one = one.clone();
            thread::spawn(move || {
                one.shared().forget_tunnel(first);
                assert!(one.register(2).is_some());
            })
        };
        assert!(matches!(other.list()[..], [] | [1] | [2]));
        thread.join().expect("no panic");
        assert_eq!(other.list(), [2]);
    });
}

#[test]
fn a_tunnel_that_moves_is_listed_once() {
    for_each_death(12, |stores| {
        let [from, to, other] = registered();
        let entry = from.register(1).expect("there is room");
        from.shared().activity(entry).expect("it is there").bytes[0].store(5, Relaxed);
        let thread = {
            let from = from.clone();
            thread::spawn(move || {
                from.dies_after(stores, |own| own.shared().release(own.slot()));
            })
        };
        let clearing = {
            let other = other.clone();
            thread::spawn(move || other.clear_dead())
        };
        let moved = to.shared().move_tunnel(entry, to.slot());
        thread.join().expect("it died in good order");
        clearing.join().expect("it cleared");
        to.clear_dead();
        let expected: &[u16] = if moved.is_some() { &[1] } else { &[] };
        assert_eq!(to.list(), expected);
        assert!(to.shared().tunnels().all(|listed| listed.pid == 2));
        if let Some(moved) = moved {
            to.shared().forget_tunnel(moved);
            assert_eq!(to.value(UP), 5);
        }
        // Once, or not at all if its process died in the middle of it.
        assert!([0, 5].contains(&to.value(UP)));
        to.assert_all_free();
    });
}

#[test]
fn whoever_clears_may_die() {
    for_each_death(14, |stores| {
        let [gone, dying, other] = registered();
        assert!(gone.register(1).is_some());
        gone.die();
        let thread = {
            let dying = dying.clone();
            thread::spawn(move || dying.dies_after(stores, Process::clear_dead))
        };
        assert!(other.register(2).is_some());
        thread.join().expect("it died in good order");
        assert_eq!(other.list(), [2]);
        let reason = Reason::PROCESS_ENDED;
        let left = Metric::Closed { vhost: Name::OTHER, by: By::Us, reason, code: 1006 };
        assert!(other.value(left) <= 1);
    });
}

#[test]
fn an_order_reaches_the_process_that_a_tunnel_moves_to() {
    model(|| {
        let [from, to, other] = registered();
        let entry = from.register(1).expect("there is room");
        let listed = other.shared().tunnels().next().expect("it is there");
        let number = other.shared().new_order(b"reason", b"who");
        let thread = {
            let other = other.clone();
            thread::spawn(move || other.shared().order_close(&listed, 1001, number))
        };
        let moved = to.shared().move_tunnel(entry, to.slot()).expect("it is there");
        let activity = to.shared().activity(moved).expect("it is there");
        let seen = activity.order(moved);
        assert!(thread.join().expect("no panic"));
        // It has seen the order, or is told to look again.
        assert!(seen.is_some() || to.slot().orders().load(Relaxed) > 0);
        assert_eq!(activity.order(moved).map(|order| order.code), Some(1001));
        assert_eq!(to.shared().ordered(to.slot()).count(), 1);
    });
}

#[test]
fn an_order_to_a_tunnel_that_ended_is_none_to_the_next() {
    model(|| {
        let [one, other] = registered();
        let first = one.register(1).expect("there is room");
        let listed = other.shared().tunnels().next().expect("it is there");
        let number = other.shared().new_order(b"reason", b"who");
        let thread = {
            let other = other.clone();
            thread::spawn(move || other.shared().order_close(&listed, 1001, number))
        };
        one.shared().forget_tunnel(first);
        let second = one.register(2).expect("there is room");
        let activity = one.shared().activity(second).expect("it is there");
        assert_eq!(activity.order(second), None);
        thread.join().expect("no panic");
        assert_eq!(activity.order(second), None);
        // It can be ordered as ever.
        let listed = other.shared().tunnels().next().expect("it is there");
        assert!(other.shared().order_close(&listed, 1012, number));
        assert_eq!(activity.order(second), Some(Order { code: 1012, number }));
    });
}

#[test]
fn two_orders_are_one() {
    model(|| {
        let [one, other] = registered();
        one.register(1).expect("there is room");
        let listed = one.shared().tunnels().next().expect("it is there");
        let number = one.shared().new_order(b"", b"");
        let thread = {
            let other = other.clone();
            thread::spawn(move || other.shared().order_close(&listed, 1001, number))
        };
        let own = one.shared().order_close(&listed, 1012, number);
        assert!(own != thread.join().expect("no panic"));
    });
}

#[test]
fn the_text_of_an_order_is_not_mixed_up() {
    model(|| {
        let [one, other] = registered();
        let number = one.shared().new_order(b"first", b"1");
        let thread = {
            let other = other.clone();
            // They take its place.
            thread::spawn(move || {
                for _ in 0..2 {
                    other.shared().new_order(b"others", b"22");
                }
            })
        };
        if let Some((reason, who)) = one.shared().order_text(number) {
            assert_eq!((&*reason, &*who), (&b"first"[..], &b"1"[..]));
        }
        thread.join().expect("no panic");
        assert!(one.shared().order_text(number).is_none());
    });
}

#[test]
fn a_name_is_one_whoever_dies() {
    for_each_death(5, |stores| {
        let [dying, other] = registered();
        let thread = {
            let dying = dying.clone();
            thread::spawn(move || {
                dying.dies_after(stores, |own| {
                    own.shared().vhost_name(b"a");
                });
            })
        };
        let shared = other.shared();
        let [a, b] = [b"a", b"b"].map(|text| shared.vhost_name(text));
        assert_eq!((shared.text_of_vhost(a), shared.text_of_vhost(b)), (b"a".into(), b"b".into()));
        thread.join().expect("it died in good order");
        assert_eq!([b"a", b"b"].map(|text| shared.vhost_name(text)), [a, b]);
        assert!(a != b && a != Name::OTHER && b != Name::OTHER);
        assert_eq!(shared.vhost_name(b"c"), Name::OTHER);
    });
}

#[test]
fn a_figure_is_one_whoever_dies() {
    for_each_death(4, |stores| {
        let [dying, other] = registered();
        let thread = {
            let dying = dying.clone();
            thread::spawn(move || dying.dies_after(stores, |own| own.shared().count(UP, 1)))
        };
        other.shared().count(UP, 1);
        let before = other.shared().never_less(UP, other.value(UP));
        other.shared().count(UP, 1);
        thread.join().expect("it died in good order");
        assert!((2..=3).contains(&other.value(UP)));
        assert!((1..=2).contains(&before));
        assert_eq!(other.shared().never_less(UP, 0), before);
    });
}

#[test]
fn a_nonce_is_used_once() {
    model(|| {
        let [one, other] = registered();
        let nonce = one.shared().new_nonce(b"");
        let thread = {
            let (other, nonce) = (other.clone(), nonce.clone());
            thread::spawn(move || other.shared().use_nonce(&nonce, b""))
        };
        let own = one.shared().use_nonce(&nonce, b"");
        assert!(own != thread.join().expect("no panic"));
    });
}
