//! A back end: one port, one thread, until its input ends or it is killed. It says `listening`, and
//! `failed: ...` for what is wrong.

use std::collections::HashMap;
use std::io::{self, BufRead};
use std::thread;
use std::time::Duration;

use mio::net::TcpListener;
use mio::{Events, Interest, Poll, Token};
use openssl::ssl::SslContext;

use super::link::{Event, Link};
use super::traffic;
use crate::peer;
use crate::wire::Wire;
use crate::{say, tls};

const LISTENER: Token = Token(0);

struct Tunnel {
    link: Link,
    /// As the request names it.
    name: String,
    /// Lines of the chat that came, and that were sent.
    heard: u32,
    said: u32,
    /// Nothing more is sent: the end is on its way, or has gone.
    is_ending: bool,
    has_ended: bool,
}

pub(crate) fn run(arguments: &[String]) -> io::Result<()> {
    let [port, files @ ..] = arguments else { return Err(io::Error::other("which port?")) };
    let port: u16 = port.parse().map_err(io::Error::other)?;
    let context = match files {
        [certificate, key] => tls::origins(certificate, key)?.into_iter().next_back().flatten(),
        _ => None,
    };
    thread::spawn(|| {
        for _ in io::stdin().lock().lines() {}
        std::process::exit(0);
    });
    let listener = std::net::TcpListener::bind(("127.0.0.1", port))?;
    listener.set_nonblocking(true)?;
    let mut listener = TcpListener::from_std(listener);
    let mut poll = Poll::new()?;
    poll.registry().register(&mut listener, LISTENER, Interest::READABLE)?;
    say("listening")?;
    serve(&mut poll, &listener, context.as_ref())
}

fn serve(poll: &mut Poll, listener: &TcpListener, context: Option<&SslContext>) -> io::Result<()> {
    let mut events = Events::with_capacity(1024);
    let mut tunnels: HashMap<Token, Tunnel> = HashMap::new();
    let mut scratch = vec![0; 65536];
    let mut again: Vec<Token> = Vec::new();
    let mut next = 1;
    loop {
        let patience = if again.is_empty() { None } else { Some(Duration::ZERO) };
        match poll.poll(&mut events, patience) {
            Err(error) if error.kind() != io::ErrorKind::Interrupted => return Err(error),
            _ => {}
        }
        let mut due = std::mem::take(&mut again);
        for event in &events {
            if event.token() != LISTENER {
                due.push(event.token());
                continue;
            }
            while let Some(tcp) = accepted(listener)? {
                let token = Token(next);
                next += 1;
                let mut link = Link::new(Wire::new(tcp, context, true)?, None, next as u64);
                let both = Interest::READABLE | Interest::WRITABLE;
                poll.registry().register(&mut link.wire.socket().tcp, token, both)?;
                tunnels.insert(token, Tunnel::new(link));
            }
        }
        for token in due {
            let Some(tunnel) = tunnels.get_mut(&token) else { continue };
            match tunnel.turn(&mut scratch) {
                Ok(true) => again.push(token),
                Ok(false) if !tunnel.has_ended => {}
                Ok(false) => drop(tunnels.remove(&token)),
                Err(error) => {
                    // Whoever resets is the clients' matter; what came wrong is everybody's.
                    let text = error.to_string();
                    if text.starts_with("wrong: ") {
                        say(&format!("failed: {}: {text}", tunnel.name))?;
                    }
                    tunnels.remove(&token);
                }
            }
        }
    }
}

fn accepted(listener: &TcpListener) -> io::Result<Option<mio::net::TcpStream>> {
    match listener.accept() {
        Ok((tcp, _)) => Ok(Some(tcp)),
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(None),
        // It was gone before.
        Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => Ok(None),
        Err(error) => Err(error),
    }
}

impl Tunnel {
    fn new(link: Link) -> Self {
        let (name, heard, said) = (String::new(), 0, 0);
        Self { link, name, heard, said, is_ending: false, has_ended: false }
    }

    /// Whether there may be more to do at once.
    fn turn(&mut self, scratch: &mut [u8]) -> io::Result<bool> {
        let mut events = Vec::new();
        let more = self.link.turn(scratch, &mut events)?;
        for event in events {
            match event {
                Event::Head(head) => {
                    self.name = head.split(' ').nth(1).unwrap_or_default().to_owned();
                    self.link.raw(&peer::answer())?;
                }
                Event::Message(message) => self.answer(&message)?,
                Event::Close(code) if !self.is_ending => {
                    self.link.close(code.unwrap_or(1000))?;
                    self.link.wire.close_notify();
                    self.is_ending = true;
                }
                Event::Close(_) => {}
                Event::End(_) => self.has_ended = true,
            }
        }
        if self.is_ending && self.link.wire.flush(usize::MAX)? && self.link.wire.waiting() == 0 {
            self.link.wire.shutdown()?;
        }
        Ok(more && !self.has_ended)
    }

    fn answer(&mut self, message: &[u8]) -> io::Result<()> {
        match message.first() {
            Some(&traffic::ECHO) => self.link.message(message),
            Some(&traffic::CHAT) => {
                let number = traffic::chat_number(message)?;
                if number != self.heard {
                    let text = format!("wrong: line {number} of the chat, not {}", self.heard);
                    return Err(io::Error::other(text));
                }
                self.heard += 1;
                for _ in 0..number % 3 {
                    let line = traffic::chat(self.said, &mut self.link.dice);
                    self.said += 1;
                    self.link.message(&line)?;
                }
                Ok(())
            }
            Some(&traffic::BULK) => {
                let (seed, _, wants) = traffic::bulk_parts(message)?;
                self.link.message(&traffic::bulk(seed.wrapping_add(1), wants as usize, 0))
            }
            _ => Err(io::Error::other("wrong: an unknown message")),
        }
    }
}
