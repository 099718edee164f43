//! Drives peers by the readiness of their sockets.

use std::collections::HashMap;
use std::io;
use std::time::Duration;

use mio::net::TcpListener;
use mio::{Events, Interest, Poll, Token};

use crate::peer::{Next, Peer};
use crate::plan::Run;

/// What became of a peer.
pub(crate) enum Outcome {
    Done(Box<Peer>),
    Failed(Box<Peer>, io::Error),
}

pub(crate) struct Driver {
    poll: Poll,
    events: Events,
    pub peers: HashMap<usize, Peer>,
    next: usize,
    again: Vec<usize>,
    scratch: Vec<u8>,
}

/// Tokens below this are listeners.
const LISTENERS: usize = 8;

impl Driver {
    pub(crate) fn new() -> io::Result<Self> {
        Ok(Self {
            poll: Poll::new()?,
            events: Events::with_capacity(1024),
            peers: HashMap::new(),
            next: LISTENERS,
            again: Vec::new(),
            scratch: vec![0; 65536],
        })
    }

    pub(crate) fn listen(&mut self, number: usize, listener: &mut TcpListener) -> io::Result<()> {
        self.poll.registry().register(listener, Token(number), Interest::READABLE)
    }

    pub(crate) fn add(&mut self, mut peer: Peer) -> io::Result<usize> {
        let token = self.next;
        self.next += 1;
        let both = Interest::READABLE | Interest::WRITABLE;
        self.poll.registry().register(&mut peer.wire.socket().tcp, Token(token), both)?;
        self.peers.insert(token, peer);
        self.again.push(token);
        Ok(token)
    }

    /// Every peer gets a turn.
    pub(crate) fn wake_all(&mut self) {
        self.again = self.peers.keys().copied().collect();
    }

    /// One round; returns the listeners that have connections, and what ended.
    pub(crate) fn round(
        &mut self,
        run: &Run,
        released: bool,
    ) -> io::Result<(Vec<usize>, Vec<Outcome>)> {
        let patience = if self.again.is_empty() { 50 } else { 1 };
        if let Err(error) = self.poll.poll(&mut self.events, Some(Duration::from_millis(patience)))
            && error.kind() != io::ErrorKind::Interrupted
        {
            return Err(error);
        }
        let mut listeners = Vec::new();
        let mut due = std::mem::take(&mut self.again);
        for event in &self.events {
            let Token(token) = event.token();
            if token < LISTENERS { listeners.push(token) } else { due.push(token) }
        }
        due.sort_unstable();
        due.dedup();
        let mut outcomes = Vec::new();
        for token in due {
            let Some(peer) = self.peers.get_mut(&token) else { continue };
            match peer.turn(run, released, &mut self.scratch) {
                Ok(Next::Wait) => {}
                Ok(Next::Again) => self.again.push(token),
                end => {
                    let Some(peer) = self.peers.remove(&token) else { continue };
                    outcomes.push(match end {
                        Err(error) => Outcome::Failed(Box::new(peer), error),
                        Ok(_) => Outcome::Done(Box::new(peer)),
                    });
                }
            }
        }
        Ok((listeners, outcomes))
    }
}
