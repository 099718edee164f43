//! Bytes that outlive a build. Where one of these fails, the bytes have changed that another build of
//! the module reads: that takes another version, or another key.

mod common;

use std::ptr::NonNull;
use std::sync::atomic::Ordering::Relaxed;

use common::*;
use shared::{
    Mapping, Memory, Message, Metric, Name, Processes, Register, Registry, Says, Shareable, Timed,
    Times,
};

/// The same bytes as in the golden file. With WSF_GOLDEN set it is written.
fn assert_golden(name: &str, bytes: &[u8]) {
    let file = format!("{}/tests/golden/{name}", env!("CARGO_MANIFEST_DIR"));
    if std::env::var_os("WSF_GOLDEN").is_some() {
        std::fs::write(&file, bytes).expect("it can be written");
    }
    assert_eq!(std::fs::read(&file).expect("it is there"), bytes, "{name}");
}

#[test]
fn times_in_the_registry() {
    let (start, mapping) = mapping::<Registry>();
    let registry = mapping.get::<Registry>().expect("it fits");
    assert_eq!(registry.stops_gracefully(), None);
    // Eighths of a second, the beginning first.
    registry.stop_gracefully(Times { begin: 2_000_000, end: 32_130_000 });
    assert_eq!(bytes::<Registry>(start)[..8], (16_u64 << 32 | 257).to_le_bytes());
    assert_eq!(registry.stops_gracefully(), Some(Times { begin: 2_000_000, end: 32_125_000 }));
    registry.stop_gracefully(Times { begin: u64::MAX, end: 0 });
    assert!(registry.stops_gracefully().is_some());
    registry.go_on();
    assert_eq!(registry.stops_gracefully(), None);
}

#[test]
fn a_process_of_the_registry_speaks_for_itself_alone() {
    let world = World::default();
    let (_, mapping) = mapping::<Registry>();
    let registry = mapping.get::<Registry>().expect("it fits");
    world.become_process(100);
    let place = registry.claim(&world, 1).expect("there is room");
    let number = place.number();
    assert_eq!(registry.says(number, 100), Says::Nothing);
    place.say(100, false);
    assert_eq!(
        (registry.says(number, 100), registry.says(number, 101)),
        (Says::Carrying, Says::Nothing)
    );
    place.say(100, true);
    assert_eq!(
        (registry.says(number, 100), registry.says(number, 101)),
        (Says::Ending, Says::Nothing)
    );
    place.release(100);
    assert_eq!(registry.says(number, 100), Says::Nothing);
    assert_eq!(registry.says(usize::MAX, 100), Says::Nothing);
}

/// The beginning of a registry: three places, of which the last is free.
const REGISTRY: usize = 8 + 3 * 16;

#[test]
fn the_registry_is_that_of_all_builds() {
    let world = World::default();
    let (start, mapping) = mapping::<Registry>();
    let registry = mapping.get::<Registry>().expect("it fits");
    for (pid, since) in [(0x0001_0203, 0x0405_0607_0809_0a0b), (0x0003_0201, 2)] {
        world.become_process(pid);
        registry.claim(&world, since).expect("there is room");
    }
    let bytes = bytes::<Registry>(start);
    assert_golden("registry", &bytes[..REGISTRY]);
    assert!(bytes[REGISTRY..].iter().all(|byte| *byte == 0));
    assert_eq!(bytes.len(), 8 + 2048 * 16);
    assert_eq!(Registry::LAYOUT, 8 + 2048 * 16);
}

#[test]
fn a_registry_of_another_build_is_read() {
    let golden = include_bytes!("golden/registry");
    let world = World::default();
    let (start, mapping) = mapping::<Registry>();
    let mut stored = golden.iter().copied();
    fill::<Registry>(start, || stored.next().unwrap_or(0));
    let registry = mapping.get::<Registry>().expect("it fits");
    let places: Vec<_> = registry.places().collect();
    assert_eq!(places, [(0, 0x0405_0607_0809_0a0b), (1, 2)]);
    // Its processes live, or their places are free.
    world.become_process(100);
    assert_eq!(registry.claim(&world, 5).map(shared::Place::number), Some(2));
    assert!(world.exists(0x0001_0203));
}

#[test]
fn memory_of_another_layout_is_refused() {
    let (start, mapping) = mapping::<Memory>();
    assert!(mapping.get::<Memory>().is_some());
    assert!(mapping.get::<Registry>().is_none() && mapping.get::<Register>().is_none());
    let of = |start: NonNull<u8>, length, layout| {
        // SAFETY: a part of the memory of the other one.
        unsafe { Mapping::new(start, length, layout) }.get::<Memory>()
    };
    assert!(of(start, size_of::<Memory>(), Memory::LAYOUT + 1).is_none());
    assert!(of(start, size_of::<Memory>() - 1, Memory::LAYOUT).is_none());
    // SAFETY: within the memory.
    assert!(of(unsafe { start.add(1) }, size_of::<Memory>(), Memory::LAYOUT).is_none());
}

/// Whoever changes what stands in the register, or where, raises the number in its LAYOUT: builds
/// with the same one share it.
#[test]
fn the_register_is_that_of_its_layout() {
    let world = World::default();
    let (start, _, shared) = registered(&world, 10);
    world.wait(77);
    let slot = shared.claim().expect("a slot");
    let [vhost, backend] = [shared.vhost_name(b"example.com:443"), shared.backend_name(b"ws://b")];
    let entry = shared.register_tunnel(&about(vhost, backend), slot).expect("room");
    shared.mark_relayed(entry);
    let activity = shared.activity(entry).expect("it is there");
    let [[one, two], [three, four]] = &activity.messages;
    let [up, down] = &activity.bytes;
    (1..).zip([up, down, one, two, three, four]).for_each(|(n, count)| count.store(n, Relaxed));
    activity.seat.store(0x0102_0304, Relaxed);
    let listed = shared.tunnels().next().expect("it is there");
    assert!(shared.order_close(&listed, 1012, shared.new_order(b"reason", b"who")));
    // A page of one build has a text that another one takes.
    let nonce = shared.new_nonce(b"user");
    assert_eq!(nonce, "00000000000000010000004de577d32703bb3531");
    assert!(shared.use_nonce(&nonce, b"user"));
    shared.count(Metric::Opened { vhost, backend }, 3);
    shared.never_less(Metric::Micros { of: Timed::Tunnel }, 5);
    // Each word that is not 0, behind where it is.
    let bytes = bytes::<Register>(start);
    let words = bytes.chunks_exact(8).enumerate().filter(|(_, word)| **word != [0; 8]);
    let golden: Vec<u8> =
        words.flat_map(|(at, word)| [&(at as u64).to_le_bytes()[..], word].concat()).collect();
    assert_golden("register", &golden);
    assert_eq!(bytes.len(), size_of::<Register>());
}

/// A message with entries, as this version has it.
fn message() -> Vec<u8> {
    let world = World::default();
    let (_, _, shared) = registered(&world, 10);
    let slot = shared.claim().expect("a slot");
    let client_entry =
        shared.count_client(shared.client_key(b"client"), slot, 1).expect("the first");
    let backend_entry =
        shared.count_backend(shared.backend_key(b"back end"), slot, 1).expect("the first");
    let [vhost, backend] = [shared.vhost_name(b"example.com:443"), shared.backend_name(b"ws://b")];
    let tunnel_entry = shared.register_tunnel(&about(vhost, backend), slot);
    assert!(client_entry.is_some() && backend_entry.is_some() && tunnel_entry.is_some());
    let message = Message {
        frozen: b"frozen",
        client_entry,
        backend_entry,
        tunnel_entry,
        vhost,
        backend,
        label: "[id] client -> back end",
        access_lines: b"lines",
    };
    let bytes = message.encode().expect("it is short");
    assert_eq!(Message::decode(&bytes), Some(message));
    bytes
}

#[test]
fn a_message_is_that_of_its_version() {
    assert_golden(&format!("message-{}", Message::VERSION), &message());
}

/// Memory that it would leave behind as it grows may have secrets.
#[test]
fn a_message_does_not_move_while_it_is_made() {
    let (frozen, label, access_lines) = (vec![1; 100_000], "l".repeat(10_000), vec![2; 1000]);
    let message = Message {
        frozen: &frozen,
        client_entry: None,
        backend_entry: None,
        tunnel_entry: None,
        vhost: Name::OTHER,
        backend: Name::OTHER,
        label: &label,
        access_lines: &access_lines,
    };
    let bytes = message.encode().expect("it is short");
    assert!(bytes.capacity() - bytes.len() <= 256, "{} for {}", bytes.capacity(), bytes.len());
}

#[test]
fn a_message_of_another_version_is_refused() {
    let bytes = message();
    for at in 0..6 {
        let mut other = bytes.clone();
        other[at] ^= 1;
        assert_eq!(Message::decode(&other), None);
    }
    // As it was before it had a version: the length of what is frozen came first.
    assert_eq!(Message::decode(&bytes[6..]), None);
    assert_eq!(Message::decode(b""), None);
}
