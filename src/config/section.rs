//! What is configured for a request, and how sections merge.

use std::ffi::CStr;
use std::time::Duration;

use protocol::handshake::Rigour;
use protocol::upgrade::WEBSOCKET;
use protocol::{extensions, origin_rule};
use relay::Rules;

use crate::config::values::{AccessLog, Lifetime};
use crate::ffi::request::Request;
use crate::ffi::section::{self, SectionConfig};

/// Settings of a directory, location or server. A field that was not set is
/// `None`, which is not the same as its default: it lets an outer section decide.
#[derive(Clone, Copy, Default)]
pub(crate) struct DirConfig<'p> {
    pub(super) forward: Option<bool>,
    pub(super) relay: Option<bool>,
    pub(super) protocols: Option<&'p [u8]>,
    pub(super) rigour: Option<Rigour>,
    pub(super) origins: Option<&'p [u8]>,
    pub(super) extensions: Option<&'p [u8]>,
    pub(super) handshake_timeout: Option<Duration>,
    pub(super) access_log: Option<AccessLog>,
    pub(super) ready_file: Option<&'p CStr>,
    pub(super) status_actions: Option<bool>,
    pub(super) rules: Rules,
    pub(super) lifetime: Option<Lifetime>,
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
    pub(crate) fn of(r: Request<'p>) -> Self {
        section::config::<DirConfig<'static>>(r)
    }

    /// WSForward: take upgrade requests that are proxied from here.
    pub(crate) fn forward(&self) -> bool {
        self.forward.unwrap_or(false)
    }

    /// WSForwardRelay: give open tunnels to the relay.
    pub(crate) fn relay(&self) -> bool {
        self.relay.unwrap_or(false)
    }

    /// WSForwardProtocols: the Upgrade tokens that are taken, split by spaces.
    pub(crate) fn protocols(&self) -> &'p [u8] {
        self.protocols.unwrap_or(WEBSOCKET)
    }

    /// WSForwardCheck: how much of RFC 6455 a 101 must keep to.
    pub(crate) fn rigour(&self) -> Rigour {
        self.rigour.unwrap_or_default()
    }

    /// WSForwardOrigin, where it asks for a look at the Origin: its words, with spaces between them.
    pub(crate) fn origins(&self) -> Option<&'p [u8]> {
        self.origins.filter(|words| origin_rule::is_checked(words))
    }

    /// WSForwardExtensions, where it leaves any out: its words, with spaces between them.
    pub(crate) fn extensions(&self) -> Option<&'p [u8]> {
        self.extensions.filter(|words| !words.eq_ignore_ascii_case(extensions::ANY.as_bytes()))
    }

    /// WSForwardHandshakeTimeout, if set: how long a back end may take from the
    /// connection to the end of its response head.
    pub(crate) fn handshake_timeout(&self) -> Option<Duration> {
        self.handshake_timeout
    }

    /// WSForwardAccessLog: when a relayed tunnel gets its line.
    pub(crate) fn access_log(&self) -> AccessLog {
        self.access_log.unwrap_or_default()
    }

    /// The same, with a time since 1970 at which the tunnel ends.
    pub(crate) fn until(mut self, expires: Option<Duration>) -> Self {
        self.rules.expires = expires;
        self
    }

    /// WSForwardReadyFile: while this file is absent there is no new tunnel.
    pub(crate) fn ready_file(&self) -> Option<&'p CStr> {
        self.ready_file
    }

    /// WSForwardStatusActions: whether the status page may close tunnels.
    pub(crate) fn status_actions(&self) -> bool {
        self.status_actions.unwrap_or(false)
    }

    /// The directives that hold for an open tunnel.
    pub(crate) fn rules(&self) -> Rules {
        Rules { max_lifetime: self.lifetime.map(Lifetime::of_one), ..self.rules }
    }
}
