//! How a tunnel is carried to its end.

use std::fs::File;
use std::io::{Read, Write};
use std::net::Shutdown;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::sync::OnceLock;
use std::sync::mpsc::{Sender, channel};
use std::time::Duration;

use relay::{Counters, End, Record, Relay, Settings, Tunnel, Why};

/// Longer than anything here takes on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// Where the microseconds stand for which a frozen tunnel was there: not its state, as they go on.
const AGE: std::ops::Range<usize> = 2..10;

/// Whether two frozen tunnels are the same but for their age.
pub fn same_state(one: &[u8], other: &[u8]) -> bool {
    one[..AGE.start] == other[..AGE.start] && one[AGE.end..] == other[AGE.end..]
}

/// Tells of a tunnel's end; whoever may have gone by then.
pub struct Told(Sender<End>);

impl Told {
    /// Nobody is told.
    pub fn nobody() -> Self {
        Told(channel().0)
    }
}

impl Record for Told {
    fn ended(&mut self, end: &End) {
        let _ = self.0.send(end.clone());
    }
}

/// A descriptor that nobody uses.
pub fn nothing() -> OwnedFd {
    static NOTHING: OnceLock<File> = OnceLock::new();
    let file = NOTHING.get_or_init(|| File::open("/dev/null").expect("/dev/null"));
    file.try_clone().expect("a descriptor").into()
}

/// Has a relay carry the tunnel that `make` makes, whose client and back end have each sent this
/// and ended. Returns the end that it comes to.
pub fn carry(sent: [&[u8]; 2], make: impl FnOnce([OwnedFd; 2], Told) -> Tunnel) -> End {
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
        peer.set_read_timeout(Some(PATIENCE)).expect("timeout");
        let mut buffer = [0; 4096];
        while peer.read(&mut buffer).is_ok_and(|n| n > 0) {}
    }
    let end = ends.recv_timeout(PATIENCE).expect("it ends");
    drop((client, backend));
    assert!(!matches!(end.why, Why::Panic | Why::ThreadDied), "{end:?}");
    assert_eq!(relay.alive(), 1);
    end
}
