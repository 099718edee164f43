//! Which pages may open a WebSocket: WSForwardOrigin, and the Origin of a request. Against the
//! reference's sentences (docs/mod_wsforward.md), RFC 6454 and how browsers write an origin, by
//! other means: character by character, and addresses by hand.

use protocol::origin::Origin;
use protocol::origin_rule::{check, check_words, is_checked};

use crate::input;

/// No origin is longer.
const LONGEST: usize = 512;
/// A log line may not grow with what a client sends: so much, and what the server says of itself.
const MOST_SHOWN: usize = 600;

/// A byte of flags, two for the port of the site; three texts that end in NUL: the scheme of the
/// site, its host, and the words of the directive, a line each. The rest is the request's Origin.
pub fn run(mut data: &[u8]) {
    let flags = input::byte(&mut data);
    let port = u16::from_be_bytes([0; 2].map(|_| input::byte(&mut data)));
    let [scheme, host, words] = [0; 3].map(|_| input::text(&mut data));
    let sent = (flags & 1 == 0).then_some(data);
    // httpd's own, in lower case or not.
    let scheme = if scheme.is_empty() { "https" } else { "Http" };
    let port = (flags & 2 != 0).then_some(port);

    let own = Origin::of(scheme, host, port);
    let own_seen = Site::of_server(scheme, host, port);
    assert_eq!(own.as_ref().map(ToString::to_string), own_seen.as_ref().map(Site::text));
    let seen = Site::read(data);
    let origin = Origin::parse(data);
    assert_eq!(origin.as_ref().map(ToString::to_string), seen.as_ref().map(Site::text));
    if let (Some(origin), Some(seen)) = (&origin, &seen) {
        assert_eq!(Origin::parse(seen.text().as_bytes()).as_ref(), Some(origin));
        assert_eq!(own.as_ref() == Some(origin), own_seen.as_ref() == Some(seen));
    }

    let Ok(words) = str::from_utf8(words) else { return };
    let words: Vec<&str> = words.lines().collect();
    let read: Vec<Option<Word>> = words.iter().map(|word| Word::read(word)).collect();
    let first_wrong = read.iter().position(|word| {
        word.as_ref().is_none_or(|word| matches!(word, Word::Any) && words.len() > 1)
    });
    let is_right = match (words.is_empty(), first_wrong) {
        (true, _) => Err(None),
        (false, Some(at)) => Err(Some(words[at])),
        (false, None) => Ok(()),
    };
    assert_eq!(check_words(&words), is_right, "{words:?}");
    if is_right.is_err() {
        return;
    }
    // As the configuration keeps them.
    let kept = words.join(" ");
    let read: Vec<Word> = read.into_iter().flatten().collect();
    assert_eq!(is_checked(kept.as_bytes()), !matches!(read[..], [Word::Any]));
    let mut is_asked = false;
    let found = check(kept.as_bytes(), sent, || {
        is_asked = true;
        own
    });
    let expected = passes(&read, sent, seen.as_ref(), own_seen.as_ref());
    assert_eq!(found.is_ok(), expected, "{words:?}, {sent:?}, {own_seen:?}: {found:?}");
    assert!(!is_asked || read.contains(&Word::Same), "the site is asked for where it counts");
    if let Err(denied) = found {
        let text = denied.to_string();
        let is_line = text.bytes().all(|byte| matches!(byte, b' '..=b'~'));
        assert!(is_line && text.len() < MOST_SHOWN + LONGEST, "{text}");
    }
}

/// Whether a request may open a WebSocket.
fn passes(words: &[Word], sent: Option<&[u8]>, seen: Option<&Site>, own: Option<&Site>) -> bool {
    if words.contains(&Word::Any) {
        return true;
    }
    let Some(sent) = sent else { return !words.contains(&Word::Required) };
    let is_alone = words.iter().all(|word| *word == Word::Required);
    if sent == b"null" {
        return is_alone || words.contains(&Word::Null);
    }
    let Some(seen) = seen else { return false };
    is_alone
        || words.iter().any(|word| match word {
            Word::Is(site) => site == seen,
            Word::Below(site) => site.is_one_above(seen),
            Word::Same => own == Some(seen),
            Word::Any | Word::Null | Word::Required => false,
        })
}

#[derive(Debug, PartialEq)]
enum Word {
    Any,
    Same,
    Required,
    Null,
    Is(Site),
    Below(Site),
}

impl Word {
    fn read(text: &str) -> Option<Self> {
        match text.to_lowercase().as_str() {
            "any" => return Some(Self::Any),
            "same" => return Some(Self::Same),
            "required" => return Some(Self::Required),
            "null" => return Some(Self::Null),
            _ => {}
        }
        // The only place for a star is the first label.
        match text.find("://*.") {
            None => Site::read(text.as_bytes()).map(Self::Is),
            Some(at) => {
                let site = Site::read([&text[..at + 3], &text[at + 5..]].concat().as_bytes())?;
                matches!(site.host, Host::Labels(_)).then_some(Self::Below(site))
            }
        }
    }
}

/// Who a page is of.
#[derive(Debug, PartialEq)]
struct Site {
    scheme: String,
    host: Host,
    /// 0 is none, and known to be none of the scheme's.
    port: u16,
}

#[derive(Debug, PartialEq)]
enum Host {
    Nobody,
    Labels(Vec<String>),
    V4([u8; 4]),
    V6([u16; 8]),
}

impl Site {
    /// What a browser sends: no path, user, query, nor white space.
    fn read(text: &[u8]) -> Option<Self> {
        if text.len() > LONGEST || !text.is_ascii() {
            return None;
        }
        let text: String = text.iter().map(|byte| char::from(byte.to_ascii_lowercase())).collect();
        let (scheme, rest) = text.split_at(text.find(':')?);
        let rest = rest.strip_prefix("://")?;
        let is_right = scheme.char_indices().all(|(at, c)| match c {
            'a'..='z' => true,
            '0'..='9' | '+' | '-' | '.' => at > 0,
            _ => false,
        });
        if scheme.is_empty() || !is_right {
            return None;
        }
        if scheme == "file" && rest.is_empty() {
            return Some(Self { scheme: scheme.into(), host: Host::Nobody, port: 0 });
        }
        let end = if rest.starts_with('[') { rest.find(']')? + 1 } else { host_end(rest) };
        let (host, port) = rest.split_at(end);
        let port = match port.split_at_checked(1) {
            None => usual_port(scheme),
            Some((":", digits)) => decimal(digits).filter(|port| *port > 0)?.try_into().ok()?,
            Some(_) => return None,
        };
        Some(Self { scheme: scheme.into(), host: Host::read(host)?, port })
    }

    /// What httpd knows: the host may be an address without brackets.
    fn of_server(scheme: &str, host: &[u8], port: Option<u16>) -> Option<Self> {
        let host = host.is_ascii().then(|| String::from_utf8_lossy(host).to_lowercase())?;
        let scheme = scheme.to_lowercase();
        let port = port.unwrap_or_else(|| usual_port(&scheme));
        let host = v6(&host).map(Host::V6).or_else(|| Host::read(&host))?;
        Some(Self { scheme, host, port })
    }

    fn is_one_above(&self, other: &Self) -> bool {
        match (&self.host, &other.host) {
            (Host::Labels(above), Host::Labels(labels)) => {
                labels.len() == above.len() + 1
                    && labels.ends_with(above)
                    && (&self.scheme, self.port) == (&other.scheme, other.port)
            }
            _ => false,
        }
    }

    /// As browsers write it.
    fn text(&self) -> String {
        let host = match &self.host {
            Host::Nobody => String::new(),
            Host::Labels(labels) => labels.join("."),
            Host::V4(bytes) => bytes.map(|byte| byte.to_string()).join("."),
            // How it is shortened is no question of whose it is.
            Host::V6(groups) => format!("[{}]", std::net::Ipv6Addr::from(*groups)),
        };
        let is_usual = self.port == usual_port(&self.scheme);
        let port = if is_usual { String::new() } else { format!(":{}", self.port) };
        format!("{}://{host}{port}", self.scheme)
    }
}

fn usual_port(scheme: &str) -> u16 {
    match scheme {
        "https" | "wss" => 443,
        "http" | "ws" => 80,
        _ => 0,
    }
}

fn host_end(text: &str) -> usize {
    text.char_indices().find(|(_, c)| *c == ':').map_or(text.len(), |(at, _)| at)
}

/// A number without zeros in front.
fn decimal(text: &str) -> Option<u32> {
    let is_right = matches!(text.len(), 1..=5)
        && (text == "0" || !text.starts_with('0'))
        && text.chars().all(|c| c.is_ascii_digit());
    is_right.then(|| text.chars().fold(0, |sum, c| sum * 10 + (c as u32 - '0' as u32)))
}

impl Host {
    fn read(text: &str) -> Option<Self> {
        if let Some(inner) = text.strip_prefix('[') {
            return v6(inner.strip_suffix(']')?).map(Self::V6);
        }
        let text = text.strip_suffix('.').unwrap_or(text);
        let labels: Vec<String> = text.split('.').map(String::from).collect();
        let is_label = |label: &String| {
            let is_right = |c| matches!(c, 'a'..='z' | '0'..='9' | '-' | '_');
            (1..=63).contains(&label.len()) && label.chars().all(is_right)
        };
        if text.len() > 253 || !labels.iter().all(is_label) {
            return None;
        }
        if labels.last()?.chars().all(|c| c.is_ascii_digit()) {
            return v4(text).map(Self::V4);
        }
        Some(Self::Labels(labels))
    }
}

fn v4(text: &str) -> Option<[u8; 4]> {
    let parts: Vec<u8> =
        text.split('.').map(|part| decimal(part)?.try_into().ok()).collect::<Option<_>>()?;
    parts.try_into().ok()
}

/// RFC 4291, section 2.2.
fn v6(text: &str) -> Option<[u16; 8]> {
    /// One side of "::". `may_end_in_v4`: as ::ffff:192.0.2.1 does.
    fn groups(text: &str, may_end_in_v4: bool) -> Option<Vec<u16>> {
        let mut found = Vec::new();
        let parts: Vec<&str> = if text.is_empty() { vec![] } else { text.split(':').collect() };
        for (at, part) in parts.iter().enumerate() {
            if part.contains('.') && may_end_in_v4 && at + 1 == parts.len() {
                let [a, b, c, d] = v4(part)?;
                found.extend([u16::from_be_bytes([a, b]), u16::from_be_bytes([c, d])]);
            } else if (1..=4).contains(&part.len()) && part.chars().all(|c| c.is_ascii_hexdigit()) {
                found.push(u16::from_str_radix(part, 16).ok()?);
            } else {
                return None;
            }
        }
        Some(found)
    }
    let Some((front, back)) = text.split_once("::") else {
        return groups(text, true)?.try_into().ok();
    };
    let (front, back) = (groups(front, false)?, groups(back, true)?);
    // It stands for one group at least.
    let zeros = 8_usize.checked_sub(front.len() + back.len()).filter(|zeros| *zeros > 0)?;
    [front, vec![0; zeros], back].concat().try_into().ok()
}
