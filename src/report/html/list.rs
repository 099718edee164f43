//! The list of tunnels, with its filter, its pages, and what closes tunnels.

use crate::filter::Filter;
use crate::html::markup::Page;
use crate::html::units::Count;
use crate::text::{is_plain, lossy};
use crate::time::{Duration, Moment};
use crate::urlencoded::append;
use crate::view::{Overview, Tunnel};

/// Tunnels on one page.
pub const PAGE_TUNNELS: usize = 100;

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

pub(crate) fn tunnels(page: &mut Page, overview: &Overview, list: &List<'_>) {
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
