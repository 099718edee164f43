//! Where children leave few tunnels each, as those of prefork do, one drain process of their
//! generation collects those that can be sent, which are all but those with a TLS session in
//! OpenSSL: they come to it through a queue that the parent made. Who that is, and that none is
//! left in the queue, is settled in src/shared/role.rs.

use std::fmt;
use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use messages::{NeitherSentNorKept, NoRoom, OtherVersion};
use os::fdpass::{self, MESSAGE};
use os::{descriptors, poll};
use relay::{Frozen, Record, Tls, Tunnel};
use shared::{Message, Sent, Slot};

use crate::processes::memory::{self, shared};
use crate::processes::record::TunnelRecord;

/// A child with more such tunnels than this keeps them together, in a process of their own.
const MAX_TUNNELS_TO_SEND: usize = 128;
/// How long a child waits for room in the queue, in all.
const QUEUE_WAIT: Duration = Duration::from_secs(1);
/// More messages than this are never in the queue, by the bound of its memory.
const MAX_QUEUED: usize = 300;
/// Descriptors that a drain process needs for itself.
const OWN_DESCRIPTORS: u64 = 64;

/// The role of the one that collects.
pub(super) struct Claim {
    role: shared::Claim<'static>,
    /// Where tunnels come from.
    pub queue: BorrowedFd<'static>,
}

impl Claim {
    /// In the process that claimed it, once it has forked the one that is to collect.
    pub(super) fn pass_to(self, pid: u32) {
        self.role.pass_to(pid);
    }

    /// In the forked process.
    pub(super) fn take_over(&mut self) {
        self.role.take_over();
    }

    /// Whether no other process has taken the role over. If one has, a last look into the queue is due:
    /// that of the other may not be the same.
    pub(super) fn is_held(&self) -> bool {
        self.role.is_held()
    }

    /// Gives the role up. What is in the queue is still to be taken: see [`received`].
    pub(super) fn give_up(self) -> BorrowedFd<'static> {
        self.role.give_up();
        self.queue
    }
}

/// How many tunnels this process may have and still collect.
pub(super) fn most() -> usize {
    let limit = descriptors::limit().saturating_sub(OWN_DESCRIPTORS) / 2;
    usize::try_from(limit).unwrap_or(usize::MAX).saturating_sub(MAX_QUEUED)
}

/// What a child that ends has left.
pub(super) struct Left {
    /// The tunnels that need a process of their own.
    pub tunnels: Vec<Tunnel>,
    /// If that process is to collect.
    pub claim: Option<Claim>,
    /// The queue, if the process that tunnels were sent to may have looked into it for the last time
    /// before.
    pub unsettled: Option<BorrowedFd<'static>>,
}

/// Leaves the tunnels that can be sent of a child that ends to the process that collects.
pub(super) fn leave(slot: &Slot, tunnels: Vec<Tunnel>) -> Left {
    let all = |tunnels| Left { tunnels, claim: None, unsettled: None };
    let usable = shared().filter(|_| slot.is_shared() && most() > 0);
    let queue = usable.and_then(|shared| Some((shared, memory::queue()?)));
    let Some((shared, [receive, send])) = queue else { return all(tunnels) };
    let movable = tunnels.iter().filter(|tunnel| tunnel.is_movable()).count();
    if movable == 0 {
        return all(tunnels);
    }
    let mut tunnels = tunnels;
    let mut has_sent = false;
    let role = shared.leave(movable <= MAX_TUNNELS_TO_SEND, |pid| {
        let before = tunnels.len();
        let to = shared.slot_of(pid).unwrap_or(slot);
        tunnels = send_all(send, std::mem::take(&mut tunnels), slot, to);
        has_sent = tunnels.len() < before;
        if has_sent { Sent::Some } else { Sent::Nothing }
    });
    let claim = role.map(|role| Claim { role, queue: receive });
    // The role may be another process's by now. Of the same configuration it looks into this very queue.
    let is_settled = claim.is_some() || !has_sent || shared.is_collected_by_own();
    Left { tunnels, claim, unsettled: (!is_settled).then_some(receive) }
}

/// Sends what can be sent, to the process whose slot is `to`; returns the rest.
fn send_all(queue: BorrowedFd<'_>, tunnels: Vec<Tunnel>, from: &Slot, to: &Slot) -> Vec<Tunnel> {
    let until = Instant::now() + QUEUE_WAIT;
    let mut room = true;
    let mut rest = Vec::new();
    for mut tunnel in tunnels {
        // This process may end before the other has the message, and what is counted in its slot
        // ends with it.
        count_in(&mut tunnel, to);
        let left = match freeze(tunnel, room) {
            Ok(frozen) => send_one(queue, frozen, until, &mut room),
            Err(tunnel) => Some(tunnel),
        };
        if let Some(mut tunnel) = left {
            count_in(&mut tunnel, from);
            rest.push(tunnel);
        }
    }
    rest
}

/// The tunnel as it can go, if there is `room` for it.
#[expect(clippy::result_large_err, reason = "the tunnel is given back, not lost")]
fn freeze(tunnel: Tunnel, room: bool) -> Result<Frozen, Tunnel> {
    if !room || failpoint::check!("collector.freeze").is_err() {
        return Err(tunnel);
    }
    tunnel.freeze()
}

/// Sends one. Returns the tunnel if it did not go.
fn send_one(
    queue: BorrowedFd<'_>,
    frozen: Frozen,
    until: Instant,
    room: &mut bool,
) -> Option<Tunnel> {
    if let Some(mut message) = message(&frozen) {
        *room = send(queue, &message, &frozen, until).is_ok();
        tls::wipe(&mut message);
        failpoint::step!("collector.sent");
        if *room {
            return None;
        }
    }
    frozen.thaw(&thaw_tls).map_err(|record| lost(record, &NeitherSentNorKept)).ok()
}

/// The session of a side that was frozen.
fn thaw_tls(frozen: &mut &[u8], fd: BorrowedFd<'_>) -> Option<Box<dyn Tls>> {
    // SAFETY: whoever thaws a tunnel has copies of its descriptors, which it keeps open for as long as
    // the sessions.
    unsafe { crate::ffi::tls::thaw(frozen, fd) }
}

/// A tunnel is lost on its way.
pub(super) fn lost(mut record: Box<dyn Record>, why: &dyn fmt::Display) {
    if let Some(record) = (*record).as_any_mut().downcast_mut::<TunnelRecord>() {
        record.lost(why);
    }
}

fn count_in(tunnel: &mut Tunnel, slot: &Slot) {
    if let Some(record) = tunnel.record::<TunnelRecord>() {
        record.count_in(slot);
    }
}

fn send(queue: BorrowedFd<'_>, message: &[u8], tunnel: &Frozen, until: Instant) -> io::Result<()> {
    failpoint::check!("collector.send")?;
    loop {
        match fdpass::send(queue, message, tunnel.descriptors()) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                let left = until.saturating_duration_since(Instant::now());
                if left.is_zero() {
                    return Err(error);
                }
                poll::wait_for_room(queue, left);
            }
            result => return result,
        }
    }
}

/// A tunnel as a message, which has the secrets of its TLS. `None` if it is too long.
fn message(frozen: &Frozen) -> Option<Vec<u8>> {
    let mut message = frozen.record::<TunnelRecord>()?.message(frozen.bytes()).encode()?;
    if message.len() > MESSAGE {
        tls::wipe(&mut message);
        return None;
    }
    Some(message)
}

/// What came through the queue.
#[expect(clippy::large_enum_variant, reason = "made to be taken apart at once")]
pub(super) enum Received {
    /// A tunnel.
    Tunnel(Tunnel),
    /// One that is lost, and why.
    KnownLost(Box<dyn Record>, String),
    /// The same, of which nothing is known.
    Lost(String),
}

/// Takes from the queue what is there, at most so much as it can hold.
pub(super) fn received(queue: BorrowedFd<'_>, slot: &Slot) -> impl Iterator<Item = Received> {
    let most = if poll::is_readable(queue) { MAX_QUEUED } else { 0 };
    let mut buffer = vec![0; if most > 0 { MESSAGE } else { 0 }];
    (0..most).map_while(move |_| {
        let arrived = failpoint::check!("collector.receive");
        let arrived = arrived.and_then(|()| fdpass::receive(queue, &mut buffer));
        let (length, descriptors) = match arrived {
            Ok(received) => received,
            Err(error) if error.kind() == io::ErrorKind::InvalidData => {
                return Some(Received::Lost(OtherVersion.to_string()));
            }
            Err(_) => return None,
        };
        let message = buffer.get(..length).and_then(Message::decode);
        let received = message.map_or_else(
            || Received::Lost(OtherVersion.to_string()),
            |message| thaw(&message, descriptors, slot),
        );
        tls::wipe(buffer.get_mut(..length).unwrap_or_default());
        Some(received)
    })
}

/// The tunnel of a message. One that cannot go on is counted no more.
fn thaw(message: &Message<'_>, descriptors: Option<[OwnedFd; 2]>, slot: &Slot) -> Received {
    let record = Box::new(TunnelRecord::thaw(message, slot));
    let Some([client, backend]) = descriptors else {
        return Received::KnownLost(record, NoRoom.to_string());
    };
    let is_whole = failpoint::check!("collector.thaw").is_ok();
    let tunnel = if is_whole {
        Tunnel::thaw_with(message.frozen, client, backend, record, &thaw_tls)
    } else {
        Err(record as Box<dyn Record>)
    };
    match tunnel {
        Ok(tunnel) => Received::Tunnel(tunnel),
        Err(record) => Received::KnownLost(record, OtherVersion.to_string()),
    }
}
