//! The one table of directives, and how sections merge.

pub mod advice;
pub mod bound;

use std::ffi::CStr;
use std::hash::{BuildHasher, RandomState};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use protocol::handshake::Rigour;
use protocol::upgrade::{WEBSOCKET, is_protocol};
use protocol::{extensions, origin_rule};
use relay::{GOING_AWAY, KeepAlive, Rules, Strict};

use crate::config::bound::Bound;
use crate::ffi::command::{Arguments, Context, Directive, not_allowed, number, time};
use crate::ffi::request::Request;
use crate::ffi::role::Parent;
use crate::ffi::section::{self, SectionConfig};

/// Settings of a directory, location or server. A field that was not set is
/// `None`, which is not the same as its default: it lets an outer section decide.
#[derive(Clone, Copy, Default)]
pub struct DirConfig<'p> {
    forward: Option<bool>,
    relay: Option<bool>,
    protocols: Option<&'p [u8]>,
    rigour: Option<Rigour>,
    origins: Option<&'p [u8]>,
    extensions: Option<&'p [u8]>,
    handshake_timeout: Option<Duration>,
    access_log: Option<AccessLog>,
    ready_file: Option<&'p CStr>,
    status_actions: Option<bool>,
    rules: Rules,
    lifetime: Option<Lifetime>,
}

impl SectionConfig for DirConfig<'static> {
    type In<'p> = DirConfig<'p>;

    fn merge<'p>(base: &Self::In<'p>, over: &Self::In<'p>) -> Self::In<'p> {
        DirConfig {
            forward: over.forward.or(base.forward),
            relay: over.relay.or(base.relay),
            protocols: over.protocols.or(base.protocols),
            rigour: over.rigour.or(base.rigour),
            origins: over.origins.or(base.origins),
            extensions: over.extensions.or(base.extensions),
            handshake_timeout: over.handshake_timeout.or(base.handshake_timeout),
            access_log: over.access_log.or(base.access_log),
            ready_file: over.ready_file.or(base.ready_file),
            status_actions: over.status_actions.or(base.status_actions),
            rules: over.rules.or(base.rules),
            lifetime: over.lifetime.or(base.lifetime),
        }
    }
}

impl<'p> DirConfig<'p> {
    /// Those that hold for a request.
    pub fn of(r: Request<'p>) -> Self {
        section::config::<DirConfig<'static>>(r)
    }

    /// WSForward: take upgrade requests that are proxied from here.
    pub fn forward(&self) -> bool {
        self.forward.unwrap_or(false)
    }

    /// WSForwardRelay: give open tunnels to the relay.
    pub fn relay(&self) -> bool {
        self.relay.unwrap_or(false)
    }

    /// WSForwardProtocols: the Upgrade tokens that are taken, split by spaces.
    pub fn protocols(&self) -> &'p [u8] {
        self.protocols.unwrap_or(WEBSOCKET)
    }

    /// WSForwardCheck: how much of RFC 6455 a 101 must keep to.
    pub fn rigour(&self) -> Rigour {
        self.rigour.unwrap_or_default()
    }

    /// WSForwardOrigin, where it asks for a look at the Origin: its words, with spaces between them.
    pub fn origins(&self) -> Option<&'p [u8]> {
        self.origins.filter(|words| origin_rule::is_checked(words))
    }

    /// WSForwardExtensions, where it leaves any out: its words, with spaces between them.
    pub fn extensions(&self) -> Option<&'p [u8]> {
        self.extensions.filter(|words| !words.eq_ignore_ascii_case(extensions::ANY.as_bytes()))
    }

    /// WSForwardHandshakeTimeout, if set: how long a back end may take from the
    /// connection to the end of its response head.
    pub fn handshake_timeout(&self) -> Option<Duration> {
        self.handshake_timeout
    }

    /// WSForwardAccessLog: when a relayed tunnel gets its line.
    pub fn access_log(&self) -> AccessLog {
        self.access_log.unwrap_or_default()
    }

    /// The same, with a time since 1970 at which the tunnel ends.
    pub fn until(mut self, expires: Option<Duration>) -> Self {
        self.rules.expires = expires;
        self
    }

    /// WSForwardReadyFile: while this file is absent there is no new tunnel.
    pub fn ready_file(&self) -> Option<&'p CStr> {
        self.ready_file
    }

    /// WSForwardStatusActions: whether the status page may close tunnels.
    pub fn status_actions(&self) -> bool {
        self.status_actions.unwrap_or(false)
    }

    /// The directives that hold for an open tunnel.
    pub fn rules(&self) -> Rules {
        Rules { max_lifetime: self.lifetime.map(Lifetime::of_one), ..self.rules }
    }
}

/// WSForwardMaxLifetime.
#[derive(Debug, Clone, Copy)]
struct Lifetime {
    most: Duration,
    /// By how much it may be less, so that tunnels that began together do not end together.
    jitter_percent: u32,
}

impl Lifetime {
    /// How long one tunnel may live.
    fn of_one(self) -> Duration {
        // Keys of the standard library's are random; nobody gains by guessing them.
        let random = RandomState::new().hash_one(0) as u32;
        let part = f64::from(random) / f64::from(u32::MAX) * f64::from(self.jitter_percent) / 100.0;
        // Zero would be for ever.
        let least = Duration::from_millis(1).min(self.most);
        self.most.mul_f64(1.0 - part).max(least)
    }
}

/// WSForwardAccessLog: when a relayed tunnel gets its line in the access logs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum AccessLog {
    /// When it has ended.
    #[default]
    End,
    /// When it leaves its worker thread.
    Start,
    /// One each.
    Both,
}

/// How many leading bits of an address say who the client is.
#[derive(Debug, Clone, Copy)]
pub struct ClientPrefix {
    /// Of an IPv4 address, 1 to 32.
    pub v4: u32,
    /// Of an IPv6 address, 1 to 128.
    pub v6: u32,
}

/// Settings of the server as a whole.
#[derive(Debug, Clone, Copy)]
pub struct Settings {
    /// WSForwardRelayThreads.
    pub threads: usize,
    /// WSForwardBufferSize, in bytes.
    pub buffer_size: usize,
    /// WSForwardKeepAlive; `None` is Off.
    pub keep_alive: Option<KeepAlive>,
    /// WSForwardMaxTunnels; `None` is by the limit of descriptors, and by memory if not set.
    pub max_tunnels: Option<u32>,
    /// The bound where WSForwardMaxTunnels is not set; see [`find_bound`].
    pub by_memory: Option<Bound>,
    /// WSForwardMaxTunnels is set, if to 0.
    bound_is_set: bool,
    /// WSForwardMaxTunnelsPerClient; `None` is no limit.
    pub max_per_client: Option<u32>,
    /// WSForwardMaxTunnelsPerBackend; `None` is no limit.
    pub max_per_backend: Option<u32>,
    /// WSForwardClientPrefix.
    pub client_prefix: ClientPrefix,
    /// WSForwardDrainTimeout; `None` is until the tunnels end.
    pub drain_timeout: Option<Duration>,
    /// WSForwardMaxDrainProcesses; `None` is by what the machine allows.
    pub max_drain_processes: Option<usize>,
    /// WSForwardRegisterSize.
    pub register_size: u32,
    /// WSForwardReadyBelow, in percent.
    pub ready_below: u32,
    /// `WSForwardStatusActions On` anywhere.
    pub actions: bool,
    /// WSForwardCloseSpread: the time over which many tunnels are ended.
    pub close_spread: Duration,
    /// WSForwardCloseCode.
    pub close_code: u16,
    /// `WSForward On` anywhere.
    used: bool,
    /// `WSForwardRelay On` anywhere.
    relay: bool,
}

/// Those of a configuration that says nothing.
pub const DEFAULTS: Settings = Settings {
    threads: 1,
    buffer_size: 262144,
    keep_alive: Some(KeepAlive { idle_seconds: 60, interval_seconds: 20, probes: 3 }),
    max_tunnels: None,
    by_memory: None,
    bound_is_set: false,
    max_per_client: None,
    max_per_backend: None,
    client_prefix: ClientPrefix { v4: 32, v6: 64 },
    drain_timeout: None,
    max_drain_processes: None,
    register_size: 65_536,
    ready_below: 95,
    actions: false,
    close_spread: Duration::ZERO,
    close_code: GOING_AWAY,
    used: false,
    relay: false,
};

/// Those of the configuration that was read last. Written while the parent reads it; its children
/// have copies. In a child an .htaccess may write to [`Settings::used`], where nobody looks.
static SETTINGS: Mutex<Settings> = Mutex::new(DEFAULTS);

fn change(change: impl FnOnce(&mut Settings)) {
    change(&mut SETTINGS.lock().unwrap_or_else(PoisonError::into_inner));
}

/// Back to the defaults, before a configuration is read.
pub fn reset(_: &Parent) {
    change(|settings| *settings = DEFAULTS);
}

/// Settings of the server as a whole.
pub fn settings() -> Settings {
    *SETTINGS.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Looks for the bound of a server that needs one and has none set, and returns it.
pub fn find_bound(_: &Parent) -> Option<Bound> {
    let settings = settings();
    if !settings.relay || settings.bound_is_set {
        return None;
    }
    let bound = Bound::find();
    change(|settings| settings.by_memory = bound);
    bound
}

/// Whether the configuration that was read says `WSForward On` anywhere.
pub fn is_used() -> bool {
    settings().used
}

/// Whether it says `WSForwardRelay On` anywhere.
pub fn uses_relay() -> bool {
    settings().relay
}

/// Every directive.
pub static DIRECTIVES: [Directive<DirConfig<'static>>; 31] = [
    Directive {
        name: c"WSForward",
        context: Context::Override,
        usage: c"On or Off: whether WebSocket upgrade requests that are proxied from here reach their back end",
        set: |config, values| {
            let on = values.flag()?;
            config.forward = Some(on);
            change(|settings| settings.used |= on);
            Ok(())
        },
    },
    Directive {
        name: c"WSForwardRelay",
        context: Context::Directory,
        usage: c"On or Off: whether an open tunnel leaves its worker thread for the relay",
        set: |config, values| {
            let on = values.flag()?;
            config.relay = Some(on);
            change(|settings| settings.relay |= on);
            Ok(())
        },
    },
    Directive {
        name: c"WSForwardProtocols",
        context: Context::Directory,
        usage: c"Upgrade tokens that are taken (default: websocket)",
        set: |config, values| {
            config.protocols = Some(protocols(values)?);
            Ok(())
        },
    },
    Directive {
        name: c"WSForwardCheck",
        context: Context::Directory,
        usage: c"strict, lenient or off: whether a 101 that RFC 6455 forbids is refused, logged, or not looked at (default: strict)",
        set: |config, values| {
            config.rigour = Some(rigour(values)?);
            Ok(())
        },
    },
    Directive {
        name: c"WSForwardOrigin",
        context: Context::Directory,
        usage: c"any, or of same, required, null and origins such as https://example.com or https://*.example.com: which Origin an upgrade request may have (default: any)",
        set: |config, values| {
            config.origins = Some(origins(values)?);
            Ok(())
        },
    },
    Directive {
        name: c"WSForwardExtensions",
        context: Context::Directory,
        usage: c"any, none, or names such as permessage-deflate: the extensions of WebSocket that a client may offer to the back end (default: any)",
        set: |config, values| {
            config.extensions = Some(extensions(values)?);
            Ok(())
        },
    },
    Directive {
        name: c"WSForwardHandshakeTimeout",
        context: Context::Directory,
        usage: c"time from the connection to the back end to the end of its response head, in seconds or with a unit (default: the worker's timeout)",
        set: |config, values| {
            config.handshake_timeout = Some(values.time(Duration::from_millis(1))?);
            Ok(())
        },
    },
    Directive {
        name: c"WSForwardIdleTimeout",
        context: Context::Directory,
        usage: c"how long a tunnel may be silent in both directions, in seconds or with a unit; 0 is for ever (default: for ever in the relay, the longer of Timeout and ProxyTimeout in a worker thread)",
        set: |config, values| {
            config.rules.idle_timeout = Some(values.time(Duration::ZERO)?);
            Ok(())
        },
    },
    Directive {
        name: c"WSForwardPing",
        context: Context::Directory,
        usage: c"Off, or the time after which a silent side of a relayed tunnel is sent a Ping, and the time that it has to answer, by default as long (default: Off)",
        set: |config, values| {
            let [interval, timeout] = ping(values)?;
            config.rules.ping_interval = Some(interval);
            config.rules.ping_timeout = Some(timeout);
            Ok(())
        },
    },
    Directive {
        name: c"WSForwardMaxMessage",
        context: Context::Directory,
        usage: c"the most payload bytes of a message of the client, and of one of the back end; 0 is no limit (default: 0 0)",
        set: |config, values| {
            let [client, backend] = max_message(values)?;
            config.rules.max_message_client = Some(client);
            config.rules.max_message_backend = Some(backend);
            Ok(())
        },
    },
    Directive {
        name: c"WSForwardStrict",
        context: Context::Directory,
        usage: c"On or Off: whether frames that are not as RFC 6455 wants them end the tunnel (default: Off)",
        set: |config, values| {
            let strict = if values.flag()? { Strict::On } else { Strict::Off };
            config.rules.strict = Some(strict);
            Ok(())
        },
    },
    Directive {
        name: c"WSForwardMessageRate",
        context: Context::Directory,
        usage: c"how many messages the client of a relayed tunnel may send in a second, such as 20/s, and how many of them at once; 0 is no limit (default: 0)",
        set: |config, values| {
            let [rate, burst] = message_rate(values)?;
            config.rules.message_rate = Some(rate);
            config.rules.message_burst = Some(burst);
            Ok(())
        },
    },
    Directive {
        name: c"WSForwardBandwidth",
        context: Context::Directory,
        usage: c"how many bytes the client of a relayed tunnel may send in a second, such as 65536/s; 0 is no limit (default: 0)",
        set: |config, values| {
            config.rules.bandwidth = Some(bandwidth(values)?);
            Ok(())
        },
    },
    Directive {
        name: c"WSForwardAccessLog",
        context: Context::Directory,
        usage: c"end, start or both: whether a relayed tunnel has its line in the access logs when it has ended, when it leaves its worker thread, or one each (default: end)",
        set: |config, values| {
            config.access_log = Some(access_log(values)?);
            Ok(())
        },
    },
    Directive {
        name: c"WSForwardAccessLogInterval",
        context: Context::Directory,
        usage: c"how often a relayed tunnel that is open has a line in the access logs, in seconds or with a unit; 0 is never (default: 0)",
        set: |config, values| {
            config.rules.report_interval = Some(log_interval(values)?);
            Ok(())
        },
    },
    Directive {
        name: c"WSForwardMaxLifetime",
        context: Context::Directory,
        usage: c"how long a tunnel may be open, in seconds or with a unit, and by up to how many percent less; 0 is for ever (default: 0)",
        set: |config, values| {
            config.lifetime = Some(lifetime(values)?);
            Ok(())
        },
    },
    Directive {
        name: c"WSForwardMaxTunnels",
        context: Context::Server,
        usage: c"the most relayed tunnels open at a time in all processes; 0 is by the limit of descriptors alone (default: as many as fit the memory)",
        set: |_, values| {
            let most = values.number(0..=u32::MAX)?;
            change(|settings| {
                settings.max_tunnels = Some(most).filter(|most| *most > 0);
                settings.bound_is_set = true;
            });
            Ok(())
        },
    },
    Directive {
        name: c"WSForwardMaxTunnelsPerClient",
        context: Context::Server,
        usage: c"the most relayed tunnels open at a time for one client; 0 is no limit (default: 0)",
        set: |_, values| {
            let most = values.number(0..=u32::MAX)?;
            change(|settings| settings.max_per_client = Some(most).filter(|most| *most > 0));
            Ok(())
        },
    },
    Directive {
        name: c"WSForwardMaxTunnelsPerBackend",
        context: Context::Server,
        usage: c"the most tunnels open at a time to one back end; a balancer passes over a member that has them; 0 is no limit (default: 0)",
        set: |_, values| {
            let most = values.number(0..=u32::MAX)?;
            change(|settings| settings.max_per_backend = Some(most).filter(|most| *most > 0));
            Ok(())
        },
    },
    Directive {
        name: c"WSForwardClientPrefix",
        context: Context::Server,
        usage: c"leading bits of an IPv4 and of an IPv6 address that say who the client is (default: 32 64)",
        set: |_, values| {
            let [v4, v6] = values.all() else {
                return Err(not_allowed(values.all(), &"two numbers such as 32 64"));
            };
            let client_prefix = ClientPrefix { v4: number(v4, 1..=32)?, v6: number(v6, 1..=128)? };
            change(|settings| settings.client_prefix = client_prefix);
            Ok(())
        },
    },
    Directive {
        name: c"WSForwardRelayThreads",
        context: Context::Server,
        usage: c"relay threads of each child process (default: 1)",
        set: |_, values| {
            let threads = values.number(1..=64)?;
            change(|settings| settings.threads = threads as usize);
            Ok(())
        },
    },
    Directive {
        name: c"WSForwardBufferSize",
        context: Context::Server,
        usage: c"bytes of each relay thread's buffer, and the most kept for each direction of a tunnel (default: 262144)",
        set: |_, values| {
            let bytes = values.number(4096..=1_048_576)?;
            change(|settings| settings.buffer_size = bytes as usize);
            Ok(())
        },
    },
    Directive {
        name: c"WSForwardDrainTimeout",
        context: Context::Server,
        usage: c"how long tunnels may outlive their child process, in seconds or with a unit; 0 is until they end (default: 0)",
        set: |_, values| {
            let timeout = values.time(Duration::ZERO)?;
            change(|settings| {
                settings.drain_timeout = Some(timeout).filter(|timeout| !timeout.is_zero());
            });
            Ok(())
        },
    },
    Directive {
        name: c"WSForwardMaxDrainProcesses",
        context: Context::Server,
        usage: c"the most processes that carry tunnels of children that are gone; beyond it the oldest ends its tunnels; auto is as many as memory and the limits of processes allow (default: auto)",
        set: |_, values| {
            let most = drain_processes(values)?;
            change(|settings| settings.max_drain_processes = most);
            Ok(())
        },
    },
    Directive {
        name: c"WSForwardRegisterSize",
        context: Context::Server,
        usage: c"the most open tunnels that are listed; more are counted, limited and logged all the same (default: 65536)",
        set: |_, values| {
            let size = values.number(1..=262_144)?;
            change(|settings| settings.register_size = size);
            Ok(())
        },
    },
    Directive {
        name: c"WSForwardStatusActions",
        context: Context::Section,
        usage: c"On or Off: whether tunnels can be closed by the status page that is here (default: Off)",
        set: |config, values| {
            let on = values.flag()?;
            config.status_actions = Some(on);
            change(|settings| settings.actions |= on);
            Ok(())
        },
    },
    Directive {
        name: c"WSForwardReadyFile",
        context: Context::Server,
        usage: c"a file; while it is absent, upgrade requests are refused with 503 and the server says that it is not ready (default: none)",
        set: |config, values| {
            config.ready_file = Some(values.path()?);
            Ok(())
        },
    },
    Directive {
        name: c"WSForwardReadyBelow",
        context: Context::Server,
        usage: c"the share of the tunnels that are possible, in percent, from which on the server says that it is not ready (default: 95)",
        set: |_, values| {
            let percent = percent(values)?;
            change(|settings| settings.ready_below = percent);
            Ok(())
        },
    },
    Directive {
        name: c"WSForwardCloseSpread",
        context: Context::Server,
        usage: c"the time over which many tunnels are ended, each at any instant of it, in seconds or with a unit; 0 is at once (default: 0)",
        set: |_, values| {
            let spread = values.time(Duration::ZERO)?;
            change(|settings| settings.close_spread = spread);
            Ok(())
        },
    },
    Directive {
        name: c"WSForwardCloseCode",
        context: Context::Server,
        usage: c"1001 or 1012: the code of the Close frames when tunnels end with their server or process (default: 1001)",
        set: |_, values| {
            let code = close_code(values)?;
            change(|settings| settings.close_code = code);
            Ok(())
        },
    },
    Directive {
        name: c"WSForwardKeepAlive",
        context: Context::Server,
        usage: c"Off, or the seconds of silence before the first TCP keepalive probe, the seconds between probes, and how many go unanswered (default: 60 20 3)",
        set: |_, values| {
            let keep_alive = keep_alive(values)?;
            change(|settings| settings.keep_alive = keep_alive);
            Ok(())
        },
    },
];

fn keep_alive(values: &Arguments<'_>) -> Result<Option<KeepAlive>, String> {
    match values.all() {
        [off] if off.eq_ignore_ascii_case("off") => Ok(None),
        [idle, interval, count] => Ok(Some(KeepAlive {
            idle_seconds: number(idle, 1..=32767)?,
            interval_seconds: number(interval, 1..=32767)?,
            probes: number(count, 1..=127)?,
        })),
        other => Err(not_allowed(other, &"Off, or three numbers such as 60 20 3")),
    }
}

fn log_interval(values: &Arguments<'_>) -> Result<Duration, String> {
    const LEAST: Duration = Duration::from_secs(1);
    let expected = "0, or a time from 1s on such as 10min";
    let interval = match *values.all() {
        [interval] => time(interval).filter(|time| time.is_zero() || *time >= LEAST),
        _ => None,
    };
    interval.ok_or_else(|| not_allowed(values.all(), &expected))
}

fn ping(values: &Arguments<'_>) -> Result<[Duration; 2], String> {
    const LEAST: Duration = Duration::from_secs(1);
    let expected = "Off, or one or two times from 1s on such as 30s 10s";
    let of = |value: &str| time(value).filter(|time| *time >= LEAST);
    let times = match values.all() {
        [off] if off.eq_ignore_ascii_case("off") => Some([Duration::ZERO; 2]),
        [interval] => of(interval).map(|interval| [interval; 2]),
        [interval, timeout] => of(interval).zip(of(timeout)).map(|(a, b)| [a, b]),
        _ => None,
    };
    times.ok_or_else(|| not_allowed(values.all(), &expected))
}

fn percent(values: &Arguments<'_>) -> Result<u32, String> {
    let expected = "a number of percent from 1 to 100";
    let value = values.one(&expected)?;
    let digits = value.strip_suffix('%').unwrap_or(value);
    number(digits, 1..=100).map_err(|_| not_allowed(&[value], &expected))
}

fn max_message(values: &Arguments<'_>) -> Result<[u64; 2], String> {
    /// As much as a frame can have (RFC 6455, section 5.2).
    const MOST: u64 = i64::MAX as u64;
    let expected = "one or two numbers of bytes such as 1048576, 0 is no limit";
    let bytes = |value: &str| value.parse().ok().filter(|bytes| *bytes <= MOST);
    let limits = match values.all() {
        [client] => bytes(client).map(|client| [client, 0]),
        [client, backend] => bytes(client).zip(bytes(backend)).map(|(a, b)| [a, b]),
        _ => None,
    };
    limits.ok_or_else(|| not_allowed(values.all(), &expected))
}

fn message_rate(values: &Arguments<'_>) -> Result<[u64; 2], String> {
    const MOST: u64 = 1_000_000;
    let expected = "0, or a number of messages in a second such as 20/s, and one of those at once, each up to 1000000";
    let is_right = |number: &u64| (1..=MOST).contains(number);
    let rate = |value: &str| value.strip_suffix("/s")?.parse().ok().filter(is_right);
    let burst = |value: &str| value.parse().ok().filter(is_right);
    let limits = match values.all() {
        ["0"] => Some([0; 2]),
        [one] => rate(one).map(|rate| [rate; 2]),
        [one, two] => rate(one).zip(burst(two)).map(|(a, b)| [a, b]),
        _ => None,
    };
    limits.ok_or_else(|| not_allowed(values.all(), &expected))
}

fn bandwidth(values: &Arguments<'_>) -> Result<u64, String> {
    /// More than any network has.
    const MOST: u64 = 1_000_000_000_000;
    let expected = "0, or a number of bytes in a second such as 65536/s, up to 1000000000000/s";
    let value = values.one(&expected)?;
    let digits = value.strip_suffix("/s").unwrap_or(value);
    let bytes = digits.parse().ok().filter(|bytes| *bytes <= MOST);
    bytes.ok_or_else(|| not_allowed(&[value], &expected))
}

fn rigour(values: &Arguments<'_>) -> Result<Rigour, String> {
    let expected = "strict, lenient or off";
    let value = values.one(&expected)?;
    match value.to_ascii_lowercase().as_str() {
        "strict" => Ok(Rigour::Strict),
        "lenient" => Ok(Rigour::Lenient),
        "off" => Ok(Rigour::Off),
        _ => Err(not_allowed(&[value], &expected)),
    }
}

fn lifetime(values: &Arguments<'_>) -> Result<Lifetime, String> {
    /// A century: later times cannot be told from never.
    const LONGEST: Duration = Duration::from_secs(100 * 365 * 24 * 3600);
    let expected = "a time such as 8h, and a percentage from 0% to 100%";
    let wrong = || not_allowed(values.all(), &expected);
    let (most, jitter) = match *values.all() {
        [most] => (most, "0%"),
        [most, jitter] => (most, jitter),
        _ => return Err(wrong()),
    };
    let most = time(most).filter(|time| *time <= LONGEST).ok_or_else(wrong)?;
    let jitter = jitter.strip_suffix('%').ok_or_else(wrong)?;
    let jitter_percent = number(jitter, 0..=100).map_err(|_| wrong())?;
    Ok(Lifetime { most, jitter_percent })
}

fn origins<'p>(values: &Arguments<'p>) -> Result<&'p [u8], String> {
    let expected = "any, or of same, required, null and origins such as https://example.com or https://*.example.com";
    words(values, origin_rule::check_words(values.all()), &["any"], expected)
}

fn extensions<'p>(values: &Arguments<'p>) -> Result<&'p [u8], String> {
    let expected = "any, none, or names of extensions such as permessage-deflate";
    let alone = &[extensions::ANY, extensions::NONE];
    words(values, extensions::check_words(values.all()), alone, expected)
}

/// Words with spaces between them, if they were found right. One of those that stand `alone` is wrong
/// because of the others.
fn words<'p>(
    values: &Arguments<'p>,
    checked: Result<(), Option<&'p str>>,
    alone: &[&str],
    expected: &str,
) -> Result<&'p [u8], String> {
    match checked {
        Ok(()) => Ok(values.keep(&values.all().join(" "))),
        Err(Some(word)) if alone.iter().any(|one| word.eq_ignore_ascii_case(one)) => {
            Err(not_allowed(values.all(), &expected))
        }
        Err(word) => Err(not_allowed(word.as_slice(), &expected)),
    }
}

fn access_log(values: &Arguments<'_>) -> Result<AccessLog, String> {
    let expected = "end, start or both";
    let value = values.one(&expected)?;
    match value.to_ascii_lowercase().as_str() {
        "end" => Ok(AccessLog::End),
        "start" => Ok(AccessLog::Start),
        "both" => Ok(AccessLog::Both),
        _ => Err(not_allowed(&[value], &expected)),
    }
}

fn drain_processes(values: &Arguments<'_>) -> Result<Option<usize>, String> {
    match values.all() {
        [auto] if auto.eq_ignore_ascii_case("auto") => Ok(None),
        [most] => match number(most, 1..=1536) {
            Ok(most) => Ok(Some(most as usize)),
            Err(_) => Err(not_allowed(&[most], &"auto, or a number from 1 to 1536")),
        },
        other => Err(not_allowed(other, &"auto, or a number from 1 to 1536")),
    }
}

fn close_code(values: &Arguments<'_>) -> Result<u16, String> {
    /// The server restarts (IANA's registry of WebSocket close codes).
    const SERVICE_RESTART: u16 = 1012;
    let expected = "1001 or 1012";
    let value = values.one(&expected)?;
    let codes = [GOING_AWAY, SERVICE_RESTART];
    let code = codes.into_iter().find(|code| code.to_string() == value);
    code.ok_or_else(|| not_allowed(&[value], &expected))
}

fn protocols<'p>(values: &Arguments<'p>) -> Result<&'p [u8], String> {
    let expected = "Upgrade tokens such as websocket";
    if values.all().is_empty() {
        return Err(not_allowed(&[], &expected));
    }
    for token in values.all() {
        // Some switch the connection to another HTTP, which is httpd's own
        // business and no tunnel.
        let name = token.split('/').next().unwrap_or_default();
        let is_http = ["h2c", "HTTP", "TLS"].iter().any(|http| http.eq_ignore_ascii_case(name));
        if is_http || !is_protocol(token.as_bytes()) {
            return Err(not_allowed(&[token], &expected));
        }
    }
    Ok(values.keep(&values.all().join(" ")))
}

/// The directives that warnings about a configuration look at, see [`advice`].
pub const ADVISED: [&str; 5] =
    ["WSForward", "WSForwardRelay", "AllowOverride", "AllowOverrideList", "H2WebSockets"];
