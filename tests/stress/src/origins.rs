//! The back ends: one thread, three ports.

use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use mio::net::TcpListener;

use crate::driver::{Driver, Outcome};
use crate::peer::Peer;
use crate::plan::Run;
use crate::tls;
use crate::wire::Wire;

/// How long back ends may be behind their clients.
const BEHIND: Duration = Duration::from_secs(10);

#[derive(Default)]
struct State {
    run: Option<Arc<Run>>,
    done: usize,
    open: Vec<String>,
    failures: Vec<String>,
}

pub(crate) struct Origins {
    pub ports: [u16; 3],
    state: Arc<Mutex<State>>,
}

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Origins {
    pub(crate) fn start(certificate: &str, key: &str) -> io::Result<Self> {
        let contexts = tls::origins(certificate, key)?;
        let mut driver = Driver::new()?;
        let mut listeners = Vec::new();
        let mut ports = [0; 3];
        for (number, port) in ports.iter_mut().enumerate() {
            let listener = std::net::TcpListener::bind(("127.0.0.1", 0))?;
            listener.set_nonblocking(true)?;
            let mut listener = TcpListener::from_std(listener);
            let address: SocketAddr = listener.local_addr()?;
            *port = address.port();
            driver.listen(number, &mut listener)?;
            listeners.push(listener);
        }
        let state = Arc::new(Mutex::new(State::default()));
        let shared = Arc::clone(&state);
        thread::spawn(move || {
            loop {
                if let Err(error) = serve(&mut driver, &listeners, &contexts, &shared) {
                    lock(&shared).failures.push(format!("back ends: {error}"));
                }
            }
        });
        Ok(Self { ports, state })
    }

    /// From now on connections are of this run.
    pub(crate) fn begin(&self, run: &Arc<Run>) {
        *lock(&self.state) = State { run: Some(Arc::clone(run)), ..State::default() };
    }

    /// How many came to a right end, and what is wrong with the others.
    pub(crate) fn end(&self, expected: usize) -> (usize, Vec<String>) {
        let deadline = Instant::now() + BEHIND;
        loop {
            let state = lock(&self.state);
            if state.done + state.failures.len() >= expected {
                return (state.done, state.failures.clone());
            }
            if Instant::now() > deadline {
                let mut failures = state.failures.clone();
                failures.extend(state.open.iter().map(|open| format!("not in time; {open}")));
                return (state.done, failures);
            }
            drop(state);
            thread::sleep(Duration::from_millis(20));
        }
    }
}

fn serve(
    driver: &mut Driver,
    listeners: &[TcpListener],
    contexts: &[Option<openssl::ssl::SslContext>; 3],
    shared: &Mutex<State>,
) -> io::Result<()> {
    let Some(run) = lock(shared).run.clone() else {
        thread::sleep(Duration::from_millis(5));
        return Ok(());
    };
    let (ready, outcomes) = driver.round(&run, true)?;
    for number in ready {
        loop {
            match listeners[number].accept() {
                Ok((tcp, _)) => {
                    let wire = Wire::new(tcp, contexts[number].as_ref(), true)?;
                    driver.add(Peer::origin(wire))?;
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) => return Err(error),
            }
        }
    }
    let mut state = lock(shared);
    for outcome in outcomes {
        match outcome {
            Outcome::Done(_) => state.done += 1,
            Outcome::Failed(peer, error) => {
                state.failures.push(format!("{error}; {}", peer.place()))
            }
        }
    }
    if driver.peers.len() < 100 {
        state.open = driver.peers.values().map(Peer::place).collect();
    }
    Ok(())
}
