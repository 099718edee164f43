//! What is open at a moment, in all processes.

use std::collections::{BTreeMap, HashMap, HashSet};

use os::process;
use report::view::{Open, Place, Tunnel};
use shared::{Direction, Listed, Metric, Name, Opcode, Shared};

use crate::processes::registry;

/// The open tunnels that are listed, with the texts of their names.
pub(super) struct Snapshot {
    listed: Vec<Listed>,
    vhosts: HashMap<Name, Vec<u8>>,
    backends: HashMap<Name, Vec<u8>>,
    /// The drain processes.
    drains: HashSet<u32>,
    /// Seconds of the clock that nobody sets.
    now_seconds: u64,
}

impl Snapshot {
    /// As it is now.
    pub(super) fn take(shared: Shared<'_>) -> Self {
        let listed: Vec<Listed> = shared.tunnels().collect();
        let (mut vhosts, mut backends) = (HashMap::new(), HashMap::new());
        for tunnel in &listed {
            vhosts.entry(tunnel.vhost).or_insert_with(|| shared.text_of_vhost(tunnel.vhost));
            backends
                .entry(tunnel.backend)
                .or_insert_with(|| shared.text_of_backend(tunnel.backend));
        }
        Self {
            listed,
            vhosts,
            backends,
            drains: registry::drains().iter().map(|drain| drain.pid).collect(),
            now_seconds: process::now() / 1_000_000,
        }
    }

    /// Whether the process is one that carries on the tunnels of children that ended.
    pub(super) fn is_drain(&self, pid: u32) -> bool {
        self.drains.contains(&pid)
    }

    fn place(&self, tunnel: &Listed) -> Place {
        match tunnel.is_relayed {
            false => Place::Thread,
            true if self.is_drain(tunnel.pid) => Place::Drain,
            true => Place::Relay,
        }
    }

    /// Those that a relay carries.
    pub(super) fn relayed(&self) -> u64 {
        self.listed.iter().filter(|tunnel| tunnel.is_relayed).count() as u64
    }

    /// How many there are of each kind.
    pub(super) fn open(&self) -> Vec<Open> {
        let mut open = BTreeMap::new();
        for tunnel in &self.listed {
            let kind = (tunnel.vhost, tunnel.backend, self.place(tunnel));
            *open.entry(kind).or_insert(0) += 1;
        }
        let of = |((vhost, backend, place), tunnels)| Open {
            vhost: self.vhost(vhost).to_owned(),
            backend: self.backend(backend).to_owned(),
            place,
            tunnels,
        };
        open.into_iter().map(of).collect()
    }

    /// What open tunnels add to totals.
    pub(super) fn under_way(&self) -> impl Iterator<Item = (Metric, u64)> {
        self.listed.iter().flat_map(|tunnel| {
            let vhost = tunnel.vhost;
            let bytes = Direction::ALL.into_iter().zip(tunnel.bytes);
            let bytes =
                bytes.map(move |(direction, bytes)| (Metric::Bytes { vhost, direction }, bytes));
            let messages = Direction::ALL.into_iter().zip(tunnel.messages);
            let messages = messages.flat_map(move |(direction, kinds)| {
                let kinds = Opcode::ALL.into_iter().zip(kinds);
                kinds.map(move |(opcode, count)| {
                    (Metric::Messages { vhost, direction, opcode }, count)
                })
            });
            bytes.chain(messages)
        })
    }

    fn vhost(&self, name: Name) -> &[u8] {
        self.vhosts.get(&name).map_or(&[], Vec::as_slice)
    }

    fn backend(&self, name: Name) -> &[u8] {
        self.backends.get(&name).map_or(&[], Vec::as_slice)
    }

    /// Each tunnel, with what is to be shown of it.
    pub(super) fn tunnels(&self) -> impl Iterator<Item = (&Listed, Tunnel<'_>)> {
        self.listed.iter().map(|listed| (listed, self.tunnel(listed)))
    }

    fn tunnel<'a>(&'a self, listed: &'a Listed) -> Tunnel<'a> {
        let [bytes_up, bytes_down] = listed.bytes;
        let [messages_up, messages_down] =
            listed.messages.map(|[text, binary]| text.wrapping_add(binary));
        Tunnel {
            id: listed.id(),
            client: listed.client,
            port: listed.port,
            user: listed.user(),
            vhost: self.vhost(listed.vhost),
            path: listed.path(),
            subprotocol: listed.subprotocol(),
            backend: self.backend(listed.backend),
            place: self.place(listed),
            pid: listed.pid,
            started_micros: listed.started_micros,
            seconds: self.now_seconds.saturating_sub(listed.opened.into()),
            idle_seconds: self.now_seconds.saturating_sub(listed.last.into()),
            bytes_up,
            bytes_down,
            messages_up,
            messages_down,
            is_client_tls: listed.is_client_tls,
            is_backend_tls: listed.is_backend_tls,
        }
    }
}
