//! Why a connection cannot go on.

use std::error::Error;
use std::fmt;

use crate::alert::Alert;
use crate::crypto::CryptoError;

/// A direction that is received cannot go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fatal {
    /// Why.
    pub reason: Reason,
    /// What the peer is to be told (RFC 8446 6.2); none if it is it who said so.
    pub alert: Option<Alert>,
}

impl Fatal {
    pub(crate) const fn new(alert: Alert, reason: Reason) -> Self {
        Fatal { reason, alert: Some(alert) }
    }
}

impl fmt::Display for Fatal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.reason, f)
    }
}

impl Error for Fatal {}

macro_rules! reasons {
    ($($name:ident $text:literal;)*) => {
        /// What is wrong with what was received. It prints as a text without anything of the
        /// peer's but the number of an alert.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Reason {
            $(#[doc = concat!("\"", $text, "\".")] $name,)*
            /// The peer sent this alert.
            PeerAlert(Alert),
        }

        impl fmt::Display for Reason {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                match self {
                    $(Reason::$name => f.write_str($text),)*
                    Reason::PeerAlert(alert) => write!(f, "the peer sent the TLS alert {alert}"),
                }
            }
        }
    };
}

reasons! {
    RecordType "unexpected type of TLS record";
    RecordVersion "TLS record of another version";
    RecordTooLong "TLS record too long";
    BadMac "TLS record that does not decrypt";
    NoContentType "TLS record without a content type";
    EmptyRecord "empty TLS record of a type that must not be empty";
    TooManyEmptyRecords "too many empty TLS records";
    ChangeCipherSpec "TLS ChangeCipherSpec after the handshake";
    Message "unexpected TLS handshake message";
    MessageInterrupted "other TLS record within a handshake message";
    MessageLength "TLS handshake message of a wrong length";
    KeyUpdateNotLast "TLS handshake message behind a KeyUpdate in one record";
    KeyUpdateValue "TLS KeyUpdate with an unknown value";
    TooManyRenegotiations "too many attempts at TLS renegotiation";
    AlertLength "TLS alert of a wrong length";
    AlertLevel "TLS alert of an unknown level";
    TooManyWarnings "too many TLS warnings";
    Exhausted "no TLS record numbers left";
    Crypto "the TLS library failed";
    Ended "the TLS session has ended";
}

/// Why nothing was sealed. What was in the buffer is still there, and nothing more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SealError {
    /// The library failed. This sender seals nothing any more.
    Crypto,
    /// All numbers were used (RFC 8446 5.3, RFC 5246 6.1).
    Exhausted,
    /// close_notify or a fatal alert was sealed, or the library failed earlier (RFC 8446 6.1).
    Closed,
}

impl From<CryptoError> for SealError {
    fn from(_: CryptoError) -> Self {
        SealError::Crypto
    }
}

impl fmt::Display for SealError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            SealError::Crypto => "the TLS library failed",
            SealError::Exhausted => "no TLS record numbers left",
            SealError::Closed => "the TLS session has ended",
        })
    }
}

impl Error for SealError {}
