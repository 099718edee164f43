//! A plain tunnel as bytes, so that it can go to another process together with its two
//! descriptors.

use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use crate::bytes::{Frozen, put_u64};
use crate::end::{By, Record};
use crate::flow::Flow;
use crate::side::Socket;
use crate::tunnel::{Core, Tunnel};

/// Of the encoding. Whoever changes that raises this.
pub const FROZEN_VERSION: u16 = 1;

/// Stands for no duration; half a million years are none.
const NEVER: u64 = u64::MAX;

impl Tunnel {
    /// The tunnel without its descriptors and its record, for [`thaw`](Self::thaw). `None` if it
    /// cannot go like that: a side speaks TLS, or the tunnel is being ended.
    pub fn freeze(&self) -> Option<Vec<u8>> {
        if !self.is_plain() || self.core.ending.is_some() {
            return None;
        }
        let Core { up, down, idle_timeout, started, first_end, .. } = &self.core;
        let mut out = FROZEN_VERSION.to_le_bytes().to_vec();
        put_u64(&mut out, micros(started.elapsed()));
        put_u64(&mut out, idle_timeout.map_or(NEVER, micros));
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
        let mut from = Frozen(frozen);
        if from.array().map(u16::from_le_bytes)? != FROZEN_VERSION {
            return None;
        }
        let elapsed = Duration::from_micros(from.u64()?);
        let idle_timeout = Some(from.u64()?).filter(|t| *t != NEVER).map(Duration::from_micros);
        // Without TLS every end is a clean one.
        let first_end = match from.u8()? {
            0 => None,
            1 => Some((By::Client, true)),
            2 => Some((By::Backend, true)),
            3 => Some((By::Us, true)),
            _ => return None,
        };
        let up = Flow::thaw(&mut from)?;
        let down = Flow::thaw(&mut from)?;
        if !from.0.is_empty() {
            return None;
        }
        let now = Instant::now();
        Some(Tunnel {
            client: Socket { tls: None, fd: client },
            backend: Socket { tls: None, fd: backend },
            core: Core {
                up,
                down,
                record,
                idle_timeout,
                started: now.checked_sub(elapsed).unwrap_or(now),
                first_end,
                ending: None,
            },
        })
    }
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(NEVER)
}
