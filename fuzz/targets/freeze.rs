//! Tunnels that are frozen and thawed: another process goes on with them as this one would have.

use std::os::fd::OwnedFd;

use relay::{By, End, Tunnel, Why};

use crate::carry::{Plan, Told, carry, nothing, same_state};

/// What a tunnel is made of; the rest comes later, by a flag of the client or of the back end.
pub fn run(mut data: &[u8]) {
    let is_of_client = data.first().is_none_or(|flags| flags & 8 == 0);
    let plan = Plan::take(&mut data);
    let frozen = plan.frozen();
    let thawed = |[client, backend]: [OwnedFd; 2], record: Told| {
        Tunnel::thaw(&frozen, client, backend, Box::new(record)).expect("what was frozen")
    };
    let again = thawed([nothing(), nothing()], Told::nobody()).freeze().expect("as before");
    assert!(same_state(again.bytes(), &frozen), "it is frozen as it was");

    let later = if is_of_client { [data, b""] } else { [b"", data] };
    let gone_on = carry(later, thawed);
    let stayed = carry(later, |sides, record| plan.make(sides, record));
    assert_eq!(seen(&gone_on), seen(&stayed), "it goes on as it would have");
}

type Seen = (By, Why, [u64; 2], [Option<u64>; 2], [Option<u16>; 2]);

/// What can be seen of an end, but for how long it took.
fn seen(end: &End) -> Seen {
    let bytes = [end.bytes_up, end.bytes_down];
    let messages = [end.messages_up, end.messages_down];
    (end.by, end.why.clone(), bytes, messages, [end.client_close, end.backend_close])
}
