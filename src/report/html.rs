//! The page for people. It needs no script and nothing from elsewhere.

mod list;
mod markup;
mod units;

use crate::html::list::tunnels;
use crate::html::markup::Page;
use crate::html::units::{Bytes, Count, Cpu};
use crate::sums::{self, OpenSums, Sums};
use crate::time::Moment;
use crate::view::Overview;

pub use crate::html::list::{List, PAGE_TUNNELS};

/// Its Content-Type.
pub const CONTENT_TYPE: &str = "text/html; charset=utf-8";

/// What a browser may do on behalf of the page: show its own style, send its own forms.
pub const CONTENT_SECURITY_POLICY: &str = "default-src 'none'; style-src 'unsafe-inline'; \
     form-action 'self'; frame-ancestors 'none'; base-uri 'none'";

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
    let sessions = overview.tls_sessions.iter().copied();
    page.counts("TLS sessions of relayed tunnels", sessions.filter(|(_, value)| *value > 0));
    page.raw("</div>\n</details>\n");
}
#[cfg(test)]
mod tests {
    use super::*;
    use crate::html::markup::MAX_UNFOLDED_ROWS;
    use crate::query::Query;
    use crate::samples::{HOSTILE_VHOST, hostile, overview, tunnel};
    use crate::text::is_hidden;
    use crate::view::Tunnel;

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
}
