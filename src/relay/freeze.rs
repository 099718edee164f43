//! A plain tunnel as bytes, so that it can go to another process together with its two
//! descriptors.

use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use crate::bytes::{Reader, micros, put_u64};
use crate::end::{By, Record};
use crate::flow::Flow;
use crate::rules::Rules;
use crate::side::Socket;
use crate::tunnel::{Tunnel, TunnelState};

/// Of the encoding: a build of the module may get tunnels from another one. Whoever changes what
/// [`Tunnel::freeze`] writes raises this, and adds the bytes of the new version to
/// `tests/frozen/`, where those of older ones stay.
pub const FROZEN_VERSION: u16 = 9;

/// What a frozen tunnel takes at least, when nothing is kept for either side.
const FROZEN_BYTES: usize = size_of_val(&FROZEN_VERSION)
    + size_of::<u64>()
    + Rules::FROZEN_BYTES
    + size_of::<u8>()
    + 2 * Flow::FROZEN_BYTES;

const _: () = assert!(
    FROZEN_VERSION == 9 && FROZEN_BYTES == 308,
    "another encoding needs another FROZEN_VERSION: change both here"
);

impl Tunnel {
    /// The tunnel without its descriptors and its record, for [`thaw`](Self::thaw). `None` if it
    /// cannot go like that: a side speaks TLS, or the tunnel is being ended.
    pub fn freeze(&self) -> Option<Vec<u8>> {
        if !self.is_plain() || self.state.ending.is_some() {
            return None;
        }
        let TunnelState { up, down, rules, started, first_end, record: _, ending: _ } = &self.state;
        let mut out = Vec::with_capacity(FROZEN_BYTES);
        out.extend_from_slice(&FROZEN_VERSION.to_le_bytes());
        put_u64(&mut out, micros(started.elapsed()));
        rules.freeze(&mut out);
        out.push(match first_end {
            None => 0,
            Some((By::Client, _)) => 1,
            Some((By::Backend, _)) => 2,
            Some((By::Us, _)) => 3,
        });
        up.freeze(&mut out);
        down.freeze(&mut out);
        Some(out)
    }

    /// The tunnel that [`freeze`](Self::freeze) was called on, with copies of its descriptors.
    /// `None` if these are not the bytes of this version's `freeze`.
    pub fn thaw(
        frozen: &[u8],
        client: OwnedFd,
        backend: OwnedFd,
        record: Box<dyn Record>,
    ) -> Option<Self> {
        let mut from = Reader(frozen);
        if from.array().map(u16::from_le_bytes)? != FROZEN_VERSION {
            return None;
        }
        let elapsed = Duration::from_micros(from.u64()?);
        let now = Instant::now();
        let started = now.checked_sub(elapsed).unwrap_or(now);
        let rules = Rules::thaw(&mut from)?;
        // Without TLS every end is a clean one.
        let first_end = match from.u8()? {
            0 => None,
            1 => Some((By::Client, true)),
            2 => Some((By::Backend, true)),
            3 => Some((By::Us, true)),
            _ => return None,
        };
        let up = Flow::thaw(&mut from, &rules, By::Client, (started, elapsed))?;
        let down = Flow::thaw(&mut from, &rules, By::Backend, (started, elapsed))?;
        if !from.0.is_empty() {
            return None;
        }
        Some(Tunnel {
            client: Socket { tls: None, fd: client, failed: false },
            backend: Socket { tls: None, fd: backend, failed: false },
            state: TunnelState {
                up,
                down,
                record,
                rules: rules.into(),
                started,
                first_end,
                ending: None,
            },
        })
    }
}
