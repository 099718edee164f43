//! What shows that the keys of a direction are known, and that nothing in it is half done.

use records::{ProofError, Proved, TrafficKeys};

use crate::evp::Evp;
use crate::follower::Follower;
use crate::reason::Reason;

/// How many records of earlier keys may be among those that were counted. With OpenSSL 3.0 there are
/// none: it has sent all that has the old keys before it tells the new secret.
const MAX_MISCOUNTED: u64 = 8;

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
    keys: TrafficKeys,
    (direction, follower): (Direction, &Follower),
) -> Result<Proved, Reason> {
    let most = follower.count().checked_sub(1).ok_or(Reason::NoRecord)?;
    let last = follower.last().ok_or(Reason::LargeRecord)?;
    let numbers = most.saturating_sub(MAX_MISCOUNTED)..=most;
    let (proved, opened) = keys.prove(evp, last, numbers).map_err(|error| match error {
        ProofError::Wrong => Reason::Unproved,
        ProofError::Crypto => Reason::Failed,
    })?;
    // Who pads what he sends is to go on with it (the RecordPadding of SSLOpenSSLConfCmd).
    let is_padded = direction == Direction::Sent && opened.is_padded();
    let is_done = opened.is_data() || opened.messages().is_some_and(are_last_messages);
    if is_done && !is_padded { Ok(proved) } else { Err(Reason::Unfinished) }
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
