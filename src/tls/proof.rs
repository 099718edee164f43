//! What shows that the keys of a direction are known, and that nothing in it is half done.

use std::cell::RefCell;

use records::{
    Crypto, CryptoError, IV_BYTES, Keys, OpenError, ProofError, Proved, Suite, TAG_BYTES,
    TrafficKeys, Version, wipe,
};

use crate::evp::Evp;
use crate::follower::Follower;
use crate::reason::Reason;

/// How many records of earlier keys may be among those that were counted. With OpenSSL 3.0 there are
/// none: it has sent all that has the old keys before it tells the new secret.
const MAX_MISCOUNTED: u64 = 8;

const HANDSHAKE: u8 = 22;
const DATA: u8 = 23;

/// Handshake messages behind which nothing is awaited: NewSessionTicket, Finished.
const LAST_MESSAGES: [u8; 2] = [4, 20];

/// Which way a direction goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Direction {
    Received,
    Sent,
}

/// The keys of a direction, if they open its last record.
///
/// # Errors
/// Why they are not proved, or the session cannot leave as it is.
pub(crate) fn prove(
    evp: &Evp<'_>,
    version: Version,
    keys: TrafficKeys,
    (direction, follower): (Direction, &Follower),
) -> Result<Proved, Reason> {
    let most = follower.count().checked_sub(1).ok_or(Reason::NoRecord)?;
    let last = follower.last().ok_or(Reason::LargeRecord)?;
    let witness = Witness { evp, opened: RefCell::default() };
    let numbers = most.saturating_sub(MAX_MISCOUNTED)..=most;
    let proved = keys.prove(&witness, last, numbers).map_err(|error| match error {
        ProofError::Wrong => Reason::Unproved,
        ProofError::Crypto => Reason::Failed,
    })?;
    let opened = witness.opened.borrow();
    let content = match version {
        Version::Tls12 => last.first().map(|kind| (*kind, &opened[..], 0)),
        // RFC 8446 5.4.
        Version::Tls13 => opened
            .iter()
            .rposition(|byte| *byte != 0)
            .map(|end| (opened[end], &opened[..end], opened.len() - 1 - end)),
    };
    let is_done = content.is_some_and(|(kind, text, padding)| {
        // Who pads what he sends is to go on with it (the RecordPadding of SSLOpenSSLConfCmd).
        let is_padded = direction == Direction::Sent && padding > 0;
        !is_padded && (kind == DATA || (kind == HANDSHAKE && are_last_messages(text)))
    });
    if is_done { Ok(proved) } else { Err(Reason::Unfinished) }
}

/// Whether these are handshake messages to their ends, behind which nothing is awaited.
fn are_last_messages(mut text: &[u8]) -> bool {
    if text.is_empty() {
        return false;
    }
    while let [kind, a, b, c, rest @ ..] = text {
        let length = u32::from_be_bytes([0, *a, *b, *c]);
        let rest = usize::try_from(length).ok().and_then(|length| rest.get(length..));
        match rest {
            Some(rest) if LAST_MESSAGES.contains(kind) => text = rest,
            _ => return false,
        }
    }
    text.is_empty()
}

/// Keeps what it opens, which is overwritten when it goes.
struct Witness<'a> {
    evp: &'a Evp<'a>,
    opened: RefCell<Vec<u8>>,
}

impl Drop for Witness<'_> {
    fn drop(&mut self) {
        wipe(self.opened.get_mut());
    }
}

impl Crypto for Witness<'_> {
    fn seal(
        &self,
        suite: Suite,
        keys: &Keys,
        nonce: &[u8; IV_BYTES],
        aad: &[u8],
        text: &mut [u8],
    ) -> Result<[u8; TAG_BYTES], CryptoError> {
        self.evp.seal(suite, keys, nonce, aad, text)
    }

    fn open(
        &self,
        suite: Suite,
        keys: &Keys,
        nonce: &[u8; IV_BYTES],
        aad: &[u8],
        text: &mut [u8],
        tag: &[u8; TAG_BYTES],
    ) -> Result<(), OpenError> {
        self.evp.open(suite, keys, nonce, aad, text, tag)?;
        *self.opened.borrow_mut() = text.to_vec();
        Ok(())
    }

    fn expand_label(
        &self,
        suite: Suite,
        secret: &[u8],
        label: &str,
        out: &mut [u8],
    ) -> Result<(), CryptoError> {
        self.evp.expand_label(suite, secret, label, out)
    }
}

#[cfg(test)]
mod tests {
    use super::are_last_messages;

    #[test]
    fn messages_end_with_their_record() {
        let ticket = [4, 0, 0, 3, 1, 2, 3];
        let finished = [20, 0, 0, 0];
        for whole in [&ticket[..], &finished, &[ticket, ticket].concat()] {
            assert!(are_last_messages(whole), "{whole:?}");
        }
        // Half, or such that something is awaited: KeyUpdate, CertificateRequest, HelloRequest.
        for other in [
            &[][..],
            &ticket[..3],
            &ticket[..6],
            &[&ticket[..], &[4]].concat(),
            &[24, 0, 0, 1, 0],
            &[13, 0, 0, 0],
            &[0, 0, 0, 0],
        ] {
            assert!(!are_last_messages(other), "{other:?}");
        }
    }
}
