//! One end of a tunnel: a client or a back end.

use std::io;
use std::sync::Arc;

use openssl::base64::encode_block;
use openssl::sha::sha1;

use crate::bytes::{Dice, Stream};
use crate::plan::{First, Plan, Run};
use crate::wire::{Came, Wire};

pub(crate) const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";
const GUID: &str = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11";
/// Bytes that wait for the socket before more are made.
const AHEAD: usize = 64 * 1024;

/// Whether there is more to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Next {
    /// When the socket is ready.
    Wait,
    /// Soon, whether it is or not.
    Again,
    Done,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Sending {
    Head,
    Body,
    /// close_notify is on its way.
    Ending,
    Ended,
}

pub(crate) struct Peer {
    pub wire: Wire,
    is_client: bool,
    /// A back end knows it once it has read the request.
    pub plan: Option<Arc<Plan>>,
    head: Option<Vec<u8>>,
    sending: Sending,
    out: Stream,
    into: Stream,
    end_came: bool,
    dice: Dice,
    writes: u64,
    pub told_open: bool,
}

impl Peer {
    pub(crate) fn client(wire: Wire, plan: Arc<Plan>) -> Self {
        let (out, into) = (plan.bytes(true), plan.bytes(false));
        Self::new(wire, true, Some(plan), out, into)
    }

    pub(crate) fn origin(wire: Wire) -> Self {
        Self::new(wire, false, None, Stream::new(0), Stream::new(0))
    }

    fn new(
        wire: Wire,
        is_client: bool,
        plan: Option<Arc<Plan>>,
        out: Stream,
        into: Stream,
    ) -> Self {
        Self {
            wire,
            is_client,
            dice: Dice::new(plan.as_ref().map_or(1, |plan| plan.seed)),
            plan,
            head: Some(Vec::new()),
            sending: Sending::Head,
            out,
            into,
            end_came: false,
            writes: 0,
            told_open: false,
        }
    }

    /// The conversation is over but for its end.
    pub(crate) fn is_idle(&self) -> bool {
        self.plan.as_ref().is_some_and(|plan| {
            self.out.taken() == plan.total(self.is_client)
                && self.into.taken() == plan.total(!self.is_client)
        })
    }

    /// The handshake is behind it.
    pub(crate) fn is_open(&self) -> bool {
        self.head.is_none()
    }

    /// For a failure's line.
    pub(crate) fn place(&self) -> String {
        let who = if self.is_client { "client" } else { "back end" };
        let (sent, came) = (self.out.taken(), self.into.taken());
        let Some(plan) = &self.plan else { return format!("{who} before its request") };
        format!(
            "{who} {:?}, sent {sent} of {}, got {came} of {}, end came: {}, {plan:?}",
            self.sending,
            plan.total(self.is_client),
            plan.total(!self.is_client),
            self.end_came
        )
    }

    /// Does all that can be done now.
    pub(crate) fn turn(
        &mut self,
        run: &Run,
        released: bool,
        scratch: &mut [u8],
    ) -> io::Result<Next> {
        if !self.wire.is_open()? {
            self.wire.flush(usize::MAX)?;
            return Ok(Next::Wait);
        }
        // Bounded, so that one does not keep the others waiting.
        for _ in 0..16 {
            // What is held back for the socket's sake is made once the socket took the rest.
            let held_back = self.wire.waiting() >= AHEAD;
            let wrote = self.write(released, scratch)? || held_back;
            let dribbles = self.plan.as_ref().is_some_and(|plan| plan.dribble) && self.writes < 24;
            let most = if dribbles { 1 + self.dice.below(700) as usize } else { usize::MAX };
            let takes_more = self.wire.flush(most)?;
            let read = self.read(run, scratch)?;
            if self.sending == Sending::Ending && self.wire.waiting() == 0 {
                self.wire.shutdown()?;
                self.sending = Sending::Ended;
            }
            if self.sending == Sending::Ended && self.end_came {
                return Ok(Next::Done);
            }
            if dribbles && takes_more && self.wire.waiting() > 0 {
                return Ok(Next::Again);
            }
            if !read && (!takes_more || !wrote && self.wire.waiting() == 0) {
                return Ok(Next::Wait);
            }
        }
        Ok(Next::Again)
    }

    fn write(&mut self, released: bool, scratch: &mut [u8]) -> io::Result<bool> {
        let Some(plan) = self.plan.clone() else { return Ok(false) };
        if self.wire.waiting() >= AHEAD {
            return Ok(false);
        }
        let mut bytes = Vec::new();
        if self.sending == Sending::Head {
            if !self.is_client && self.head.is_some() {
                return Ok(false);
            }
            bytes = if self.is_client { request(&plan) } else { answer() };
            self.sending = Sending::Body;
            if !plan.glued {
                self.wire.write(&bytes)?;
                return Ok(true);
            }
        }
        if self.sending != Sending::Body {
            return Ok(false);
        }
        let left = plan.allowed(self.is_client, self.into.taken()) - self.out.taken();
        let most = [1, 100, 1400, 5000, 16_384, 16_385, 40_000][self.dice.below(7) as usize];
        let size = left.min(most) as usize;
        if size > 0 {
            self.out.fill(&mut scratch[..size]);
            bytes.extend_from_slice(&scratch[..size]);
        }
        if !bytes.is_empty() {
            self.wire.write(&bytes)?;
            self.writes += 1;
            // Around the switch after each write, later now and then.
            if plan.key_updates && (self.writes < 12 || self.dice.once_in(8)) {
                let (asks, now) = (self.dice.once_in(2), self.dice.once_in(2));
                self.wire.key_update(asks, now)?;
            }
            return Ok(true);
        }
        let waits = match plan.first {
            First::Both => false,
            First::Client => !self.is_client && !self.end_came,
            First::Origin => self.is_client && !self.end_came,
        };
        let all = self.out.taken() == plan.total(self.is_client) && self.head.is_none();
        if all && !waits && released {
            self.wire.close_notify();
            self.sending = Sending::Ending;
            return Ok(true);
        }
        Ok(false)
    }

    fn read(&mut self, run: &Run, scratch: &mut [u8]) -> io::Result<bool> {
        if self.end_came {
            return Ok(false);
        }
        let taken = match self.wire.read(scratch)? {
            Came::Nothing => return Ok(false),
            Came::Cut => return Err(io::Error::other("end without close_notify")),
            Came::End => {
                self.end_came = true;
                let all = self.plan.as_ref().map_or(1, |plan| plan.total(!self.is_client));
                if self.into.taken() != all || self.head.is_some() {
                    return Err(io::Error::other("the bytes end too early"));
                }
                return Ok(true);
            }
            Came::Bytes(taken) => taken,
        };
        let mut bytes = &scratch[..taken];
        let collected;
        if let Some(head) = &mut self.head {
            head.extend_from_slice(bytes);
            let Some(end) = head.windows(4).position(|four| four == b"\r\n\r\n") else {
                return Ok(true);
            };
            collected = self.head.take().unwrap_or_default();
            let (head, rest) = collected.split_at(end + 4);
            self.start(run, &String::from_utf8_lossy(head))?;
            bytes = rest;
        }
        let Some(plan) = &self.plan else { return Ok(true) };
        if self.into.taken() + bytes.len() as u64 > plan.total(!self.is_client) {
            return Err(io::Error::other("more bytes than were sent"));
        }
        self.into.check(bytes).map_err(|at| io::Error::other(format!("wrong byte at {at}")))?;
        Ok(true)
    }

    fn start(&mut self, run: &Run, head: &str) -> io::Result<()> {
        let first = head.lines().next().unwrap_or_default();
        if self.is_client {
            if !first.starts_with("HTTP/1.1 101 ") {
                return Err(io::Error::other(format!("answered {first}")));
            }
            return Ok(());
        }
        let number = first.split('/').nth(1).and_then(|path| path.split(' ').next());
        let id = number.and_then(|number| number.parse().ok());
        let id = id.ok_or_else(|| io::Error::other(format!("asked {first}")))?;
        let plan = Arc::new(Plan::new(run, id));
        self.dice = Dice::new(!plan.seed);
        (self.out, self.into) = (plan.bytes(false), plan.bytes(true));
        self.plan = Some(plan);
        Ok(())
    }
}

fn request(plan: &Plan) -> Vec<u8> {
    let route = ["plain", "tls12", "tls13"][plan.origin];
    format!(
        "GET /{route}/{} HTTP/1.1\r\nHost: site.test\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Key: {KEY}\r\nSec-WebSocket-Version: 13\r\n\r\n",
        plan.id
    )
    .into_bytes()
}

pub(crate) fn answer() -> Vec<u8> {
    let accept = encode_block(&sha1(format!("{KEY}{GUID}").as_bytes()));
    format!(
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Accept: {accept}\r\n\r\n"
    )
    .into_bytes()
}
