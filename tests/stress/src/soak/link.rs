//! One connection of a soak: a handshake, then messages.

use std::io;

use super::frames::{self, Came, Reader};
use crate::bytes::Dice;
use crate::wire::{self, Wire};

/// What came.
pub(crate) enum Event {
    /// Request or response.
    Head(String),
    Message(Vec<u8>),
    Close(Option<u16>),
    /// `eof`, or `cut` for TLS without close_notify.
    End(&'static str),
}

pub(crate) struct Link {
    pub wire: Wire,
    frames: Reader,
    /// As far as it has come.
    head: Option<Vec<u8>>,
    /// A client's request, until it can be sent.
    request: Option<Vec<u8>>,
    is_client: bool,
    pub dice: Dice,
    has_ended: bool,
}

/// Reads of a turn: one tunnel does not keep the others waiting.
const READS: usize = 16;

impl Link {
    /// `request` is a client's.
    pub(crate) fn new(wire: Wire, request: Option<Vec<u8>>, seed: u64) -> Self {
        Self {
            wire,
            frames: Reader::default(),
            head: Some(Vec::new()),
            is_client: request.is_some(),
            request,
            dice: Dice::new(seed),
            has_ended: false,
        }
    }

    /// Reads and writes what can be; whether there may be more to read at once.
    pub(crate) fn turn(&mut self, scratch: &mut [u8], events: &mut Vec<Event>) -> io::Result<bool> {
        let is_open = self.wire.is_open()?;
        if is_open && let Some(request) = self.request.take() {
            self.wire.write(&request)?;
        }
        let mut reads = 0;
        while is_open && !self.has_ended && reads < READS {
            reads += 1;
            match self.wire.read(scratch)? {
                wire::Came::Nothing => break,
                wire::Came::Bytes(taken) => self.take(&scratch[..taken], events)?,
                wire::Came::End => self.end("eof", events),
                wire::Came::Cut => self.end("cut", events),
            }
        }
        self.wire.flush(usize::MAX)?;
        Ok(reads == READS)
    }

    fn end(&mut self, how: &'static str, events: &mut Vec<Event>) {
        self.has_ended = true;
        events.push(Event::End(how));
    }

    fn take(&mut self, bytes: &[u8], events: &mut Vec<Event>) -> io::Result<()> {
        if let Some(head) = &mut self.head {
            head.extend_from_slice(bytes);
            let Some(end) = head.windows(4).position(|four| four == b"\r\n\r\n") else {
                return Ok(());
            };
            let head = self.head.take().unwrap_or_default();
            let (head, rest) = head.split_at(end + 4);
            events.push(Event::Head(String::from_utf8_lossy(head).into_owned()));
            self.frames.push(rest);
            // Only what is no tunnel goes on in another way.
            if self.is_client && !head.starts_with(b"HTTP/1.1 101 ") {
                return Ok(());
            }
        } else {
            self.frames.push(bytes);
        }
        while let Some(came) = self.frames.take()? {
            match came {
                Came::Message(message) => events.push(Event::Message(message)),
                Came::Ping(payload) => self.control(frames::PONG, &payload)?,
                Came::Pong => {}
                Came::Close(code) => events.push(Event::Close(code)),
            }
        }
        Ok(())
    }

    /// Sends bytes that are no frame.
    pub(crate) fn raw(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.wire.write(bytes)?;
        self.wire.flush(usize::MAX).map(drop)
    }

    pub(crate) fn message(&mut self, payload: &[u8]) -> io::Result<()> {
        let dice = self.is_client.then_some(&mut self.dice);
        let bytes = frames::message(payload, dice);
        self.raw(&bytes)
    }

    pub(crate) fn close(&mut self, code: u16) -> io::Result<()> {
        self.control(frames::CLOSE, &code.to_be_bytes())
    }

    fn control(&mut self, opcode: u8, payload: &[u8]) -> io::Result<()> {
        let dice = self.is_client.then_some(&mut self.dice);
        let bytes = frames::control(opcode, payload, dice);
        self.raw(&bytes)
    }
}
