//! How an open tunnel is seen from outside: its entry in the register, and what it adds to the totals.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use relay::{By, Close, End};
use shared::{
    About, Activity, Direction, Handshake, Metric, Name, Shared, Slot, Timed, TunnelEntry,
};

use crate::processes::memory::shared;
use crate::processes::own_slot;

/// What is known of a tunnel when it opens. Its texts are a client's, or may be.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Opening<'a> {
    /// The client's address, if it has one.
    pub client: Option<IpAddr>,
    /// And its port.
    pub port: u16,
    /// ServerName and port.
    pub vhost: &'a str,
    /// Scheme, host and port, or the path of a socket.
    pub backend: &'a [u8],
    /// Whether the client's side has TLS.
    pub is_client_tls: bool,
    /// Whether the back end's side has TLS.
    pub is_backend_tls: bool,
    /// What ties it to the logs.
    pub id: &'a str,
    /// Who the client is.
    pub user: &'a [u8],
    /// What the back end chose.
    pub subprotocol: &'a [u8],
    /// Of the request.
    pub path: &'a [u8],
    /// How long the back end took to answer.
    pub answered_after: Option<Duration>,
}

/// A tunnel that is open, as others see it: until [`Self::end`], whatever happens to this.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Listing {
    /// None where the register has no room.
    entry: Option<TunnelEntry>,
    vhost: Name,
    backend: Name,
}

impl Listing {
    /// A tunnel opens, in a worker thread: its handshake has come to its end. `None` without shared
    /// memory.
    pub(crate) fn open(opening: &Opening<'_>) -> Option<Self> {
        let shared = shared()?;
        let vhost = shared.vhost_name(opening.vhost.as_bytes());
        count_one(shared, vhost, Handshake::Switched, opening.answered_after);
        let slot = own_slot::slot()?;
        let backend = shared.backend_name(opening.backend);
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let about = About {
            client: opening.client.unwrap_or(Ipv4Addr::UNSPECIFIED.into()),
            port: opening.port,
            vhost,
            backend,
            is_client_tls: opening.is_client_tls,
            is_backend_tls: opening.is_backend_tls,
            started_micros: u64::try_from(now.as_micros()).unwrap_or(u64::MAX),
            id: opening.id.as_bytes(),
            user: opening.user,
            subprotocol: opening.subprotocol,
            path: opening.path,
        };
        shared.count(Metric::Opened { vhost, backend }, 1);
        Some(Self { entry: shared.register_tunnel(&about, slot), vhost, backend })
    }

    /// With what came along from another process.
    pub(crate) fn thaw(entry: Option<TunnelEntry>, vhost: Name, backend: Name) -> Self {
        Self { entry, vhost, backend }
    }

    /// Its entry, and the names that it is counted under.
    pub(crate) fn parts(self) -> (Option<TunnelEntry>, Name, Name) {
        (self.entry, self.vhost, self.backend)
    }

    /// Where whoever carries it says what it does.
    pub(crate) fn activity(self) -> Option<&'static Activity> {
        shared()?.activity(self.entry?)
    }

    /// What others know it by.
    pub(crate) fn entry(self) -> Option<TunnelEntry> {
        self.entry
    }

    /// Whether an administrator has it closed.
    pub(crate) fn is_ordered(self) -> bool {
        let order = || self.activity()?.order(self.entry?);
        order().is_some()
    }

    /// How an administrator has it closed, if one has.
    pub(crate) fn ordered(self) -> Option<Close> {
        let shared = shared()?;
        let order = self.activity()?.order(self.entry?)?;
        // Without its text if so many orders came behind it.
        let (reason, _) = shared.order_text(order.number).unwrap_or_default();
        Some(Close::new(order.code, &reason))
    }

    /// A relay carries it from now on.
    pub(crate) fn to_relay(self) {
        if let (Some(entry), Some(shared)) = (self.entry, shared()) {
            shared.mark_relayed(entry);
        }
    }

    /// It is in the process of this slot from now on.
    pub(crate) fn move_to(&mut self, slot: &Slot) {
        self.entry = self.entry.and_then(|entry| shared()?.move_tunnel(entry, slot));
    }

    /// It ended: from now on it is in the totals.
    pub(crate) fn end(self, end: &End) {
        let Some(shared) = shared() else { return };
        let vhost = self.vhost;
        let bytes = [end.bytes_up, end.bytes_down];
        if let Some(entry) = self.entry {
            // What stands in the entry goes into the totals as it is cleared: here, or when its
            // process is found dead.
            if let Some(activity) = shared.activity(entry) {
                for (count, bytes) in activity.bytes.iter().zip(bytes) {
                    count.store(bytes, Relaxed);
                }
            }
            shared.forget_tunnel(entry);
        } else {
            for (direction, bytes) in Direction::ALL.into_iter().zip(bytes) {
                shared.count(Metric::Bytes { vhost, direction }, bytes);
            }
        }
        let closed = Metric::Closed {
            vhost,
            by: match end.by {
                By::Client => shared::By::Client,
                By::Backend => shared::By::Backend,
                By::Us => shared::By::Us,
            },
            reason: (&end.why).into(),
            code: close_code(end),
        };
        shared.count(closed, 1);
        shared.count_duration(Timed::Tunnel, micros(end.duration));
    }
}

/// The code of the Close frame of whoever ended a tunnel. Where we did, both sides answer with our
/// own, if they answer.
fn close_code(end: &End) -> u16 {
    /// What stands for none (RFC 6455 7.1.5).
    const ABNORMAL: u16 = 1006;
    let code = match end.by {
        By::Client => end.client_close,
        By::Backend => end.backend_close,
        By::Us => end.client_close.or(end.backend_close),
    };
    code.unwrap_or(ABNORMAL)
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

/// An upgrade request for this virtual host got its answer, after so long if a back end gave it.
pub(crate) fn count_handshake(vhost: &str, result: Handshake, after: Option<Duration>) {
    if let Some(shared) = shared() {
        count_one(shared, shared.vhost_name(vhost.as_bytes()), result, after);
    }
}

fn count_one(shared: Shared<'_>, vhost: Name, result: Handshake, after: Option<Duration>) {
    shared.count(Metric::Handshakes { vhost, result }, 1);
    if let Some(after) = after {
        shared.count_duration(Timed::Handshake, micros(after));
    }
}
