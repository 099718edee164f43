//! Handshake messages after the handshake. They may be split over records, and one record may have
//! several (RFC 8446 5.1). Nothing of them is kept but the header and one byte.

use crate::alert::Alert;
use crate::error::{Fatal, Reason};
use crate::suite::{Role, Version};

const HELLO_REQUEST: u8 = 0;
const CLIENT_HELLO: u8 = 1;
const NEW_SESSION_TICKET: u8 = 4;
pub(crate) const KEY_UPDATE: u8 = 24;

pub(crate) const KEY_UPDATE_NOT_REQUESTED: u8 = 0;
pub(crate) const KEY_UPDATE_REQUESTED: u8 = 1;

/// The type, and the length of what follows.
const HEADER_BYTES: usize = 4;
/// Whatever its extensions are, a NewSessionTicket has no more (RFC 8446 4.6.1).
const MAX_TICKET_BYTES: usize = 4 + 4 + (1 + 0xff) + (2 + 0xffff) + (2 + 0xfffe);
/// Whatever its extensions are, a ClientHello has no more (RFC 5246 7.4.1.2).
const MAX_CLIENT_HELLO_BYTES: usize = 2 + 32 + (1 + 32) + (2 + 0xfffe) + (1 + 0xff) + (2 + 0xffff);

/// A message of which a part has come.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Messages {
    /// The first bytes of the header.
    pub head: [u8; HEADER_BYTES],
    /// How many of them have come.
    pub have: usize,
    /// How many bytes behind the header have come.
    pub body: usize,
}

/// What a message asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Asked {
    /// The peer's keys are new behind this; whether it wants new ones of us too.
    KeyUpdate { answer: bool },
    /// TLS 1.2: to be told that there is none.
    Renegotiation,
}

impl Messages {
    /// Whether a message began and is not whole.
    pub(crate) fn is_within(&self) -> bool {
        self.have > 0
    }

    /// Whether a message can be there so far.
    pub(crate) fn is_possible(&self, version: Version, role: Role) -> bool {
        match self.have {
            0 => *self == Messages::default(),
            1..HEADER_BYTES => {
                self.body == 0
                    && self.head[self.have..].iter().all(|byte| *byte == 0)
                    && self.check_header(version, role).is_ok()
            }
            HEADER_BYTES => self.body < self.length() && self.check_header(version, role).is_ok(),
            _ => false,
        }
    }

    fn length(&self) -> usize {
        let [_, high, middle, low] = self.head;
        usize::try_from(u32::from_be_bytes([0, high, middle, low])).unwrap_or(usize::MAX)
    }

    /// Takes what the next record has of messages. Whoever is asked for several things is told of
    /// one: a KeyUpdate is alone (RFC 8446 5.1), and a renegotiation is refused once.
    pub(crate) fn take(
        &mut self,
        (version, role): (Version, Role),
        mut bytes: &[u8],
    ) -> Result<Option<Asked>, Fatal> {
        let mut asked = None;
        while let Some((first, rest)) = bytes.split_first() {
            if self.have < HEADER_BYTES {
                self.head[self.have] = *first;
                self.have += 1;
                bytes = rest;
                self.check_header(version, role)?;
                if self.have < HEADER_BYTES || self.length() > 0 {
                    continue;
                }
            } else {
                let part = (self.length() - self.body).min(bytes.len());
                self.body += part;
                bytes = &bytes[part..];
                if self.body < self.length() {
                    continue;
                }
            }
            let [kind, ..] = self.head;
            *self = Messages::default();
            match kind {
                KEY_UPDATE => {
                    // RFC 8446 5.1: the keys change behind the record.
                    if !bytes.is_empty() {
                        return Err(unexpected(Reason::KeyUpdateNotLast));
                    }
                    let answer = match *first {
                        KEY_UPDATE_NOT_REQUESTED => false,
                        KEY_UPDATE_REQUESTED => true,
                        // RFC 8446 4.6.3.
                        _ => {
                            let alert = Alert::ILLEGAL_PARAMETER;
                            return Err(Fatal::new(alert, Reason::KeyUpdateValue));
                        }
                    };
                    asked = Some(Asked::KeyUpdate { answer });
                }
                HELLO_REQUEST | CLIENT_HELLO => asked = Some(Asked::Renegotiation),
                _ => {}
            }
        }
        Ok(asked)
    }

    /// Looks at the header as far as it has come.
    fn check_header(&self, version: Version, role: Role) -> Result<(), Fatal> {
        let [kind, ..] = self.head;
        let lengths = match (version, role, kind) {
            // RFC 8446 4.6.3.
            (Version::Tls13, _, KEY_UPDATE) => 1..=1,
            // RFC 8446 4.6.1: of use only for further connections.
            (Version::Tls13, Role::Client, NEW_SESSION_TICKET) => 0..=MAX_TICKET_BYTES,
            // RFC 5246 7.4.1.1.
            (Version::Tls12, Role::Client, HELLO_REQUEST) => 0..=0,
            // RFC 5246 7.4.1.2.
            (Version::Tls12, Role::Server, CLIENT_HELLO) => 0..=MAX_CLIENT_HELLO_BYTES,
            // Among others a CertificateRequest, which a back end may send where the handshake
            // offered it (RFC 8446 4.6.2): an answer needs the transcript of that (4.4.1).
            _ => return Err(unexpected(Reason::Message)),
        };
        if self.have == HEADER_BYTES && !lengths.contains(&self.length()) {
            return Err(Fatal::new(Alert::DECODE_ERROR, Reason::MessageLength));
        }
        Ok(())
    }
}

const fn unexpected(reason: Reason) -> Fatal {
    Fatal::new(Alert::UNEXPECTED_MESSAGE, reason)
}
