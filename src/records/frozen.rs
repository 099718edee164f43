//! A direction as bytes, for another process. They have its secrets: whoever has them wipes them
//! ([`crate::wipe`]) as soon as they are sent or thawed.

use crate::keys::{Keys, Secret};
use crate::messages::Messages;
use crate::protection::Protection;
use crate::receiver::{Receiver, Silent, State};
use crate::sender::Sender;
use crate::suite::{Role, Suite};

/// The longest secret. Shorter ones have zeros behind them.
const SECRET_BYTES: usize = 48;

struct Reader<'a>(&'a [u8]);

impl Reader<'_> {
    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (bytes, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(*bytes)
    }

    fn u8(&mut self) -> Option<u8> {
        self.array().map(u8::from_le_bytes)
    }

    fn bool(&mut self) -> Option<bool> {
        match self.u8()? {
            0 => Some(false),
            1 => Some(true),
            _ => None,
        }
    }

    fn u64(&mut self) -> Option<u64> {
        self.array().map(u64::from_le_bytes)
    }

    fn size(&mut self) -> Option<usize> {
        self.u64().and_then(|size| usize::try_from(size).ok())
    }
}

fn put_size(out: &mut Vec<u8>, size: usize) {
    out.extend_from_slice(&(size as u64).to_le_bytes());
}

impl Protection {
    const FROZEN_BYTES: usize = 2 + Keys::FROZEN_BYTES + SECRET_BYTES + 8;

    fn freeze(&self, out: &mut Vec<u8>) {
        out.push(match self.suite {
            Suite::Aes128Gcm => 0,
            Suite::Aes256Gcm => 1,
            Suite::Chacha20Poly1305 => 2,
        });
        self.keys.freeze(out);
        out.push(u8::from(self.secret.is_some()));
        let before = out.len();
        out.extend_from_slice(self.secret.as_ref().map_or(&[], Secret::bytes));
        out.resize(before + SECRET_BYTES, 0);
        out.extend_from_slice(&self.number.to_le_bytes());
    }

    fn thaw(from: &mut Reader<'_>) -> Option<Self> {
        let suite = match from.u8()? {
            0 => Suite::Aes128Gcm,
            1 => Suite::Aes256Gcm,
            2 => Suite::Chacha20Poly1305,
            _ => return None,
        };
        let (keys, rest) = from.0.split_first_chunk()?;
        from.0 = rest;
        let keys = Keys::thaw(keys);
        let has_secret = from.bool()?;
        let (secret, rest) = from.0.split_at_checked(SECRET_BYTES)?;
        from.0 = rest;
        let (secret, zeros) = secret.split_at(if has_secret { suite.secret_bytes() } else { 0 });
        if zeros.iter().any(|byte| *byte != 0) {
            return None;
        }
        let secret = if has_secret { Some(Secret::new(suite, secret)?) } else { None };
        Some(Protection { suite, keys, secret, number: from.u64()? })
    }
}

impl Sender {
    /// How many bytes [`freeze`](Self::freeze) appends.
    pub const FROZEN_BYTES: usize = Protection::FROZEN_BYTES + 8 + 3;

    /// Its state as bytes. It is gone here: who thaws it goes on alone. What of `out` moves because
    /// it has not the room is not wiped: reserve it before.
    pub fn freeze(self, out: &mut Vec<u8>) {
        let Sender { protection, explicit_nonce, owes_key_update, owes_no_renegotiation, closed } =
            self;
        protection.freeze(out);
        out.extend_from_slice(&explicit_nonce.to_le_bytes());
        out.extend([owes_key_update, owes_no_renegotiation, closed].map(u8::from));
    }

    /// The sender that [`freeze`](Self::freeze) consumed, of the front of `frozen`, which is what
    /// remains. `None` if these are not its bytes.
    pub fn thaw(frozen: &mut &[u8]) -> Option<Self> {
        let mut from = Reader(frozen);
        let sender = Sender {
            protection: Protection::thaw(&mut from)?,
            explicit_nonce: from.u64()?,
            owes_key_update: from.bool()?,
            owes_no_renegotiation: from.bool()?,
            closed: from.bool()?,
        };
        // Only TLS 1.3 has KeyUpdates.
        if sender.owes_key_update && sender.protection.secret.is_none() {
            return None;
        }
        *frozen = from.0;
        Some(sender)
    }
}

impl Receiver {
    /// How many bytes [`freeze`](Self::freeze) appends.
    pub const FROZEN_BYTES: usize = Protection::FROZEN_BYTES + 1 + 4 + 8 + 8 + 3 + 1;

    /// As [`Sender::freeze`].
    pub fn freeze(self, out: &mut Vec<u8>) {
        let Receiver { protection, role, messages, silent, state } = self;
        protection.freeze(out);
        out.push(match role {
            Role::Client => 0,
            Role::Server => 1,
        });
        out.extend_from_slice(&messages.head);
        put_size(out, messages.have);
        put_size(out, messages.body);
        out.extend([silent.empty, silent.warnings, silent.renegotiations]);
        out.push(match state {
            State::Open => 0,
            State::Closed => 1,
            State::Failed => 2,
        });
    }

    /// As [`Sender::thaw`].
    pub fn thaw(frozen: &mut &[u8]) -> Option<Self> {
        let mut from = Reader(frozen);
        let protection = Protection::thaw(&mut from)?;
        let role = match from.u8()? {
            0 => Role::Client,
            1 => Role::Server,
            _ => return None,
        };
        let head = from.array()?;
        let messages = Messages { head, have: from.size()?, body: from.size()? };
        if !messages.is_possible(protection.version(), role) {
            return None;
        }
        let [empty, warnings, renegotiations] = from.array()?;
        let silent = Silent { empty, warnings, renegotiations };
        if !silent.is_possible() {
            return None;
        }
        let state = match from.u8()? {
            0 => State::Open,
            1 => State::Closed,
            2 => State::Failed,
            _ => return None,
        };
        *frozen = from.0;
        Some(Receiver { protection, role, messages, silent, state })
    }
}
