//! The scheme handler: decide whether a request is to be upgraded, have
//! mod_proxy_http serve it as one, map the result.

use std::ffi::CStr;
use std::fmt::Display;

use messages::{
    ErrorDocument, ForcedToHttp10, LeftToHttpd, LeftToUpgradeParameter, Message, NotInWorker,
    NotUpgraded, Subrequest, TlsLate, Upgrading, Wrong101,
};
use protocol::handshake::{GUID, Offer};
use protocol::upgrade::{NotUpgrade, is_handshake_header};
use protocol::{backend, extensions};
use shared::Handshake as Outcome;

use crate::config::DirConfig;
use crate::ffi::digest;
use crate::ffi::guard::poisoned;
use crate::ffi::log;
use crate::ffi::proxy::{Answer, SchemeCall};
use crate::ffi::request::Request;
use crate::ffi::table::Table;
use crate::processes::listing;
use crate::request::decision::{asked, decide_on, is_forced_to_http_1_0, is_no_error};
use crate::request::expiry;
use crate::request::handshake::{self, AWAITS_CONTINUE, Handshake, NOT_POOLED, Stage};
use crate::request::worker_tunnel;
use crate::request::{admission, backends};

const BAD_GATEWAY: u16 = 502;
const INTERNAL_SERVER_ERROR: u16 = 500;
const GATEWAY_TIMEOUT: u16 = 504;

const EXTENSIONS: &CStr = c"Sec-WebSocket-Extensions";

/// Serves a request whose URL is at a back end, if it is an upgrade request of ours, or one
/// that nobody may take for one. Any other is mod_proxy_http's, as it is without this module.
pub(crate) fn serve(call: &SchemeCall<'_>) -> Answer {
    let answer = try_to_serve(call);
    if answer == Answer::DECLINED {
        // Somebody else serves it, without a relayed tunnel.
        admission::give_back(call.request);
    }
    // A tunnel of the relay is counted by its record.
    backends::forget(call.request);
    answer
}

fn try_to_serve(call: &SchemeCall<'_>) -> Answer {
    let r = call.request;
    let config = DirConfig::of(r);
    // Forward proxying and ProxyRemote are not ours.
    if !config.forward() || !r.is_reverse_proxied() || call.is_through_proxy() || poisoned() {
        return Answer::DECLINED;
    }
    let (Some(headers), Some(env)) = (r.headers_in(), r.env()) else { return Answer::DECLINED };
    let asked = asked(r);
    let decision = decide_on(asked.as_ref(), &config);
    if decision == Err(NotUpgrade::NotAsked) {
        return Answer::DECLINED;
    }
    // Others, as fcgi:, carry no upgrade.
    let Some(url) = websocket_url(call.url()) else { return Answer::DECLINED };
    let plain = |why: &dyn Display| serve_plain(call, headers, why);
    if r.is_subrequest() {
        return plain(&Subrequest);
    }
    if !is_no_error(r) {
        return plain(&ErrorDocument);
    }
    let leave = |why: &dyn Display| leave(call, headers, why);
    let token = match decision {
        Ok(token) => token,
        Err(why) if why.is_for_nobody() => return plain(&why),
        Err(why @ (NotUpgrade::Method | NotUpgrade::Body)) => {
            return leave(&LeftToUpgradeParameter { why: &why });
        }
        Err(why) => return leave(&why),
    };
    if is_forced_to_http_1_0(r) {
        return leave(&ForcedToHttp10);
    }
    if !call.worker_allows(token, Some(c"WebSocket")) {
        return leave(&NotInWorker);
    }
    // Where it has become one only now.
    if let Err(status) = admission::reserve(r, &config) {
        return admission::refuse_by_handler(r, status);
    }
    // When it is sent to a back end, and no sooner: whoever sets it may do so late.
    let config = match expiry::of(r) {
        Ok(expires) => config.until(expires),
        Err(why) => {
            let status = admission::refuse_expired(r, &why);
            return admission::refuse_by_handler(r, status);
        }
    };
    if let Err(status) = backends::admit(r, &call.backend()) {
        return admission::refuse_by_handler(r, status);
    }
    let has_body = asked.is_some_and(|asked| asked.has_body());
    delegate(call, &config, headers, env, (token, has_body), &url)
}

/// Has mod_proxy_http serve a request whose Upgrade must not reach the back end: for a ws: URL
/// or a worker with `upgrade=` it would send it on.
fn serve_plain(call: &SchemeCall<'_>, headers: Table<'_>, why: &dyn Display) -> Answer {
    let r = call.request;
    admission::give_back(r);
    let Some(stripped) = headers.copy() else { return Answer::DECLINED };
    log::request(r, &NotUpgraded { why });
    stripped.unset(c"Upgrade");
    r.set_headers_in(stripped);
    let answer = call.delegate(call.url());
    r.set_headers_in(headers);
    answer
}

/// Leaves a request with Upgrade to httpd, and says what that does with it
/// (mod_proxy_http.c, proxy_http_handler).
fn leave(call: &SchemeCall<'_>, headers: Table<'_>, why: &dyn Display) -> Answer {
    let r = call.request;
    let default = call.url().starts_with(b"ws").then_some(c"WebSocket");
    let passes = !is_forced_to_http_1_0(r)
        && headers.get(c"Upgrade").is_some_and(|upgrade| call.worker_allows(upgrade, default));
    if passes {
        log::request(r, &LeftToHttpd { why });
    } else {
        log::request(r, &NotUpgraded { why });
    }
    Answer::DECLINED
}

/// The ws: or wss: URL, for which mod_proxy_http lets Upgrade pass, of an http:
/// or https: one. The worker stays the one of the original URL.
fn websocket_url(url: &[u8]) -> Option<Vec<u8>> {
    let colon = url.iter().position(|byte| *byte == b':')?;
    let (scheme, rest) = url.split_at(colon);
    let scheme: &[u8] = match scheme.to_ascii_lowercase().as_slice() {
        b"http" | b"ws" => b"ws",
        b"https" | b"wss" => b"wss",
        _ => return None,
    };
    Some([scheme, rest].concat())
}

/// Has mod_proxy_http serve the request as an upgrade request. For the length of
/// its call the headers are those that the back end is to see, and the client's
/// connection may look like its first request (see [`handshake::force_fresh_connection`]).
fn delegate(
    call: &SchemeCall<'_>,
    config: &DirConfig<'_>,
    headers: Table<'_>,
    env: Table<'_>,
    (token, has_body): (&[u8], bool),
    url: &[u8],
) -> Answer {
    let r = call.request;
    let (Some(upgraded), Some(client)) = (headers.copy(), r.connection()) else {
        return Answer::DECLINED;
    };
    // mod_proxy removes what Connection names (RFC 9110, section 7.6.1), which
    // must not be the handshake itself. Its other tokens stay: `close` decides
    // on the client's connection.
    let named: Vec<&[u8]> = protocol::list::members(headers.get(c"Connection").unwrap_or_default())
        .filter(|name| !is_handshake_header(name))
        .collect();
    upgraded.set(c"Connection", &named.join(&b", "[..]));
    upgraded.set(c"Upgrade", token);
    let offer = offer(headers, token, config);
    // As several lines if they came so, where nothing is ruled.
    if offer.is_websocket() && offer.extensions_are_ruled {
        match &offer.extensions {
            Some(extensions) => upgraded.set(EXTENSIONS, extensions),
            None => upgraded.unset(EXTENSIONS),
        }
    }

    log::request(r, &Upgrading { protocol: &token.escape_ascii() });

    let keepalives = client.keepalives();
    let backend = backend(r, call.url());
    let handshake = Handshake::new(offer, backend, has_body, config, keepalives);
    let client_timeout = client.socket().and_then(|socket| socket.timeout());
    let not_pooled = env.get(NOT_POOLED);

    // The client answers a challenge, which may be bound to the connection to the back end.
    let is_answer = client.note_challenge(false)
        && [c"Authorization", c"Proxy-Authorization"]
            .iter()
            .any(|name| headers.get(name).is_some());
    // mod_proxy_http notes it anew if it waits for one: that of a member before is none of this one's.
    if let Some(notes) = r.notes() {
        notes.unset(AWAITS_CONTINUE);
    }
    r.set_headers_in(upgraded);
    if !is_answer {
        handshake::force_fresh_connection(r, &handshake);
    }
    let answer = handshake::enter(r, &handshake, || call.delegate(url));
    handshake::restore_keepalive_count(r, &handshake);
    if let Some(value) = not_pooled {
        env.set(NOT_POOLED, value);
    }
    r.set_headers_in(headers);
    // The tunnel ran with its own; what httpd has still to write has httpd's.
    if let (Stage::Switched, false, Some(socket)) =
        (handshake.stage(), client.is_secondary(), client.socket())
    {
        // A socket that is gone needs no timeout.
        let _ = socket.set_timeout(client_timeout);
    }
    worker_tunnel::ended(r, &handshake);
    count(r, &handshake);
    finish(r, &handshake, answer)
}

/// Counts how a handshake ended. One that the back end switched was counted when it did.
fn count(r: Request<'_>, handshake: &Handshake) {
    let result = match handshake.stage() {
        Stage::Switched => return,
        Stage::Answered => Outcome::Answer,
        Stage::Late => Outcome::Timeout,
        Stage::Refused if handshake.refusal() == Some(Wrong101::ID) => Outcome::Bad101,
        Stage::Refused => Outcome::BadHead,
        Stage::Waiting => Outcome::Failed,
    };
    listing::count_handshake(&r.virtual_host(), result, handshake.answered_after());
}

/// What the back end of a URL is called: scheme, host and port, or the path of its socket.
fn backend(r: Request<'_>, url: &[u8]) -> Vec<u8> {
    // mod_proxy's (ap_proxy_pre_request).
    match r.notes().and_then(|notes| notes.get(c"uds_path")) {
        Some(path) => [b"unix:", path].concat(),
        None => backend::shown(url),
    }
}

/// What the client offers and the back end is to see, against which a 101 is checked.
fn offer(headers: Table<'_>, token: &[u8], config: &DirConfig<'_>) -> Offer {
    let copy = |name| headers.get(name).map(<[u8]>::to_vec);
    Offer {
        token: token.to_vec(),
        accept: headers
            .get(c"Sec-WebSocket-Key")
            .and_then(|key| digest::base64_sha1(&[key, GUID].concat())),
        protocols: copy(c"Sec-WebSocket-Protocol"),
        extensions: match (headers.get(EXTENSIONS), config.extensions()) {
            (Some(offered), Some(words)) => extensions::allowed(offered, words),
            _ => copy(EXTENSIONS),
        },
        extensions_are_ruled: config.extensions().is_some(),
    }
}

/// Maps what mod_proxy_http made of a handshake that failed: 504 rather than its
/// 502 or 500 where the deadline passed, and the message number for the error page.
fn finish(r: Request<'_>, handshake: &Handshake, answer: Answer) -> Answer {
    let failed = answer.is_status(BAD_GATEWAY) || answer.is_status(INTERNAL_SERVER_ERROR);
    if !failed || !matches!(handshake.stage(), Stage::Late | Stage::Refused) {
        return answer;
    }
    let number = handshake.refusal().unwrap_or_else(|| {
        // Nothing of ours was being read: it was mod_ssl that waited.
        let allowed = handshake.allowed().unwrap_or_default();
        log::request(r, &TlsLate { within: &format_args!("{allowed:?}") });
        TlsLate::ID
    });
    // What the back end sent is for the log, not for the client.
    let what = match handshake.stage() {
        Stage::Refused => "sent an invalid answer to the WebSocket handshake",
        _ => "did not answer the WebSocket handshake in time",
    };
    r.set_note(c"error-notes", &format!("The back end {what} ({number})."));
    r.set_note(c"verbose-error-to", "*");
    if handshake.stage() == Stage::Refused {
        return Answer::status(BAD_GATEWAY);
    }
    // failontimeout of balancers looks at this.
    r.set_note(c"proxy_timedout", "1");
    // mod_proxy set one for its own status.
    r.clear_status_line();
    Answer::status(GATEWAY_TIMEOUT)
}
