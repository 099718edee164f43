//! A peer that seals what it likes, and who receives it.

use records::{Alert, Content, Fatal, Receiver, Role, Suite, Version};

use super::{Direction, Ring};

pub(crate) const CHANGE_CIPHER_SPEC: u8 = 20;
pub(crate) const ALERT: u8 = 21;
pub(crate) const HANDSHAKE: u8 = 22;
pub(crate) const DATA: u8 = 23;

pub(crate) const TLS12: Version = Version::Tls12;
pub(crate) const TLS13: Version = Version::Tls13;
pub(crate) const VERSIONS: [Version; 2] = [TLS12, TLS13];
pub(crate) const ROLES: [Role; 2] = [Role::Client, Role::Server];

/// A peer, and who receives what it sends.
pub(crate) struct Pair {
    pub peer: Direction,
    pub receiver: Receiver,
}

impl Pair {
    pub(crate) fn new(version: Version, role: Role) -> Self {
        Self::of(version, Suite::Aes128Gcm, role)
    }

    pub(crate) fn of(version: Version, suite: Suite, role: Role) -> Self {
        let peer = Direction::new(version, suite);
        let receiver = Receiver::new(peer.proved(), role);
        Pair { peer, receiver }
    }

    pub(crate) fn open(&mut self, mut record: Vec<u8>) -> Result<Content, Fatal> {
        self.receiver.open(&Ring, &mut record)
    }

    pub(crate) fn give(&mut self, kind: u8, text: &[u8]) -> Result<Content, Fatal> {
        let record = self.peer.seal(kind, text);
        self.open(record)
    }

    pub(crate) fn give_data(&mut self, text: &[u8]) {
        let mut record = self.peer.seal(DATA, text);
        let place = match self.receiver.open(&Ring, &mut record) {
            Ok(Content::Data(place)) => place,
            other => panic!("{other:?}"),
        };
        assert_eq!(record[place], *text);
    }

    /// It is refused, and nothing is received any more, be it right.
    pub(crate) fn refuses(mut self, kind: u8, text: &[u8], alert: Alert, why: &str) {
        let record = self.peer.seal(kind, text);
        self.refuses_record(record, Some(alert), why);
    }

    pub(crate) fn refuses_record(mut self, record: Vec<u8>, alert: Option<Alert>, why: &str) {
        let fatal = self.open(record).expect_err("refused");
        assert_eq!((fatal.alert, fatal.to_string().as_str()), (alert, why));
        for _ in 0..2 {
            let fatal = self.give(DATA, b"behind").expect_err("ended");
            assert_eq!(
                (fatal.alert, fatal.to_string().as_str()),
                (None, "the TLS session has ended")
            );
        }
    }
}

pub(crate) fn message(kind: u8, body: &[u8]) -> Vec<u8> {
    let [.., high, middle, low] = body.len().to_be_bytes();
    [&[kind, high, middle, low], body].concat()
}
