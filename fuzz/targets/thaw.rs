//! Frozen tunnels as another process may have written them: none upsets the thread that goes on
//! with it, and what is thawed is frozen as it was.

use std::os::fd::OwnedFd;

use relay::Tunnel;

use crate::carry::{Plan, Told, carry, nothing, same_state};
use crate::input;

/// A byte that says how many of the next ones come later through the sockets, and what a tunnel is
/// made of. The rest is written over it as it was frozen: two bytes that say how far from its end,
/// before which new rules come, and one that says how many follow. So what is tried is near to what
/// can be, whatever the encoding is.
pub fn run(mut data: &[u8]) {
    let later = usize::from(input::byte(&mut data));
    let later = input::bytes(&mut data, later);
    let mut frozen = Plan::take(&mut data).frozen();
    while !data.is_empty() {
        let [low, high, count] = [0; 3].map(|_| input::byte(&mut data));
        // Behind the version, up to the end itself, where it grows.
        let from_end = usize::from(u16::from_le_bytes([low, high])) % (frozen.len() - 1);
        let at = frozen.len() - from_end;
        let bytes = input::bytes(&mut data, usize::from(count));
        let within = bytes.len().min(frozen.len() - at);
        frozen[at..at + within].copy_from_slice(&bytes[..within]);
        frozen.extend_from_slice(&bytes[within..]);
    }
    let thawed = |[client, backend]: [OwnedFd; 2], record: Told| {
        Tunnel::thaw(&frozen, client, backend, Box::new(record))
    };
    let Some(tunnel) = thawed([nothing(), nothing()], Told::nobody()) else { return };
    let again = tunnel.freeze().expect("it is plain, and not being ended");
    assert!(same_state(again.bytes(), &frozen), "it is frozen as it was");
    drop(again);
    carry([later; 2], |sides, record| thawed(sides, record).expect("as before"));
}
