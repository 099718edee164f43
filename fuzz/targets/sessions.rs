//! Sessions after the handshake, against OpenSSL in both roles. One session is there twice, from the
//! same state on: it has left OpenSSL, and it goes on in it. Both are given the same bytes, and have to
//! say, send and refuse the same, but for what [`known`] has. An OpenSSL peer reads what the one that
//! left sends.

use openssl::ssl::{ErrorCode, SslStream};
use records::{Alert, Role, Suite, Version};

use crate::input;
use crate::known;
use crate::pair::{End, Pair};
use crate::script::{ALERT, HANDSHAKE, Script};
use crate::twins::{Left, Seen, Stand, Stayed, twins};

const MOST_STEPS: usize = 40;
/// What is given at once is given in no more pieces.
const MOST_PIECES: usize = 300;
/// No message is longer that OpenSSL looks at to its end.
const LONGEST_MESSAGE: usize = 140_000;

/// A byte of flags, one for the sizes of pieces, one for that of reads and for what was said before,
/// then steps.
pub fn run(mut data: &[u8]) {
    let [flags, piece, before] = [(); 3].map(|()| input::byte(&mut data));
    let version = if flags & 1 == 0 { Version::Tls13 } else { Version::Tls12 };
    let role = if flags & 2 == 0 { Role::Server } else { Role::Client };
    let suite = match flags >> 2 & 3 {
        0 | 1 => Suite::Aes128Gcm,
        2 => Suite::Aes256Gcm,
        _ => Suite::Chacha20Poly1305,
    };
    let piece = if flags & 16 == 0 { 1 + usize::from(piece) } else { usize::MAX };
    let room = [16_384, 65_536, 100, 1 + usize::from(before)][usize::from(before >> 6)];
    let pair = Pair::new(version, suite, role, 1 + (before & 3));
    let (left, stayed) = twins(pair.ours, &pair.sent, room);
    let mut trial = Trial {
        version,
        role,
        script: Script::new(pair.received),
        peer: pair.peer,
        heard: Vec::new(),
        said: Vec::new(),
        peer_has_ended: false,
        has_closed: false,
        left,
        stayed,
        piece,
    };
    for _ in 0..MOST_STEPS {
        if data.is_empty() || !trial.step(&mut data) {
            break;
        }
    }
    if trial.give() && trial.left.seen.stand == Stand::Open {
        trial.left.cut();
        trial.stayed.cut();
        trial.compare();
    }
    Pair::forget(&mut trial.peer);
}

struct Trial {
    version: Version,
    role: Role,
    script: Script,
    peer: SslStream<End>,
    /// What the peer has read, and what it is to read.
    heard: Vec<u8>,
    said: Vec<u8>,
    peer_has_ended: bool,
    /// We have said so.
    has_closed: bool,
    left: Left,
    stayed: Stayed,
    piece: usize,
}

impl Trial {
    /// Whether both go on.
    fn step(&mut self, data: &mut &[u8]) -> bool {
        let step = input::byte(data);
        let (kind, more) = (step & 15, step >> 4 & 7);
        match kind {
            0 | 1 => self.script.peer_acts(&mut self.peer, self.role == Role::Client, more, data),
            2 | 3 => {
                if !self.give() {
                    return false;
                }
                self.act(kind, more, data);
                return self.compare();
            }
            _ => self.script.forge(kind, more, data),
        }
        // The others come with what follows.
        step >> 7 == 0 || self.give()
    }

    /// We do something.
    fn act(&mut self, kind: u8, more: u8, data: &mut &[u8]) {
        if kind == 3 && more & 1 == 0 {
            self.left.move_on();
            return;
        }
        // OpenSSL sends nothing while a handshake message has come in part.
        if self.has_closed || self.stayed.is_within_message() {
            return;
        }
        if kind == 3 {
            self.has_closed = true;
            self.left.close();
            self.stayed.close();
            return;
        }
        let count = usize::from(input::byte(data));
        let count = if more & 1 == 0 { count } else { count * 201 };
        if count > 0 {
            let text: Vec<u8> = (0..count).map(|at| (at * 11 + count) as u8).collect();
            self.left.write(&text);
            self.stayed.write(&text);
            self.said.extend(text);
        }
    }

    /// Gives both what has come, in pieces. Returns whether they go on.
    fn give(&mut self) -> bool {
        let stream = std::mem::take(&mut self.script.stream);
        let piece = self.piece.max(stream.len() / MOST_PIECES).max(1);
        for piece in stream.chunks(piece) {
            self.left.give(piece);
            self.stayed.give(piece);
        }
        self.compare()
    }

    /// Compares what is seen of both, and has the peer read. Returns whether they go on.
    fn compare(&mut self) -> bool {
        let output = self.left.take_output();
        self.stayed.take_output();
        self.peer_reads(&output);
        let stand = [&self.left.seen.stand, &self.stayed.seen.stand];
        if matches!(stand, [Stand::Refused(_), Stand::Open]) && self.stayed.is_within_message() {
            self.give_rest();
        }
        let (left, stayed) = (&self.left.seen, &self.stayed.seen);
        let is_same = match (&left.stand, &stayed.stand) {
            (Stand::Refused(_), Stand::Refused(_)) => left.fatal_alert() == stayed.fatal_alert(),
            (left, stayed) => left == stayed,
        };
        if !is_same {
            let alerts = [left, stayed].map(Seen::fatal_alert);
            assert!(
                known::is_known(self.version, &left.stand, &stayed.stand),
                "{:?}, {:?}: {:?} who left, {:?} who stayed, {alerts:?}",
                self.version,
                self.role,
                left.stand,
                stayed.stand,
            );
            return false;
        }
        assert!(left.data == stayed.data, "the same data");
        let is_refused = matches!(left.stand, Stand::Refused(_));
        let sent = [left, stayed].map(|seen| without_repetition(&seen.sent));
        assert!(sent[0] == sent[1], "{:?} sent", sent.each_ref().map(|sent| shown(sent)));
        !is_refused && matches!(left.stand, Stand::Open | Stand::Closed)
    }

    /// Who stayed looks at whole messages, or at whole headers, where who left has seen enough.
    fn give_rest(&mut self) {
        let mut left = LONGEST_MESSAGE;
        while left > 0 && self.stayed.seen.stand == Stand::Open {
            self.script.seal_messages(&[0; 16_384], 16_384);
            let stream = std::mem::take(&mut self.script.stream);
            self.stayed.give(&stream);
            left = left.saturating_sub(16_384);
        }
        self.stayed.take_output();
    }

    /// The peer understands all that is sent.
    fn peer_reads(&mut self, output: &[u8]) {
        self.peer.get_ref().incoming.borrow_mut().extend(output);
        let mut buffer = [0; 16_384];
        while !self.peer_has_ended {
            match self.peer.ssl_read(&mut buffer) {
                Ok(0) => self.peer_has_ended = true,
                Ok(count) => self.heard.extend_from_slice(&buffer[..count]),
                Err(error) if error.code() == ErrorCode::WANT_READ => break,
                Err(error) => {
                    self.peer_has_ended = true;
                    if error.code() != ErrorCode::ZERO_RETURN {
                        self.peer_fails(&error);
                    }
                }
            }
        }
        if self.peer.get_ref().incoming.borrow().is_empty() && !self.peer_has_ended {
            assert!(self.heard == self.said, "the peer reads what was written");
        }
        self.script.pass_on(&mut self.peer);
    }

    /// It was told why, or that there is no renegotiation.
    fn peer_fails(&self, error: &openssl::ssl::Error) {
        let last = self.left.seen.sent.last();
        let is_told = self.left.seen.fatal_alert().is_some();
        let is_refused = self.version == Version::Tls12
            && self.left.seen.sent.contains(&(ALERT, vec![1, Alert::NO_RENEGOTIATION.0]));
        assert!(is_told || is_refused, "{error}, {last:?}");
    }
}

/// What is sent, but that an answer comes once where the same has been asked for more than once (RFC
/// 8446 4.6.3), and not in front of a fatal alert.
fn without_repetition(sent: &[(u8, Vec<u8>)]) -> Vec<&(u8, Vec<u8>)> {
    let is_answer = |record: &(u8, Vec<u8>)| match record.0 {
        HANDSHAKE => record.1 == [24, 0, 0, 1, 0],
        ALERT => record.1 == [1, Alert::NO_RENEGOTIATION.0],
        _ => false,
    };
    let mut kept: Vec<&(u8, Vec<u8>)> = Vec::new();
    for record in sent {
        if record.0 == ALERT && record.1[0] == 2 && kept.last().is_some_and(|last| is_answer(last)) {
            kept.pop();
        }
        if !is_answer(record) || kept.last() != Some(&record) {
            kept.push(record);
        }
    }
    kept
}

/// Types, and the beginnings of texts.
fn shown(sent: &[&(u8, Vec<u8>)]) -> Vec<(u8, usize, Vec<u8>)> {
    let from = sent.len().saturating_sub(8);
    let start = |text: &[u8]| text[..text.len().min(5)].to_vec();
    sent[from..].iter().map(|(kind, text)| (*kind, text.len(), start(text))).collect()
}

