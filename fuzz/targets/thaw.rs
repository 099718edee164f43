//! Frozen tunnels as another process may have written them: none upsets the thread that goes on
//! with it, and what is thawed is frozen as it was.

use std::os::fd::OwnedFd;

use relay::{FROZEN_VERSION, Tunnel};

use crate::carry::{Told, carry, nothing, same_state};
use crate::input;

/// A byte that says how many of the next ones come later through the sockets, then a frozen tunnel
/// without its version.
pub fn run(mut data: &[u8]) {
    let later = usize::from(input::byte(&mut data));
    let later = input::bytes(&mut data, later);
    let frozen = [&FROZEN_VERSION.to_le_bytes(), data].concat();
    let thawed = |[client, backend]: [OwnedFd; 2], record: Told| {
        Tunnel::thaw(&frozen, client, backend, Box::new(record))
    };
    let Some(tunnel) = thawed([nothing(), nothing()], Told::nobody()) else { return };
    let again = tunnel.freeze().expect("it is plain, and not being ended");
    assert!(same_state(&again, &frozen), "it is frozen as it was");
    drop(tunnel);
    carry([later; 2], |sides, record| thawed(sides, record).expect("as before"));
}
