//! Both ends of very many tunnels through a server under test. Every byte is random, made from a
//! seed, and checked at its place by the other end, from the first one behind the request head on.
//!
//! Prints `origins PLAIN TLS1.2 TLS1.3`, the ports of its back ends, then does what each line of
//! standard input says: `run key=value ...`, see [`parse`]. With `hold=1` it prints `held` when all
//! tunnels have had their conversation, and ends them at the next line. A run is answered by
//! `failed: ...` lines and one `result key=value ...` line.
//!
//! With `soak-clients` or `soak-backend` as its first argument it is another program: see [`soak`].

mod bytes;
mod driver;
mod origins;
mod peer;
mod plan;
mod soak;
mod tls;
mod wire;

use std::io::{self, BufRead, Write};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use driver::{Driver, Outcome};
use origins::Origins;
use peer::Peer;
use plan::{Plan, Run};
use wire::Wire;

fn main() -> io::Result<()> {
    let arguments: Vec<String> = std::env::args().collect();
    if let [_, role, rest @ ..] = &arguments[..]
        && role.starts_with("soak-")
    {
        return soak::run(role, rest);
    }
    let [_, certificate, key] = &arguments[..] else {
        return Err(io::Error::other("usage: stress CERTIFICATE KEY"));
    };
    let origins = Origins::start(certificate, key)?;
    let [plain, tls12, tls13] = origins.ports;
    say(&format!("origins {plain} {tls12} {tls13}"))?;
    let clients = tls::clients()?;
    let mut lines = io::stdin().lock().lines();
    while let Some(line) = lines.next() {
        let run = Arc::new(parse(&line?).map_err(io::Error::other)?);
        origins.begin(&run);
        let begin = Instant::now();
        let (done, failures) = clients_of(&run, &clients, &mut lines)?;
        let (origins_done, more) = origins.end(run.count - failures.len());
        for failure in failures.iter().chain(&more).take(20) {
            say(&format!("failed: {failure}"))?;
        }
        let mut bytes = 0;
        for id in 0..run.count {
            let plan = Plan::new(&run, id);
            bytes += plan.total(true) + plan.total(false);
        }
        let [[client_sent, client_got], [origin_sent, origin_got]] =
            [&tls::OF_CLIENTS, &tls::OF_ORIGINS].map(tls::KeyUpdates::take);
        say(&format!(
            "result clients={done} origins={origins_done} failed={} bytes={bytes} \
             client_key_updates={client_sent} origin_key_updates={origin_sent} \
             to_client_key_updates={client_got} to_origin_key_updates={origin_got} milliseconds={}",
            failures.len() + more.len(),
            begin.elapsed().as_millis()
        ))?;
    }
    Ok(())
}

fn say(line: &str) -> io::Result<()> {
    let mut out = io::stdout().lock();
    writeln!(out, "{line}")?;
    out.flush()
}

/// Opens the run's tunnels and sees them to their end.
fn clients_of(
    run: &Arc<Run>,
    contexts: &[Option<openssl::ssl::SslContext>; 3],
    lines: &mut dyn Iterator<Item = io::Result<String>>,
) -> io::Result<(usize, Vec<String>)> {
    let mut driver = Driver::new()?;
    let mut failures = Vec::new();
    let (mut begun, mut opened, mut done) = (0, 0, 0);
    let mut released = !run.hold;
    let deadline = Instant::now() + Duration::from_secs(run.seconds);
    while done + failures.len() < run.count {
        while begun < run.count && driver.peers.len() < run.at_once && begun - opened < run.opening
        {
            let plan = Arc::new(Plan::new(run, begun));
            let context = contexts[plan.client].as_ref();
            let port = run.ports[usize::from(context.is_some())];
            let address = SocketAddr::from(([127, 0, 0, 1], port));
            // Connecting must not wait: the listener's queue may be full.
            let tcp = mio::net::TcpStream::connect(address)?;
            driver.add(Peer::client(Wire::new(tcp, context, false)?, plan))?;
            begun += 1;
        }
        let (_, outcomes) = driver.round(run, released)?;
        for outcome in outcomes {
            let peer = match outcome {
                Outcome::Done(peer) => {
                    done += 1;
                    peer
                }
                Outcome::Failed(peer, error) => {
                    failures.push(format!("{error}; {}", peer.place()));
                    peer
                }
            };
            opened += usize::from(!peer.told_open);
        }
        for peer in driver.peers.values_mut().filter(|peer| !peer.told_open && peer.is_open()) {
            peer.told_open = true;
            opened += 1;
        }
        let is_held = !released && begun == run.count && driver.peers.values().all(Peer::is_idle);
        if is_held {
            say("held")?;
            lines.next().transpose()?;
            released = true;
            driver.wake_all();
        }
        if Instant::now() > deadline {
            let left = driver.peers.values().map(|peer| format!("not in time; {}", peer.place()));
            failures.extend(left);
            failures.resize(run.count - done, "not in time; not begun".to_owned());
        }
    }
    Ok((done, failures))
}

/// `run count=1000 at_once=300 opening=64 seed=1 size=200000 rounds=60 bursts=20 burst=20000000
/// clients=0,1,2 origins=0,1,2 plain=PORT tls=PORT key_updates=1 hold=0
/// seconds=60`
fn parse(line: &str) -> Result<Run, String> {
    let mut run = Run {
        count: 100,
        at_once: 100,
        opening: 64,
        seed: 1,
        size: 200_000,
        rounds: 60,
        bursts: 0,
        burst: 20_000_000,
        clients: vec![0, 1, 2],
        origins: vec![0, 1, 2],
        ports: [0; 2],
        key_updates: true,
        hold: false,
        seconds: 60,
    };
    let words = line.strip_prefix("run ").ok_or_else(|| format!("{line}: not a run"))?;
    for word in words.split_whitespace() {
        let (name, value) = word.split_once('=').ok_or_else(|| format!("{word}: no value"))?;
        let number = || value.parse::<u64>().map_err(|error| format!("{word}: {error}"));
        let kinds = || -> Result<Vec<usize>, String> {
            value
                .split(',')
                .map(|kind| match kind {
                    "0" => Ok(0),
                    "1" => Ok(1),
                    "2" => Ok(2),
                    _ => Err(format!("{word}: 0, 1 or 2")),
                })
                .collect()
        };
        let port = || value.parse::<u16>().map_err(|error| format!("{word}: {error}"));
        match name {
            "count" => run.count = number()? as usize,
            "at_once" => run.at_once = number()? as usize,
            "opening" => run.opening = number()? as usize,
            "seed" => run.seed = number()?,
            "size" => run.size = number()?,
            "rounds" => run.rounds = number()?,
            "bursts" => run.bursts = number()?,
            "burst" => run.burst = number()?,
            "clients" => run.clients = kinds()?,
            "origins" => run.origins = kinds()?,
            "plain" => run.ports[0] = port()?,
            "tls" => run.ports[1] = port()?,
            "key_updates" => run.key_updates = number()? != 0,
            "hold" => run.hold = number()? != 0,
            "seconds" => run.seconds = number()?,
            _ => return Err(format!("{word}: unknown")),
        }
    }
    Ok(run)
}
