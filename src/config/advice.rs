//! What a configuration may say, and its administrator should know the price of.

use messages::{Http2Streams, MpmItk};

use crate::config;
use crate::ffi::conftree::Directive;
use crate::ffi::server;

/// Says where WebSockets over HTTP/2 are on for tunnels of this module: in a virtual host (or
/// outside of all) for which `H2WebSockets on` and `WSForward On` hold.
pub fn streams(directives: &[Directive]) -> Vec<String> {
    let named = |name: &'static str| {
        directives.iter().filter(move |directive| directive.name.eq_ignore_ascii_case(name))
    };
    let forwards: Vec<Option<usize>> =
        named("WSForward").filter(|forward| is_on(forward)).map(|forward| forward.vhost).collect();
    let offered: Vec<&Directive> = named("H2WebSockets").collect();
    // Of several in a place the last holds.
    let held = |vhost: Option<usize>| offered.iter().rev().find(|h2| h2.vhost == vhost);
    let mut places: Vec<&str> = offered
        .iter()
        .filter(|h2| is_on(h2) && held(h2.vhost).is_some_and(|last| last.place == h2.place))
        .filter(|h2| match h2.vhost {
            // Outside of all it holds wherever a virtual host does not say otherwise.
            None => forwards
                .iter()
                .any(|forward| forward.is_none() || held(*forward).is_none_or(|own| is_on(own))),
            vhost => forwards.contains(&vhost) || forwards.contains(&None),
        })
        .map(|h2| h2.place.as_str())
        .collect();
    places.dedup();
    places.into_iter().map(|place| Http2Streams { place: &place }.to_string()).collect()
}

fn is_on(directive: &Directive) -> bool {
    directive.arguments.trim().trim_matches(['"', '\'']).eq_ignore_ascii_case("on")
}

/// Says that there will be no relay with mpm_itk, whose processes serve a connection each and end.
pub fn itk() -> Option<String> {
    (config::uses_relay() && server::is_loaded(c"mpm_itk.c")).then(|| MpmItk.to_string())
}
