//! The answer to `?metrics`: figures for Prometheus, in its text format 0.0.4 or as OpenMetrics 1.0.
//!
//! Written by hand: the crates that encode these want each figure registered with them, kept in
//! their own types, and write one of the two formats only.

use std::collections::BTreeMap;
use std::fmt::{self, Display, Write};

use crate::text::lossy;
use crate::time::Seconds;
use crate::view::{Counter, Histogram, Overview};

/// What is asked for, see [`wants_open_metrics`](crate::accept::wants_open_metrics).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// Prometheus's text format, version 0.0.4.
    Text,
    /// OpenMetrics, version 1.0.0.
    OpenMetrics,
}

impl Format {
    /// Its Content-Type.
    #[must_use]
    pub const fn content_type(self) -> &'static str {
        match self {
            Self::Text => "text/plain; version=0.0.4; charset=utf-8",
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
        }
    }
}

/// The value of the label `code`: close codes that RFC 6455 and IANA know, and one word for all
/// others, as a client may send any of 65,536.
#[must_use]
pub fn code_label(code: u16) -> &'static str {
    const KNOWN: [&str; 16] = [
        "1000", "1001", "1002", "1003", "1004", "1005", "1006", "1007", "1008", "1009", "1010",
        "1011", "1012", "1013", "1014", "1015",
    ];
    code.checked_sub(1000).and_then(|at| KNOWN.get(usize::from(at)).copied()).unwrap_or("other")
}

/// All figures in this format.
#[must_use]
pub fn render(overview: &Overview, format: Format) -> String {
    let mut page = Page { text: String::with_capacity(16 * 1024), format };
    server(&mut page, overview);
    tunnels(&mut page, overview);
    histograms(&mut page, overview);
    processes(&mut page, overview);
    if format == Format::OpenMetrics {
        page.text.push_str("# EOF\n");
    }
    page.text
}

/// What there is one of.
fn server(page: &mut Page, overview: &Overview) {
    let mut info = Family::of(["version", "httpd", "openssl"]);
    info.add([&overview.version, &overview.httpd, &overview.openssl], 1);
    page.info("build", "Versions of mod_wsforward, of httpd, and of OpenSSL.", &info);
    page.gauge(
        "ready",
        "Whether the server takes new tunnels, as ?ready says: 1 or 0.",
        &Family::alone(overview.ready.is_ok().into()),
    );
    page.gauge(
        "tunnels_possible",
        "Tunnels that the limits allow to be open.",
        &Family::alone(overview.possible),
    );
}

fn tunnels(page: &mut Page, overview: &Overview) {
    let mut open = Family::of(["vhost", "backend", "where"]);
    for found in &overview.open {
        open.add(
            [&*lossy(&found.vhost), &*lossy(&found.backend), found.place.name()],
            found.tunnels,
        );
    }
    if overview.unlisted > 0 {
        open.add(["other", "other", "unlisted"], overview.unlisted);
    }
    let mut opened = Family::of(["vhost", "backend"]);
    let mut closed = Family::of(["vhost", "by", "reason", "code"]);
    let mut handshakes = Family::of(["vhost", "result"]);
    let mut bytes = Family::of(["vhost", "direction"]);
    let mut messages = Family::of(["vhost", "direction", "opcode"]);
    for sample in &overview.samples {
        let vhost = &*lossy(&sample.vhost);
        match &sample.counter {
            Counter::Opened { backend } => opened.add([vhost, &lossy(backend)], sample.value),
            Counter::Closed { by, reason, code } => {
                closed.add([vhost, by, reason, code_label(*code)], sample.value);
            }
            Counter::Handshakes { result } => handshakes.add([vhost, result], sample.value),
            Counter::Bytes(direction) => bytes.add([vhost, direction.name()], sample.value),
            Counter::Messages(direction, opcode) => {
                messages.add([vhost, direction.name(), opcode.name()], sample.value);
            }
        }
    }
    let mut fallbacks = Family::of(["reason"]);
    for (reason, value) in &overview.fallbacks {
        fallbacks.add([reason], *value);
    }
    let mut tls_sessions = Family::of(["reason"]);
    for (reason, value) in &overview.tls_sessions {
        tls_sessions.add([reason], *value);
    }
    page.gauge(
        "tunnels",
        "Tunnels open now, by where they are carried: relay, drain (process) or (worker) thread.",
        &open,
    );
    page.counter("tunnels_opened", "Tunnels opened.", &opened);
    page.counter(
        "tunnels_closed",
        "Tunnels closed: by whom, why, and with which code of a Close frame (1006: none).",
        &closed,
    );
    page.counter(
        "handshakes",
        "Upgrade requests, by how they ended: 101 is a tunnel, answer another answer of the back end.",
        &handshakes,
    );
    page.counter(
        "bytes",
        "Bytes of tunnels: up from clients, down from back ends, frame headers included.",
        &bytes,
    );
    page.counter(
        "messages",
        "Messages of tunnels: up from clients, down from back ends.",
        &messages,
    );
    page.counter(
        "fallbacks",
        "Tunnels that stayed in their worker thread though WSForwardRelay is On.",
        &fallbacks,
    );
    page.counter(
        "tls_sessions",
        "TLS sessions of tunnels given to the relay: native left OpenSSL, all others stay there for that reason.",
        &tls_sessions,
    );
}

fn histograms(page: &mut Page, overview: &Overview) {
    page.histogram(
        "tunnel_duration_seconds",
        "How long tunnels lasted that are closed.",
        &overview.tunnel_durations,
    );
    page.histogram(
        "handshake_duration_seconds",
        "How long back ends took to answer upgrade requests, connecting included.",
        &overview.handshake_durations,
    );
}

fn processes(page: &mut Page, overview: &Overview) {
    page.gauge(
        "drain_processes",
        "Processes that carry on the tunnels of children that ended.",
        &Family::alone(overview.drain_processes()),
    );
    let mut cpu = Family::of(["pid", "thread"]).in_micros();
    for process in &overview.processes {
        for thread in &process.threads {
            let labels = [&*process.pid.to_string(), &*thread.number.to_string()];
            cpu.add(labels, thread.cpu_micros);
        }
    }
    page.counter("relay_thread_cpu_seconds", "Processor time of each relay thread.", &cpu);
}

/// Samples of one name, by the values of their labels.
struct Family<const LABELS: usize> {
    labels: [&'static str; LABELS],
    samples: BTreeMap<[String; LABELS], u64>,
    /// Shown as seconds.
    is_in_micros: bool,
}

impl<const LABELS: usize> Family<LABELS> {
    fn of(labels: [&'static str; LABELS]) -> Self {
        Self { labels, samples: BTreeMap::new(), is_in_micros: false }
    }

    fn in_micros(self) -> Self {
        Self { is_in_micros: true, ..self }
    }

    /// Two of the same labels would spoil the whole page, and texts that differ may look alike
    /// once what is not UTF-8 is replaced.
    fn add(&mut self, values: [&str; LABELS], value: u64) {
        let sum = self.samples.entry(values.map(str::to_owned)).or_default();
        *sum = sum.saturating_add(value);
    }
}

impl Family<0> {
    fn alone(value: u64) -> Self {
        Self { samples: BTreeMap::from([([], value)]), ..Self::of([]) }
    }
}

struct Page {
    text: String,
    format: Format,
}

impl Page {
    fn gauge<const L: usize>(&mut self, name: &str, help: &str, family: &Family<L>) {
        self.head(name, "gauge", help);
        self.samples(name, family);
    }

    fn counter<const L: usize>(&mut self, name: &str, help: &str, family: &Family<L>) {
        let total = format!("{name}_total");
        // A family is named as its samples are in one format, and without what makes them counters
        // in the other.
        let of_family = if self.format == Format::Text { &total } else { name };
        self.head(of_family, "counter", help);
        self.samples(&total, family);
    }

    fn info<const L: usize>(&mut self, name: &str, help: &str, family: &Family<L>) {
        let info = format!("{name}_info");
        match self.format {
            Format::Text => self.head(&info, "gauge", help),
            Format::OpenMetrics => self.head(name, "info", help),
        }
        self.samples(&info, family);
    }

    fn histogram(&mut self, name: &str, help: &str, histogram: &Histogram) {
        self.head(name, "histogram", help);
        let bucket = format!("{name}_bucket");
        let mut counts = histogram.counts.iter().copied();
        let mut sum = 0_u64;
        for bound in histogram.bounds_micros {
            sum = sum.saturating_add(counts.next().unwrap_or_default());
            let bound = Seconds(*bound).to_string();
            // OpenMetrics wants a number that looks like no integer.
            let is_open = self.format == Format::OpenMetrics && !bound.contains('.');
            let bound = if is_open { bound + ".0" } else { bound };
            self.sample(&bucket, &["le"], &[bound], &sum);
        }
        sum = counts.fold(sum, u64::saturating_add);
        self.sample(&bucket, &["le"], &["+Inf".to_owned()], &sum);
        self.sample(&format!("{name}_sum"), &[], &[], &Seconds(histogram.sum_micros));
        self.sample(&format!("{name}_count"), &[], &[], &sum);
    }

    fn head(&mut self, name: &str, kind: &str, help: &str) {
        let help = Escaped(help, self.format == Format::OpenMetrics);
        self.line(format_args!("# HELP wsforward_{name} {help}"));
        self.line(format_args!("# TYPE wsforward_{name} {kind}"));
    }

    fn samples<const L: usize>(&mut self, name: &str, family: &Family<L>) {
        for (values, value) in &family.samples {
            if family.is_in_micros {
                self.sample(name, &family.labels, values, &Seconds(*value));
            } else {
                self.sample(name, &family.labels, values, value);
            }
        }
    }

    fn sample(&mut self, name: &str, labels: &[&str], values: &[String], value: &dyn Display) {
        let mut braces = String::new();
        for (label, text) in labels.iter().zip(values) {
            let comma = if braces.is_empty() { '{' } else { ',' };
            // Writing to a String does not fail.
            let _ = write!(braces, "{comma}{label}=\"{}\"", Escaped(text, true));
        }
        if !braces.is_empty() {
            braces.push('}');
        }
        self.line(format_args!("wsforward_{name}{braces} {value}"));
    }

    fn line(&mut self, line: fmt::Arguments<'_>) {
        let _ = writeln!(self.text, "{line}");
    }
}

/// A text with what ends it or its line escaped; with quotes if they end it too.
struct Escaped<'a>(&'a str, bool);

impl Display for Escaped<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for sign in self.0.chars() {
            match sign {
                '\\' => f.write_str("\\\\")?,
                '\n' => f.write_str("\\n")?,
                '"' if self.1 => f.write_str("\\\"")?,
                sign => f.write_char(sign)?,
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ready;
    use crate::samples::overview;

    #[test]
    fn close_codes_are_few() {
        assert_eq!(code_label(1000), "1000");
        assert_eq!(code_label(1015), "1015");
        for code in [0, 999, 1016, 3000, 4999, u16::MAX] {
            assert_eq!(code_label(code), "other");
        }
    }

    #[test]
    fn the_text_format() {
        let expected = include_str!("tests/metrics.txt");
        assert_eq!(render(&overview(), Format::Text), expected);
    }

    #[test]
    fn the_same_as_open_metrics() {
        let expected = include_str!("tests/openmetrics.txt");
        assert_eq!(render(&overview(), Format::OpenMetrics), expected);
    }

    #[test]
    fn nothing_is_there_twice() {
        let mut overview = overview();
        // Both are shown as one.
        overview.samples[0].vhost = b"a\xffb".to_vec();
        overview.samples[1].vhost = b"a\xfeb".to_vec();
        for format in [Format::Text, Format::OpenMetrics] {
            let page = render(&overview, format);
            let mut keys: Vec<_> = page
                .lines()
                .map(|line| line.rsplit_once(' ').map_or(line, |(key, _)| key))
                .filter(|key| !key.starts_with('#'))
                .collect();
            let all = keys.len();
            keys.sort_unstable();
            keys.dedup();
            assert_eq!(keys.len(), all);
            let shown = "wsforward_tunnels_opened_total{vhost=\"a\u{fffd}b\",\
                         backend=\"http://127.0.0.1:8080\"} 100\n";
            assert!(page.contains(shown), "{page}");
        }
    }

    #[test]
    fn what_is_not_listed_is_counted() {
        let overview = Overview { unlisted: 7, ready: ready::room(1, 1, 1), ..overview() };
        let page = render(&overview, Format::Text);
        let unlisted = r#"wsforward_tunnels{vhost="other",backend="other",where="unlisted"} 7"#;
        assert!(page.contains(unlisted) && page.contains("\nwsforward_ready 0\n"), "{page}");
    }

    #[test]
    fn a_histogram_may_lack_what_is_zero() {
        let bounds_micros = &[5000, 1_000_000];
        let overview = Overview {
            handshake_durations: Histogram { bounds_micros, ..Histogram::default() },
            tunnel_durations: Histogram::default(),
            ..overview()
        };
        let page = render(&overview, Format::OpenMetrics);
        let lines: Vec<_> =
            page.lines().filter(|line| line.starts_with("wsforward_handshake_")).collect();
        assert_eq!(
            lines,
            [
                r#"wsforward_handshake_duration_seconds_bucket{le="0.005"} 0"#,
                r#"wsforward_handshake_duration_seconds_bucket{le="1.0"} 0"#,
                r#"wsforward_handshake_duration_seconds_bucket{le="+Inf"} 0"#,
                "wsforward_handshake_duration_seconds_sum 0",
                "wsforward_handshake_duration_seconds_count 0",
            ]
        );
        assert!(page.contains("wsforward_tunnel_duration_seconds_bucket{le=\"+Inf\"} 0\n"));
    }
}
