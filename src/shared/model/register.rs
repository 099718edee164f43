//! The register of open tunnels, its orders, names and figures.

use super::*;

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
