//! What a relayed tunnel is known by, and the line that its end leaves.

use std::fmt;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use messages::{BackEndsCode, ClientsCode, TlsTaken, TunnelEnded, TunnelLost};
use once_cell::sync::OnceCell;
use os::forked::Forked;
use os::signal_safe::EventFd;
use relay::{Activity, By, Close, End, Progress, Record, Why};
use shared::{Message, Name, Slot, TallyEntry};

use crate::processes::line_kind::Kind;
use crate::processes::listing::Listing;
use crate::processes::memory::shared;
use crate::processes::{access, access_line, lines, own_slot};

/// The end of a tunnel that never was the relay's.
const NO_TUNNEL: End = End {
    bytes_up: 0,
    bytes_down: 0,
    duration: Duration::ZERO,
    by: By::Us,
    why: Why::ThreadDied,
    client_close: None,
    backend_close: None,
    messages_up: None,
    messages_down: None,
};

/// Signalled when a tunnel has ended and is no longer the relay's. Set once, by a drain process when
/// it starts: it looks whether that was the last.
static END_EVENT: OnceCell<&'static EventFd> = OnceCell::new();

/// Has an event signalled for each tunnel that ends.
pub(crate) fn signal_ends(_: &Forked, event: &'static EventFd) {
    // A drain process starts once.
    let _ = END_EVENT.set(event);
}

/// Identifies a tunnel in the log.
pub(crate) struct TunnelRecord {
    /// Log id, client and back end in one text: there may be very many of these.
    label: Box<str>,
    /// Where its client is counted.
    client_entry: Option<TallyEntry>,
    /// Where its back end is counted.
    backend_entry: Option<TallyEntry>,
    /// How others see it; none without shared memory.
    listing: Option<Listing>,
    /// Its lines of access logs as far as they are known: see [`access_line`].
    access_lines: Box<[u8]>,
}

impl TunnelRecord {
    /// `id` ties it to the access log; it is counted nowhere yet.
    pub(crate) fn new(id: &str, client: &str, origin: &str) -> Self {
        Self {
            // Allocated to its exact size: shrinking would leave a fragment.
            label: ["[", id, "] ", client, " -> ", origin].concat().into(),
            client_entry: None,
            backend_entry: None,
            listing: None,
            access_lines: Box::default(),
        }
    }

    /// Where its client and its back end are counted, until it ends.
    pub(crate) fn keep_entries(&mut self, client: Option<TallyEntry>, backend: Option<TallyEntry>) {
        self.client_entry = client;
        self.backend_entry = backend;
    }

    /// How others see it, until it ends.
    pub(crate) fn keep_listing(&mut self, listing: Option<Listing>) {
        self.listing = listing;
    }

    /// Its lines of access logs, kept since its request ended.
    pub(crate) fn keep_access_lines(&mut self, lines: Vec<u8>) {
        self.access_lines = lines.into();
    }

    /// Has them written.
    fn write_access_lines(&self, end: &End) {
        access_line::complete(&self.access_lines, end, access::write);
    }

    /// With what the relay made of its tunnel, for [`Self::thaw`] in another process.
    pub(crate) fn message<'a>(&'a self, frozen: &'a [u8]) -> Message<'a> {
        let Self { label, client_entry, backend_entry, listing, access_lines } = self;
        let (tunnel_entry, vhost, backend) =
            listing.map_or((None, Name::OTHER, Name::OTHER), Listing::parts);
        Message {
            frozen,
            client_entry: *client_entry,
            backend_entry: *backend_entry,
            tunnel_entry,
            vhost,
            backend,
            label,
            access_lines,
        }
    }

    /// The record that became this message. It is counted in `slot` from now on.
    pub(crate) fn thaw(message: &Message<'_>, slot: &Slot) -> Self {
        let mut record = Self {
            label: message.label.into(),
            client_entry: message.client_entry,
            backend_entry: message.backend_entry,
            listing: Some(Listing::thaw(message.tunnel_entry, message.vhost, message.backend)),
            access_lines: message.access_lines.into(),
        };
        record.count_in(slot);
        record
    }

    /// It is counted in `slot` from now on, for its client and for its back end: once, whoever looks.
    pub(crate) fn count_in(&mut self, slot: &Slot) {
        let Some(shared) = shared() else { return };
        let client = self.client_entry.and_then(|entry| shared.move_client(entry, slot));
        let backend = self.backend_entry.and_then(|entry| shared.move_backend(entry, slot));
        self.keep_entries(client, backend);
        if let Some(listing) = &mut self.listing {
            listing.move_to(slot);
        }
    }

    /// It is open no more: its client and its back end have one tunnel less.
    fn forget_entries(&self, end: &End) {
        // The limits first, whatever becomes of the rest.
        if let Some(shared) = shared() {
            if let Some(entry) = self.client_entry {
                shared.forget_client(entry);
            }
            if let Some(entry) = self.backend_entry {
                shared.forget_backend(entry);
            }
        }
        if let Some(listing) = self.listing {
            listing.end(end);
        }
    }

    /// Says how the TLS of a side goes on, `whose` it is.
    pub(crate) fn tls_taken(&self, whose: &dyn fmt::Display, how: &dyn fmt::Display) {
        lines::log(&TlsTaken { tunnel: self, whose, how });
    }

    /// The tunnel was lost on its way to a relay. What another one carried of it counts.
    pub(crate) fn lost(&self, why: &dyn fmt::Display) {
        let bytes =
            |activity: &Activity| activity.bytes.each_ref().map(|count| count.load(Relaxed));
        let [bytes_up, bytes_down] = self.activity().map_or([0; 2], bytes);
        let end = End { bytes_up, bytes_down, ..NO_TUNNEL };
        self.forget_entries(&end);
        own_slot::count_lost();
        self.write_access_lines(&end);
        lines::say(Kind::Lost, &TunnelLost { tunnel: self, why });
    }
}

impl fmt::Display for TunnelRecord {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.label)
    }
}

impl Record for TunnelRecord {
    fn goes_on(&mut self, progress: &Progress) {
        access_line::complete_so_far(&self.access_lines, progress, access::write);
    }

    fn ended(&mut self, end: &End) {
        self.forget_entries(end);
        failpoint::step!("log.end");
        let is_bug = matches!(end.why, Why::Panic | Why::ThreadDied);
        let kind = if is_bug { Kind::Bug } else { Kind::Ended };
        self.write_access_lines(end);
        lines::say(kind, &EndLine { record: self, end, more: &"" });
    }

    fn activity(&self) -> Option<&'static Activity> {
        self.listing?.activity()
    }

    fn ordered(&self) -> Option<Close> {
        self.listing?.ordered()
    }

    fn settled(&mut self) {
        if let Some(event) = END_EVENT.get() {
            event.signal();
        }
    }
}

/// The end of a tunnel as the log has it.
pub(crate) struct EndLine<'a> {
    /// Which tunnel it was.
    pub record: &'a TunnelRecord,
    /// How it ended.
    pub end: &'a End,
    /// What is said at the end of the line.
    pub more: &'a dyn fmt::Display,
}

impl fmt::Display for EndLine<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { record, end, more } = self;
        let by = match end.by {
            By::Client => "client",
            By::Backend => "back end",
            By::Us => "server",
        };
        let seconds = end.duration.as_secs_f64();
        let ended = TunnelEnded {
            tunnel: record,
            seconds: &format_args!("{seconds:.3}"),
            by: &by,
            why: &end.why,
            up: &end.bytes_up,
            down: &end.bytes_down,
        };
        ended.fmt(f)?;
        if let Some(code) = end.client_close {
            ClientsCode { code: &code }.fmt(f)?;
        }
        if let Some(code) = end.backend_close {
            BackEndsCode { code: &code }.fmt(f)?;
        }
        more.fmt(f)
    }
}
