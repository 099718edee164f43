//! The values of directives, and what the configuration is warned of: what is not allowed is said in
//! a line, and what is allowed can be used.

use std::time::{Duration, Instant};

use protocol::upgrade::is_protocol;
use protocol::{extensions, origin_rule};
use relay::Rules;

use crate::config::{self, ADVISED, DIRECTIVES, DirConfig, advice, bound};
use crate::ffi::command::{Arguments, Pool};
use crate::ffi::conftree::Directive;
use crate::ffi::role::Parent;
use crate::ffi::section::SectionConfig;
use crate::input;

/// A century, in seconds.
const LONGEST_SECONDS: u64 = 100 * 365 * 24 * 3600;
/// For each folder that a line names files are read.
const LONGEST_LINE: usize = 50;

/// Lines that end in NUL. The first byte of each says which directive it is, and in which section it
/// stands; its values follow, split by tabs, as they may have spaces.
pub fn run(mut data: &[u8]) {
    let whole = data;
    let pool = Pool::default();
    config::reset(&Parent);
    let [mut outer, mut inner] = [DirConfig::default(); 2];
    let mut tree = Vec::new();
    while !data.is_empty() {
        let first = usize::from(input::byte(&mut data));
        let Ok(text) = str::from_utf8(input::text(&mut data)) else { continue };
        let section = if first & 0x80 == 0 { &mut outer } else { &mut inner };
        set(first & 0x7f, text, section, &pool);
        tree.push(Directive {
            name: ADVISED[first % ADVISED.len()].to_owned(),
            arguments: text.to_owned(),
            vhost: Some(first >> 4).filter(|vhost| *vhost < 3),
            place: format!("file:{}", tree.len()),
        });
    }
    for config in [outer, inner, DirConfig::merge(&outer, &inner)] {
        look_at(&config);
    }
    look_at_settings();
    let said = [advice::useless_relay(&tree), advice::streams(&tree)].concat();
    assert!(said.len() <= 2 * tree.len());
    assert!(said.into_iter().chain(advice::itk()).all(|line| !line.contains('\n')));

    // What the kernel says of the machine.
    let text = String::from_utf8_lossy(whole);
    bound::total(&text);
    text.lines().filter(|line| line.len() < LONGEST_LINE).take(4).for_each(|line| {
        bound::of_group(line);
    });
}

/// As httpd has a directive set.
fn set<'p>(number: usize, text: &'p str, section: &mut DirConfig<'p>, pool: &'p Pool) {
    let values: Vec<&str> = if text.is_empty() { vec![] } else { text.split('\t').collect() };
    let directive = &DIRECTIVES[number % DIRECTIVES.len()];
    let name = directive.name;
    if let Err(said) = (directive.set)(section, &Arguments { values, pool }) {
        let (value, expected) = said.split_once(", expected ").expect("it says what is allowed");
        assert!(value.ends_with("is not allowed"), "{name:?}: {said}");
        assert!(!expected.is_empty() && !expected.contains('\n'), "{name:?}: {said}");
    }
}

fn words(kept: &[u8]) -> Vec<&str> {
    str::from_utf8(kept).expect("as it was read").split(' ').collect()
}

/// All that a request asks of its section.
fn look_at(config: &DirConfig<'_>) {
    assert!(words(config.protocols()).iter().all(|word| is_protocol(word.as_bytes())));
    if let Some(kept) = config.origins() {
        assert_eq!(origin_rule::check_words(&words(kept)), Ok(()));
        let _ = origin_rule::check(kept, Some(b"https://example.com"), || None);
    }
    if let Some(kept) = config.extensions() {
        assert_eq!(extensions::check_words(&words(kept)), Ok(()));
        let offer = b"permessage-deflate; a=b, x";
        assert!(extensions::allowed(offer, kept).is_none_or(|left| left.len() <= offer.len()));
    }
    assert!(config.handshake_timeout().is_none_or(|timeout| !timeout.is_zero()));
    let _ = (config.forward(), config.relay(), config.rigour(), config.access_log());
    let [rules, expired] = [config.rules(), config.until(Some(Duration::MAX)).rules()];
    assert!(rules.max_lifetime.is_none_or(|time| time.as_secs() <= LONGEST_SECONDS));
    assert!(rules.ping_interval.is_some() == rules.ping_timeout.is_some());
    assert!(rules.message_rate.is_some() == rules.message_burst.is_some());
    let now = Instant::now();
    assert_eq!(rules.has_deadline(), rules.deadline(now).is_some());
    assert!(rules.deadline(now).is_none_or(|deadline| deadline.at > now));
    let _ = expired.or(Rules::default()).deadline(now);
}

fn look_at_settings() {
    let settings = config::settings();
    assert!((1..=64).contains(&settings.threads));
    assert!((4096..=1 << 20).contains(&settings.buffer_size));
    assert!(settings.max_tunnels != Some(0) && settings.max_per_client != Some(0));
    assert!(settings.max_per_backend != Some(0));
    assert!((1..=32).contains(&settings.client_prefix.v4));
    assert!((1..=128).contains(&settings.client_prefix.v6));
    assert!(settings.drain_timeout != Some(Duration::ZERO));
    assert!(settings.max_drain_processes != Some(0));
}
