//! The direction that is received.

use std::ops::Range;

use crate::alert::{Alert, FATAL, WARNING};
use crate::crypto::{Crypto, OpenError};
use crate::error::{Fatal, Reason};
use crate::messages::{Asked, Messages};
use crate::proof::Proved;
use crate::protection::Protection;
use crate::record::{ALERT, DATA, HANDSHAKE, MAX_TEXT_BYTES, record_bytes, without_padding};
use crate::suite::{Role, Version};

/// The most records without data in a row, as OpenSSL has it (MAX_EMPTY_RECORDS).
const MAX_EMPTY_RECORDS: u8 = 32;
/// The most warnings in a row that are ignored, as OpenSSL has it (MAX_WARN_ALERT_COUNT).
const MAX_WARNINGS: u8 = 4;
/// The most attempts at renegotiation in a row that are refused.
const MAX_RENEGOTIATIONS: u8 = 4;

/// Decrypts what is received. One owner, and no copies.
#[derive(Debug)]
pub struct Receiver {
    pub(crate) protection: Protection,
    pub(crate) role: Role,
    pub(crate) messages: Messages,
    pub(crate) silent: Silent,
    pub(crate) state: State,
}

/// What came since there was data.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Silent {
    pub empty: u8,
    pub warnings: u8,
    pub renegotiations: u8,
}

impl Silent {
    /// Whether the connection goes on with so many.
    pub(crate) fn is_possible(&self) -> bool {
        self.empty <= MAX_EMPTY_RECORDS
            && self.warnings <= MAX_WARNINGS
            && self.renegotiations <= MAX_RENEGOTIATIONS
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum State {
    Open,
    /// close_notify came.
    Closed,
    /// An error was told.
    Failed,
}

/// What a record has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Content {
    /// Data, which are there in the record, and at least one byte.
    Data(Range<usize>),
    /// Nothing of interest.
    Nothing,
    /// The peer's keys are new from here on (RFC 8446 4.6.3).
    KeyUpdate {
        /// It asks for new ones of us too: [`crate::Sender::owe_key_update`].
        answer: bool,
    },
    /// TLS 1.2: it asks for a renegotiation, and is to be told that there is none:
    /// [`crate::Sender::owe_no_renegotiation`], sent at once.
    Renegotiation,
    /// The end. Whatever comes behind it is ignored (RFC 8446 6.1).
    CloseNotify,
}

impl Receiver {
    /// Goes on where the direction is. `role` is ours.
    pub fn new(proved: Proved, role: Role) -> Self {
        Receiver {
            protection: proved.protection,
            role,
            messages: Messages::default(),
            silent: Silent::default(),
            state: State::Open,
        }
    }

    /// The version of the session.
    pub fn version(&self) -> Version {
        self.protection.version()
    }

    /// How long the record is that begins with `start`: [`record_bytes`].
    ///
    /// # Errors
    /// See there.
    pub fn record_bytes(&self, start: &[u8]) -> Result<Option<usize>, Fatal> {
        record_bytes(self.version(), start)
    }

    /// Opens a whole record, where it lies.
    ///
    /// # Errors
    /// The connection cannot go on, and nothing is received any more.
    pub fn open<C: Crypto + ?Sized>(
        &mut self,
        crypto: &C,
        record: &mut [u8],
    ) -> Result<Content, Fatal> {
        match self.state {
            State::Open => {}
            State::Closed => return Ok(Content::CloseNotify),
            State::Failed => return Err(Fatal { reason: Reason::Ended, alert: None }),
        }
        let content = self.open_next(crypto, record);
        match content {
            Ok(Content::CloseNotify) => self.state = State::Closed,
            Err(_) => {
                self.state = State::Failed;
                // It may be frozen yet, and nobody looks at these any more.
                self.messages = Messages::default();
                self.silent = Silent::default();
            }
            Ok(_) => {}
        }
        content
    }

    fn open_next<C: Crypto + ?Sized>(
        &mut self,
        crypto: &C,
        record: &mut [u8],
    ) -> Result<Content, Fatal> {
        // Whoever gave another number of bytes has not asked for it.
        if self.record_bytes(record)? != Some(record.len()) {
            return Err(Fatal::new(Alert::INTERNAL_ERROR, Reason::RecordTooLong));
        }
        let Some(number) = self.protection.take_number() else {
            return Err(Fatal::new(Alert::INTERNAL_ERROR, Reason::Exhausted));
        };
        let place = self.protection.open(crypto, number, record).map_err(|error| match error {
            OpenError::Forged => Fatal::new(Alert::BAD_RECORD_MAC, Reason::BadMac),
            OpenError::Crypto => Fatal::new(Alert::INTERNAL_ERROR, Reason::Crypto),
        })?;
        let (kind, place) = match self.version() {
            Version::Tls12 => (record[0], place),
            Version::Tls13 => without_padding(record, place)?,
        };
        // RFC 8446 5.1, RFC 5246 6.2.1.
        if place.len() > MAX_TEXT_BYTES {
            return Err(Fatal::new(Alert::RECORD_OVERFLOW, Reason::RecordTooLong));
        }
        // RFC 8446 5.1; TLS 1.2 lets other records come between.
        let is_interrupted = self.version() == Version::Tls13 && self.messages.is_within();
        if is_interrupted && kind != HANDSHAKE {
            return Err(Fatal::new(Alert::UNEXPECTED_MESSAGE, Reason::MessageInterrupted));
        }
        // RFC 8446 5.4, RFC 5246 6.2.1: only data may be empty.
        if place.is_empty() && (kind == HANDSHAKE || kind == ALERT) {
            return Err(Fatal::new(Alert::UNEXPECTED_MESSAGE, Reason::EmptyRecord));
        }
        match kind {
            DATA => self.take_data(place),
            HANDSHAKE => self.take_messages(crypto, &record[place]),
            ALERT => self.take_alert(&record[place]),
            _ => Err(Fatal::new(Alert::UNEXPECTED_MESSAGE, Reason::RecordType)),
        }
    }

    fn take_data(&mut self, place: Range<usize>) -> Result<Content, Fatal> {
        if !place.is_empty() {
            self.silent = Silent::default();
            return Ok(Content::Data(place));
        }
        self.silent.empty += 1;
        if self.silent.empty > MAX_EMPTY_RECORDS {
            return Err(Fatal::new(Alert::UNEXPECTED_MESSAGE, Reason::TooManyEmptyRecords));
        }
        Ok(Content::Nothing)
    }

    fn take_messages<C: Crypto + ?Sized>(
        &mut self,
        crypto: &C,
        text: &[u8],
    ) -> Result<Content, Fatal> {
        match self.messages.take((self.version(), self.role), text)? {
            None => Ok(Content::Nothing),
            Some(Asked::KeyUpdate { answer }) => {
                let updated = self.protection.update(crypto);
                updated.map_err(|_| Fatal::new(Alert::INTERNAL_ERROR, Reason::Crypto))?;
                Ok(Content::KeyUpdate { answer })
            }
            Some(Asked::Renegotiation) => {
                self.silent.renegotiations += 1;
                if self.silent.renegotiations > MAX_RENEGOTIATIONS {
                    let reason = Reason::TooManyRenegotiations;
                    return Err(Fatal::new(Alert::UNEXPECTED_MESSAGE, reason));
                }
                Ok(Content::Renegotiation)
            }
        }
    }

    fn take_alert(&mut self, text: &[u8]) -> Result<Content, Fatal> {
        // RFC 8446 5.1: whole, and alone.
        let [level, alert] = *text else {
            return Err(Fatal::new(Alert::DECODE_ERROR, Reason::AlertLength));
        };
        let alert = Alert(alert);
        let is_warning = match (self.version(), level) {
            // RFC 8446 6: the level says nothing, and what is unknown is an error.
            (Version::Tls13, _) => alert == Alert::USER_CANCELED || alert == Alert::CLOSE_NOTIFY,
            (Version::Tls12, WARNING) => true,
            // RFC 5246 7.2.
            (Version::Tls12, FATAL) => false,
            (Version::Tls12, _) => {
                return Err(Fatal::new(Alert::ILLEGAL_PARAMETER, Reason::AlertLevel));
            }
        };
        if is_warning && alert == Alert::CLOSE_NOTIFY {
            return Ok(Content::CloseNotify);
        }
        if !is_warning {
            return Err(Fatal { reason: Reason::PeerAlert(alert), alert: None });
        }
        self.silent.warnings += 1;
        if self.silent.warnings > MAX_WARNINGS {
            return Err(Fatal::new(Alert::UNEXPECTED_MESSAGE, Reason::TooManyWarnings));
        }
        Ok(Content::Nothing)
    }
}
