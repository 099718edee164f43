//! Whatever a process writes into the memory, the others go on: no panic, and an end.

mod common;

use common::*;
use shared::{
    Memory, Message, Metric, Name, Processes, Register, Registry, Says, Sent, Shared, Timed,
};

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
            .flat_map(|slot| {
                (0..50).filter_map(|_| shared.count_client(key, slot, usize::MAX).ok().flatten())
            })
            .collect();
        shared.open_of_client(key);
        let backend = shared.backend_key(b"back end");
        if let Some(Ok(Some(entry))) = slot.map(|slot| shared.count_backend(backend, slot, 1)) {
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

/// Does all that can be done with a register.
fn use_all(world: &World, shared: Shared<'_>) {
    let slot = shared.claim().expect("there are only a few");
    let [vhost, backend] = [shared.vhost_name(b"vhost"), shared.backend_name(b"backend")];
    for number in (0..=u16::MAX).step_by(7) {
        assert!(shared.text_of_vhost(Name::from_number(number)).len() <= 240);
        assert!(shared.text_of_backend(Name::from_number(number)).len() <= 240);
    }
    let about = about(vhost, backend);
    let entries: Vec<_> = (0..50).filter_map(|_| shared.register_tunnel(&about, slot)).collect();
    let order = shared.new_order(b"reason", b"who");
    let listed: Vec<_> = shared.tunnels().take(1000).collect();
    for tunnel in &listed {
        let texts = [tunnel.id(), tunnel.user(), tunnel.subprotocol(), tunnel.path()];
        assert!(texts.iter().map(|text| text.len()).sum::<usize>() <= 216);
        shared.order_close(tunnel, 1001, order);
        shared.move_tunnel(tunnel.entry, slot);
    }
    assert!(shared.ordered(slot).count() <= Register::MAX_SIZE);
    shared.order_text(order);
    for entry in entries.iter().chain(listed.iter().map(|tunnel| &tunnel.entry)) {
        if let Some(activity) = shared.activity(*entry) {
            activity.order(*entry);
        }
        shared.mark_relayed(*entry);
        shared.move_tunnel(*entry, slot);
        shared.forget_tunnel(*entry);
    }
    for metric in shared.series().map(|(metric, _)| metric).take(1000).collect::<Vec<_>>() {
        shared.count(metric, u64::MAX);
        shared.never_less(metric, 1);
    }
    shared.count(Metric::Opened { vhost, backend }, 1);
    shared.count_duration(Timed::Tunnel, 1);
    let nonce = shared.new_nonce(b"user");
    shared.use_nonce(&nonce, b"user");
    shared.release(slot);
    world.become_process(world.own() + 1);
    assert!(shared.tunnels().count() <= Register::MAX_SIZE);
}

#[test]
fn random_bytes_in_the_register() {
    for seed in 0..5 {
        let world = World::default();
        let (start, _, shared) = registered(&world, 1000);
        let mut random = Random(seed);
        match seed {
            0 => fill::<Register>(start, || 0xff),
            1 => fill::<Register>(start, || 1),
            2 => fill::<Register>(start, || (random.next() % 3) as u8),
            _ => fill::<Register>(start, || random.next() as u8),
        }
        use_all(&world, shared);
        use_all(&world, shared);
        // SAFETY: what uses it goes out of scope.
        unsafe { unmap::<Register>(start) };
    }
}

#[test]
fn random_bytes_among_tunnels() {
    const TUNNELS: usize = 200;
    const ENTRY: usize = 320;
    let world = World::default();
    let (start, _, shared) = registered(&world, 1000);
    let slot = shared.claim().expect("a slot");
    let entries_at = size_of::<Register>() - Register::MAX_SIZE * ENTRY;
    let owners_at = entries_at - Register::MAX_SIZE * size_of::<u64>();
    let parts =
        [(0, 5 * 1024), (owners_at, TUNNELS * size_of::<u64>()), (entries_at, TUNNELS * ENTRY)];
    let mut random = Random(1);
    let mut seen = 0;
    for _ in 0..100 {
        for _ in 0..TUNNELS {
            shared.register_tunnel(&about(Name::OTHER, Name::OTHER), slot);
        }
        for (from, length) in parts {
            for _ in 0..50 {
                let at = from + random.next() as usize % length;
                // SAFETY: within the memory, to which no thread writes meanwhile.
                unsafe { start.add(at).write_volatile(random.next() as u8) };
            }
        }
        seen += shared.tunnels().count();
        world.become_process(world.own() + 1);
        use_all(&world, shared);
        world.become_process(100);
    }
    assert!(seen > 100 * TUNNELS / 2, "{seen}");
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
        registry.stops_gracefully();
        assert!((0..Registry::PLACES).all(|number| registry.says(number, 0) != Says::Ending));
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
