//! Texts for forms, each good for one use.

mod common;

use std::collections::HashSet;

use common::*;

#[test]
fn a_nonce_is_used_once_and_by_its_user() {
    let world = World::default();
    let (_, _, shared) = registered(&world, 10);
    let nonce = shared.new_nonce(b"admin");
    assert!(nonce.bytes().all(|byte| byte.is_ascii_alphanumeric()), "{nonce}");
    assert!(!shared.use_nonce(&nonce, b"other"));
    assert!(!shared.use_nonce(&nonce, b""));
    assert!(shared.use_nonce(&nonce, b"admin"));
    assert!(!shared.use_nonce(&nonce, b"admin"));
    assert!(!shared.use_nonce(&nonce.to_uppercase(), b"admin"));
}

#[test]
fn a_nonce_is_good_for_an_hour() {
    let world = World::default();
    let (_, _, shared) = registered(&world, 10);
    world.wait(u32::MAX - 100);
    let [one, two] = [(); 2].map(|()| shared.new_nonce(b""));
    world.wait(3600);
    assert!(shared.use_nonce(&one, b""));
    world.wait(1);
    assert!(!shared.use_nonce(&two, b""));
}

#[test]
fn nonces_of_pages_are_used_in_any_order() {
    let world = World::default();
    let (_, _, shared) = registered(&world, 10);
    let nonces: Vec<_> = (0..1024).map(|_| shared.new_nonce(b"")).collect();
    assert_eq!(nonces.iter().collect::<HashSet<_>>().len(), 1024);
    for nonce in nonces.iter().rev() {
        assert!(shared.use_nonce(nonce, b""));
    }
    assert!(nonces.iter().all(|nonce| !shared.use_nonce(nonce, b"")));
    assert!(shared.use_nonce(&shared.new_nonce(b""), b""));
}

#[test]
fn what_was_not_made_here_is_refused() {
    let world = World::default();
    let (_, _, shared) = registered(&world, 10);
    let nonce = shared.new_nonce(b"");
    for at in 0..nonce.len() {
        for with in ["", "0", "1", "f", "g", "+", " ", "\u{e4}", "00"] {
            let mut other = nonce.clone();
            other.replace_range(at..=at, with);
            assert!(other == nonce || !shared.use_nonce(&other, b""), "{other}");
        }
    }
    for text in ["", "0", &"0".repeat(40), &"f".repeat(40), &"x".repeat(100_000)] {
        assert!(!shared.use_nonce(text, b""));
    }
    assert!(shared.use_nonce(&nonce, b""));
    // Another server has another key.
    let (_, shared) = common::shared(&world);
    assert_eq!(shared.new_nonce(b""), "");
    assert!(!shared.use_nonce("", b"") && !shared.use_nonce(&nonce, b""));
}
