//! A tunnel as it is made, and how it is carried to its end.

use std::fs::File;
use std::io::{Read, Write};
use std::net::Shutdown;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::sync::OnceLock;
use std::sync::mpsc::{Sender, channel};
use std::time::Duration;

use relay::{
    Counters, End, Ending, Order, Record, Relay, Rules, Settings, Side, Strict, Tracker, Tunnel,
    Why,
};

use crate::input;

/// Longer than anything here takes on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);
/// A tunnel that has not ended by then has a client that is held back, and is ordered to end.
const SLOW: Duration = Duration::from_secs(5);

/// Where the microseconds stand for which a frozen tunnel was there: not its state, as they go on.
const AGE: std::ops::Range<usize> = 2..10;

/// Whether two frozen tunnels are the same but for their age.
pub(crate) fn same_state(one: &[u8], other: &[u8]) -> bool {
    one[..AGE.start] == other[..AGE.start] && one[AGE.end..] == other[AGE.end..]
}

/// Tells of a tunnel's end; whoever may have gone by then.
pub(crate) struct Told(Sender<End>);

impl Told {
    /// Nobody is told.
    pub(crate) fn nobody() -> Self {
        Told(channel().0)
    }
}

impl Record for Told {
    fn ended(&mut self, end: &End) {
        let _ = self.0.send(end.clone());
    }
}

/// What a tunnel is made of.
pub(crate) struct Plan<'a> {
    is_websocket: bool,
    rules: Rules,
    /// What came of the client with its request, and of the back end with its answer.
    ahead: [&'a [u8]; 2],
}

impl<'a> Plan<'a> {
    /// A byte of flags, one for each of two limits, then twice one that says how many of the next
    /// ones came ahead.
    pub(crate) fn take(data: &mut &'a [u8]) -> Self {
        let flags = input::byte(data);
        let [client, backend] = [0; 2].map(|_| u64::from(input::byte(data)));
        let rules = Rules {
            linger: Some(PATIENCE * 10),
            max_message_client: Some(client),
            max_message_backend: Some(backend),
            strict: match flags & 3 {
                0 => None,
                1 => Some(Strict::On),
                2 => Some(Strict::Deflate),
                _ => Some(Strict::Extended),
            },
            message_rate: (flags & 8 != 0).then_some(1_000_000),
            message_burst: (flags & 16 != 0).then_some(1_000_000),
            bandwidth: (flags & 32 != 0).then_some(1_000_000_000),
            ..Rules::default()
        };
        let ahead = [0; 2].map(|_| {
            let length = usize::from(input::byte(data));
            input::bytes(data, length)
        });
        Plan { is_websocket: flags & 4 == 0, rules, ahead }
    }

    /// A tunnel between these.
    pub(crate) fn make(&self, [client, backend]: [OwnedFd; 2], record: Told) -> Tunnel {
        let frames = match self.is_websocket {
            true => [Tracker::client_to_backend(), Tracker::backend_to_client()],
            false => [Tracker::opaque(), Tracker::opaque()],
        };
        let side = |fd, ahead: &[u8]| Side { tls: None, fd, read_ahead: ahead.to_vec() };
        let [client, backend] = [side(client, self.ahead[0]), side(backend, self.ahead[1])];
        Tunnel::new(client, backend, frames, self.rules, Box::new(record))
    }

    /// The tunnel, frozen at once.
    pub(crate) fn frozen(&self) -> Vec<u8> {
        let tunnel = self.make([nothing(), nothing()], Told::nobody());
        tunnel.freeze().expect("it is plain, and not being ended").bytes().to_vec()
    }
}

/// A descriptor that nobody uses.
pub(crate) fn nothing() -> OwnedFd {
    static NOTHING: OnceLock<File> = OnceLock::new();
    let file = NOTHING.get_or_init(|| File::open("/dev/null").expect("/dev/null"));
    file.try_clone().expect("a descriptor").into()
}

/// Has a relay carry the tunnel that `make` makes, whose client and back end have each sent this
/// and ended. Returns the end that it comes to.
pub(crate) fn carry(sent: [&[u8]; 2], make: impl FnOnce([OwnedFd; 2], Told) -> Tunnel) -> End {
    static RELAY: OnceLock<Relay> = OnceLock::new();
    let relay = RELAY.get_or_init(|| {
        let counters = Box::leak(Box::new(Counters::new()));
        Relay::start(&Settings::default(), counters).expect("a relay")
    });
    let [(mut client, a), (mut backend, b)] =
        [(); 2].map(|()| UnixStream::pair().expect("sockets"));
    let (sender, ends) = channel();
    let tunnel = make([a.into(), b.into()], Told(sender));
    // All of it is there when the tunnel is carried: nothing depends on who is faster.
    for (peer, sent) in [(&mut client, sent[0]), (&mut backend, sent[1])] {
        peer.write_all(sent).expect("a socket takes it");
        peer.shutdown(Shutdown::Write).expect("shutdown");
    }
    relay.adopt(tunnel).map_err(drop).expect("adopted");
    for peer in [&mut client, &mut backend] {
        peer.set_read_timeout(Some(SLOW)).expect("timeout");
        let mut buffer = [0; 4096];
        while peer.read(&mut buffer).is_ok_and(|n| n > 0) {}
    }
    let is_over = ends.recv_timeout(SLOW);
    let end = is_over.or_else(|_| {
        let [spread, linger] = [Duration::ZERO, Duration::from_millis(10)];
        relay.end_all(Ending { order: Order::Stop, code: None, spread, linger });
        ends.recv_timeout(PATIENCE)
    });
    let end = end.expect("it ends");
    drop((client, backend));
    assert!(!matches!(end.why, Why::Panic | Why::ThreadDied), "{end:?}");
    assert_eq!(relay.alive(), 1);
    end
}
