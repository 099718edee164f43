//! Frozen tunnels as another process may have written them: none upsets the thread that goes on
//! with it, and what was frozen is thawed.

use std::fs::File;
use std::io::{Read, Write};
use std::net::Shutdown;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::sync::OnceLock;
use std::sync::mpsc::{Sender, channel};
use std::time::Duration;

use relay::{Counters, End, FROZEN_VERSION, Record, Relay, Settings, Tunnel, Why};

use crate::input;

/// Longer than anything here takes on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// How long the tunnel is there: not its state, as it goes on.
const AGE: std::ops::Range<usize> = 2..10;

struct Told(Sender<End>);

impl Record for Told {
    fn ended(&mut self, end: &End) {
        let _ = self.0.send(end.clone());
    }
}

struct Nobody;

impl Record for Nobody {
    fn ended(&mut self, _: &End) {}
}

/// A byte that says how many of the next ones come later through the sockets, then a frozen tunnel
/// without its version.
pub fn run(mut data: &[u8]) {
    let later = usize::from(input::byte(&mut data));
    let later = input::bytes(&mut data, later);
    let data = [&FROZEN_VERSION.to_le_bytes(), data].concat();
    let data = &*data;
    let Some(tunnel) = thawed(data, nothing(), nothing(), Box::new(Nobody)) else { return };
    let again = tunnel.freeze().expect("it is plain, and not being ended");
    assert!(same_state(&again, data), "it is frozen as it was");
    drop(tunnel);
    carry(data, later);
}

fn same_state(one: &[u8], other: &[u8]) -> bool {
    one[..AGE.start] == other[..AGE.start] && one[AGE.end..] == other[AGE.end..]
}

fn thawed(
    frozen: &[u8],
    client: OwnedFd,
    backend: OwnedFd,
    record: Box<dyn Record>,
) -> Option<Tunnel> {
    Tunnel::thaw(frozen, client, backend, record)
}

/// A descriptor that nobody uses.
fn nothing() -> OwnedFd {
    static NOTHING: OnceLock<File> = OnceLock::new();
    let file = NOTHING.get_or_init(|| File::open("/dev/null").expect("/dev/null"));
    file.try_clone().expect("a descriptor").into()
}

/// Has a relay go on with it.
fn carry(frozen: &[u8], later: &[u8]) {
    static RELAY: OnceLock<Relay> = OnceLock::new();
    let relay = RELAY.get_or_init(|| {
        let counters = Box::leak(Box::new(Counters::new()));
        Relay::start(&Settings::default(), counters).expect("a relay")
    });
    let [(client, a), (backend, b)] = [(); 2].map(|()| UnixStream::pair().expect("sockets"));
    let (sender, ends) = channel();
    let tunnel = thawed(frozen, a.into(), b.into(), Box::new(Told(sender))).expect("as before");
    relay.adopt(tunnel).map_err(drop).expect("adopted");
    for mut peer in [&client, &backend] {
        // Who is being ended, or has ended, takes nothing.
        let _ = peer.write_all(later);
        let _ = peer.shutdown(Shutdown::Write);
    }
    for mut peer in [&client, &backend] {
        peer.set_read_timeout(Some(PATIENCE)).expect("timeout");
        let mut buffer = [0; 4096];
        while peer.read(&mut buffer).is_ok_and(|n| n > 0) {}
    }
    drop((client, backend));
    let end = ends.recv_timeout(PATIENCE).expect("it ends");
    assert!(!matches!(end.why, Why::Panic | Why::ThreadDied), "{end:?}");
    assert_eq!(relay.alive(), 1);
}
