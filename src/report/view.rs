//! What there is to show. Plain values, filled in by whoever knows them.

use std::net::IpAddr;

use crate::ready::NotReady;

/// All but the list of tunnels.
#[derive(Debug, Clone)]
pub struct Overview {
    /// Of this module.
    pub version: String,
    /// Of httpd: its version, as it says it itself.
    pub httpd: String,
    /// Of the OpenSSL that mod_ssl brought; empty without.
    pub openssl: String,
    /// event, worker, prefork, ...
    pub mpm: String,
    /// When the server started, in seconds since the epoch.
    pub started: u64,
    /// Whether it takes new tunnels, or why not.
    pub ready: Result<(), NotReady>,
    /// Whether `WSForwardStatusActions` is `On` here.
    pub is_closing_allowed: bool,
    /// For one POST; empty if closing is not allowed.
    pub nonce: String,
    /// How many tunnels may be open.
    pub possible: u64,
    /// Open tunnels that the register had no place for: they are counted, and not listed.
    pub unlisted: u64,
    /// Open tunnels; one for each combination of its fields that has any.
    pub open: Vec<Open>,
    /// Totals with labels. Several with the same labels are added up.
    pub samples: Vec<Sample>,
    /// Tunnels that stayed in their worker thread, by the name of the reason.
    pub fallbacks: Vec<(&'static str, u64)>,
    /// TLS sessions of tunnels that were given to the relay, by the name of what became of them.
    pub tls_sessions: Vec<(&'static str, u64)>,
    /// How long tunnels lasted that ended.
    pub tunnel_durations: Histogram,
    /// How long handshakes took: from connecting to the back end to its answer.
    pub handshake_durations: Histogram,
    /// Children and drain processes.
    pub processes: Vec<Process>,
}

impl Overview {
    /// How many drain processes there are.
    #[must_use]
    pub fn drain_processes(&self) -> u64 {
        let is_drain = |process: &&Process| process.kind == ProcessKind::Drain;
        self.processes.iter().filter(is_drain).count() as u64
    }
}

/// Where a tunnel is carried.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Place {
    /// By a relay thread of a child.
    Relay,
    /// By a drain process.
    Drain,
    /// By the worker thread in which it began.
    Thread,
}

impl Place {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Relay, Self::Drain, Self::Thread];

    /// As it is shown.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Relay => "relay",
            Self::Drain => "drain",
            Self::Thread => "thread",
        }
    }
}

/// How many tunnels are open.
#[derive(Debug, Clone)]
pub struct Open {
    /// Of this virtual host: ServerName and port.
    pub vhost: Vec<u8>,
    /// To this back end: scheme, host and port, or the unix socket.
    pub backend: Vec<u8>,
    /// Carried here.
    pub place: Place,
    /// That many.
    pub tunnels: u64,
}

/// From the client to the back end, or the other way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// From the client.
    Up,
    /// From the back end.
    Down,
}

impl Direction {
    /// As it is shown.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Up => "up",
            Self::Down => "down",
        }
    }
}

/// What a message is made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Opcode {
    /// Text, RFC 6455 says UTF-8.
    Text,
    /// Bytes.
    Binary,
}

impl Opcode {
    /// As it is shown.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Text => "text",
            Self::Binary => "binary",
        }
    }
}

/// What is counted of a virtual host.
#[derive(Debug, Clone)]
pub enum Counter {
    /// Tunnels opened.
    Opened {
        /// To this back end.
        backend: Vec<u8>,
    },
    /// Tunnels closed.
    Closed {
        /// By client, backend or server.
        by: &'static str,
        /// The name of the reason.
        reason: &'static str,
        /// The code of the Close frame that ended it, 1006 if there was none (RFC 6455 7.1.5).
        /// Those that are not 1000 to 1015 are shown as `other`.
        code: u16,
    },
    /// Handshakes, by how they ended: 101, answer, bad_101, ...
    Handshakes {
        /// One of a few words.
        result: &'static str,
    },
    /// Bytes of tunnels, those of open ones included.
    Bytes(Direction),
    /// Messages of tunnels, those of open ones included.
    Messages(Direction, Opcode),
}

/// A total.
#[derive(Debug, Clone)]
pub struct Sample {
    /// Of this virtual host.
    pub vhost: Vec<u8>,
    /// What is counted.
    pub counter: Counter,
    /// How often.
    pub value: u64,
}

/// How many durations were up to each of some bounds.
#[derive(Debug, Clone, Default)]
pub struct Histogram {
    /// The bounds, in microseconds, from the shortest to the longest.
    pub bounds_micros: &'static [u64],
    /// How many were up to each bound and beyond the one before; the last is beyond all of them.
    /// What is missing is 0.
    pub counts: Vec<u64>,
    /// All of them added up.
    pub sum_micros: u64,
}

/// What kind of process it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProcessKind {
    /// A child of httpd.
    Child,
    /// What carries on the tunnels of children that ended.
    Drain,
}

impl ProcessKind {
    /// As it is shown.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Child => "child",
            Self::Drain => "drain",
        }
    }
}

/// A process with tunnels, or for them.
#[derive(Debug, Clone)]
pub struct Process {
    /// Its id.
    pub pid: u32,
    /// What it is.
    pub kind: ProcessKind,
    /// Tunnels that its relay threads carry.
    pub tunnels: u64,
    /// How many those may be; 0 if it takes none.
    pub possible: u64,
    /// Its relay threads.
    pub threads: Vec<RelayThread>,
}

/// A relay thread.
#[derive(Debug, Clone)]
pub struct RelayThread {
    /// Its number in its process.
    pub number: u32,
    /// The time on a processor that it used so far.
    pub cpu_micros: u64,
}

/// An open tunnel. Its texts are borrowed, so that making one costs nothing.
#[derive(Debug, Clone, Copy)]
pub struct Tunnel<'a> {
    /// httpd's log id of its request.
    pub id: &'a [u8],
    /// The client's address.
    pub client: IpAddr,
    /// The client's port.
    pub port: u16,
    /// REMOTE_USER; empty without.
    pub user: &'a [u8],
    /// ServerName and port.
    pub vhost: &'a [u8],
    /// The request's path.
    pub path: &'a [u8],
    /// The subprotocol that the back end chose; empty without.
    pub subprotocol: &'a [u8],
    /// Scheme, host and port, or the unix socket.
    pub backend: &'a [u8],
    /// Where it is carried.
    pub place: Place,
    /// By this process.
    pub pid: u32,
    /// When it began, in microseconds since the epoch.
    pub started_micros: u64,
    /// How long ago that is, in whole seconds.
    pub seconds: u64,
    /// How long no byte came from either side, in whole seconds.
    pub idle_seconds: u64,
    /// From the client, after the 101.
    pub bytes_up: u64,
    /// From the back end, after the 101.
    pub bytes_down: u64,
    /// From the client.
    pub messages_up: u64,
    /// From the back end.
    pub messages_down: u64,
    /// Whether the client's side has TLS.
    pub is_client_tls: bool,
    /// Whether the back end's side has TLS.
    pub is_backend_tls: bool,
}
