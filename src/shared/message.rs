//! A tunnel on its way to another process, as bytes.

use crate::names::Name;
use crate::tally::TallyEntry;
use crate::tunnel_entry::TunnelEntry;

/// What a message begins with.
const MAGIC: [u8; 4] = *b"WSFT";

/// More than all takes that does not depend on the tunnel.
const MAX_FIXED_BYTES: usize = 256;

/// A tunnel that changes its process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Message<'a> {
    /// What the relay made of it.
    pub frozen: &'a [u8],
    /// Where its client is counted.
    pub client_entry: Option<TallyEntry>,
    /// Where its back end is counted.
    pub backend_entry: Option<TallyEntry>,
    /// Where it is registered.
    pub tunnel_entry: Option<TunnelEntry>,
    /// The virtual host that it is counted under.
    pub vhost: Name,
    /// The back end that it is counted under.
    pub backend: Name,
    /// What it is known by in the log.
    pub label: &'a str,
    /// Its lines of access logs, as far as they are known.
    pub access_lines: &'a [u8],
}

impl<'a> Message<'a> {
    /// Of the encoding. Whoever changes that raises this.
    pub const VERSION: u16 = 5;

    /// As bytes. `None` if it is too long for that.
    pub fn encode(&self) -> Option<Vec<u8>> {
        let length = |bytes: &[u8]| u32::try_from(bytes.len()).ok().map(u32::to_le_bytes);
        // They do not move: what they leave behind may have secrets.
        let parts = self.frozen.len() + self.label.len() + self.access_lines.len();
        let mut bytes = Vec::with_capacity(parts + MAX_FIXED_BYTES);
        bytes.extend(MAGIC);
        bytes.extend(Self::VERSION.to_le_bytes());
        bytes.extend(length(self.frozen)?);
        bytes.extend(self.frozen);
        bytes.extend(TallyEntry::freeze(self.client_entry));
        bytes.extend(TallyEntry::freeze(self.backend_entry));
        bytes.extend(TunnelEntry::freeze(self.tunnel_entry));
        bytes.extend(self.vhost.number().to_le_bytes());
        bytes.extend(self.backend.number().to_le_bytes());
        bytes.extend(length(self.label.as_bytes())?);
        bytes.extend(self.label.as_bytes());
        bytes.extend(self.access_lines);
        Some(bytes)
    }

    /// What became these bytes. `None` if they are of another version, or of nobody's.
    pub fn decode(bytes: &'a [u8]) -> Option<Self> {
        let (magic, bytes) = bytes.split_first_chunk()?;
        let (version, bytes) = bytes.split_first_chunk()?;
        if *magic != MAGIC || u16::from_le_bytes(*version) != Self::VERSION {
            return None;
        }
        let (frozen, bytes) = counted(bytes)?;
        let (client_entry, bytes) = bytes.split_first_chunk()?;
        let (backend_entry, bytes) = bytes.split_first_chunk()?;
        let (tunnel_entry, bytes) = bytes.split_first_chunk()?;
        let (vhost, bytes) = bytes.split_first_chunk()?;
        let (backend, bytes) = bytes.split_first_chunk()?;
        let (label, access_lines) = counted(bytes)?;
        Some(Self {
            frozen,
            client_entry: TallyEntry::thaw(*client_entry),
            backend_entry: TallyEntry::thaw(*backend_entry),
            tunnel_entry: TunnelEntry::thaw(*tunnel_entry),
            vhost: Name::from_number(u16::from_le_bytes(*vhost)),
            backend: Name::from_number(u16::from_le_bytes(*backend)),
            label: std::str::from_utf8(label).ok()?,
            access_lines,
        })
    }
}

/// Bytes behind their length, and what comes after them.
fn counted(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (length, bytes) = bytes.split_first_chunk()?;
    bytes.split_at_checked(usize::try_from(u32::from_le_bytes(*length)).ok()?)
}
