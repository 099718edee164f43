//! A native session as bytes, for another process.

use std::os::fd::RawFd;

use records::{Receiver, Sender};

use crate::context::Context;
use crate::native::Native;
use crate::outgoing::Outgoing;

/// Of the encoding: a build of the module may get sessions from another one. Whoever changes what
/// [`Native::freeze`] writes, or the records crate does for it, raises this.
pub const FROZEN_VERSION: u8 = 1;

/// What a frozen session takes when nothing is on its way.
const FROZEN_BYTES: usize = 1 + Sender::FROZEN_BYTES + Receiver::FROZEN_BYTES + 3 + 3 * 8;

const _: () = assert!(
    FROZEN_VERSION == 1 && FROZEN_BYTES == 268,
    "another encoding needs another FROZEN_VERSION: change both here"
);

/// The most that may be on its way in a session that goes to another process, in bytes: what
/// carries it there has a bound.
const MAX_ON_ITS_WAY_BYTES: usize = 32 * 1024;

impl Native {
    /// Whether [`freeze`](Self::freeze) succeeds: it has not failed, and little is on its way.
    pub fn is_movable(&self) -> bool {
        let has_failed = matches!(self.found, Some(Err(_))) || self.outgoing.check().is_err();
        !has_failed && self.on_its_way() <= MAX_ON_ITS_WAY_BYTES
    }

    fn on_its_way(&self) -> usize {
        self.ahead.len() + self.opened.len() - self.opened_read + self.outgoing.kept()
    }

    /// How many bytes [`freeze`](Self::freeze) appends.
    pub fn frozen_bytes(&self) -> usize {
        FROZEN_BYTES + self.on_its_way()
    }

    /// Appends its state, secrets included: it is gone here. For [`thaw`](Self::thaw) in a process
    /// that gets a copy of its descriptor. What of `out` moves because it has not the room is not
    /// wiped: reserve [`frozen_bytes`](Self::frozen_bytes) before, and wipe ([`crate::wipe`]) the
    /// bytes as soon as they are sent.
    ///
    /// # Errors
    /// The session, if it is not [movable](Self::is_movable).
    pub fn freeze(self: Box<Self>, out: &mut Vec<u8>) -> Result<(), Box<Self>> {
        if !self.is_movable() {
            return Err(self);
        }
        out.reserve(self.frozen_bytes());
        let Native {
            algorithms: _,
            receiver,
            sender,
            outgoing,
            ahead,
            opened,
            opened_read,
            found,
            empty: _,
            clean,
            closed,
            _in_contexts: _,
        } = *self;
        out.push(FROZEN_VERSION);
        sender.freeze(out);
        receiver.freeze(out);
        out.extend([found.is_some(), clean, closed].map(u8::from));
        for bytes in [&ahead[..], &opened[opened_read..], outgoing.kept_bytes()] {
            out.extend_from_slice(&(bytes.len() as u64).to_le_bytes());
            out.extend_from_slice(bytes);
        }
        Ok(())
    }

    /// The session that [`freeze`](Self::freeze) consumed, of the front of `frozen`, which is what
    /// remains; the bytes are to be wiped. `None` if these are not its bytes, or sessions of this
    /// context cannot be native.
    ///
    /// # Safety
    /// `fd` is a copy of its descriptor, and open for as long as the session lives.
    pub unsafe fn thaw(context: &'static Context, frozen: &mut &[u8], fd: RawFd) -> Option<Self> {
        let algorithms = context.native.as_ref().ok()?;
        let mut from = *frozen;
        if take(&mut from, 1)? != [FROZEN_VERSION] {
            return None;
        }
        let sender = Sender::thaw(&mut from)?;
        let receiver = Receiver::thaw(&mut from)?;
        let mut flags = [false; 3];
        for flag in &mut flags {
            *flag = match take(&mut from, 1)? {
                [0] => false,
                [1] => true,
                _ => return None,
            };
        }
        let mut bytes = || {
            let length = u64::from_le_bytes(take(&mut from, 8)?.try_into().ok()?);
            Some(take(&mut from, usize::try_from(length).ok()?)?.to_vec())
        };
        let (ahead, opened, kept) = (bytes()?, bytes()?, bytes()?);
        *frozen = from;
        let mut native = Native::new(algorithms, fd, (receiver, sender), ahead);
        let [has_ended, clean, closed] = flags;
        native.found = has_ended.then_some(Ok(0));
        (native.clean, native.closed) = (clean, closed);
        native.opened = opened;
        native.outgoing = Outgoing::with_kept(fd, kept);
        Some(native)
    }
}

/// The first bytes of `from`, which is what remains.
fn take<'a>(from: &mut &'a [u8], count: usize) -> Option<&'a [u8]> {
    let (taken, rest) = from.split_at_checked(count)?;
    *from = rest;
    Some(taken)
}
