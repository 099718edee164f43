//! The answers in JSON.

use std::fmt::Display;
use std::io;

use serde::ser::{Serialize, SerializeMap, Serializer};
use serde_json::ser::{CompactFormatter, Formatter};

use crate::sums::{self, BackendSums, OpenSums, Sums};
use crate::text::{is_hidden, lossy};
use crate::time::Moment;
use crate::view::{Overview, Process, RelayThread, Tunnel};

/// Its Content-Type.
pub const CONTENT_TYPE: &str = "application/json; charset=utf-8";

/// About what a tunnel takes, so that the text need not be moved as it grows.
const LIKELY_BYTES_PER_TUNNEL: usize = 512;

/// The answer to `?json`: everything as one object.
#[must_use]
pub fn overview(overview: &Overview, tunnels: &[Tunnel<'_>]) -> String {
    render(&Everything { overview, tunnels }, tunnels.len())
}

/// The answer to `?tunnels`: an array.
#[must_use]
pub fn tunnels(tunnels: &[Tunnel<'_>]) -> String {
    render(&List(tunnels), tunnels.len())
}

/// The answer to an order: how many tunnels it closes.
#[must_use]
pub fn closed(number: usize) -> String {
    format!("{{\"closed\":{number}}}\n")
}

fn render(value: &impl Serialize, tunnels: usize) -> String {
    let mut json = Vec::with_capacity(tunnels.saturating_mul(LIKELY_BYTES_PER_TUNNEL) + 4096);
    let written = value.serialize(&mut serde_json::Serializer::with_formatter(&mut json, Visible));
    // Writing to memory does not fail, nor does a key that is a text. Half an answer would be worse
    // than one that says so.
    if written.is_err() {
        return "null\n".to_owned();
    }
    json.push(b'\n');
    String::from_utf8(json).unwrap_or_else(|_| "null\n".to_owned())
}

/// JSON without what a terminal would obey. serde_json itself escapes what JSON asks for.
struct Visible;

impl Formatter for Visible {
    fn write_string_fragment<W: io::Write + ?Sized>(
        &mut self,
        writer: &mut W,
        fragment: &str,
    ) -> io::Result<()> {
        // Nearly always.
        if fragment.bytes().all(|byte| matches!(byte, b' '..=b'~')) {
            return CompactFormatter.write_string_fragment(writer, fragment);
        }
        let mut rest = fragment;
        while let Some(at) = rest.find(is_hidden) {
            let (shown, behind) = rest.split_at(at);
            CompactFormatter.write_string_fragment(writer, shown)?;
            let mut signs = behind.chars();
            let hidden = signs.next().map_or(0, u32::from);
            // All of them are below U+10000.
            write!(writer, "\\u{hidden:04x}")?;
            rest = signs.as_str();
        }
        CompactFormatter.write_string_fragment(writer, rest)
    }
}

/// Writes the fields of an object, in this order.
macro_rules! fields {
    ($map:ident, $($name:ident: $value:expr),+ $(,)?) => {
        $($map.serialize_entry(stringify!($name), &$value)?;)+
    };
}

/// How a struct becomes an object.
macro_rules! objects {
    ($($type:ty, $this:ident, $map:ident => $body:block)+) => {
        $(impl Serialize for $type {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                let ($this, mut $map) = (self, serializer.serialize_map(None)?);
                $body
                $map.end()
            }
        })+
    };
}

struct Everything<'a> {
    overview: &'a Overview,
    tunnels: &'a [Tunnel<'a>],
}

struct Totals<'a>(&'a Overview);
struct OneTunnel<'a>(&'a Tunnel<'a>);

objects! {
    Everything<'_>, this, map => {
        let Self { overview, tunnels } = this;
        fields!(map,
            version: overview.version,
            httpd: overview.httpd,
            openssl: overview.openssl,
            mpm: overview.mpm,
            started: overview.started,
            ready: overview.ready.is_ok(),
            ready_reason: overview.ready.as_ref().err().map(Shown),
            nonce: overview.nonce,
            tunnels: Totals(overview),
            vhosts: sums::by_vhost(overview),
            backends: sums::by_backend(overview),
            processes: overview.processes,
            list: List(tunnels),
        );
    }
    Totals<'_>, this, map => {
        let Self(overview) = this;
        let sums = sums::total(overview);
        fields!(map,
            open: sums.open.all().saturating_add(overview.unlisted),
            possible: overview.possible,
            unlisted: overview.unlisted,
        );
        figures(&mut map, &sums)?;
        fields!(map,
            fallbacks: Pairs(&overview.fallbacks),
            tls_sessions: Pairs(&overview.tls_sessions),
        );
    }
    Sums, sums, map => {
        fields!(map, open: sums.open.all());
        figures(&mut map, sums)?;
    }
    BackendSums, sums, map => {
        fields!(map, open: sums.open.all());
        places(&mut map, sums.open)?;
        fields!(map, opened: sums.opened);
    }
    Process, process, map => {
        fields!(map,
            pid: process.pid,
            kind: process.kind.name(),
            tunnels: process.tunnels,
            possible: process.possible,
            threads: process.threads,
        );
    }
    RelayThread, thread, map => {
        fields!(map, thread: thread.number, cpu_seconds: thread.cpu_micros as f64 / 1e6);
    }
    OneTunnel<'_>, this, map => {
        let Self(tunnel) = this;
        fields!(map,
            id: Text(tunnel.id),
            client: tunnel.client.to_canonical(),
            port: tunnel.port,
            user: Text(tunnel.user),
            vhost: Text(tunnel.vhost),
            path: Text(tunnel.path),
            subprotocol: Text(tunnel.subprotocol),
            backend: Text(tunnel.backend),
            where: tunnel.place.name(),
            pid: tunnel.pid,
            since: Shown(Moment(tunnel.started_micros)),
            seconds: tunnel.seconds,
            idle_seconds: tunnel.idle_seconds,
            bytes_up: tunnel.bytes_up,
            bytes_down: tunnel.bytes_down,
            messages_up: tunnel.messages_up,
            messages_down: tunnel.messages_down,
            tls_client: tunnel.is_client_tls,
            tls_backend: tunnel.is_backend_tls,
        );
    }
}

/// What totals and virtual hosts have in common.
fn figures<M: SerializeMap>(map: &mut M, sums: &Sums) -> Result<(), M::Error> {
    places(map, sums.open)?;
    fields!(map,
        opened: sums.opened,
        closed: sums.closed,
        bytes_up: sums.bytes_up,
        bytes_down: sums.bytes_down,
        messages_up: sums.messages_up,
        messages_down: sums.messages_down,
        handshakes: sums.handshakes,
        ends: sums.ends,
    );
    Ok(())
}

fn places<M: SerializeMap>(map: &mut M, open: OpenSums) -> Result<(), M::Error> {
    fields!(map, relay: open.relay, drain: open.drain, thread: open.thread);
    Ok(())
}

struct List<'a>(&'a [Tunnel<'a>]);

impl Serialize for List<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.0.iter().map(OneTunnel))
    }
}

/// Names with numbers, as an object.
struct Pairs<'a>(&'a [(&'static str, u64)]);

impl Serialize for Pairs<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.iter().copied())
    }
}

/// Bytes that are most likely a text.
struct Text<'a>(&'a [u8]);

impl Serialize for Text<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&lossy(self.0))
    }
}

/// What has a text of its own.
struct Shown<T>(T);

impl<T: Display> Serialize for Shown<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use serde_json::{Value, json};

    use super::*;
    use crate::ready;
    use crate::samples::{self, hostile, tunnel};

    fn parsed(text: &str) -> Value {
        assert!(text.ends_with('\n'));
        serde_json::from_str(text).expect("JSON")
    }

    #[test]
    fn a_tunnel_has_what_the_reference_says() {
        let expected = concat!(
            r#"[{"id":"abc","client":"192.0.2.7","port":54321,"user":"alice","#,
            r#""vhost":"example.com:443","path":"/chat","subprotocol":"graphql-ws","#,
            r#""backend":"http://127.0.0.1:8080","where":"relay","pid":4711,"#,
            r#""since":"2023-11-14T22:13:20.123Z","seconds":3725,"idle_seconds":12,"#,
            r#""bytes_up":1500,"bytes_down":2500000,"messages_up":10,"messages_down":20,"#,
            r#""tls_client":true,"tls_backend":false}]"#,
            "\n"
        );
        assert_eq!(tunnels(&[tunnel()]), expected);
        assert_eq!(tunnels(&[]), "[]\n");
        let mapped = Tunnel { client: "::ffff:1.2.3.4".parse().unwrap(), ..tunnel() };
        assert_eq!(parsed(&tunnels(&[mapped]))[0]["client"], "1.2.3.4");
    }

    #[test]
    fn everything_is_one_object() {
        let overview_json = parsed(&overview(&samples::overview(), &[tunnel(), hostile()]));
        let object = overview_json.as_object().unwrap();
        let mut keys: Vec<_> = object.keys().map(String::as_str).collect();
        keys.sort_unstable();
        let mut expected = [
            "version",
            "httpd",
            "openssl",
            "mpm",
            "started",
            "ready",
            "ready_reason",
            "nonce",
            "tunnels",
            "vhosts",
            "backends",
            "processes",
            "list",
        ];
        expected.sort_unstable();
        assert_eq!(keys, expected);
        assert_eq!(object["started"], 1_700_000_000);
        assert_eq!((&object["ready"], &object["ready_reason"]), (&json!(true), &Value::Null));
        assert_eq!(
            object["tunnels"],
            json!({"open": 8, "possible": 1000, "unlisted": 0, "relay": 5, "drain": 2, "thread": 1,
                   "opened": 110, "closed": 97, "bytes_up": 1000, "bytes_down": 2_000_000,
                   "messages_up": 12, "messages_down": 7,
                   "handshakes": {"101": 110, "refused_max_tunnels": 3},
                   "ends": {"closed": 90, "reset": 7}, "fallbacks": {"http2": 5, "filter": 0},
                   "tls_sessions": {"native": 4, "unproved": 1}})
        );
        assert_eq!(object["vhosts"]["example.com:443"]["open"], 7);
        assert_eq!(object["vhosts"]["quo\"te\u{fffd}<b>:80"]["handshakes"]["101"], 10);
        assert_eq!(
            object["backends"]["http://127.0.0.1:8080"],
            json!({"open": 7, "relay": 4, "drain": 2, "thread": 1, "opened": 100})
        );
        assert_eq!(
            object["processes"][1],
            json!({"pid": 4700, "kind": "drain", "tunnels": 2, "possible": 0,
                   "threads": [{"thread": 0, "cpu_seconds": 3.000_001}]})
        );
        assert_eq!(object["list"].as_array().unwrap().len(), 2);
        assert_eq!(object["list"][0], parsed(&tunnels(&[tunnel()]))[0]);
    }

    #[test]
    fn why_it_is_not_ready_is_told() {
        let full = samples::overview();
        let full = Overview { ready: ready::room(8, 8, 95), unlisted: 3, ..full };
        let json = parsed(&overview(&full, &[]));
        assert_eq!(json["ready"], false);
        assert!(json["ready_reason"].as_str().unwrap().starts_with("8 of 8 possible"));
        assert_eq!(json["tunnels"]["open"], 11);
    }

    #[test]
    fn hostile_text_stays_text() {
        let text = tunnels(&[hostile()]);
        assert!(text.trim_end().chars().all(|sign| !is_hidden(sign)), "{text}");
        let json = &parsed(&text)[0];
        assert_eq!(json["id"], "\u{fffd}\u{fffd}\0");
        assert_eq!(json["user"], "</script><script>alert(1)</script>");
        assert_eq!(json["path"], "/\"><img src=x onerror='a&amp;'>\u{1b}[2J\u{fffd}");
        assert_eq!(json["subprotocol"], "\u{202e}\u{9b}\\");
        assert_eq!(json["vhost"], "\\u0022:80\n");
    }

    #[test]
    fn every_byte_can_be_shown() {
        for byte in 0..=255 {
            let bytes = [b'a', byte, b'b'];
            let shown = parsed(&tunnels(&[Tunnel { path: &bytes, ..tunnel() }]));
            assert_eq!(shown[0]["path"], *lossy(&bytes));
        }
    }

    #[test]
    fn closed_is_a_number() {
        assert_eq!(parsed(&closed(20_000)), json!({"closed": 20_000}));
    }

    /// How long a tunnel takes is measured where httpd runs, by the tests of the page.
    #[test]
    fn the_time_grows_with_the_tunnels_and_no_faster() {
        // Of several the least: a machine may have other things to do.
        let least = |count: usize| {
            let many = vec![hostile(); count];
            let timed = |_| {
                let begun = Instant::now();
                let text = tunnels(&many);
                let taken = begun.elapsed();
                assert_eq!(parsed(&text).as_array().unwrap().len(), count);
                taken
            };
            (0..3).map(timed).min().unwrap_or_default()
        };
        let (few, many) = (least(500), least(10_000));
        assert!(many < few * 20 * 4, "{few:?}, {many:?}");
    }
}
