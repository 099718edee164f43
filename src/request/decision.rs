//! Whether a request is an upgrade request of ours: asked before the handler, for the limits, and by
//! the handler, on the headers as they are then.

use std::ffi::CStr;

use protocol::upgrade::{self, NotUpgrade};

use crate::config::DirConfig;
use crate::ffi::request::Request;

/// What makes mod_proxy_http speak HTTP/1.0, without Upgrade.
const FORCE_1_0: &CStr = c"force-proxy-request-1.0";

/// Whether httpd is to speak HTTP/1.0 with the back end.
pub(crate) fn is_forced_to_http_1_0(r: Request<'_>) -> bool {
    r.env().is_some_and(|env| env.get(FORCE_1_0).is_some())
}

/// Whether a request is none for an error page. A member that was tried before may have left the status
/// of an interim response (103) behind.
pub(crate) fn is_no_error(r: Request<'_>) -> bool {
    (100..=200).contains(&r.status())
}

/// Whether a request to this URL may be an upgrade request of ours: its scheme is one that mod_proxy_http
/// serves, or a balancer's, and it is not forced to HTTP/1.0, by which mod_proxy_http sends no `Upgrade`.
pub(crate) fn may_be_upgraded(r: Request<'_>, url: &[u8]) -> bool {
    // The path of a socket stands before the URL: `unix:/run/socket|http://name`.
    let bar = url.iter().position(|byte| *byte == b'|');
    let scheme = |url: &[u8]| {
        let end = url.iter().position(|byte| *byte == b':').unwrap_or(url.len());
        url[..end].to_ascii_lowercase()
    };
    let scheme = match (scheme(url).as_slice(), bar) {
        (b"unix", Some(bar)) => scheme(&url[bar + 1..]),
        _ => scheme(url),
    };
    match scheme.as_slice() {
        b"http" | b"https" => !is_forced_to_http_1_0(r),
        // mod_proxy_wstunnel, which may serve them, does not know of that.
        b"ws" | b"wss" | b"balancer" => true,
        _ => false,
    }
}

/// Whether a request looks like an upgrade request of ours before the handler.
pub(crate) fn is_candidate(r: Request<'_>, config: &DirConfig<'_>) -> bool {
    is_no_error(r)
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
