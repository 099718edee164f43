//! The values that directives take, as they are written.

use std::hash::{BuildHasher, RandomState};
use std::time::Duration;

use protocol::handshake::Rigour;
use protocol::upgrade::is_protocol;
use protocol::{extensions, origin_rule};
use relay::{GOING_AWAY, KeepAlive};

use crate::ffi::command::{Arguments, not_allowed, number, time};

/// WSForwardMaxLifetime.
#[derive(Debug, Clone, Copy)]
pub(super) struct Lifetime {
    most: Duration,
    /// By how much it may be less, so that tunnels that began together do not end together.
    jitter_percent: u32,
}

impl Lifetime {
    /// How long one tunnel may live.
    pub(super) fn of_one(self) -> Duration {
        // Keys of the standard library's are random; nobody gains by guessing them.
        let random = (RandomState::new().hash_one(0) & 0xffff_ffff) as u32;
        let part = f64::from(random) / f64::from(u32::MAX) * f64::from(self.jitter_percent) / 100.0;
        // Zero would be for ever.
        let least = Duration::from_millis(1).min(self.most);
        self.most.mul_f64(1.0 - part).max(least)
    }
}

/// WSForwardAccessLog: when a relayed tunnel gets its line in the access logs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum AccessLog {
    /// When it has ended.
    #[default]
    End,
    /// When it leaves its worker thread.
    Start,
    /// One each.
    Both,
}

pub(super) fn keep_alive(values: &Arguments<'_>) -> Result<Option<KeepAlive>, String> {
    match values.all() {
        [off] if off.eq_ignore_ascii_case("off") => Ok(None),
        [idle, interval, count] => Ok(Some(KeepAlive {
            idle_seconds: number(idle, 1..=32767)?,
            interval_seconds: number(interval, 1..=32767)?,
            probes: number(count, 1..=127)?,
        })),
        other => Err(not_allowed(other, &"Off, or three numbers such as 60 20 3")),
    }
}

pub(super) fn log_interval(values: &Arguments<'_>) -> Result<Duration, String> {
    const LEAST: Duration = Duration::from_secs(1);
    let expected = "0, or a time from 1s on such as 10min";
    let interval = match *values.all() {
        [interval] => time(interval).filter(|time| time.is_zero() || *time >= LEAST),
        _ => None,
    };
    interval.ok_or_else(|| not_allowed(values.all(), &expected))
}

pub(super) fn ping(values: &Arguments<'_>) -> Result<[Duration; 2], String> {
    const LEAST: Duration = Duration::from_secs(1);
    let expected = "Off, or one or two times from 1s on such as 30s 10s";
    let of = |value: &str| time(value).filter(|time| *time >= LEAST);
    let times = match values.all() {
        [off] if off.eq_ignore_ascii_case("off") => Some([Duration::ZERO; 2]),
        [interval] => of(interval).map(|interval| [interval; 2]),
        [interval, timeout] => of(interval).zip(of(timeout)).map(|(a, b)| [a, b]),
        _ => None,
    };
    times.ok_or_else(|| not_allowed(values.all(), &expected))
}

pub(super) fn percent(values: &Arguments<'_>) -> Result<u32, String> {
    let expected = "a number of percent from 1 to 100";
    let value = values.one(&expected)?;
    let digits = value.strip_suffix('%').unwrap_or(value);
    number(digits, 1..=100).map_err(|_| not_allowed(&[value], &expected))
}

pub(super) fn max_message(values: &Arguments<'_>) -> Result<[u64; 2], String> {
    /// As much as a frame can have (RFC 6455, section 5.2).
    const MOST: u64 = i64::MAX as u64;
    let expected = "one or two numbers of bytes such as 1048576, 0 is no limit";
    let bytes = |value: &str| value.parse().ok().filter(|bytes| *bytes <= MOST);
    let limits = match values.all() {
        [client] => bytes(client).map(|client| [client, 0]),
        [client, backend] => bytes(client).zip(bytes(backend)).map(|(a, b)| [a, b]),
        _ => None,
    };
    limits.ok_or_else(|| not_allowed(values.all(), &expected))
}

pub(super) fn message_rate(values: &Arguments<'_>) -> Result<[u64; 2], String> {
    const MOST: u64 = 1_000_000;
    let expected = "0, or a number of messages in a second such as 20/s, and one of those at once, each up to 1000000";
    let is_right = |number: &u64| (1..=MOST).contains(number);
    let rate = |value: &str| value.strip_suffix("/s")?.parse().ok().filter(is_right);
    let burst = |value: &str| value.parse().ok().filter(is_right);
    let limits = match values.all() {
        ["0"] => Some([0; 2]),
        [one] => rate(one).map(|rate| [rate; 2]),
        [one, two] => rate(one).zip(burst(two)).map(|(a, b)| [a, b]),
        _ => None,
    };
    limits.ok_or_else(|| not_allowed(values.all(), &expected))
}

pub(super) fn bandwidth(values: &Arguments<'_>) -> Result<u64, String> {
    /// More than any network has.
    const MOST: u64 = 1_000_000_000_000;
    let expected = "0, or a number of bytes in a second such as 65536/s, up to 1000000000000/s";
    let value = values.one(&expected)?;
    let digits = value.strip_suffix("/s").unwrap_or(value);
    let bytes = digits.parse().ok().filter(|bytes| *bytes <= MOST);
    bytes.ok_or_else(|| not_allowed(&[value], &expected))
}

pub(super) fn rigour(values: &Arguments<'_>) -> Result<Rigour, String> {
    let expected = "strict, lenient or off";
    let value = values.one(&expected)?;
    match value.to_ascii_lowercase().as_str() {
        "strict" => Ok(Rigour::Strict),
        "lenient" => Ok(Rigour::Lenient),
        "off" => Ok(Rigour::Off),
        _ => Err(not_allowed(&[value], &expected)),
    }
}

pub(super) fn lifetime(values: &Arguments<'_>) -> Result<Lifetime, String> {
    /// A century: later times cannot be told from never.
    const LONGEST: Duration = Duration::from_secs(100 * 365 * 24 * 3600);
    let expected = "a time such as 8h, and a percentage from 0% to 100%";
    let wrong = || not_allowed(values.all(), &expected);
    let (most, jitter) = match *values.all() {
        [most] => (most, "0%"),
        [most, jitter] => (most, jitter),
        _ => return Err(wrong()),
    };
    let most = time(most).filter(|time| *time <= LONGEST).ok_or_else(wrong)?;
    let jitter = jitter.strip_suffix('%').ok_or_else(wrong)?;
    let jitter_percent = number(jitter, 0..=100).map_err(|_| wrong())?;
    Ok(Lifetime { most, jitter_percent })
}

pub(super) fn origins<'p>(values: &Arguments<'p>) -> Result<&'p [u8], String> {
    let expected = "any, or of same, required, null and origins such as https://example.com or https://*.example.com";
    words(values, origin_rule::check_words(values.all()), &["any"], expected)
}

pub(super) fn extensions<'p>(values: &Arguments<'p>) -> Result<&'p [u8], String> {
    let expected = "any, none, or names of extensions such as permessage-deflate";
    let alone = &[extensions::ANY, extensions::NONE];
    words(values, extensions::check_words(values.all()), alone, expected)
}

/// Words with spaces between them, if they were found right. One of those that stand `alone` is wrong
/// because of the others.
fn words<'p>(
    values: &Arguments<'p>,
    checked: Result<(), Option<&'p str>>,
    alone: &[&str],
    expected: &str,
) -> Result<&'p [u8], String> {
    match checked {
        Ok(()) => Ok(values.keep(&values.all().join(" "))),
        Err(Some(word)) if alone.iter().any(|one| word.eq_ignore_ascii_case(one)) => {
            Err(not_allowed(values.all(), &expected))
        }
        Err(word) => Err(not_allowed(word.as_slice(), &expected)),
    }
}

pub(super) fn access_log(values: &Arguments<'_>) -> Result<AccessLog, String> {
    let expected = "end, start or both";
    let value = values.one(&expected)?;
    match value.to_ascii_lowercase().as_str() {
        "end" => Ok(AccessLog::End),
        "start" => Ok(AccessLog::Start),
        "both" => Ok(AccessLog::Both),
        _ => Err(not_allowed(&[value], &expected)),
    }
}

pub(super) fn native_tls(values: &Arguments<'_>) -> Result<bool, String> {
    let expected = "openssl or native";
    let value = values.one(&expected)?;
    match value.to_ascii_lowercase().as_str() {
        "openssl" => Ok(false),
        "native" => Ok(true),
        _ => Err(not_allowed(&[value], &expected)),
    }
}

pub(super) fn drain_processes(values: &Arguments<'_>) -> Result<Option<usize>, String> {
    match values.all() {
        [auto] if auto.eq_ignore_ascii_case("auto") => Ok(None),
        [most] => match number(most, 1..=1536) {
            Ok(most) => Ok(Some(most as usize)),
            Err(_) => Err(not_allowed(&[most], &"auto, or a number from 1 to 1536")),
        },
        other => Err(not_allowed(other, &"auto, or a number from 1 to 1536")),
    }
}

pub(super) fn close_code(values: &Arguments<'_>) -> Result<u16, String> {
    /// The server restarts (IANA's registry of WebSocket close codes).
    const SERVICE_RESTART: u16 = 1012;
    let expected = "1001 or 1012";
    let value = values.one(&expected)?;
    let codes = [GOING_AWAY, SERVICE_RESTART];
    let code = codes.into_iter().find(|code| code.to_string() == value);
    code.ok_or_else(|| not_allowed(&[value], &expected))
}

pub(super) fn protocols<'p>(values: &Arguments<'p>) -> Result<&'p [u8], String> {
    let expected = "Upgrade tokens such as websocket";
    if values.all().is_empty() {
        return Err(not_allowed(&[], &expected));
    }
    for token in values.all() {
        // Some switch the connection to another HTTP, which is httpd's own
        // business and no tunnel.
        let name = token.split('/').next().unwrap_or_default();
        let is_http = ["h2c", "HTTP", "TLS"].iter().any(|http| http.eq_ignore_ascii_case(name));
        if is_http || !is_protocol(token.as_bytes()) {
            return Err(not_allowed(&[token], &expected));
        }
    }
    Ok(values.keep(&values.all().join(" ")))
}
