//! How a record begins, and how long it may be.

use std::ops::Range;

use crate::alert::Alert;
use crate::error::{Fatal, Reason};
use crate::suite::{TAG_BYTES, Version};

/// The type, the version and the length (RFC 8446 5.1).
pub const HEADER_BYTES: usize = 5;
/// The most data that a record has (RFC 8446 5.1).
pub const MAX_TEXT_BYTES: usize = 1 << 14;
/// The most that a record has behind its header in TLS 1.2 (RFC 5246 6.2.3).
const MAX_TLS12_BODY_BYTES: usize = MAX_TEXT_BYTES + 2048;
/// The same in TLS 1.3 (RFC 8446 5.2).
const MAX_TLS13_BODY_BYTES: usize = MAX_TEXT_BYTES + 256;
/// The longest record that is taken.
pub const MAX_RECORD_BYTES: usize = HEADER_BYTES + MAX_TLS12_BODY_BYTES;

/// Content types.
pub(crate) const CHANGE_CIPHER_SPEC: u8 = 20;
pub(crate) const ALERT: u8 = 21;
pub(crate) const HANDSHAKE: u8 = 22;
pub(crate) const DATA: u8 = 23;

/// What each record has as its version; in TLS 1.3 it is looked at by nobody (RFC 8446 5.1).
pub(crate) const VERSION: [u8; 2] = [3, 3];

/// The header of a record whose ciphertext, with all that belongs to it, is that long.
pub(crate) fn header(kind: u8, length: usize) -> [u8; HEADER_BYTES] {
    debug_assert!(length <= MAX_TLS12_BODY_BYTES);
    let [.., high, low] = length.to_be_bytes();
    [kind, VERSION[0], VERSION[1], high, low]
}

/// How long the record is that begins with `start`, header included; none if too few bytes of it
/// are there to tell. A record that cannot be right is refused as soon as that is seen.
///
/// # Errors
/// The length is above the limit, or the type or version is not one that is encrypted.
pub fn record_bytes(version: Version, start: &[u8]) -> Result<Option<usize>, Fatal> {
    let Some(kind) = start.first() else { return Ok(None) };
    check_type(version, *kind)?;
    let [_, major, minor, high, low, ..] = *start else { return Ok(None) };
    // RFC 8446 5.1: ignored for all purposes.
    if version == Version::Tls12 && [major, minor] != VERSION {
        return Err(Fatal::new(Alert::PROTOCOL_VERSION, Reason::RecordVersion));
    }
    let body = usize::from(u16::from_be_bytes([high, low]));
    let max = match version {
        Version::Tls12 => MAX_TLS12_BODY_BYTES,
        Version::Tls13 => MAX_TLS13_BODY_BYTES,
    };
    if body > max {
        return Err(Fatal::new(Alert::RECORD_OVERFLOW, Reason::RecordTooLong));
    }
    // Nothing shorter was sealed (RFC 8446 5.2, RFC 5246 6.2.3.3).
    if body < TAG_BYTES {
        return Err(Fatal::new(Alert::BAD_RECORD_MAC, Reason::BadMac));
    }
    Ok(Some(HEADER_BYTES + body))
}

/// RFC 8446 5.2: all that is encrypted has the outer type application_data. RFC 8446 5: a
/// ChangeCipherSpec after the handshake is an unexpected record type.
fn check_type(version: Version, kind: u8) -> Result<(), Fatal> {
    let reason = match (version, kind) {
        (_, DATA) | (Version::Tls12, ALERT | HANDSHAKE) => return Ok(()),
        (_, CHANGE_CIPHER_SPEC) => Reason::ChangeCipherSpec,
        _ => Reason::RecordType,
    };
    Err(Fatal::new(Alert::UNEXPECTED_MESSAGE, reason))
}

/// The type of what was opened at `place` in TLS 1.3, which is the last byte that is not 0, and where
/// its text is (RFC 8446 5.4).
pub(crate) fn without_padding(
    record: &[u8],
    place: Range<usize>,
) -> Result<(u8, Range<usize>), Fatal> {
    let text = &record[place.clone()];
    // RFC 8446 5.4: the limit holds with the padding.
    if text.len() > MAX_TEXT_BYTES + 1 {
        return Err(Fatal::new(Alert::RECORD_OVERFLOW, Reason::RecordTooLong));
    }
    let Some(last) = text.iter().rposition(|byte| *byte != 0) else {
        return Err(Fatal::new(Alert::UNEXPECTED_MESSAGE, Reason::NoContentType));
    };
    Ok((text[last], place.start..place.start + last))
}
