//! How a tunnel ended, and who is told.

use std::any::Any;
use std::fmt;
use std::io;
use std::os::fd::BorrowedFd;
use std::time::Duration;

/// Who ended a tunnel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum By {
    /// The client.
    Client,
    /// The back end.
    Backend,
    /// This side: an order, a timeout, a fault of the relay.
    Us,
}

/// Why an orderly end was ordered, see [`Relay::end_all`](crate::Relay::end_all).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// The server stops.
    Stop,
    /// The tunnel outlived its process for longer than allowed.
    DrainTimeout,
}

/// Why a tunnel ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Why {
    /// Both directions came to their end; the side that ended first said so before, by its Close
    /// frame or by its TLS's close_notify, if it has TLS.
    Closed,
    /// As [`Closed`](Why::Closed), but the TLS side that ended first did so without either
    /// (RFC 8446 6.1: possibly truncated).
    Truncated,
    /// A side was reset or gone when written to.
    Reset,
    /// A system call on a side failed with this errno.
    Error(i32),
    /// A side's TLS failed; the text is the TLS library's.
    Tls(String),
    /// No byte in either direction for the idle timeout.
    IdleTimeout,
    /// Ordered, see [`Order::Stop`].
    Stopped,
    /// Ordered, see [`Order::DrainTimeout`].
    DrainTimeout,
    /// A panic in this tunnel's task. A fault of the program.
    Panic,
    /// The relay thread that carried it died. A fault of the program.
    ThreadDied,
}

impl Why {
    /// How many kinds of reasons there are.
    pub const KINDS: usize = 10;

    /// A short name for each kind, in the order of [`kind`](Self::kind).
    pub const NAMES: [&'static str; Self::KINDS] = [
        "closed",
        "truncated",
        "reset",
        "error",
        "tls",
        "idle-timeout",
        "stopped",
        "drain-timeout",
        "panic",
        "thread-died",
    ];

    /// The index of this reason's kind, below [`KINDS`](Self::KINDS).
    pub fn kind(&self) -> usize {
        match self {
            Why::Closed => 0,
            Why::Truncated => 1,
            Why::Reset => 2,
            Why::Error(_) => 3,
            Why::Tls(_) => 4,
            Why::IdleTimeout => 5,
            Why::Stopped => 6,
            Why::DrainTimeout => 7,
            Why::Panic => 8,
            Why::ThreadDied => 9,
        }
    }

    /// The reason behind an I/O error of a side.
    pub(crate) fn from_error(error: &io::Error) -> Why {
        match error.raw_os_error() {
            Some(libc::ECONNRESET | libc::EPIPE | libc::ECONNABORTED) => Why::Reset,
            Some(errno) => Why::Error(errno),
            None => Why::Tls(error.to_string()),
        }
    }

    /// Whether the sides are to see a reset rather than an end.
    pub(crate) fn is_abrupt(&self) -> bool {
        matches!(self, Why::Reset | Why::Error(_) | Why::Tls(_) | Why::Panic | Why::ThreadDied)
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

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Why::Error(errno) => write!(f, "error: {}", io::Error::from_raw_os_error(*errno)),
            Why::Tls(text) => write!(f, "tls: {text}"),
            other => f.write_str(Why::NAMES[other.kind()]),
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
}

/// Identifies a tunnel for whoever made it, and is told of its end.
pub trait Record: AsAny + Send {
    /// Called at most once on each thread that carries the tunnel, when it has been carried
    /// there for [`Settings::lasting`](crate::Settings::lasting): what is worth doing for such a
    /// tunnel alone. With the descriptors of client and back end. Must not block.
    fn lasts(&mut self, _client: BorrowedFd<'_>, _backend: BorrowedFd<'_>) {}

    /// Called exactly once when the tunnel has ended, on a relay thread; not for tunnels that
    /// [`Relay::stop`](crate::Relay::stop) gives back. Must not block.
    fn ended(&mut self, end: &End);

    /// Called after that, when [`Relay::open`](crate::Relay::open) no longer has the tunnel. Must
    /// not block.
    fn settled(&mut self) {}
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
