//! What mod_status shows of the relay, over all processes.

use std::fmt::Write;
use std::sync::atomic::Ordering::Relaxed;

use shared::{Ends, Fallbacks, Refusals, Slot, TlsSessions};

use crate::ffi::request::Request;
use crate::processes::memory::shared;
use crate::processes::registry;
use crate::status::pages;

/// One figure: its name in `?auto`, its text in HTML, its value.
struct Figure {
    key: String,
    text: String,
    value: u64,
}

fn figures() -> Vec<Figure> {
    let Some(shared) = shared() else { return Vec::new() };
    let mut figures = Vec::new();
    let mut add = |key: &str, text: &str, value: u64| {
        figures.push(Figure { key: format!("WSForward{key}"), text: text.to_owned(), value });
    };
    let living = |of: fn(&Slot) -> u64| shared.sum(of);
    add("Tunnels", "Relayed tunnels open", shared.open());
    add(
        "TunnelsPossible",
        "Tunnels that the limits of descriptors allow",
        living(|slot| slot.capacity.load(Relaxed)),
    );
    add("HandedOver", "Tunnels handed over to the relay", shared.total(|c| &c.handed_over));
    add("Ended", "Relayed tunnels ended", shared.total(|c| &c.relay.ended));
    add("BytesUp", "Bytes from clients to back ends", shared.total(|c| &c.relay.bytes_up));
    add("BytesDown", "Bytes from back ends to clients", shared.total(|c| &c.relay.bytes_down));
    add("RelayThreads", "Relay threads", living(|slot| slot.counts.relay.threads.load(Relaxed)));
    add("Descriptors", "Descriptors of relayed tunnels", shared.open().wrapping_mul(2));
    add(
        "DescriptorsPossible",
        "Descriptors that relayed tunnels may have",
        // A drain process takes no more than it has.
        living(|slot| {
            let most = slot.capacity.load(Relaxed).max(slot.counts.relay.open.load(Relaxed));
            most.wrapping_mul(2)
        }),
    );
    let drains = registry::drains().len();
    add("DrainProcesses", "Drain processes", drains as u64);
    let lost = shared.total(|c| &c.lines_lost);
    add("LinesLost", "Lines that the error log did not take in time", lost);
    let lost = shared.total(|c| &c.access_lines_lost);
    add("AccessLinesLost", "Lines of tunnels that access logs did not take", lost);
    for (name, of) in Fallbacks::EACH {
        let value = shared.total(|c| of(&c.fallen_back));
        add(&format!("Fallback-{name}"), &format!("Tunnels left in their thread: {name}"), value);
    }
    for (name, of) in TlsSessions::EACH {
        let value = shared.total(|c| of(&c.tls_sessions));
        add(&format!("Tls-{name}"), &format!("TLS sessions of relayed tunnels: {name}"), value);
    }
    for (name, of) in Refusals::EACH {
        let value = shared.total(|c| of(&c.refused));
        add(&format!("Refused-{name}"), &format!("Upgrade requests refused: {name}"), value);
    }
    for (name, of) in Ends::EACH {
        let value = shared.total(|c| of(&c.relay.ended_by));
        add(&format!("Ended-{name}"), &format!("Relayed tunnels ended: {name}"), value);
    }
    figures
}

/// The part of the status page, as HTML or as the lines of `?auto`.
pub(crate) fn page(r: Request<'_>, auto: bool) -> String {
    let figures = figures();
    let mut page = String::new();
    if figures.is_empty() {
        return page;
    }
    if !auto {
        page.push_str("<hr />\n<h2>WebSocket tunnels (mod_wsforward)</h2>\n<table border=\"0\">\n");
    }
    for Figure { key, text, value } in figures {
        // Writing to a String does not fail.
        let _ = if auto {
            writeln!(page, "{key}: {value}")
        } else {
            writeln!(page, "<tr><td>{text}</td><td align=\"right\">{value}</td></tr>")
        };
    }
    if !auto {
        page.push_str("</table>\n");
        if let Some(link) = pages::link(r) {
            let _ = writeln!(page, "<p><a href=\"{link}\">Open tunnels, one by one</a></p>");
        }
    }
    page
}
