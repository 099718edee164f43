//! Whether a request is an upgrade request of ours: asked before the handler, for the limits, and by
//! the handler, on the headers as they are then.

use std::ffi::CStr;

use protocol::upgrade::{self, NotUpgrade};

use crate::config::DirConfig;
use crate::ffi::request::Request;

/// Whether a request looks like an upgrade request of ours before the handler.
pub(crate) fn is_candidate(r: Request<'_>, config: &DirConfig<'_>) -> bool {
    r.status() == 200
        && !r.is_subrequest()
        && r.will_be_proxied()
        && r.connection().is_some_and(|client| !client.is_secondary())
        && decide(r, config).is_ok()
}

/// Keeps httpd's core from switching an upgrade request of ours to h2c, where the client offers
/// that too and `Protocols` has it: core comes before all handlers, and does not without this
/// field (RFC 7540, section 3.2.1).
pub(crate) fn claim(r: Request<'_>) {
    const SETTINGS: &CStr = c"HTTP2-Settings";
    let Some(headers) = r.headers_in() else { return };
    if headers.get(SETTINGS).is_none() {
        return;
    }
    let config = DirConfig::of(r);
    if config.forward() && is_candidate(r, &config) {
        headers.unset(SETTINGS);
    }
}

/// Whether a request is an upgrade request, and to what.
///
/// # Errors
/// Why it is none.
pub(crate) fn decide<'r>(r: Request<'r>, config: &DirConfig<'_>) -> Result<&'r [u8], NotUpgrade> {
    decide_on(asked(r).as_ref(), config)
}

/// The same, on what was asked.
///
/// # Errors
/// Why it is none.
pub(crate) fn decide_on<'r>(
    asked: Option<&upgrade::Request<'r>>,
    config: &DirConfig<'_>,
) -> Result<&'r [u8], NotUpgrade> {
    upgrade::decide(asked.ok_or(NotUpgrade::NotAsked)?, config.protocols())
}

/// What the client asks for.
pub(crate) fn asked(r: Request<'_>) -> Option<upgrade::Request<'_>> {
    let headers = r.headers_in()?;
    // mod_http2 makes an upgrade request of an extended CONNECT (RFC 8441), and
    // shows the stream's bytes as a chunked body.
    let is_stream = r.connection().is_some_and(|client| client.is_secondary());
    Some(upgrade::Request {
        is_get: r.is_get(),
        is_http_1_1: r.is_http_1_1(),
        connection: headers.get(c"Connection"),
        upgrade: headers.get(c"Upgrade"),
        content_length: headers.get(c"Content-Length"),
        transfer_encoding: headers.get(c"Transfer-Encoding").filter(|_| !is_stream),
    })
}
