//! What a configuration may say, and its administrator should know the price of.

use messages::{Http2Streams, MpmItk, NoNativeTls, UselessRelay};

use crate::config;
use crate::ffi::conftree::Directive;
use crate::ffi::role::Parent;
use crate::ffi::{server, tls};

/// Says where `WSForwardRelay On` stands for nothing: no section that could go with it has
/// `WSForward On`, neither in its virtual host nor outside of all, and no .htaccess may. Every
/// other case can be meant.
pub(crate) fn useless_relay(directives: &[Directive]) -> Vec<String> {
    let named = |name: &'static str| {
        directives.iter().filter(move |directive| directive.name.eq_ignore_ascii_case(name))
    };
    let allows = |directive: &Directive, all: &[&str]| {
        let mut words = directive.arguments.split([' ', '\t', '"', '\'']);
        words.any(|word| all.iter().any(|of| of.eq_ignore_ascii_case(word)))
    };
    if named("AllowOverride").any(|directive| allows(directive, &["All", "FileInfo"]))
        || named("AllowOverrideList").any(|directive| allows(directive, &["WSForward"]))
    {
        return Vec::new();
    }
    let forward: Vec<Option<usize>> =
        named("WSForward").filter(|directive| is_on(directive)).map(|of| of.vhost).collect();
    named("WSForwardRelay")
        .filter(|directive| is_on(directive))
        .filter(|relay| match relay.vhost {
            None => forward.is_empty(),
            of => !forward.contains(&of) && !forward.contains(&None),
        })
        .map(|relay| UselessRelay { place: &relay.place }.to_string())
        .collect()
}

/// Says where WebSockets over HTTP/2 are on for tunnels of this module: in a virtual host (or
/// outside of all) for which `H2WebSockets on` and `WSForward On` hold.
pub(crate) fn streams(directives: &[Directive]) -> Vec<String> {
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
pub(crate) fn itk() -> Option<String> {
    (config::uses_relay() && server::is_loaded(c"mpm_itk.c")).then(|| MpmItk.to_string())
}

/// Says that no TLS session will leave the OpenSSL that mod_ssl has.
pub(crate) fn native_tls(parent: &Parent) -> Option<String> {
    let why = config::uses_native_tls().then(|| tls::why_not_native(parent)).flatten()?;
    Some(NoNativeTls { why: &why }.to_string())
}
