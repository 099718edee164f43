//! Tunnels that are frozen and thawed: another process goes on with them as this one would have.

use std::os::fd::OwnedFd;
use std::time::Duration;

use relay::{By, End, Rules, Side, Strict, Tracker, Tunnel, Why};

use crate::carry::{Told, carry, nothing, same_state};
use crate::input;

/// A byte of flags, one for each of two limits, one that says how many of the next bytes came of
/// the client with its request, one for those that came of the back end with its answer; the rest
/// comes of one of them later.
pub fn run(mut data: &[u8]) {
    let flags = input::byte(&mut data);
    let [client_limit, backend_limit] = [0; 2].map(|_| u64::from(input::byte(&mut data)));
    let ahead = [0; 2].map(|_| {
        let length = usize::from(input::byte(&mut data));
        input::bytes(&mut data, length)
    });
    let rules = Rules {
        linger: Some(Duration::from_secs(600)),
        max_message_client: Some(client_limit),
        max_message_backend: Some(backend_limit),
        strict: match flags & 3 {
            0 => None,
            1 => Some(Strict::On),
            2 => Some(Strict::Deflate),
            _ => Some(Strict::Extended),
        },
        ..Rules::default()
    };
    let made = |[client, backend]: [OwnedFd; 2], record: Told| {
        let frames = match flags & 4 {
            0 => [Tracker::client_to_backend(), Tracker::backend_to_client()],
            _ => [Tracker::opaque(), Tracker::opaque()],
        };
        let side = |fd, ahead: &[u8]| Side { tls: None, fd, read_ahead: ahead.to_vec() };
        let [client, backend] = [side(client, ahead[0]), side(backend, ahead[1])];
        Tunnel::new(client, backend, frames, rules, Box::new(record))
    };
    let frozen = made([nothing(), nothing()], Told::nobody()).freeze().expect("plain, and open");
    let thawed = |[client, backend]: [OwnedFd; 2], record: Told| {
        Tunnel::thaw(&frozen, client, backend, Box::new(record)).expect("what was frozen")
    };
    let again = thawed([nothing(), nothing()], Told::nobody()).freeze().expect("as before");
    assert!(same_state(&again, &frozen), "it is frozen as it was");

    let later = match flags & 8 {
        0 => [data, b""],
        _ => [b"", data],
    };
    let [gone_on, stayed] = [carry(later, thawed), carry(later, made)];
    assert_eq!(seen(&gone_on), seen(&stayed), "it goes on as it would have");
}

/// What can be seen of an end, but for how long it took.
fn seen(end: &End) -> (By, Why, [u64; 2], [Option<u16>; 2]) {
    let bytes = [end.bytes_up, end.bytes_down];
    (end.by, end.why.clone(), bytes, [end.client_close, end.backend_close])
}
