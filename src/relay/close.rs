//! What a Close frame may say (RFC 6455 5.5.1, 7.4).

use crate::rules::GOING_AWAY;

/// The most bytes of a reason: a control frame has 125, of which the status code takes two.
const MAX_REASON_BYTES: usize = 123;

/// A status code that may be sent, and a reason that a Close frame has room for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Close {
    pub(crate) code: u16,
    pub(crate) reason: String,
}

impl Close {
    /// A code that may not stand in a Close frame becomes 1001, "going away". Of a reason that is too
    /// long, or not UTF-8, the beginning is left.
    pub fn new(code: u16, reason: &[u8]) -> Self {
        let code = if may_be_sent(code) { code } else { GOING_AWAY };
        let reason = &reason[..reason.len().min(MAX_REASON_BYTES)];
        let reason = match str::from_utf8(reason) {
            Ok(reason) => reason,
            Err(error) => str::from_utf8(&reason[..error.valid_up_to()]).unwrap_or_default(),
        };
        Close { code, reason: reason.to_owned() }
    }

    /// Its status code.
    pub fn code(&self) -> u16 {
        self.code
    }

    /// Its reason, for [`Tracker::close_frame`](crate::Tracker::close_frame).
    pub fn reason(&self) -> &str {
        &self.reason
    }
}

/// Whether a peer may be sent this status code. 1004 is reserved; 1005, 1006 and 1015 stand for what
/// was not sent.
fn may_be_sent(code: u16) -> bool {
    matches!(code, 1000..=1003 | 1007..=1014 | 3000..=4999)
}

#[cfg(test)]
mod tests {
    use super::{Close, GOING_AWAY, MAX_REASON_BYTES};

    #[test]
    fn codes_that_may_not_be_sent_are_not() {
        for code in [1000, 1001, 1003, 1007, 1012, 1014, 3000, 4999] {
            assert_eq!(Close::new(code, b"").code, code);
        }
        for code in [0, 999, 1004, 1005, 1006, 1015, 1016, 2999, 5000, u16::MAX] {
            assert_eq!(Close::new(code, b"").code, GOING_AWAY);
        }
    }

    #[test]
    fn a_reason_is_cut_between_two_characters() {
        let of = |reason: &[u8]| Close::new(1001, reason).reason;
        assert_eq!(of("bis später".as_bytes()), "bis später");
        assert_eq!(of(&[b'x'; 300]), "x".repeat(MAX_REASON_BYTES));
        // Two bytes each: the 62nd does not fit.
        assert_eq!(of("ä".repeat(100).as_bytes()), "ä".repeat(61));
        assert_eq!(of("x".repeat(122).as_bytes()).len(), 122);
        assert_eq!(of(b"gone\xff away"), "gone");
        assert_eq!(of(b"\x80"), "");
    }
}
