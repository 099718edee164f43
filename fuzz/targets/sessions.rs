//! Sessions after the handshake, against OpenSSL in both roles. One session is there twice, from the
//! same state on: it has left OpenSSL, and it goes on in it. Both are given the same bytes, and have to
//! say, send and refuse the same, but for what [`known`] has. An OpenSSL peer reads what the one that
//! left sends.

use openssl::ssl::{ErrorCode, SslStream};
use records::{Alert, Role, Suite, Version};

use crate::direction::Direction;
use crate::input;
use crate::known;
use crate::pair::{End, Pair};
use crate::script::{ALERT, DATA, HANDSHAKE, Script};
use crate::stayed::Stayed;
use crate::twins::{Left, Seen, Stand, twins};

const MOST_STEPS: usize = 40;
/// What is given at once is given in no more pieces.
const MOST_PIECES: usize = 40;
/// No message is longer that OpenSSL looks at to its end.
const LONGEST_MESSAGE: usize = 140_000;

/// A byte of flags, one for the sizes of pieces, one for that of reads and for what was said before,
/// then steps.
pub fn run(data: &[u8]) {
    let Err(difference) = try_once(data, Mode::Fast) else { return };
    // What is the first difference shows if each record is looked at.
    match try_once(data, Mode::Strict) {
        Ok(Compared::Known) => {}
        Ok(_) => panic!("only if several records are given at once: {difference}"),
        Err(difference) => panic!("{difference}"),
    }
}

/// How both are compared.
#[derive(Clone, Copy, PartialEq)]
enum Mode {
    /// Whenever all that there is was given. Nothing is forgiven.
    Fast,
    /// Behind each record.
    Strict,
}

/// What comparing says, where they do not differ.
#[derive(Clone, Copy, PartialEq)]
enum Compared {
    GoesOn,
    Ended,
    /// They differ as they are known to.
    Known,
}

type Found = Result<Compared, String>;

fn try_once(mut data: &[u8], mode: Mode) -> Found {
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
        mode,
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
        if data.is_empty() {
            break;
        }
        let compared = trial.step(&mut data)?;
        if compared != Compared::GoesOn {
            return Ok(compared);
        }
    }
    let compared = trial.give()?;
    if compared != Compared::GoesOn || trial.left.seen.stand != Stand::Open {
        return Ok(compared);
    }
    trial.left.cut();
    trial.stayed.cut();
    trial.compare()
}

struct Trial {
    version: Version,
    role: Role,
    mode: Mode,
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
    fn step(&mut self, data: &mut &[u8]) -> Found {
        let step = input::byte(data);
        let (kind, more) = (step & 15, step >> 4 & 7);
        match kind {
            0 | 1 => self.script.peer_acts(&mut self.peer, self.role == Role::Client, more, data),
            2 | 3 => {
                let compared = self.give()?;
                if compared != Compared::GoesOn {
                    return Ok(compared);
                }
                self.act(kind, more, data);
                return self.compare();
            }
            _ => self.script.forge(kind, more, data),
        }
        // Others come with what follows.
        if step >> 7 == 0 { Ok(Compared::GoesOn) } else { self.give() }
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

    /// Gives both what has come, in pieces.
    fn give(&mut self) -> Found {
        if self.mode == Mode::Fast {
            let stream = self.script.take_stream();
            self.give_bytes(&stream);
            return self.compare();
        }
        for (record, direction) in std::mem::take(&mut self.script.records) {
            self.give_bytes(&record);
            let compared = self.compare_behind(direction)?;
            if compared != Compared::GoesOn {
                return Ok(compared);
            }
        }
        Ok(Compared::GoesOn)
    }

    fn give_bytes(&mut self, bytes: &[u8]) {
        let piece = self.piece.max(bytes.len() / MOST_PIECES).max(1);
        for piece in bytes.chunks(piece) {
            self.left.give(piece);
            self.stayed.give(piece);
        }
    }

    /// Compares what is seen of both, and has the peer read.
    fn compare(&mut self) -> Found {
        let output = self.left.take_output();
        self.stayed.take_output();
        self.peer_reads(&output);
        let (left, stayed) = (&self.left.seen, &self.stayed.seen);
        let alerts = [left, stayed].map(Seen::fatal_alert);
        let is_same = match (&left.stand, &stayed.stand) {
            // Behind its close_notify who left says nothing (RFC 8446 6.1).
            (Stand::Refused(_), Stand::Refused(_)) => {
                alerts[0] == alerts[1] || self.has_closed && alerts[0].is_none()
            }
            (left, stayed) => left == stayed,
        };
        if !is_same {
            // OpenSSL that owes a KeyUpdate sends that first, and awaits the body of an empty ticket.
            let is_late = stayed.stand
                == Stand::Refused("mixed handshake and non handshake data".to_owned())
                && self.script.has_empty_ticket;
            if self.mode == Mode::Strict && is_late {
                return Ok(Compared::Known);
            }
            if self.mode == Mode::Strict
                && known::is_known((self.version, self.has_closed), &left.stand, &stayed.stand)
            {
                return Ok(Compared::Known);
            }
            return Err(format!(
                "{:?}, {:?}: who left: {:?}, who stayed: {:?}, {alerts:?}",
                self.version, self.role, left.stand, stayed.stand,
            ));
        }
        if left.data != stayed.data {
            return Err(format!("{} and {} bytes of data", left.data.len(), stayed.data.len()));
        }
        let sent = [left, stayed].map(|seen| without_answers(&seen.sent));
        if sent[0] != sent[1] {
            return Err(format!("they sent {:?}", sent.each_ref().map(|sent| shown(sent))));
        }
        if self.has_closed && left.sent.last() != Some(&(ALERT, vec![1, 0])) {
            return Err("who left sent something behind its close_notify".to_owned());
        }
        let is_open = matches!(left.stand, Stand::Open | Stand::Closed);
        Ok(if is_open { Compared::GoesOn } else { Compared::Ended })
    }

    /// The same behind a record with which `direction` has come so far.
    fn compare_behind(&mut self, direction: Direction) -> Found {
        let compared = self.compare();
        if compared.is_ok() || !self.has_seen_enough() {
            return compared;
        }
        self.script.direction = direction;
        self.give_rest();
        self.compare()?;
        Ok(Compared::Known)
    }

    /// Whether who left refused a message of which who stayed awaits more.
    fn has_seen_enough(&self) -> bool {
        let Stand::Refused(why) = &self.left.seen.stand else { return false };
        let whys = ["unexpected TLS handshake message", "TLS handshake message of a wrong length"];
        whys.contains(&&**why) && self.stayed.seen.stand == Stand::Open
    }

    /// Who stayed looks at whole messages, or at whole headers, where who left has seen enough.
    fn give_rest(&mut self) {
        let mut left = LONGEST_MESSAGE;
        while left > 0 && self.stayed.seen.stand == Stand::Open {
            self.script.seal_messages(&[0; 16_384], 16_384);
            self.stayed.give(&self.script.take_stream());
            left = left.saturating_sub(16_384);
        }
        self.stayed.take_output();
    }

    /// The peer understands all that is sent.
    fn peer_reads(&mut self, output: &[u8]) {
        self.peer.get_ref().incoming.borrow_mut().extend_from_slice(output);
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

/// What is sent up to the end. Answers are left out that no data follow, and those that are given
/// twice: who left answers at once, once for all that has come; OpenSSL each time, at the latest in front
/// of data. Both may be (RFC 8446 4.6.3).
fn without_answers(sent: &[(u8, Vec<u8>)]) -> Vec<&(u8, Vec<u8>)> {
    let is_answer = |(kind, text): &(u8, Vec<u8>)| match *kind {
        HANDSHAKE => *text == [24, 0, 0, 1, 0],
        ALERT => *text == [1, Alert::NO_RENEGOTIATION.0],
        _ => false,
    };
    let mut kept: Vec<&(u8, Vec<u8>)> = Vec::new();
    let mut answer = None;
    for record in sent {
        if is_answer(record) {
            answer = Some(record);
            continue;
        }
        let answer = answer.take();
        if record.0 == DATA {
            kept.extend(answer);
        } else if record.1[0] == 2 {
            // A fatal alert is compared by itself.
            break;
        }
        kept.push(record);
        if record.0 == ALERT {
            // close_notify.
            break;
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
