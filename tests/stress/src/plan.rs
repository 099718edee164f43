//! What happens in one tunnel, made of the run's parameters and the tunnel's number.

use crate::bytes::{Dice, Stream};

/// What the user asks for.
#[derive(Clone, Debug)]
pub(crate) struct Run {
    /// Tunnels in all.
    pub count: usize,
    /// Tunnels at a time.
    pub at_once: usize,
    /// Handshakes at a time.
    pub opening: usize,
    /// Seed of all randomness.
    pub seed: u64,
    /// Most bytes that each side sends unasked, from the first instant on.
    pub size: u64,
    /// Messages to and fro after that.
    pub rounds: u64,
    /// Of a thousand tunnels so many have a burst of `burst` bytes at the switch, in one direction.
    pub bursts: u64,
    /// Bytes of a burst.
    pub burst: u64,
    /// Which clients and back ends, cycled through: 0 plain, 1 TLS 1.2, 2 TLS 1.3.
    pub clients: Vec<usize>,
    /// As `clients`.
    pub origins: Vec<usize>,
    /// httpd's ports, plain and TLS.
    pub ports: [u16; 2],
    /// Half of the tunnels of TLS 1.3 have KeyUpdates.
    pub key_updates: bool,
    /// Keep all tunnels open until told to end them.
    pub hold: bool,
    /// Give up after so many seconds.
    pub seconds: u64,
}

/// Who ends its sending as soon as all is sent; the other waits for that.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum First {
    Client,
    Origin,
    Both,
}

/// One direction.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Flow {
    /// Bytes sent unasked.
    pub first: u64,
    /// Bytes of each message of the rounds.
    pub piece: u64,
    /// Bytes sent after the rounds.
    pub last: u64,
}

/// One tunnel.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    pub id: usize,
    pub client: usize,
    pub origin: usize,
    pub up: Flow,
    pub down: Flow,
    pub rounds: u64,
    /// KeyUpdates (RFC 8446 4.6.3) of either side's own, many around the switch.
    pub key_updates: bool,
    /// Sends its TLS records in small pieces around the switch.
    pub dribble: bool,
    /// First bytes in the same write as the head.
    pub glued: bool,
    pub first: First,
    pub seed: u64,
}

impl Plan {
    pub(crate) fn new(run: &Run, id: usize) -> Self {
        let seed = run.seed.wrapping_mul(1_000_003).wrapping_add(id as u64);
        let mut dice = Dice::new(seed);
        let flow = |dice: &mut Dice| Flow {
            first: dice.size(run.size),
            piece: 1 + dice.size(3000.min(run.size)),
            last: dice.size(run.size),
        };
        let (mut up, mut down) = (flow(&mut dice), flow(&mut dice));
        if dice.below(1000) < run.bursts {
            let side = if dice.once_in(2) { &mut up } else { &mut down };
            side.first = run.burst;
        }
        Self {
            id,
            client: run.clients[id % run.clients.len()],
            origin: run.origins[id / run.clients.len() % run.origins.len()],
            up,
            down,
            rounds: run.rounds,
            key_updates: dice.once_in(2) && run.key_updates,
            dribble: dice.once_in(4),
            glued: dice.once_in(2),
            first: match dice.below(3) {
                _ if run.hold => First::Client,
                0 => First::Client,
                1 => First::Origin,
                _ => First::Both,
            },
            seed,
        }
    }

    pub(crate) fn bytes(&self, up: bool) -> Stream {
        Stream::new(self.seed.wrapping_mul(2).wrapping_add(u64::from(up)))
    }

    /// All bytes of a direction.
    pub(crate) fn total(&self, up: bool) -> u64 {
        let flow = if up { self.up } else { self.down };
        flow.first + self.rounds * flow.piece + flow.last
    }

    /// How many bytes may be sent in a direction once so many came of the other: unasked ones,
    /// then message by message, the client's first, then the rest.
    pub(crate) fn allowed(&self, up: bool, came: u64) -> u64 {
        let (ours, theirs) = if up { (self.up, self.down) } else { (self.down, self.up) };
        let Some(of_rounds) = came.checked_sub(theirs.first) else { return ours.first };
        let heard = (of_rounds / theirs.piece).min(self.rounds);
        if heard == self.rounds {
            return self.total(up);
        }
        let said = if up { heard + 1 } else { heard };
        ours.first + said.min(self.rounds) * ours.piece
    }
}
