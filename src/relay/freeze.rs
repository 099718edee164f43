//! A tunnel as bytes, so that it can go to another process together with its two descriptors. With TLS
//! the bytes have its secrets.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use crate::bytes::{Reader, micros, put_u64};
use crate::end::{By, End, Record};
use crate::flow::Flow;
use crate::rules::Rules;
use crate::side::Socket;
use crate::tls::Tls;
use crate::tunnel::{Tunnel, TunnelState};

/// Of the encoding: a build of the module may get tunnels from another one. Whoever changes what
/// [`Tunnel::freeze`] writes raises this, and adds the bytes of the new version to
/// `tests/frozen/`, where those of older ones stay.
pub const FROZEN_VERSION: u16 = 10;

/// What a frozen tunnel takes at least, when nothing is kept for either side, and none has TLS.
const FROZEN_BYTES: usize = size_of_val(&FROZEN_VERSION)
    + size_of::<u64>()
    + Rules::FROZEN_BYTES
    + size_of::<u8>()
    + 2 * Flow::FROZEN_BYTES
    + 2 * size_of::<u8>();

const _: () = assert!(
    FROZEN_VERSION == 10 && FROZEN_BYTES == 310,
    "another encoding needs another FROZEN_VERSION: change both here"
);

/// Added to the number of the side that ended first, if it did not say so as it should.
const TRUNCATED: u8 = 3;

/// Makes a session that [`Tls::freeze`] consumed, of the front of bytes, which is what remains, for a
/// descriptor that is open for as long as the session is. `None` if it cannot.
pub type ThawTls<'a> = &'a dyn Fn(&mut &[u8], BorrowedFd<'_>) -> Option<Box<dyn Tls>>;

/// Bytes that are overwritten when they are dropped.
struct Secret(Vec<u8>);

impl Drop for Secret {
    fn drop(&mut self) {
        records::wipe(&mut self.0);
    }
}

/// A tunnel on its way to another process: it is carried on by who [thaws](Tunnel::thaw) its bytes there,
/// or [here](Self::thaw), if it did not go. Dropping it closes its descriptors and tells nobody.
pub struct Frozen {
    bytes: Secret,
    client: OwnedFd,
    backend: OwnedFd,
    record: Box<dyn Record>,
}

impl Frozen {
    /// Its state, without its descriptors and its record, for [`Tunnel::thaw`]. A copy of a tunnel with TLS
    /// has its secrets.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes.0
    }

    /// The descriptors: the client's, the back end's.
    pub fn descriptors(&self) -> [BorrowedFd<'_>; 2] {
        [self.client.as_fd(), self.backend.as_fd()]
    }

    /// The record that the tunnel was made with, if it is an `R`.
    pub fn record<R: Record>(&self) -> Option<&R> {
        (*self.record).as_any().downcast_ref()
    }

    /// The tunnel, to go on here.
    ///
    /// # Errors
    /// Its record, if its TLS does not come to life again.
    pub fn thaw(self, tls: ThawTls<'_>) -> Result<Tunnel, Box<dyn Record>> {
        let Self { bytes, client, backend, record } = self;
        Tunnel::thaw_with(&bytes.0, client, backend, record, tls)
    }
}

impl std::fmt::Debug for Frozen {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Frozen").finish_non_exhaustive()
    }
}

/// The record of a tunnel that has its own elsewhere.
struct Nobody;

impl Record for Nobody {
    fn ended(&mut self, _: &End) {}
}

impl Socket {
    /// How many bytes its TLS has when it is frozen. `None` if it cannot be.
    fn frozen_bytes(&self) -> Option<usize> {
        match &self.tls {
            None => Some(0),
            Some(_) if self.failed => None,
            Some(tls) => tls.frozen_bytes(),
        }
    }

    /// Its TLS as bytes, for which there is room, and its descriptor.
    fn freeze(self, out: &mut Vec<u8>) -> OwnedFd {
        out.push(u8::from(self.tls.is_some()));
        if let Some(tls) = self.tls {
            tls.freeze(out);
        }
        self.fd
    }

    fn thaw(from: &mut Reader<'_>, fd: OwnedFd, tls: ThawTls<'_>) -> Option<Self> {
        let tls = match from.u8()? {
            0 => None,
            1 => Some(tls(&mut from.0, fd.as_fd())?),
            _ => return None,
        };
        Some(Self { tls, fd, failed: false })
    }
}

impl Tunnel {
    /// Whether it can be [frozen](Self::freeze), unless it is being ended.
    pub fn is_movable(&self) -> bool {
        self.client.frozen_bytes().is_some() && self.backend.frozen_bytes().is_some()
    }

    /// The tunnel as bytes. It is gone here: nobody can use its secrets twice.
    ///
    /// # Errors
    /// The tunnel, if it cannot go like that: the TLS of a side cannot, or it is being ended.
    #[expect(clippy::result_large_err, reason = "the tunnel is given back, not lost")]
    pub fn freeze(self) -> Result<Frozen, Self> {
        let sizes = [self.client.frozen_bytes(), self.backend.frozen_bytes()];
        let [Some(of_client), Some(of_backend)] = sizes else { return Err(self) };
        if self.state.ending.is_some() {
            return Err(self);
        }
        let Tunnel { client, backend, state } = self;
        let TunnelState { up, down, rules, started, first_end, record, ending: _ } = state;
        let mut out = Secret(Vec::with_capacity(FROZEN_BYTES));
        let bytes = &mut out.0;
        bytes.extend_from_slice(&FROZEN_VERSION.to_le_bytes());
        put_u64(bytes, micros(started.elapsed()));
        rules.freeze(bytes);
        bytes.push(match first_end {
            None => 0,
            Some((by, is_clean)) => {
                let by = match by {
                    By::Client => 1,
                    By::Backend => 2,
                    By::Us => 3,
                };
                if is_clean { by } else { by + TRUNCATED }
            }
        });
        up.freeze(bytes);
        down.freeze(bytes);
        // From here on they do not move: what they leave behind is not overwritten.
        bytes.reserve_exact(2 + of_client + of_backend);
        let client = client.freeze(bytes);
        let backend = backend.freeze(bytes);
        Ok(Frozen { bytes: out, client, backend, record })
    }

    /// The plain tunnel that [`freeze`](Self::freeze) was called on, with copies of its descriptors.
    /// `None` if these are not the bytes of this version's `freeze`, or a side had TLS.
    pub fn thaw(
        frozen: &[u8],
        client: OwnedFd,
        backend: OwnedFd,
        record: Box<dyn Record>,
    ) -> Option<Self> {
        Self::thaw_with(frozen, client, backend, record, &|_, _| None).ok()
    }

    /// The same where a side may have TLS.
    ///
    /// # Errors
    /// Its record.
    pub fn thaw_with(
        frozen: &[u8],
        client: OwnedFd,
        backend: OwnedFd,
        record: Box<dyn Record>,
        tls: ThawTls<'_>,
    ) -> Result<Self, Box<dyn Record>> {
        match Self::thaw_unknown(frozen, client, backend, tls) {
            Some(mut tunnel) => {
                tunnel.replace_record(record);
                Ok(tunnel)
            }
            None => Err(record),
        }
    }

    /// The same without its record.
    fn thaw_unknown(
        frozen: &[u8],
        client: OwnedFd,
        backend: OwnedFd,
        tls: ThawTls<'_>,
    ) -> Option<Self> {
        let mut from = Reader(frozen);
        if from.array().map(u16::from_le_bytes)? != FROZEN_VERSION {
            return None;
        }
        let elapsed = Duration::from_micros(from.u64()?);
        let now = Instant::now();
        let started = now.checked_sub(elapsed).unwrap_or(now);
        let rules = Rules::thaw(&mut from)?;
        let first_end = from.u8()?;
        let is_clean = first_end <= TRUNCATED;
        let first_end = match if is_clean { first_end } else { first_end - TRUNCATED } {
            0 => None,
            1 => Some((By::Client, is_clean)),
            2 => Some((By::Backend, is_clean)),
            3 => Some((By::Us, is_clean)),
            _ => return None,
        };
        let up = Flow::thaw(&mut from, &rules, By::Client, (started, elapsed))?;
        let down = Flow::thaw(&mut from, &rules, By::Backend, (started, elapsed))?;
        let client = Socket::thaw(&mut from, client, tls)?;
        let backend = Socket::thaw(&mut from, backend, tls)?;
        if !from.0.is_empty() {
            return None;
        }
        let tunnel = Tunnel {
            client,
            backend,
            state: TunnelState {
                up,
                down,
                record: Box::new(Nobody),
                rules: rules.into(),
                started,
                first_end,
                ending: None,
            },
        };
        // Without TLS every end is a clean one.
        (is_clean || !tunnel.is_plain()).then_some(tunnel)
    }
}
