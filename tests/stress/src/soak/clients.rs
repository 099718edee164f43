//! The clients. Each has one tunnel at a time, says something in it now and then, leaves it after its
//! time, and comes back soon, as it does when the tunnel ends by itself.
//!
//! Lines of output, ID.LIFE being the client and which of its tunnels it is:
//!
//! - `try ID.LIFE PORT TO BACKEND`: it connects from that port to that one of httpd
//! - `open ID.LIFE`: it has its tunnel
//! - `end ID.LIFE STATE HOW`: in the state `handshake`, `open` or `closing`; `left` is as it wanted it
//! - `late ID.LIFE STATE`: no answer came within the patience
//! - `quiet N`: so many tunnels are open, all have just answered, and nothing happens until `go`
//! - `here WORD`, in answer to `mark WORD`: all that was before this has been said
//! - `over`, in answer to `end`: all have left

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};
use std::io::{self, BufRead};
use std::net::SocketAddr;
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::{Duration, Instant};

use mio::{Events, Interest, Poll, Token, Waker};
use openssl::ssl::SslContext;

use super::link::{Event, Link};
use super::traffic;
use crate::bytes::Dice;
use crate::peer::KEY;
use crate::wire::Wire;
use crate::{say, tls};

const COMMANDS: Token = Token(usize::MAX - 1);
/// How often a quiet time is looked at, and how many are asked each time.
const LOOK: Duration = Duration::from_millis(20);
const ASKED_AT_ONCE: usize = 200;
/// Longest messages, in bytes.
const ECHO: u64 = 8 * 1024;
const BULK: u64 = 1024 * 1024;

/// What the user asks for. Times are in milliseconds.
struct Soak {
    count: usize,
    /// httpd's ports, plain and TLS.
    ports: [u16; 2],
    backends: usize,
    seed: u64,
    /// Tunnels that come in a second at first, and handshakes at a time.
    rate: u64,
    opening: usize,
    /// How long a tunnel is wanted.
    shortest: u64,
    longest: u64,
    /// Of a thousand first tunnels so many are wanted until the end.
    lasting: u64,
    /// A client comes back within this time.
    reopen: u64,
    /// Of what is said, the time between is multiplied by so many hundredths.
    pace: u64,
    patience: u64,
}

fn parse(words: &[String]) -> Result<Soak, String> {
    let mut soak = Soak {
        count: 100,
        ports: [0; 2],
        backends: 1,
        seed: 1,
        rate: 100,
        opening: 32,
        shortest: 60_000,
        longest: 600_000,
        lasting: 200,
        reopen: 3000,
        pace: 100,
        patience: 60_000,
    };
    for word in words {
        let (name, value) = word.split_once('=').ok_or_else(|| format!("{word}: no value"))?;
        let number = value.parse::<u64>().map_err(|error| format!("{word}: {error}"))?;
        match name {
            "count" => soak.count = number as usize,
            "plain" => soak.ports[0] = number as u16,
            "tls" => soak.ports[1] = number as u16,
            "backends" => soak.backends = number.max(1) as usize,
            "seed" => soak.seed = number,
            "rate" => soak.rate = number.max(1),
            "opening" => soak.opening = number as usize,
            "shortest" => soak.shortest = number,
            "longest" => soak.longest = number,
            "lasting" => soak.lasting = number,
            "reopen" => soak.reopen = number,
            "pace" => soak.pace = number,
            "patience" => soak.patience = number,
            _ => return Err(format!("{word}: unknown")),
        }
    }
    Ok(soak)
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Handshake,
    Open,
    /// It has sent its Close frame.
    Closing,
}

impl State {
    fn name(self) -> &'static str {
        match self {
            Self::Handshake => "handshake",
            Self::Open => "open",
            Self::Closing => "closing",
        }
    }
}

/// What clients do with their tunnels: one in four each.
#[derive(Clone, Copy)]
enum Habit {
    Idle,
    Chat,
    Echo,
    Bulk,
}

impl Habit {
    fn of(id: usize) -> Self {
        [Self::Idle, Self::Chat, Self::Echo, Self::Bulk][id % 4]
    }

    /// Milliseconds between two times that it says something.
    fn pause(self) -> Option<(u64, u64)> {
        match self {
            Self::Idle => None,
            Self::Chat => Some((4000, 30_000)),
            Self::Echo => Some((2000, 15_000)),
            Self::Bulk => Some((30_000, 180_000)),
        }
    }
}

/// What is to come.
enum Wanted {
    Nothing,
    Echo(Vec<u8>),
    /// The bytes of this seed, so many.
    Bulk(u64, usize),
}

struct Tunnel {
    link: Link,
    state: State,
    wanted: Wanted,
    /// Lines of the chat that were sent, and that came.
    said: u32,
    heard: u32,
    /// When it says something next, and when it leaves.
    due: Option<Instant>,
    leaves: Option<Instant>,
    close_came: bool,
    is_late: bool,
}

#[derive(Default)]
struct Client {
    life: u64,
    tunnel: Option<Tunnel>,
}

/// A time in which nothing begins or ends, and all are asked whether they are there.
struct Quiet {
    since: Instant,
    looked: Instant,
    /// Clients below this one were asked.
    asked: usize,
    is_told: bool,
}

struct Clients {
    soak: Soak,
    contexts: [Option<SslContext>; 3],
    poll: Poll,
    dice: Dice,
    clients: Vec<Client>,
    /// When to look at which client, and in which of its lives.
    times: BinaryHeap<Reverse<(Instant, usize, u64)>>,
    /// They would connect, and too many do.
    waiting: VecDeque<usize>,
    opening: usize,
    quiet: Option<Quiet>,
    is_ending: bool,
    again: Vec<usize>,
    scratch: Vec<u8>,
}

pub(crate) fn run(arguments: &[String]) -> io::Result<()> {
    let soak = parse(arguments).map_err(io::Error::other)?;
    let poll = Poll::new()?;
    let commands = commands(Waker::new(poll.registry(), COMMANDS)?);
    let mut dice = Dice::new(soak.seed);
    let begin = Instant::now();
    let apart = 1_000_000 / soak.rate;
    let mut times = BinaryHeap::new();
    // Numbers are handed out in any order, so that habits and back ends are mixed from the start.
    let mut order: Vec<usize> = (0..soak.count).collect();
    for at in (1..order.len()).rev() {
        order.swap(at, dice.below(at as u64 + 1) as usize);
    }
    for (place, id) in order.into_iter().enumerate() {
        times.push(Reverse((begin + Duration::from_micros(apart * place as u64), id, 0)));
    }
    let clients = (0..soak.count).map(|_| Client::default()).collect();
    let mut all = Clients {
        soak,
        contexts: tls::clients()?,
        poll,
        dice,
        clients,
        times,
        waiting: VecDeque::new(),
        opening: 0,
        quiet: None,
        is_ending: false,
        again: Vec::new(),
        scratch: vec![0; 65536],
    };
    let mut events = Events::with_capacity(1024);
    while !all.round(&mut events, &commands)? {}
    say("over")
}

/// Lines of the input; the program ends with it.
fn commands(waker: Waker) -> Receiver<String> {
    let (sender, receiver) = channel();
    thread::spawn(move || {
        for line in io::stdin().lock().lines() {
            let Ok(line) = line else { break };
            if sender.send(line).is_err() || waker.wake().is_err() {
                break;
            }
        }
        std::process::exit(0);
    });
    receiver
}

impl Clients {
    /// One round; whether all is over.
    fn round(&mut self, events: &mut Events, commands: &Receiver<String>) -> io::Result<bool> {
        let next = self.times.peek().map(|Reverse((at, ..))| *at);
        let mut patience =
            next.map_or(LOOK * 10, |at| at.saturating_duration_since(Instant::now()));
        if self.quiet.is_some() || self.is_ending {
            patience = LOOK;
        }
        if !self.again.is_empty() {
            patience = Duration::ZERO;
        }
        match self.poll.poll(events, Some(patience)) {
            Err(error) if error.kind() != io::ErrorKind::Interrupted => return Err(error),
            _ => {}
        }
        let mut due = std::mem::take(&mut self.again);
        due.extend(
            events
                .iter()
                .map(|event| event.token())
                .filter(|token| *token != COMMANDS)
                .map(|Token(id)| id),
        );
        due.sort_unstable();
        due.dedup();
        for id in due {
            self.turn(id)?;
        }
        for command in commands.try_iter() {
            self.obey(&command)?;
        }
        if self.is_ending {
            return self.leave_all();
        }
        if self.quiet.is_some() {
            self.look()?;
            return Ok(false);
        }
        let now = Instant::now();
        while let Some(Reverse((at, id, life))) = self.times.peek().copied()
            && at <= now
        {
            self.times.pop();
            if self.clients[id].life == life {
                self.act(id, now)?;
            }
        }
        while self.opening < self.soak.opening
            && let Some(id) = self.waiting.pop_front()
        {
            self.connect(id)?;
        }
        Ok(false)
    }

    fn obey(&mut self, command: &str) -> io::Result<()> {
        let now = Instant::now();
        match command.split_once(' ').unwrap_or((command, "")) {
            ("quiet", _) => {
                self.quiet = Some(Quiet { since: now, looked: now, asked: 0, is_told: false });
            }
            ("go", _) => self.quiet = None,
            ("mark", word) => say(&format!("here {word}"))?,
            ("end", _) => self.is_ending = true,
            _ => return Err(io::Error::other(format!("{command}: unknown"))),
        }
        Ok(())
    }

    /// Time has come for something.
    fn act(&mut self, id: usize, now: Instant) -> io::Result<()> {
        let Some(tunnel) = &mut self.clients[id].tunnel else {
            self.waiting.push_back(id);
            return Ok(());
        };
        if tunnel.state != State::Open {
            return Ok(());
        }
        let is_free = matches!(tunnel.wanted, Wanted::Nothing);
        let mut done = Ok(());
        if is_free && tunnel.leaves.is_some_and(|at| at <= now) {
            done = tunnel.leave();
        } else if tunnel.due.is_some_and(|at| at <= now) {
            if is_free {
                done = tunnel.speak(Habit::of(id));
            }
            tunnel.due = pause(Habit::of(id), &self.soak, &mut tunnel.link.dice, now);
        }
        self.plan(id, now);
        match done {
            Ok(()) => Ok(()),
            Err(error) => self.over(id, &error.to_string()),
        }
    }

    /// When to look at it next.
    fn plan(&mut self, id: usize, now: Instant) {
        let client = &self.clients[id];
        let Some(tunnel) = client.tunnel.as_ref().filter(|tunnel| tunnel.state == State::Open)
        else {
            return;
        };
        let soon = now + Duration::from_secs(1);
        // What could not be done now is tried again soon.
        let next = [tunnel.due, tunnel.leaves].into_iter().flatten().min();
        if let Some(at) = next {
            let at = if at <= now { soon } else { at };
            self.times.push(Reverse((at, id, client.life)));
        }
    }

    fn connect(&mut self, id: usize) -> io::Result<()> {
        let client = &mut self.clients[id];
        // So each habit has both, and each back end all of them.
        let is_tls = id / 4 % 2 == 1;
        let backend = id / 8 % self.soak.backends;
        let address = SocketAddr::from(([127, 0, 0, 1], self.soak.ports[usize::from(is_tls)]));
        let life = client.life;
        let seed = self.soak.seed.wrapping_mul(1_000_003).wrapping_add((id as u64) << 24 | life);
        let kind = if is_tls { 1 + id / 64 % 2 } else { 0 };
        let tcp = mio::net::TcpStream::connect(address)?;
        let port = tcp.local_addr()?.port();
        let request = format!(
            "GET /b{backend}/{id}.{life} HTTP/1.1\r\nHost: site.test\r\nUpgrade: websocket\r\n\
             Connection: Upgrade\r\nSec-WebSocket-Key: {KEY}\r\nSec-WebSocket-Version: 13\r\n\r\n"
        );
        let wire = Wire::new(tcp, self.contexts[kind].as_ref(), false)?;
        let mut link = Link::new(wire, Some(request.into_bytes()), seed);
        let both = Interest::READABLE | Interest::WRITABLE;
        self.poll.registry().register(&mut link.wire.socket().tcp, Token(id), both)?;
        client.tunnel = Some(Tunnel {
            link,
            state: State::Handshake,
            wanted: Wanted::Nothing,
            said: 0,
            heard: 0,
            due: None,
            leaves: None,
            close_came: false,
            is_late: false,
        });
        self.opening += 1;
        self.again.push(id);
        say(&format!("try {id}.{life} {port} {} {backend}", address.port()))
    }

    fn turn(&mut self, id: usize) -> io::Result<()> {
        let Some(tunnel) = self.clients.get_mut(id).and_then(|client| client.tunnel.as_mut())
        else {
            return Ok(());
        };
        let mut events = Vec::new();
        let went = tunnel.link.turn(&mut self.scratch, &mut events);
        let mut ended = None;
        for event in events {
            let came = match event {
                Event::Head(head) if head.starts_with("HTTP/1.1 101 ") => {
                    self.opened(id)?;
                    Ok(())
                }
                Event::Head(head) => {
                    let line = head.lines().next().unwrap_or_default().to_owned();
                    ended = ended.or(Some(format!("answer {line}")));
                    Ok(())
                }
                Event::Message(message) => self.tunnel(id).map_or(Ok(()), |it| it.hear(&message)),
                Event::Close(code) => {
                    self.close_came(id, code).map(|how| ended = ended.take().or(how))
                }
                Event::End(how) => {
                    let has_left = self.tunnel(id).is_some_and(|tunnel| tunnel.close_came);
                    let how = if has_left && how == "eof" { "left" } else { how };
                    ended = ended.or(Some(how.to_owned()));
                    Ok(())
                }
            };
            if let Err(error) = came {
                ended = ended.or(Some(error.to_string()));
            }
        }
        match (ended, went) {
            (Some(how), _) => self.over(id, &how),
            (None, Err(error)) => self.over(id, &error.to_string()),
            (None, Ok(true)) => {
                self.again.push(id);
                Ok(())
            }
            (None, Ok(false)) => Ok(()),
        }
    }

    fn tunnel(&mut self, id: usize) -> Option<&mut Tunnel> {
        self.clients[id].tunnel.as_mut()
    }

    fn opened(&mut self, id: usize) -> io::Result<()> {
        let now = Instant::now();
        let client = &mut self.clients[id];
        let Some(tunnel) = &mut client.tunnel else { return Ok(()) };
        tunnel.state = State::Open;
        self.opening -= 1;
        let soak = &self.soak;
        let lasts = client.life == 0 && self.dice.below(1000) < soak.lasting;
        let time = soak.shortest + self.dice.below(soak.longest.saturating_sub(soak.shortest) + 1);
        tunnel.leaves = (!lasts).then(|| now + Duration::from_millis(time));
        tunnel.due = pause(Habit::of(id), soak, &mut self.dice, now);
        let life = client.life;
        self.plan(id, now);
        say(&format!("open {id}.{life}"))
    }

    /// A Close frame: an answer, or the other side's wish.
    fn close_came(&mut self, id: usize, code: Option<u16>) -> io::Result<Option<String>> {
        let Some(tunnel) = self.tunnel(id) else { return Ok(None) };
        if tunnel.state == State::Closing {
            tunnel.close_came = true;
            return Ok(None);
        }
        let code = code.unwrap_or(1005);
        if code != 1005 {
            tunnel.link.close(code)?;
        }
        Ok(Some(format!("close {code}")))
    }

    /// It has no tunnel any more, and comes back.
    fn over(&mut self, id: usize, how: &str) -> io::Result<()> {
        let client = &mut self.clients[id];
        let Some(tunnel) = client.tunnel.take() else { return Ok(()) };
        if tunnel.state == State::Handshake {
            self.opening -= 1;
        }
        say(&format!("end {id}.{} {} {how}", client.life, tunnel.state.name()))?;
        client.life += 1;
        let delay = Duration::from_millis(self.dice.below(self.soak.reopen + 1));
        self.times.push(Reverse((Instant::now() + delay, id, client.life)));
        Ok(())
    }

    /// Of a quiet time: waits until nothing is on its way, asks all, and tells.
    fn look(&mut self) -> io::Result<()> {
        let now = Instant::now();
        let patience = Duration::from_millis(self.soak.patience);
        let Some(quiet) = &mut self.quiet else { return Ok(()) };
        if quiet.is_told || now < quiet.looked + LOOK {
            return Ok(());
        }
        quiet.looked = now;
        let is_over = now > quiet.since + patience;
        let mut tunnels = self.clients.iter().filter_map(|client| client.tunnel.as_ref());
        let is_moving = tunnels.any(|tunnel| tunnel.state != State::Open);
        if is_moving && !is_over {
            return Ok(());
        }
        let begin = quiet.asked;
        quiet.asked = self.clients.len().min(begin + ASKED_AT_ONCE);
        let asked = begin..quiet.asked;
        for id in asked.clone() {
            let Some(tunnel) = &mut self.clients[id].tunnel else { continue };
            if tunnel.state == State::Open
                && matches!(tunnel.wanted, Wanted::Nothing)
                && let Err(error) = tunnel.ask(100)
            {
                self.over(id, &error.to_string())?;
            }
        }
        let waits = |tunnel: &Tunnel| !matches!(tunnel.wanted, Wanted::Nothing);
        let mut late = Vec::new();
        let (mut open, mut are_waited_for) = (0, asked.end < self.clients.len());
        for (id, client) in self.clients.iter_mut().enumerate() {
            let Some(tunnel) = &mut client.tunnel else { continue };
            open += usize::from(tunnel.state == State::Open);
            if waits(tunnel) || tunnel.state != State::Open {
                are_waited_for = true;
                if is_over && !tunnel.is_late {
                    tunnel.is_late = true;
                    late.push(format!("late {id}.{} {}", client.life, tunnel.state.name()));
                }
            }
        }
        if are_waited_for && !is_over {
            return Ok(());
        }
        for line in late {
            say(&line)?;
        }
        if let Some(quiet) = &mut self.quiet {
            quiet.is_told = true;
        }
        say(&format!("quiet {open}"))
    }

    /// Some more leave; whether nobody is left.
    fn leave_all(&mut self) -> io::Result<bool> {
        let mut left = 0;
        for id in 0..self.clients.len() {
            let Some(tunnel) = &mut self.clients[id].tunnel else { continue };
            left += 1;
            if tunnel.state == State::Open
                && let Err(error) = tunnel.leave()
            {
                self.over(id, &error.to_string())?;
            }
        }
        Ok(left == 0)
    }
}

fn pause(habit: Habit, soak: &Soak, dice: &mut Dice, now: Instant) -> Option<Instant> {
    let (shortest, longest) = habit.pause()?;
    let time = (shortest + dice.below(longest - shortest)) * soak.pace / 100;
    Some(now + Duration::from_millis(time))
}

impl Tunnel {
    fn leave(&mut self) -> io::Result<()> {
        self.state = State::Closing;
        self.link.close(1000)
    }

    /// Something that is to come back.
    fn ask(&mut self, longest: u64) -> io::Result<()> {
        let message = traffic::echo(&mut self.link.dice, longest);
        self.link.message(&message)?;
        self.wanted = Wanted::Echo(message);
        Ok(())
    }

    fn speak(&mut self, habit: Habit) -> io::Result<()> {
        match habit {
            Habit::Idle => Ok(()),
            Habit::Echo => self.ask(ECHO),
            Habit::Chat => {
                let line = traffic::chat(self.said, &mut self.link.dice);
                self.said += 1;
                self.link.message(&line)
            }
            Habit::Bulk => {
                let dice = &mut self.link.dice;
                let (seed, size) = (dice.below(u64::MAX), dice.size(BULK) as usize);
                let wants = dice.size(BULK) as u32;
                self.link.message(&traffic::bulk(seed, size, wants))?;
                self.wanted = Wanted::Bulk(seed.wrapping_add(1), wants as usize);
                Ok(())
            }
        }
    }

    fn hear(&mut self, message: &[u8]) -> io::Result<()> {
        if message.first() == Some(&traffic::CHAT) {
            let number = traffic::chat_number(message)?;
            if number != self.heard {
                let text = format!("wrong: line {number} of the chat, not {}", self.heard);
                return Err(io::Error::other(text));
            }
            self.heard += 1;
            return Ok(());
        }
        let is_right = match &self.wanted {
            Wanted::Nothing => false,
            Wanted::Echo(sent) => sent == message,
            Wanted::Bulk(seed, size) => {
                let (came, bytes, _) = traffic::bulk_parts(message)?;
                (came, bytes) == (*seed, *size)
            }
        };
        self.wanted = Wanted::Nothing;
        if is_right { Ok(()) } else { Err(io::Error::other("wrong: another message came back")) }
    }
}
