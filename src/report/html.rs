//! The page for people. It needs no script and nothing from elsewhere.

use std::fmt::{self, Display, Write};

use crate::filter::Filter;
use crate::sums::{self, OpenSums, Sums};
use crate::text::{is_hidden, is_plain, lossy};
use crate::time::{Duration, Moment, Seconds};
use crate::urlencoded::append;
use crate::view::{Overview, Tunnel};

/// Its Content-Type.
pub const CONTENT_TYPE: &str = "text/html; charset=utf-8";

/// What a browser may do on behalf of the page: show its own style, send its own forms.
pub const CONTENT_SECURITY_POLICY: &str = "default-src 'none'; style-src 'unsafe-inline'; \
     form-action 'self'; frame-ancestors 'none'; base-uri 'none'";

/// Tunnels on one page.
pub const PAGE_TUNNELS: usize = 100;

/// More rows than these of a table of virtual hosts or back ends are folded away.
const MAX_UNFOLDED_ROWS: usize = 20;

/// The tunnels to show.
#[derive(Debug, Clone, Copy)]
pub struct List<'a> {
    /// All that the filter lets through, also those of other pages.
    pub tunnels: &'a [Tunnel<'a>],
    /// What was asked for.
    pub filter: &'a Filter,
    /// Which part of them, from 1. Behind the last one there is the last one.
    pub page: u64,
}

/// The whole page.
#[must_use]
pub fn page(overview: &Overview, list: &List<'_>) -> String {
    let total = sums::total(overview);
    let mut page = Page(String::with_capacity(64 * 1024));
    page.raw(HEAD).raw("<style>").raw(STYLE).raw("</style>\n</head>\n<body>\n");
    header(&mut page, overview);
    totals(&mut page, overview, &total);
    vhosts(&mut page, overview);
    backends(&mut page, overview);
    processes(&mut page, overview);
    counts(&mut page, overview, &total);
    tunnels(&mut page, overview, list);
    page.raw("</body>\n</html>\n");
    page.0
}

const HEAD: &str = r#"<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="robots" content="noindex">
<meta name="referrer" content="same-origin">
<title>WebSocket tunnels</title>
"#;

const STYLE: &str = include_str!("page.css");

fn header(page: &mut Page, overview: &Overview) {
    page.raw("<header>\n<h1>WebSocket tunnels</h1>\n");
    match &overview.ready {
        Ok(()) => page.raw("<p class=\"good\">ready</p>\n"),
        Err(why) => page.raw("<p class=\"bad\">not ready: ").text(why).raw("</p>\n"),
    };
    page.raw("<p>mod_wsforward ").text(&overview.version);
    page.raw(", ").text(&overview.httpd).raw(", MPM ").text(&overview.mpm);
    if !overview.openssl.is_empty() {
        page.raw(", ").text(&overview.openssl);
    }
    page.raw(", started ")
        .text(format_args!("{:#}", Moment(overview.started.saturating_mul(1_000_000))));
    page.raw("</p>\n</header>\n");
}

fn totals(page: &mut Page, overview: &Overview, total: &Sums) {
    let OpenSums { relay, drain, thread } = total.open;
    let open = total.open.all().saturating_add(overview.unlisted);
    page.raw("<section>\n<dl class=\"figures\">\n");
    page.raw("<div><dt>open</dt><dd>").text(Count(open)).raw(" <small>of ");
    page.text(Count(overview.possible)).raw("</small></dd></div>\n");
    page.figure("in relay threads", Count(relay));
    page.figure("in drain processes", Count(drain));
    page.figure("in worker threads", Count(thread));
    if overview.unlisted > 0 {
        page.figure("not listed", Count(overview.unlisted));
    }
    page.figure("opened", Count(total.opened));
    page.figure("closed", Count(total.closed));
    page.figure("bytes up", Bytes(total.bytes_up));
    page.figure("bytes down", Bytes(total.bytes_down));
    page.figure("messages up", Count(total.messages_up));
    page.figure("messages down", Count(total.messages_down));
    page.raw("</dl>\n</section>\n");
}

fn vhosts(page: &mut Page, overview: &Overview) {
    let vhosts = sums::by_vhost(overview);
    page.fold("Virtual hosts", vhosts.len());
    page.table(&["Virtual host", "Open", "Opened", "Closed", "Bytes up", "Bytes down"]);
    for (name, sums) in vhosts {
        page.raw("<tr>").name("Virtual host", &name);
        page.number("Open", Count(sums.open.all())).number("Opened", Count(sums.opened));
        page.number("Closed", Count(sums.closed)).number("Bytes up", Bytes(sums.bytes_up));
        page.number("Bytes down", Bytes(sums.bytes_down)).raw("</tr>\n");
    }
    page.raw("</tbody>\n</table>\n</details>\n");
}

fn backends(page: &mut Page, overview: &Overview) {
    let backends = sums::by_backend(overview);
    page.fold("Back ends", backends.len());
    page.table(&["Back end", "Open", "In relay", "In drain", "In threads", "Opened"]);
    for (name, sums) in backends {
        page.raw("<tr>").name("Back end", &name);
        page.number("Open", Count(sums.open.all())).number("In relay", Count(sums.open.relay));
        page.number("In drain", Count(sums.open.drain));
        page.number("In threads", Count(sums.open.thread));
        page.number("Opened", Count(sums.opened)).raw("</tr>\n");
    }
    page.raw("</tbody>\n</table>\n</details>\n");
}

fn processes(page: &mut Page, overview: &Overview) {
    page.fold("Processes and relay threads", overview.processes.len());
    page.table(&["Process", "Kind", "Tunnels", "Possible", "Processor time"]);
    for process in &overview.processes {
        page.raw("<tr>").name("Process", &process.pid.to_string());
        page.cell("Kind", process.kind.name()).number("Tunnels", Count(process.tunnels));
        match process.possible {
            0 => page.number("Possible", "takes none"),
            possible => page.number("Possible", Count(possible)),
        };
        let times: Vec<_> =
            process.threads.iter().map(|thread| Cpu(thread.cpu_micros).to_string()).collect();
        page.number("Processor time", times.join(", ")).raw("</tr>\n");
    }
    page.raw("</tbody>\n</table>\n</details>\n");
}

/// What happened how often.
fn counts(page: &mut Page, overview: &Overview, total: &Sums) {
    page.raw("<details>\n<summary>Handshakes, ends, fallbacks</summary>\n<div class=\"lists\">\n");
    page.counts("Handshakes", total.handshakes.iter().map(|(name, value)| (*name, *value)));
    page.counts("Why tunnels ended", total.ends.iter().map(|(name, value)| (*name, *value)));
    let fallbacks = overview.fallbacks.iter().copied();
    page.counts("Why tunnels stayed in worker threads", fallbacks.filter(|(_, value)| *value > 0));
    page.raw("</div>\n</details>\n");
}

fn tunnels(page: &mut Page, overview: &Overview, list: &List<'_>) {
    let pages = list.tunnels.len().div_ceil(PAGE_TUNNELS).max(1);
    let number = usize::try_from(list.page).unwrap_or(usize::MAX).clamp(1, pages);
    let first = (number - 1) * PAGE_TUNNELS;
    let shown = list.tunnels.iter().skip(first).take(PAGE_TUNNELS);

    page.raw("<section id=\"list\">\n<h2>Tunnels</h2>\n");
    filter_form(page, list.filter);
    page.raw("<p class=\"found\">");
    match list.tunnels.len() {
        0 if list.filter.is_empty() => page.raw("No tunnel is open."),
        0 => page.raw("No open tunnel matches."),
        1 => page.raw("1 tunnel"),
        found if pages == 1 => page.text(Count(found as u64)).raw(" tunnels"),
        found => {
            page.text(Count(found as u64)).raw(" tunnels, ").text(Count(first as u64 + 1));
            page.raw(" to ").text(Count(found.min(first + PAGE_TUNNELS) as u64))
        }
    };
    page.raw("</p>\n");
    if overview.is_closing_allowed && !list.tunnels.is_empty() {
        close_all_form(page, overview, list);
    }
    turn_pages(page, list.filter, number, pages);
    if !list.tunnels.is_empty() {
        page.raw("<table class=\"list\">\n");
        page.head(&COLUMNS[..COLUMNS.len() - usize::from(!overview.is_closing_allowed)]);
        for tunnel in shown {
            row(page, overview, tunnel);
        }
        page.raw("</tbody>\n</table>\n");
        turn_pages(page, list.filter, number, pages);
    }
    page.raw("</section>\n");
}

const COLUMNS: [&str; 10] = [
    "Client",
    "Virtual host, path",
    "Back end",
    "Where",
    "Open for",
    "Idle for",
    "Up",
    "Down",
    "Id",
    "Close",
];

fn row(page: &mut Page, overview: &Overview, tunnel: &Tunnel<'_>) {
    page.raw("<tr>").open_wide_cell("Client").client(tunnel);
    if !tunnel.user.is_empty() {
        page.raw("<br><b>").text(lossy(tunnel.user)).raw("</b>");
    }
    page.raw("</td>").open_wide_cell("Virtual host, path").text(lossy(tunnel.vhost));
    page.raw("<br>").text(lossy(tunnel.path));
    if !tunnel.subprotocol.is_empty() {
        page.raw("<br><small>").text(lossy(tunnel.subprotocol)).raw("</small>");
    }
    page.raw("</td>")
        .open_wide_cell("Back end")
        .text(lossy(tunnel.backend))
        .tls(tunnel.is_backend_tls);
    page.raw("</td>").open_cell("Where").text(tunnel.place.name()).raw(" ").text(tunnel.pid);
    page.raw("</td><td class=\"number\" data-name=\"Open for\" title=\"since ");
    page.text(Moment(tunnel.started_micros)).raw("\">").text(Duration(tunnel.seconds));
    page.raw("</td>").number("Idle for", Duration(tunnel.idle_seconds));
    page.traffic("Up", tunnel.bytes_up, tunnel.messages_up);
    page.traffic("Down", tunnel.bytes_down, tunnel.messages_down);
    page.raw("<td class=\"wide id\" data-name=\"Id\"><code>")
        .text(lossy(tunnel.id))
        .raw("</code></td>");
    if overview.is_closing_allowed {
        page.open_cell("Close");
        // An id that a browser would send back changed closes nothing, or something else.
        if is_plain(tunnel.id) && !tunnel.id.is_empty() {
            page.raw("<form method=\"post\" action=\"?\">");
            page.order(overview).hidden("id", &lossy(tunnel.id));
            page.raw("<button>Close</button></form>");
        }
        page.raw("</td>");
    }
    page.raw("</tr>\n");
}

fn filter_form(page: &mut Page, filter: &Filter) {
    page.raw("<form method=\"get\" action=\"#list\" class=\"fields\">\n");
    let conditions = filter.conditions();
    for (name, label, kind) in [
        ("client", "Client address", "text"),
        ("user", "User", "text"),
        ("vhost", "Virtual host", "text"),
        ("backend", "Back end", "text"),
        ("older", "Open for, seconds", "number"),
        ("idle", "Idle for, seconds", "number"),
    ] {
        let value = conditions.iter().find(|(condition, _)| *condition == name);
        let value = value.map(|(_, value)| lossy(value)).unwrap_or_default();
        page.raw("<label>").text(label).raw(" <input name=\"").text(name).raw("\" type=\"");
        page.text(kind).raw("\" min=\"0\" value=\"").text(value).raw("\"></label>\n");
    }
    page.raw("<span><button>Show</button>");
    if !filter.is_empty() {
        page.raw(" <a href=\"?#list\">Show all</a>");
    }
    page.raw("</span>\n</form>\n");
}

/// Closes what is listed, on all pages. Only where the conditions come back as they were.
fn close_all_form(page: &mut Page, overview: &Overview, list: &List<'_>) {
    let conditions = list.filter.conditions();
    if conditions.is_empty() || !conditions.iter().all(|(_, value)| is_plain(value)) {
        return;
    }
    page.raw("<details class=\"danger\">\n<summary>Close all of these</summary>\n");
    page.raw("<form method=\"post\" action=\"?\" class=\"fields\">\n").order(overview);
    for (name, value) in conditions {
        page.hidden(name, &lossy(&value));
    }
    page.raw("<label>Code <input name=\"code\" type=\"number\" min=\"1000\" max=\"4999\" ");
    page.raw("value=\"1001\" required></label>\n<label>Reason ");
    page.raw("<input name=\"reason\" maxlength=\"123\"></label>\n<span><button>Close ");
    match list.tunnels.len() {
        1 => page.raw("1 tunnel"),
        found => page.text(Count(found as u64)).raw(" tunnels"),
    };
    page.raw("</button></span>\n</form>\n</details>\n");
}

fn turn_pages(page: &mut Page, filter: &Filter, number: usize, pages: usize) {
    if pages < 2 {
        return;
    }
    page.raw("<nav>");
    for (label, to) in
        [("First", 1), ("Previous", number - 1), ("Next", number + 1), ("Last", pages)]
    {
        if to == number || !(1..=pages).contains(&to) {
            page.raw("<span class=\"off\">").text(label).raw("</span> ");
            continue;
        }
        let mut query = filter.to_query();
        append(&mut query, "page", to.to_string().as_bytes());
        page.raw("<a href=\"?").text(query).raw("#list\">").text(label).raw("</a> ");
    }
    page.raw("<span>page ").text(number).raw(" of ").text(pages).raw("</span></nav>\n");
}

/// A page of HTML. Markup comes from this file alone, all else is escaped.
struct Page(String);

impl Page {
    fn raw(&mut self, markup: &'static str) -> &mut Self {
        self.0.push_str(markup);
        self
    }

    /// Between tags, or between the quotes of an attribute.
    fn text(&mut self, text: impl Display) -> &mut Self {
        // Writing to a String does not fail.
        let _ = write!(Escaping(&mut self.0), "{text}");
        self
    }

    fn figure(&mut self, name: &'static str, value: impl Display) {
        self.raw("<div><dt>").text(name).raw("</dt><dd>").text(value).raw("</dd></div>\n");
    }

    fn fold(&mut self, title: &'static str, rows: usize) {
        self.raw(if rows > MAX_UNFOLDED_ROWS { "<details>\n" } else { "<details open>\n" });
        self.raw("<summary>").text(title).raw(" <span>").text(Count(rows as u64));
        self.raw("</span></summary>\n");
    }

    fn table(&mut self, columns: &[&'static str]) {
        self.raw("<table>\n");
        self.head(columns);
    }

    fn head(&mut self, columns: &[&'static str]) {
        self.raw("<thead><tr>");
        for column in columns {
            self.raw("<th scope=\"col\">").text(column).raw("</th>");
        }
        self.raw("</tr></thead>\n<tbody>\n");
    }

    /// On a narrow screen each cell says what it is.
    fn open_cell(&mut self, column: &'static str) -> &mut Self {
        self.raw("<td data-name=\"").raw(column).raw("\">")
    }

    /// For a long text.
    fn open_wide_cell(&mut self, column: &'static str) -> &mut Self {
        self.raw("<td class=\"wide\" data-name=\"").raw(column).raw("\">")
    }

    fn cell(&mut self, column: &'static str, value: impl Display) -> &mut Self {
        self.open_cell(column).text(value).raw("</td>")
    }

    fn number(&mut self, column: &'static str, value: impl Display) -> &mut Self {
        self.raw("<td class=\"number\" data-name=\"").raw(column).raw("\">");
        self.text(value).raw("</td>")
    }

    fn name(&mut self, column: &'static str, value: &str) -> &mut Self {
        self.raw("<th scope=\"row\" data-name=\"").raw(column).raw("\">");
        self.text(value).raw("</th>")
    }

    fn client(&mut self, tunnel: &Tunnel<'_>) -> &mut Self {
        let client = tunnel.client.to_canonical();
        self.text(std::net::SocketAddr::new(client, tunnel.port)).tls(tunnel.is_client_tls)
    }

    fn tls(&mut self, is_tls: bool) -> &mut Self {
        if is_tls { self.raw(" <small class=\"tls\">TLS</small>") } else { self }
    }

    fn traffic(&mut self, column: &'static str, bytes: u64, messages: u64) {
        self.raw("<td class=\"number\" data-name=\"").raw(column).raw("\" title=\"");
        self.text(bytes).raw(" bytes\">").text(Bytes(bytes)).raw("<br><small>");
        self.text(Count(messages));
        self.raw(if messages == 1 { " message" } else { " messages" }).raw("</small></td>");
    }

    fn counts(&mut self, title: &'static str, counts: impl Iterator<Item = (&'static str, u64)>) {
        self.raw("<div><h3>").text(title).raw("</h3>\n<dl>\n");
        let mut is_empty = true;
        for (name, value) in counts {
            is_empty = false;
            self.figure(name, Count(value));
        }
        self.raw("</dl>");
        if is_empty {
            self.raw("<p>none</p>");
        }
        self.raw("</div>\n");
    }

    fn hidden(&mut self, name: &'static str, value: &str) -> &mut Self {
        self.raw("<input type=\"hidden\" name=\"").raw(name).raw("\" value=\"").text(value);
        self.raw("\">")
    }

    /// What each order needs.
    fn order(&mut self, overview: &Overview) -> &mut Self {
        self.hidden("action", "close").hidden("nonce", &overview.nonce)
    }
}

/// Escapes what a browser would take for markup, or what nobody would see.
struct Escaping<'a>(&'a mut String);

impl Write for Escaping<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for sign in text.chars() {
            match sign {
                '&' => self.0.push_str("&amp;"),
                '<' => self.0.push_str("&lt;"),
                '>' => self.0.push_str("&gt;"),
                '"' => self.0.push_str("&quot;"),
                '\'' => self.0.push_str("&#39;"),
                sign if is_hidden(sign) => write!(self.0, "{}", sign.escape_unicode())?,
                sign => self.0.push(sign),
            }
        }
        Ok(())
    }
}

/// With a thin space between thousands, which a browser does not break.
struct Count(u64);

impl Display for Count {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let digits = self.0.to_string();
        for (at, digit) in digits.chars().enumerate() {
            if at > 0 && (digits.len() - at).is_multiple_of(3) {
                f.write_char('\u{202f}')?;
            }
            f.write_char(digit)?;
        }
        Ok(())
    }
}

/// To the next unit.
struct Bytes(u64);

impl Display for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const UNITS: [&str; 6] = ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
        if self.0 < 1024 {
            return write!(f, "{} B", self.0);
        }
        let mut value = self.0 as f64 / 1024.0;
        let mut units = UNITS.into_iter();
        let mut unit = units.next();
        while value >= 1023.95 {
            value /= 1024.0;
            unit = units.next();
        }
        write!(f, "{value:.1} {}", unit.unwrap_or_default())
    }
}

/// Processor time, to a hundredth of a second.
struct Cpu(u64);

impl Display for Cpu {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const MICROS_PER_HUNDREDTH: u64 = 10_000;
        write!(f, "{} s", Seconds(self.0 / MICROS_PER_HUNDREDTH * MICROS_PER_HUNDREDTH))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::query::Query;
    use crate::samples::{HOSTILE_VHOST, hostile, overview, tunnel};

    fn shown(overview: &Overview, tunnels: &[Tunnel<'_>], query: &str) -> String {
        let Ok(Query::Page { filter, page }) = Query::parse(query.as_bytes()) else {
            panic!("{query}")
        };
        super::page(overview, &List { tunnels, filter: &filter, page })
    }

    /// How often.
    fn count(page: &str, what: &str) -> usize {
        page.matches(what).count()
    }

    /// Every tag that is opened is closed, in order, and each attribute has its quotes.
    fn check(page: &str) {
        let mut open: Vec<&str> = Vec::new();
        for (at, piece) in page.split('<').enumerate().skip(1) {
            let (tag, text) = piece.split_once('>').expect("a tag ends");
            assert!(!text.contains('>'), "{text}");
            assert_eq!(count(tag, "\"") % 2, 0, "{tag}");
            let name = tag.split([' ', '\n']).next().unwrap();
            assert!(!["script", "link", "img", "iframe", "base", "b>"].contains(&name), "{tag}");
            for outside in [" src=", " on", "url(", "http-equiv"] {
                assert!(!tag.contains(outside), "{tag}");
            }
            if let Some(name) = name.strip_prefix('/') {
                assert_eq!(open.pop(), Some(name), "{at}: {tag}");
            } else if !["!DOCTYPE", "meta", "input", "br"].contains(&name) {
                open.push(name);
            }
        }
        assert!(open.is_empty(), "{open:?}");
    }

    #[test]
    fn it_has_all_parts() {
        let page = shown(&overview(), &[tunnel()], "");
        check(&page);
        for part in [
            "<p class=\"good\">ready</p>",
            "mod_wsforward 0.1.0, Apache/2.4.58 (Debian), MPM event, OpenSSL 3.0.15, \
             started 2023-11-14T22:13:20Z",
            "<dt>open</dt><dd>8 <small>of 1\u{202f}000</small></dd>",
            "<dt>bytes down</dt><dd>1.9 MiB</dd>",
            "<th scope=\"row\" data-name=\"Virtual host\">example.com:443</th>",
            "<th scope=\"row\" data-name=\"Back end\">http://127.0.0.1:8080</th>",
            "<th scope=\"row\" data-name=\"Process\">4700</th><td data-name=\"Kind\">drain</td>",
            ">1.25 s, 0 s</td>",
            "<dt>refused_max_tunnels</dt><dd>3</dd>",
            "<dt>http2</dt><dd>5</dd>",
            "192.0.2.7:54321 <small class=\"tls\">TLS</small><br><b>alice</b>",
            "example.com:443<br>/chat<br><small>graphql-ws</small>",
            "relay 4711",
            "title=\"since 2023-11-14T22:13:20.123Z\">1 h 2 min</td>",
            ">12 s</td>",
            "title=\"2500000 bytes\">2.4 MiB<br><small>20 messages</small>",
            "<code>abc</code>",
            "<input type=\"hidden\" name=\"action\" value=\"close\">\
             <input type=\"hidden\" name=\"nonce\" value=\"7-1700000000-0123456789abcdef\">\
             <input type=\"hidden\" name=\"id\" value=\"abc\"><button>Close</button>",
        ] {
            assert!(page.contains(part), "{part}\n{page}");
        }
        // Nothing of what is 0.
        assert!(!page.contains("<dt>filter</dt>"));
    }

    #[test]
    fn it_closes_nothing_unless_that_is_allowed() {
        let overview = Overview { is_closing_allowed: false, ..overview() };
        for query in ["", "user=alice"] {
            let page = shown(&overview, &[tunnel()], query);
            check(&page);
            assert!(!page.contains("method=\"post\"") && !page.contains("nonce"), "{page}");
            assert!(!page.contains("Close<"), "{page}");
        }
    }

    #[test]
    fn hostile_text_stays_text() {
        let page = shown(&overview(), &[hostile()], "user=%3Cscript%3E%22%27&vhost=a");
        check(&page);
        let body = page.split_once("</style>").unwrap().1;
        for sign in body.chars() {
            assert!(!is_hidden(sign) || matches!(sign, '\n' | '\u{202f}'), "{sign:?}");
        }
        for part in [
            "&lt;/script&gt;&lt;script&gt;alert(1)&lt;/script&gt;",
            "/&quot;&gt;&lt;img src=x onerror=&#39;a&amp;amp;&#39;&gt;\\u{1b}[2J\u{fffd}",
            "\\u{202e}\\u{9b}\\",
            "\\u0022:80\\u{a}",
            "value=\"&lt;script&gt;&quot;&#39;\"",
            "quo&quot;te\u{fffd}&lt;b&gt;:80",
        ] {
            assert!(page.contains(part), "{part}\n{page}");
        }
        // Its id cannot be sent back as it is.
        assert_eq!(count(&page, "<button>Close</button>"), 0);
    }

    #[test]
    fn every_byte_can_be_shown() {
        for byte in 0..=255 {
            let text = [b'a', byte, b'b'];
            let tunnel = Tunnel { id: &text, path: &text, user: &text, ..tunnel() };
            check(&shown(&overview(), &[tunnel], ""));
        }
    }

    #[test]
    fn the_list_has_pages() {
        let ids: Vec<String> = (0..250).map(|number| format!("<{number}>")).collect();
        let many: Vec<_> = ids.iter().map(|id| Tunnel { id: id.as_bytes(), ..tunnel() }).collect();
        for (query, first, last, found) in [
            ("", 0, 99, "250 tunnels, 1 to 100"),
            ("page=2", 100, 199, "250 tunnels, 101 to 200"),
            ("page=3", 200, 249, "250 tunnels, 201 to 250"),
            ("page=18446744073709551615", 200, 249, "250 tunnels, 201 to 250"),
        ] {
            let page = shown(&overview(), &many, query);
            check(&page);
            assert!(page.contains(found), "{found}");
            assert_eq!(count(&page, "<code>"), last - first + 1);
            for (number, is_shown) in
                [(first, true), (last, true), (first.wrapping_sub(1), false), (last + 1, false)]
            {
                let cell = format!("<code>&lt;{number}&gt;</code>");
                assert_eq!(page.contains(&cell), is_shown, "{query} {number}");
            }
        }
        let page = shown(&overview(), &many, "page=2&user=a%26b");
        for link in [
            "<span class=\"off\">",
            "<a href=\"?user=a%26b&amp;page=1#list\">First</a>",
            "<a href=\"?user=a%26b&amp;page=3#list\">Next</a>",
            "<span>page 2 of 3</span>",
        ] {
            assert_eq!(page.contains(link), link != "<span class=\"off\">", "{link}\n{page}");
        }
        assert_eq!(count(&shown(&overview(), &many[..100], ""), "<nav>"), 0);
    }

    #[test]
    fn all_that_is_listed_can_be_closed() {
        let page = shown(&overview(), &[tunnel(), tunnel()], "user=alice&older=60");
        check(&page);
        let form =
            page.split_once("Close all of these").unwrap().1.split_once("</form>").unwrap().0;
        for field in [
            "name=\"action\" value=\"close\"",
            "name=\"nonce\"",
            "name=\"user\" value=\"alice\"",
            "name=\"older\" value=\"60\"",
            "name=\"code\"",
            "name=\"reason\"",
            "<button>Close 2 tunnels</button>",
        ] {
            assert!(form.contains(field), "{field}\n{form}");
        }
        assert_eq!(count(form, "type=\"hidden\""), 4);
        // Without a filter there is no such button, nor where it would come back changed.
        for query in ["", "page=1", "user=a%00", "user=%FF"] {
            assert!(!shown(&overview(), &[tunnel()], query).contains("Close all"), "{query}");
        }
    }

    #[test]
    fn an_empty_list_says_so() {
        let empty = shown(&overview(), &[], "");
        check(&empty);
        assert!(empty.contains("No tunnel is open."));
        assert!(shown(&overview(), &[], "client=::1").contains("No open tunnel matches."));
    }

    #[test]
    fn many_virtual_hosts_are_folded() {
        let mut overview = overview();
        let open = overview.open[0].clone();
        for number in 0..MAX_UNFOLDED_ROWS {
            let vhost = [HOSTILE_VHOST, number.to_string().as_bytes()].concat();
            overview.open.push(crate::view::Open { vhost, ..open.clone() });
        }
        let page = shown(&overview, &[], "");
        check(&page);
        assert!(page.contains("<details>\n<summary>Virtual hosts <span>22</span>"));
        assert!(page.contains("<details open>\n<summary>Back ends <span>2</span>"));
    }

    #[test]
    fn figures_are_short() {
        for (bytes, expected) in [
            (0, "0 B"),
            (1023, "1023 B"),
            (1024, "1.0 KiB"),
            (1_048_524, "1023.9 KiB"),
            (1_048_575, "1.0 MiB"),
            (u64::MAX, "16.0 EiB"),
        ] {
            assert_eq!(Bytes(bytes).to_string(), expected);
        }
        for (count, expected) in
            [(0, "0"), (999, "999"), (1000, "1 000"), (12_345, "12 345"), (1_234_567, "1 234 567")]
        {
            assert_eq!(Count(count).to_string().replace('\u{202f}', " "), expected);
        }
    }
}
