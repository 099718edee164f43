//! Where children leave few tunnels each, as those of prefork do, one drain process of their
//! generation collects the plain ones: they come to it through a queue that the parent made.
//!
//! No tunnel is left in the queue. Whoever has the role empties it; who gives the role up does
//! so before a last look into the queue; who sends looks afterwards whether the role is held,
//! and else takes it.

use std::io;
use std::os::fd::BorrowedFd;
use std::sync::atomic::Ordering::SeqCst;
use std::time::{Duration, Instant};

use messages::{NoRoom, OtherVersion};
use os::fdpass::{self, MESSAGE};
use os::{descriptors, poll, process};
use relay::Tunnel;

use crate::processes::record::TunnelRecord;
use crate::shared::{self, Shared, Slot, shared};

/// A child with more plain tunnels than this keeps them together, in a process of their own.
const FEW: usize = 128;
/// How long a child waits for room in the queue, in all.
const PATIENCE: Duration = Duration::from_secs(1);
/// More messages than this are never in the queue, by the bound of its memory.
const QUEUED: usize = 300;
/// Descriptors that a drain process needs for itself.
const OWN: u64 = 64;

/// Who collects, as it is in shared memory: a process and its generation. Zero is nobody.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Role(u64);

impl Role {
    const NOBODY: Self = Self(0);

    fn of(pid: u32, generation: u32) -> Self {
        Self(u64::from(pid) << 32 | u64::from(generation))
    }

    fn load(shared: &Shared) -> Self {
        Self(shared.collector.load(SeqCst))
    }

    fn replace(self, with: Self, shared: &Shared) -> bool {
        shared.collector.compare_exchange(self.0, with.0, SeqCst, SeqCst).is_ok()
    }

    fn pid(self) -> u32 {
        (self.0 >> 32) as u32
    }

    fn generation(self) -> u32 {
        self.0 as u32
    }

    fn is_held(self) -> bool {
        self != Self::NOBODY && process::runs(self.pid())
    }
}

/// The role of the one that collects, in the process that has it, and in the one that is about
/// to fork that.
pub struct Claim {
    shared: &'static Shared,
    role: Role,
    /// Where tunnels come from.
    pub queue: BorrowedFd<'static>,
}

impl Claim {
    fn new(shared: &'static Shared, queue: BorrowedFd<'static>, over: Role) -> Option<Self> {
        let role = Role::of(std::process::id(), shared.generation());
        over.replace(role, shared).then_some(Self { shared, role, queue })
    }

    /// In the process that claimed it, once it has forked the one that is to collect.
    pub fn pass_to(self, pid: u32) {
        self.role.replace(Role::of(pid, self.role.generation()), self.shared);
    }

    /// In the forked process.
    pub fn take_over(&mut self) {
        let role = Role::of(std::process::id(), self.role.generation());
        self.role.replace(role, self.shared);
        self.role = role;
    }

    /// Whether no other process has taken the role over; that one empties the queue then.
    pub fn is_held(&self) -> bool {
        Role::load(self.shared) == self.role
    }

    /// Gives the role up. What is in the queue is still to be taken: see [`received`].
    pub fn give_up(self) -> BorrowedFd<'static> {
        self.role.replace(Role::NOBODY, self.shared);
        self.queue
    }
}

/// How many tunnels this process may have and still collect.
pub fn most() -> usize {
    let limit = descriptors::limit().saturating_sub(OWN) / 2;
    usize::try_from(limit).unwrap_or(usize::MAX).saturating_sub(QUEUED)
}

/// The process that collects, 0 if none does.
pub fn pid(shared: &Shared) -> u32 {
    Role::load(shared).pid()
}

/// Leaves the plain tunnels of a child that ends to the process that collects. Returns the
/// tunnels that need a process of their own, and the claim if that process is to collect.
pub fn leave(slot: &Slot, tunnels: Vec<Tunnel>) -> (Vec<Tunnel>, Option<Claim>) {
    let usable = shared().filter(|_| slot.is_shared() && most() > 0);
    let queue = usable.and_then(|shared| Some((shared, shared::queue()?)));
    let Some((shared, [receive, send])) = queue else { return (tunnels, None) };
    let plain = tunnels.iter().filter(|tunnel| tunnel.is_plain()).count();
    if plain == 0 {
        return (tunnels, None);
    }
    let mut tunnels = tunnels;
    let mut sent = false;
    // Ends: what was found changes only if another process succeeds.
    loop {
        let role = Role::load(shared);
        if !role.is_held() || (!sent && is_older(role.generation(), shared.generation())) {
            match Claim::new(shared, receive, role) {
                Some(claim) => return (tunnels, Some(claim)),
                None => continue,
            }
        }
        if sent || plain > FEW || role.generation() != shared.generation() {
            return (tunnels, None);
        }
        let before = tunnels.len();
        let to = shared.slot_of(role.pid()).unwrap_or(slot);
        tunnels = send_all(send, tunnels, slot, to);
        sent = tunnels.len() < before;
        if !sent {
            return (tunnels, None);
        }
    }
}

fn is_older(generation: u32, than: u32) -> bool {
    than.wrapping_sub(generation).cast_signed() > 0
}

/// Sends what can be sent, to the process whose slot is `to`; returns the rest.
fn send_all(queue: BorrowedFd<'_>, tunnels: Vec<Tunnel>, from: &Slot, to: &Slot) -> Vec<Tunnel> {
    let until = Instant::now() + PATIENCE;
    let mut room = true;
    let mut rest = Vec::new();
    for mut tunnel in tunnels {
        // This process may end before the other has the message, and what is counted in its slot
        // ends with it.
        count_in(&mut tunnel, to);
        let message = if room { message(&mut tunnel) } else { None };
        let sent = message.is_some_and(|message| {
            room = send(queue, &message, &tunnel, until).is_ok();
            room
        });
        if !sent {
            count_in(&mut tunnel, from);
            rest.push(tunnel);
        }
    }
    rest
}

fn count_in(tunnel: &mut Tunnel, slot: &Slot) {
    if let Some(record) = tunnel.record::<TunnelRecord>() {
        record.count_in(slot);
    }
}

fn send(queue: BorrowedFd<'_>, message: &[u8], tunnel: &Tunnel, until: Instant) -> io::Result<()> {
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

/// A tunnel as a message. `None` if it cannot go like that.
fn message(tunnel: &mut Tunnel) -> Option<Vec<u8>> {
    let frozen = tunnel.freeze()?;
    let record = tunnel.record::<TunnelRecord>()?;
    let mut message = u32::try_from(frozen.len()).ok()?.to_le_bytes().to_vec();
    message.extend(frozen);
    record.freeze(&mut message);
    (message.len() <= MESSAGE).then_some(message)
}

/// What came through the queue.
#[expect(clippy::large_enum_variant, reason = "made to be taken apart at once")]
pub enum Received {
    /// A tunnel.
    Tunnel(Tunnel),
    /// One that is lost.
    Lost(String),
}

/// Takes from the queue what is there, at most so much as it can hold.
pub fn received(queue: BorrowedFd<'_>, slot: &Slot) -> impl Iterator<Item = Received> {
    let most = if poll::is_readable(queue) { QUEUED } else { 0 };
    let mut buffer = vec![0; if most > 0 { MESSAGE } else { 0 }];
    (0..most).map_while(move |_| {
        let (length, [client, backend]) = match fdpass::receive(queue, &mut buffer) {
            Ok(received) => received,
            Err(error) if error.kind() == io::ErrorKind::InvalidData => {
                return Some(Received::Lost(NoRoom.to_string()));
            }
            Err(_) => return None,
        };
        let tunnel = buffer[..length].split_first_chunk().and_then(|(frozen, rest)| {
            let frozen = usize::try_from(u32::from_le_bytes(*frozen)).ok()?;
            let (frozen, record) = rest.split_at_checked(frozen)?;
            let record = TunnelRecord::thaw(record, slot)?;
            Tunnel::thaw(frozen, client, backend, Box::new(record))
        });
        Some(tunnel.map_or_else(|| Received::Lost(OtherVersion.to_string()), Received::Tunnel))
    })
}
