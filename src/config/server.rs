//! Settings of the server as a whole.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use relay::{GOING_AWAY, KeepAlive};

use crate::config::bound::Bound;
use crate::ffi::role::Parent;

/// How many leading bits of an address say who the client is.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ClientPrefix {
    /// Of an IPv4 address, 1 to 32.
    pub v4: u32,
    /// Of an IPv6 address, 1 to 128.
    pub v6: u32,
}

/// Settings of the server as a whole.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Settings {
    /// WSForwardRelayThreads.
    pub threads: usize,
    /// WSForwardBufferSize, in bytes.
    pub buffer_size: usize,
    /// `WSForwardTLS native`.
    pub native_tls: bool,
    /// WSForwardKeepAlive; `None` is Off.
    pub keep_alive: Option<KeepAlive>,
    /// WSForwardMaxTunnels; `None` is by the limit of descriptors, and by memory if not set.
    pub max_tunnels: Option<u32>,
    /// The bound where WSForwardMaxTunnels is not set; see [`find_bound`].
    pub by_memory: Option<Bound>,
    /// WSForwardMaxTunnels is set, if to 0.
    pub(super) bound_is_set: bool,
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
    pub(super) used: bool,
    /// `WSForwardRelay On` anywhere.
    pub(super) relay: bool,
}

/// Those of a configuration that says nothing.
pub(crate) const DEFAULTS: Settings = Settings {
    threads: 1,
    buffer_size: 262144,
    native_tls: false,
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

/// Changes them, while a configuration is read.
pub(super) fn change(change: impl FnOnce(&mut Settings)) {
    change(&mut SETTINGS.lock().unwrap_or_else(PoisonError::into_inner));
}

/// Back to the defaults, before a configuration is read.
pub(crate) fn reset(_: &Parent) {
    change(|settings| *settings = DEFAULTS);
}

/// Settings of the server as a whole.
pub(crate) fn settings() -> Settings {
    *SETTINGS.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Whether TLS sessions of relayed tunnels are to leave OpenSSL: `WSForwardTLS native`, where there is a relay.
pub(crate) fn uses_native_tls() -> bool {
    let settings = settings();
    settings.native_tls && settings.relay
}

/// Looks for the bound of a server that needs one and has none set, and returns it.
pub(crate) fn find_bound(_: &Parent) -> Option<Bound> {
    let settings = settings();
    if !settings.relay || settings.bound_is_set {
        return None;
    }
    let bound = Bound::find();
    change(|settings| settings.by_memory = bound);
    bound
}

/// Whether the configuration that was read says `WSForward On` anywhere.
pub(crate) fn is_used() -> bool {
    settings().used
}

/// Whether it says `WSForwardRelay On` anywhere.
pub(crate) fn uses_relay() -> bool {
    settings().relay
}
