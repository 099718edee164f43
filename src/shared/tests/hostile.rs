//! Whatever a process writes into the memory, the others go on: no panic, and an end.

mod common;

use common::*;
use shared::{Memory, Message, Name, Processes, Registry, Sent};

/// SplitMix64.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed ^ (mixed >> 27)
    }
}

#[test]
fn random_bytes_in_the_memory() {
    let world = World::default();
    let (start, shared) = shared(&world);
    for seed in 0..5 {
        let mut random = Random(seed);
        match seed {
            // All ones, all zero, and small numbers are what a program may take for its own.
            0 => fill::<Memory>(start, || 0xff),
            1 => fill::<Memory>(start, || 0),
            2 => fill::<Memory>(start, || (random.next() % 3) as u8),
            _ => fill::<Memory>(start, || random.next() as u8),
        }
        world.become_process(100 + seed as u32);
        let key = shared.client_key(b"client");
        let slot = shared.claim();
        shared.total(|counts| &counts.lines_lost);
        shared.open();
        let entries: Vec<_> = slot
            .iter()
            .flat_map(|slot| (0..50).filter_map(|_| shared.count_client(key, slot)))
            .collect();
        shared.open_of_client(key);
        let backend = shared.backend_key(b"back end");
        if let Some(entry) = slot.and_then(|slot| shared.count_backend(backend, slot)) {
            shared.forget_backend(entry);
        }
        shared.open_of_backend(backend);
        for entry in entries {
            let moved = slot.and_then(|slot| shared.move_client(entry, slot));
            moved.into_iter().for_each(|moved| shared.forget_client(moved));
        }
        if let Some(claim) = shared.leave(true, |_| Sent::Some) {
            assert!(claim.is_held());
            claim.give_up();
        }
        slot.into_iter().for_each(|slot| shared.release(slot));
        assert!(shared.processes().count() <= 4096);
    }
}

#[test]
fn random_bytes_in_the_registry() {
    let world = World::default();
    let (start, mapping) = mapping::<Registry>();
    let registry = mapping.get::<Registry>().expect("it fits");
    for seed in 0..20 {
        let mut random = Random(seed);
        fill::<Registry>(start, || if seed == 0 { 0xff } else { random.next() as u8 });
        world.become_process(100);
        assert!(registry.taken() <= Registry::PLACES);
        assert!(registry.places().all(|(number, _)| number < Registry::PLACES));
        if let Some(place) = registry.claim(&world, 1) {
            place.pass(world.own(), 101);
            place.release(101);
        }
    }
}

#[test]
fn random_bytes_as_a_message() {
    let whole = Message {
        frozen: b"tunnel",
        client_entry: None,
        backend_entry: None,
        tunnel_entry: None,
        vhost: Name::OTHER,
        backend: Name::OTHER,
        label: "label",
        access_lines: b"lines",
    };
    let whole = whole.encode().expect("it is short");
    let mut random = Random(1);
    for _ in 0..20_000 {
        let mut bytes = whole.clone();
        bytes.truncate(random.next() as usize % (whole.len() + 1));
        for _ in 0..random.next() % 4 {
            if let Some(at) = (random.next() as usize).checked_rem(bytes.len()) {
                bytes[at] = random.next() as u8;
            }
        }
        if let Some(message) = Message::decode(&bytes) {
            assert!(message.frozen.len() + message.label.len() < bytes.len());
        }
    }
}
