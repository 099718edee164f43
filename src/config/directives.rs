//! The one table of directives.

use std::time::Duration;

use relay::Strict;

use crate::config::section::DirConfig;
use crate::config::server::{ClientPrefix, change};
use crate::config::values;
use crate::ffi::command::{Context, Directive, not_allowed, number};

/// Every directive.
pub(crate) static DIRECTIVES: [Directive<DirConfig<'static>>; 32] = [
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
            config.protocols = Some(values::protocols(values)?);
            Ok(())
        },
    },
    Directive {
        name: c"WSForwardCheck",
        context: Context::Directory,
        usage: c"strict, lenient or off: whether a 101 that RFC 6455 forbids is refused, logged, or not looked at (default: strict)",
        set: |config, values| {
            config.rigour = Some(values::rigour(values)?);
            Ok(())
        },
    },
    Directive {
        name: c"WSForwardOrigin",
        context: Context::Directory,
        usage: c"any, or of same, required, null and origins such as https://example.com or https://*.example.com: which Origin an upgrade request may have (default: any)",
        set: |config, values| {
            config.origins = Some(values::origins(values)?);
            Ok(())
        },
    },
    Directive {
        name: c"WSForwardExtensions",
        context: Context::Directory,
        usage: c"any, none, or names such as permessage-deflate: the extensions of WebSocket that a client may offer to the back end (default: any)",
        set: |config, values| {
            config.extensions = Some(values::extensions(values)?);
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
            let [interval, timeout] = values::ping(values)?;
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
            let [client, backend] = values::max_message(values)?;
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
            let [rate, burst] = values::message_rate(values)?;
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
            config.rules.bandwidth = Some(values::bandwidth(values)?);
            Ok(())
        },
    },
    Directive {
        name: c"WSForwardAccessLog",
        context: Context::Directory,
        usage: c"end, start or both: whether a relayed tunnel has its line in the access logs when it has ended, when it leaves its worker thread, or one each (default: end)",
        set: |config, values| {
            config.access_log = Some(values::access_log(values)?);
            Ok(())
        },
    },
    Directive {
        name: c"WSForwardAccessLogInterval",
        context: Context::Directory,
        usage: c"how often a relayed tunnel that is open has a line in the access logs, in seconds or with a unit; 0 is never (default: 0)",
        set: |config, values| {
            config.rules.report_interval = Some(values::log_interval(values)?);
            Ok(())
        },
    },
    Directive {
        name: c"WSForwardMaxLifetime",
        context: Context::Directory,
        usage: c"how long a tunnel may be open, in seconds or with a unit, and by up to how many percent less; 0 is for ever (default: 0)",
        set: |config, values| {
            config.lifetime = Some(values::lifetime(values)?);
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
        name: c"WSForwardTLS",
        context: Context::Server,
        usage: c"openssl or native: whether the TLS session of a relayed tunnel stays in OpenSSL, or leaves it where that can be (default: openssl)",
        set: |_, values| {
            let native_tls = values::native_tls(values)?;
            change(|settings| settings.native_tls = native_tls);
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
            let most = values::drain_processes(values)?;
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
            let percent = values::percent(values)?;
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
            let code = values::close_code(values)?;
            change(|settings| settings.close_code = code);
            Ok(())
        },
    },
    Directive {
        name: c"WSForwardKeepAlive",
        context: Context::Server,
        usage: c"Off, or the seconds of silence before the first TCP keepalive probe, the seconds between probes, and how many go unanswered (default: 60 20 3)",
        set: |_, values| {
            let keep_alive = values::keep_alive(values)?;
            change(|settings| settings.keep_alive = keep_alive);
            Ok(())
        },
    },
];
