//! A TLS session without OpenSSL's `SSL`.

use std::io;
use std::os::fd::RawFd;

use records::{Content, Fatal, HEADER_BYTES, MAX_RECORD_BYTES, Receiver, Sender, TAG_BYTES};
use relay::{Budget, Tls};

use crate::algorithms::Algorithms;
use crate::evp::Evp;
use crate::outgoing::Outgoing;
use crate::thread::{self, INBOX_BYTES, OUTBOX_TEXT_BYTES, Scratch};

/// What a record with data costs beside its bytes, see [`Budget`].
const RECORD_COST: usize = 2048;
/// What one without data costs: new keys and the answer that says so (KeyUpdate) take several times
/// as long as a small record.
const SILENT_COST: usize = 32 * 1024;

/// A TLS session whose records are protected here, with I/O on a non-blocking descriptor of the
/// relay's. While nothing is on its way it has its secrets and no buffer.
#[derive(Debug)]
pub struct Native {
    pub(crate) algorithms: &'static Algorithms,
    pub(crate) receiver: Receiver,
    pub(crate) sender: Sender,
    pub(crate) outgoing: Outgoing,
    /// What was received and not yet opened.
    pub(crate) ahead: Vec<u8>,
    /// What was opened and had no room, of which so many bytes were read since.
    pub(crate) opened: Vec<u8>,
    pub(crate) opened_read: usize,
    /// What a read came upon behind bytes, for the next read to say.
    pub(crate) found: Option<io::Result<usize>>,
    /// The socket was found empty and not asked again since.
    pub(crate) empty: bool,
    pub(crate) clean: bool,
    pub(crate) closed: bool,
    pub(crate) _in_contexts: InContexts,
}

/// Has no keys of a session in its thread's contexts once it is gone.
#[derive(Debug)]
pub(crate) struct InContexts;

impl Drop for InContexts {
    fn drop(&mut self) {
        thread::forget_keys();
    }
}

/// How far a read came.
struct Reading<'a> {
    buffer: &'a mut [u8],
    filled: usize,
}

impl Reading<'_> {
    /// Whether a record can be looked at whose text may be so long.
    fn has_room(&self, text: usize) -> bool {
        self.filled == 0 || text <= self.buffer.len() - self.filled
    }

    /// Takes what there is room for, and returns the rest.
    fn take<'b>(&mut self, text: &'b [u8]) -> &'b [u8] {
        let room = &mut self.buffer[self.filled..];
        let (taken, rest) = text.split_at(text.len().min(room.len()));
        room[..taken.len()].copy_from_slice(taken);
        self.filled += taken.len();
        rest
    }
}

/// Why a read looks at no more records.
enum Stop {
    /// More of one has to come.
    Wanting,
    /// There is no room for its text.
    Full,
    /// The budget is spent.
    Spent,
    /// The end, or an error.
    Found(io::Result<usize>),
}

impl Native {
    pub(crate) fn new(
        algorithms: &'static Algorithms,
        fd: RawFd,
        (receiver, sender): (Receiver, Sender),
        ahead: Vec<u8>,
    ) -> Self {
        Native {
            algorithms,
            receiver,
            sender,
            outgoing: Outgoing::new(fd),
            ahead,
            opened: Vec::new(),
            opened_read: 0,
            found: None,
            empty: false,
            clean: false,
            closed: false,
            _in_contexts: InContexts,
        }
    }

    fn read_with(
        &mut self,
        scratch: &mut Scratch,
        reading: &mut Reading<'_>,
        budget: &mut Budget,
    ) -> io::Result<()> {
        let Scratch { evp, inbox, outbox } = scratch;
        // What is received is not more than what there is room for, and a record at least.
        let most = (reading.buffer.len() + 4 * (HEADER_BYTES + 8 + TAG_BYTES + 1))
            .clamp(MAX_RECORD_BYTES, INBOX_BYTES);
        let mut ahead = std::mem::take(&mut self.ahead);
        let mut have = ahead.len().min(inbox.len());
        inbox[..have].copy_from_slice(&ahead[..have]);
        // More than that was given when it was taken over, or by who froze it.
        let mut unseen = have..ahead.len();
        let mut at = 0;
        let stop = loop {
            let stop = self.open_records(evp, &mut inbox[..have], &mut at, reading, budget);
            if !matches!(stop, Stop::Wanting) {
                break stop;
            }
            inbox.copy_within(at..have, 0);
            have -= at;
            at = 0;
            if !unseen.is_empty() {
                let more = unseen.len().min(inbox.len() - have);
                inbox[have..have + more].copy_from_slice(&ahead[unseen.start..][..more]);
                have += more;
                unseen.start += more;
                continue;
            }
            if self.empty {
                break Stop::Wanting;
            }
            let room = &mut inbox[have..most.max(have + 1)];
            match self.outgoing.receive(room) {
                Ok(0) => break Stop::Found(Ok(0)),
                Ok(n) => {
                    // Readiness is told by its edges: a short read has emptied the socket. Where an
                    // urgent byte stopped it, who reads asks again (relay's Stream).
                    self.empty = n < room.len();
                    have += n;
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.empty = true;
                    break Stop::Wanting;
                }
                Err(error) => break Stop::Found(Err(error)),
            }
        };
        self.keep_ahead(&mut ahead, &inbox[at..have], unseen.start);
        let stop = match (self.answer(evp, outbox), stop) {
            (Err(error), Stop::Full | Stop::Spent | Stop::Wanting) => Stop::Found(Err(error)),
            (_, stop) => stop,
        };
        match stop {
            Stop::Full => {}
            Stop::Found(found) if reading.filled > 0 => self.found = Some(found),
            // Only now, when all before it is delivered.
            Stop::Found(found) => return found.map(|_| ()),
            Stop::Spent if reading.filled == 0 => return Err(io::ErrorKind::Interrupted.into()),
            Stop::Wanting if reading.filled == 0 => {
                self.outgoing.check()?;
                self.empty = false;
                return Err(io::ErrorKind::WouldBlock.into());
            }
            Stop::Spent | Stop::Wanting => {}
        }
        Ok(())
    }

    /// Opens the records that are whole, from `at` on, which it moves behind them.
    fn open_records(
        &mut self,
        evp: &Evp<'_>,
        inbox: &mut [u8],
        at: &mut usize,
        reading: &mut Reading<'_>,
        budget: &mut Budget,
    ) -> Stop {
        loop {
            if budget.is_spent() {
                return Stop::Spent;
            }
            let rest = &mut inbox[*at..];
            let length = match self.receiver.record_bytes(rest) {
                Ok(Some(length)) if length <= rest.len() => length,
                Ok(_) => return Stop::Wanting,
                Err(fatal) => return Stop::Found(Err(self.fail(evp, fatal))),
            };
            if !reading.has_room(length - HEADER_BYTES - TAG_BYTES) {
                return Stop::Full;
            }
            *at += length;
            let record = &mut rest[..length];
            let content = match self.receiver.open(evp, record) {
                Ok(content) => content,
                Err(fatal) => return Stop::Found(Err(self.fail(evp, fatal))),
            };
            budget.charge(match content {
                Content::Data(_) => RECORD_COST,
                _ => SILENT_COST,
            });
            match content {
                Content::Data(place) => {
                    let unread = reading.take(&record[place]);
                    if !unread.is_empty() {
                        self.opened = unread.to_vec();
                        return Stop::Full;
                    }
                }
                Content::Nothing => {}
                Content::KeyUpdate { answer } => {
                    if answer {
                        self.sender.owe_key_update();
                    }
                }
                Content::Renegotiation => self.sender.owe_no_renegotiation(),
                Content::CloseNotify => {
                    self.clean = true;
                    return Stop::Found(Ok(0));
                }
            }
        }
    }

    /// Keeps what was not looked at: `rest`, and behind it `ahead` from `unseen` on. The room for
    /// it stays for as long as there is something.
    fn keep_ahead(&mut self, ahead: &mut Vec<u8>, rest: &[u8], unseen: usize) {
        if rest.is_empty() && unseen == ahead.len() {
            return;
        }
        let mut ahead = std::mem::take(ahead);
        ahead.splice(..unseen, rest.iter().copied());
        self.ahead = ahead;
    }

    /// Tells the peer what is wrong with what it sent.
    fn fail(&mut self, evp: &Evp<'_>, fatal: Fatal) -> io::Error {
        let text = fatal.to_string();
        if let Some(alert) = fatal.alert
            && !self.closed
        {
            let mut alert_record = Vec::new();
            // The session ends anyway.
            if self.sender.seal_fatal(evp, alert, &mut alert_record).is_ok() {
                let _ = self.outgoing.send(&alert_record, false);
            }
        }
        self.closed = true;
        io::Error::other(text)
    }

    /// Sends what the peer is owed, unless that would have to be kept: it goes when what is kept has
    /// gone, or before data. However often the peer asks meanwhile, it is once.
    fn answer(&mut self, evp: &Evp<'_>, outbox: &mut Vec<u8>) -> io::Result<()> {
        if self.closed || self.outgoing.kept() > 0 || !self.sender.owes() {
            return Ok(());
        }
        outbox.clear();
        self.sender.seal_owed(evp, outbox).map_err(io::Error::other)?;
        // An error is one of the socket's, which what is done next finds.
        let _ = self.outgoing.send(outbox, false);
        Ok(())
    }
}

impl Tls for Native {
    fn read(&mut self, buffer: &mut [u8], budget: &mut Budget) -> io::Result<usize> {
        let mut reading = Reading { buffer, filled: 0 };
        if !self.opened.is_empty() {
            if reading.take(&self.opened[self.opened_read..]).is_empty() {
                (self.opened, self.opened_read) = (Vec::new(), 0);
            } else {
                self.opened_read += reading.filled;
            }
            return Ok(reading.filled);
        }
        if let Some(found) = self.found.take() {
            return found;
        }
        if self.clean {
            return Ok(0);
        }
        thread::with(self.algorithms, |scratch| self.read_with(scratch, &mut reading, budget))?;
        Ok(reading.filled)
    }

    fn recheck(&mut self) {
        self.empty = false;
    }

    fn closed_cleanly(&self) -> bool {
        self.clean
    }

    fn write(&mut self, bytes: &[u8], more: bool) -> io::Result<()> {
        self.outgoing.check()?;
        thread::with(self.algorithms, |Scratch { evp, outbox, .. }| {
            let mut parts = bytes.chunks(OUTBOX_TEXT_BYTES).peekable();
            while let Some(part) = parts.next() {
                outbox.clear();
                self.sender.seal_data(evp, part, outbox).map_err(io::Error::other)?;
                self.outgoing.send(outbox, more || parts.peek().is_some())?;
            }
            Ok(())
        })
    }

    fn flush(&mut self) -> io::Result<()> {
        self.outgoing.flush()?;
        if self.closed || !self.sender.owes() {
            return Ok(());
        }
        thread::with(self.algorithms, |Scratch { evp, outbox, .. }| self.answer(evp, outbox))?;
        self.outgoing.flush()
    }

    fn kept(&self) -> usize {
        self.outgoing.kept()
    }

    fn frozen_bytes(&self) -> Option<usize> {
        self.is_movable().then(|| Native::frozen_bytes(self))
    }

    fn freeze(self: Box<Self>, out: &mut Vec<u8>) {
        // One that cannot be was not asked.
        drop(Native::freeze(self, out));
    }

    fn close(&mut self) -> io::Result<()> {
        if self.closed {
            return Ok(());
        }
        self.closed = true;
        thread::with(self.algorithms, |Scratch { evp, outbox, .. }| {
            outbox.clear();
            self.sender.seal_close_notify(evp, outbox).map_err(io::Error::other)?;
            // A FIN follows.
            self.outgoing.send(outbox, true)
        })
    }
}
