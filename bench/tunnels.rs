//! Tunnels that are held, and messages there and back on them.

use std::io::{self, ErrorKind};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::{Duration, Instant};

use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::sync::Barrier;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use crate::arguments::{Arguments, invalid, parse};
use crate::client::Target;
use crate::frame::{self, BINARY};
use crate::stats::Times;
use crate::stream::Stream;

/// How many are being opened at a time.
const OPENING: usize = 32;

/// So many failures mean that no more are to be had.
const ENOUGH_FAILURES: usize = 32;

/// The longest that one echo may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// The longest that a tunnel may take to come back: all of them come at once.
const STORM_PATIENCE: Duration = Duration::from_secs(30);

/// How long one waits that was refused.
const PAUSE: Duration = Duration::from_millis(100);

/// Bytes that tell each message from all others: the tunnel and a number.
const STAMP: usize = 16;

struct Tunnel {
    stream: Stream,
    id: u64,
    sent: u64,
}

/// Does what the commands say, from the arguments or from standard input.
pub(crate) async fn run(arguments: &Arguments) -> io::Result<()> {
    let target = Arc::new(Target::new(arguments.word(0)?, arguments.source()?)?);
    let mut held = Held { target, tunnels: Vec::new(), opened: 0 };
    let commands = arguments.rest(1);
    for command in commands {
        println!("{}", held.obey(command).await?);
    }
    if commands.is_empty() {
        let mut lines = BufReader::new(tokio::io::stdin()).lines();
        while let Some(line) = lines.next_line().await? {
            println!("{}", held.obey(&line).await?);
        }
    }
    Ok(())
}

struct Held {
    target: Arc<Target>,
    tunnels: Vec<Tunnel>,
    /// How many were ever tried, so that each has a number of its own.
    opened: u64,
}

impl Held {
    async fn obey(&mut self, line: &str) -> io::Result<String> {
        let words: Vec<&str> = line.split_whitespace().collect();
        match *words.as_slice() {
            ["open", count] => self.open(parse(count)?).await,
            ["echo", size, seconds] => {
                self.echo(parse(size)?, parse(seconds)?, self.tunnels.len()).await
            }
            ["echo", size, seconds, count] => {
                self.echo(parse(size)?, parse(seconds)?, parse(count)?).await
            }
            ["check"] => self.check().await,
            ["storm", seconds] => self.storm(parse(seconds)?).await,
            _ => Err(invalid("a command is open N, echo SIZE SECONDS [N], check or storm SECONDS")),
        }
    }

    async fn open(&mut self, count: usize) -> io::Result<String> {
        let started = Instant::now();
        let mut opening = JoinSet::new();
        let (mut begun, mut failed) = (0, 0);
        let mut last = String::new();
        while begun < count || !opening.is_empty() {
            while begun < count && opening.len() < OPENING && failed < ENOUGH_FAILURES {
                let (target, id) = (Arc::clone(&self.target), self.opened);
                self.opened += 1;
                begun += 1;
                opening.spawn(async move { (id, target.open(id as usize, "/echo").await) });
            }
            match opening.join_next().await {
                Some(Ok((id, Ok((stream, rest))))) if rest.is_empty() => {
                    self.tunnels.push(Tunnel { stream, id, sent: 0 });
                }
                Some(Ok((_, Ok(_)))) => return Err(invalid("bytes that nobody sent")),
                Some(Ok((_, Err(error)))) => {
                    failed += 1;
                    last = error.to_string().replace(['"', '\\'], "'");
                }
                Some(Err(error)) => return Err(error.into()),
                // Enough failed.
                None => break,
            }
        }
        Ok(format!(
            r#"{{"open": {}, "failed": {failed}, "error": "{last}", "seconds": {:.3}}}"#,
            self.tunnels.len(),
            started.elapsed().as_secs_f64()
        ))
    }

    /// Echoes on the newest `count` tunnels, each with one message under way at a time.
    async fn echo(&mut self, size: usize, seconds: f64, count: usize) -> io::Result<String> {
        let kept = self.tunnels.len().saturating_sub(count);
        let tunnels = self.tunnels.split_off(kept);
        let count = tunnels.len();
        let barrier = Arc::new(Barrier::new(count + 1));
        let time = Duration::from_secs_f64(seconds);
        let mut tasks = JoinSet::new();
        for mut tunnel in tunnels {
            let barrier = Arc::clone(&barrier);
            tasks.spawn(async move {
                let mut message = Message::new(size);
                let mut times = Times::default();
                barrier.wait().await;
                let started = Instant::now();
                while started.elapsed() < time {
                    let sent = Instant::now();
                    if let Err(error) = message.there_and_back(&mut tunnel).await {
                        return (Err(error), times);
                    }
                    times.add(sent.elapsed());
                }
                (Ok(tunnel), times)
            });
        }
        barrier.wait().await;
        let started = Instant::now();
        let (mut times, mut failed) = (Times::default(), 0);
        while let Some(task) = tasks.join_next().await {
            let (tunnel, mut more) = task?;
            times.append(&mut more);
            match tunnel {
                Ok(tunnel) => self.tunnels.push(tunnel),
                Err(error) if error.kind() == ErrorKind::InvalidData => return Err(error),
                Err(_) => failed += 1,
            }
        }
        let (messages, seconds) = (times.count(), started.elapsed().as_secs_f64());
        Ok(format!(
            r#"{{"tunnels": {count}, "messages": {messages}, "failed": {failed}, "per_s": {:.1}, {}}}"#,
            messages as f64 / seconds,
            times.json()
        ))
    }

    /// Opens each again as soon as it has ended, until all are open or the time is over.
    async fn storm(&mut self, seconds: f64) -> io::Result<String> {
        let time = Duration::from_secs_f64(seconds);
        let failed = Arc::new(AtomicUsize::new(0));
        let mut tasks = JoinSet::new();
        for tunnel in self.tunnels.drain(..) {
            let (target, failed) = (Arc::clone(&self.target), Arc::clone(&failed));
            let id = self.opened;
            self.opened += 1;
            tasks.spawn(timeout(time, comes_back(target, tunnel, id, failed)));
        }
        let mut lost = 0;
        while let Some(task) = tasks.join_next().await {
            match task? {
                Ok(tunnel) => self.tunnels.push(tunnel),
                Err(_) => lost += 1,
            }
        }
        let failed = failed.load(Relaxed);
        Ok(format!(r#"{{"open": {}, "lost": {lost}, "failed": {failed}}}"#, self.tunnels.len()))
    }

    /// One message on each; those that do not answer are dropped.
    async fn check(&mut self) -> io::Result<String> {
        let mut tasks = JoinSet::new();
        for mut tunnel in self.tunnels.drain(..) {
            tasks.spawn(async move {
                let sent = Message::new(STAMP).there_and_back(&mut tunnel).await;
                sent.map(|()| tunnel)
            });
        }
        let mut lost = 0;
        while let Some(task) = tasks.join_next().await {
            match task? {
                Ok(tunnel) => self.tunnels.push(tunnel),
                Err(error) if error.kind() == ErrorKind::InvalidData => return Err(error),
                Err(_) => lost += 1,
            }
        }
        Ok(format!(r#"{{"alive": {}, "lost": {lost}}}"#, self.tunnels.len()))
    }
}

/// Waits for the end of a tunnel, and opens another in its place, as often as it takes.
async fn comes_back(
    target: Arc<Target>,
    mut ending: Tunnel,
    id: u64,
    failed: Arc<AtomicUsize>,
) -> Tunnel {
    // A proxy may say goodbye.
    let mut goodbye = [0; 256];
    while ending.stream.read(&mut goodbye).await.is_ok_and(|bytes| bytes > 0) {}
    drop(ending);
    loop {
        match target.open_within(STORM_PATIENCE, id as usize, "/echo").await {
            Ok((stream, rest)) if rest.is_empty() => return Tunnel { stream, id, sent: 0 },
            _ => failed.fetch_add(1, Relaxed),
        };
        sleep(PAUSE).await;
    }
}

/// A message and what it comes back as.
struct Message {
    sent: Vec<u8>,
    expected: Vec<u8>,
    received: Vec<u8>,
    header: usize,
}

/// The masking key, any: what is measured does not look at it.
const KEY: [u8; 4] = [0x9d, 0x3c, 0x71, 0xe6];

impl Message {
    /// With `size` bytes of payload, at least as many as a stamp has.
    fn new(size: usize) -> Self {
        let size = size.max(STAMP);
        let payload: Vec<u8> = frame::pattern().into_iter().cycle().take(size).collect();
        let (mut sent, mut expected) = (Vec::new(), Vec::new());
        frame::put_header(&mut sent, BINARY, size as u64, Some(KEY));
        frame::put_header(&mut expected, BINARY, size as u64, None);
        let header = expected.len();
        expected.extend_from_slice(&payload);
        sent.extend_from_slice(&payload);
        // The key's four bytes are what the sent header has more.
        frame::mask(&mut sent[header + KEY.len()..], KEY, 0);
        Message { received: vec![0; expected.len()], sent, expected, header }
    }

    fn stamp(&mut self, tunnel: &Tunnel) {
        let mut stamp = [0; STAMP];
        stamp[..8].copy_from_slice(&tunnel.id.to_be_bytes());
        stamp[8..].copy_from_slice(&tunnel.sent.to_be_bytes());
        self.expected[self.header..self.header + STAMP].copy_from_slice(&stamp);
        frame::mask(&mut stamp, KEY, 0);
        let at = self.header + KEY.len();
        self.sent[at..at + STAMP].copy_from_slice(&stamp);
    }

    async fn there_and_back(&mut self, tunnel: &mut Tunnel) -> io::Result<()> {
        tunnel.sent += 1;
        self.stamp(tunnel);
        let echo = async {
            tunnel.stream.write_all(&self.sent).await?;
            tunnel.stream.read_exact(&mut self.received).await
        };
        timeout(PATIENCE, echo).await??;
        if self.received == self.expected {
            Ok(())
        } else {
            Err(invalid("an echo differs from what was sent"))
        }
    }
}
