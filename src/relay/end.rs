//! How a tunnel ended, and who is told.

use std::any::Any;
use std::time::{Duration, Instant};

pub use shared::By;
use shared::{Activity, Why};

use crate::close::Close;

/// Why an orderly end was ordered, see [`Relay::end_all`](crate::Relay::end_all).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// The server stops.
    Stop,
    /// The tunnel outlived its process for longer than allowed.
    DrainTimeout,
}

/// How all tunnels are ended, see [`Relay::end_all`](crate::Relay::end_all).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ending {
    /// Why.
    pub order: Order,
    /// The status code of the Close frames (RFC 6455 7.4.1); without one there are none.
    pub code: Option<u16>,
    /// The time over which the tunnels are ended, each at any instant of it, so that their clients
    /// do not come back all at once. Zero is at once.
    pub spread: Duration,
    /// How long a tunnel that is being ended waits for its peers.
    pub linger: Duration,
}

impl Ending {
    /// All at once.
    pub fn at_once(order: Order, code: Option<u16>, linger: Duration) -> Self {
        Ending { order, code, spread: Duration::ZERO, linger }
    }

    /// When all of them are closed, if it begins now.
    pub(crate) fn deadline(&self) -> Instant {
        Instant::now() + self.spread + self.linger
    }
}

impl From<Order> for Why {
    fn from(order: Order) -> Self {
        match order {
            Order::Stop => Why::Stopped,
            Order::DrainTimeout => Why::DrainTimeout,
        }
    }
}

/// The end of a tunnel.
#[derive(Clone, Debug)]
pub struct End {
    /// Bytes delivered from the client to the back end.
    pub bytes_up: u64,
    /// Bytes delivered from the back end to the client.
    pub bytes_down: u64,
    /// From [`Tunnel::new`](crate::Tunnel::new) to the end.
    pub duration: Duration,
    /// Who ended it.
    pub by: By,
    /// Why.
    pub why: Why,
    /// The status code of the client's Close frame (RFC 6455 7.1.5; 1005 if it had none).
    pub client_close: Option<u16>,
    /// The same of the back end's.
    pub backend_close: Option<u16>,
    /// Messages from the client; `None` if what it sends are not the frames of RFC 6455.
    pub messages_up: Option<u64>,
    /// The same from the back end.
    pub messages_down: Option<u64>,
}

/// How far a tunnel is that is open.
#[derive(Clone, Debug)]
pub struct Progress {
    /// Bytes delivered from the client to the back end so far.
    pub bytes_up: u64,
    /// Bytes delivered from the back end to the client so far.
    pub bytes_down: u64,
    /// Since [`Tunnel::new`](crate::Tunnel::new).
    pub duration: Duration,
    /// Messages from the client; `None` if what it sends are not the frames of RFC 6455.
    pub messages_up: Option<u64>,
    /// The same from the back end.
    pub messages_down: Option<u64>,
}

/// Identifies a tunnel for whoever made it, and is told of its end.
pub trait Record: AsAny + Send {
    /// Called every [`Rules::report_interval`](crate::Rules::report_interval) while the tunnel is
    /// open, on a relay thread. Must not block.
    fn goes_on(&mut self, _progress: &Progress) {}

    /// Called exactly once when the tunnel has ended, on a relay thread; not for tunnels that
    /// [`Relay::stop`](crate::Relay::stop) gives back. Must not block.
    fn ended(&mut self, end: &End);

    /// Called after that, when [`Relay::open`](crate::Relay::open) no longer has the tunnel. Must
    /// not block.
    fn settled(&mut self) {}

    /// Where others see what the tunnel does, and say what it is to do. It is the tunnel's until
    /// [`ended`](Self::ended) is called, or [`Relay::stop`](crate::Relay::stop) gives the tunnel back.
    fn activity(&self) -> Option<&'static Activity> {
        None
    }

    /// What the order in its activity says, if that is for this tunnel. Asked whenever there is one
    /// while the tunnel is carried. Must not block.
    fn ordered(&self) -> Option<Close> {
        None
    }
}

/// Gives [`Record`]s back their type, see [`Tunnel::record`](crate::Tunnel::record).
pub trait AsAny: Any {
    /// As `&dyn Any`.
    fn as_any(&self) -> &dyn Any;
    /// As `&mut dyn Any`.
    fn as_any_mut(&mut self) -> &mut dyn Any;
}

impl<T: Any> AsAny for T {
    fn as_any(&self) -> &dyn Any {
        self
    }

    fn as_any_mut(&mut self) -> &mut dyn Any {
        self
    }
}
