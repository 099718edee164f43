//! Where a response head ends, and whether it is clean, however it arrives. Against a reading of
//! RFC 9112 by lines.

use protocol::head::{BadHead, MAX_FIELDS, MAX_HEAD, Scanner, Status, inspect};

use crate::input;

/// As documented in the reference: what mod_proxy_http reads.
const MAX_STATUS_LINE: usize = 8000;

/// What is known of a head once it is decided.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verdict {
    /// It may still become one.
    Open,
    Good {
        length: usize,
        status: Status,
    },
    Bad,
}

/// The first byte says into how many pieces the rest is cut, and whether a run of one byte is to be
/// put in somewhere, so that a few bytes can make up a long head.
pub fn run(mut data: &[u8]) {
    let first = input::byte(&mut data);
    let cuts = input::bytes(&mut data, usize::from(first & 7));
    let mut bytes = Vec::new();
    if first & 8 != 0 {
        let [place, high, low, filler] = [(); 4].map(|()| input::byte(&mut data));
        let place = usize::from(place).min(data.len());
        let run = usize::from(u16::from_be_bytes([high, low])) + usize::from(first >> 4);
        bytes.extend_from_slice(&data[..place]);
        bytes.resize(place + run, filler);
        bytes.extend_from_slice(&data[place..]);
    } else {
        bytes.extend_from_slice(data);
    }
    let expected = expected(&bytes);
    let ends = cuts.iter().scan(0, |at, cut| {
        *at += usize::from(*cut);
        Some(*at)
    });
    let whole = std::iter::once(bytes.len());
    assert_eq!(found(&bytes, whole.clone()), expected, "at once");
    assert_eq!(found(&bytes, ends.chain(whole.clone())), expected, "in pieces");
    if bytes.len() <= 600 {
        assert_eq!(found(&bytes, 0..=bytes.len()), expected, "byte by byte");
    }
    // Where the limits are.
    let near = |limit: usize| limit.saturating_sub(3)..=limit + 3;
    let limits = near(MAX_STATUS_LINE).chain(near(MAX_HEAD));
    assert_eq!(found(&bytes, limits.chain(whole)), expected, "in pieces as long as the limits");
}

/// What our code says when the bytes arrive up to each of these ends.
fn found(bytes: &[u8], ends: impl Iterator<Item = usize>) -> Verdict {
    let mut scanner = Scanner::default();
    for end in ends.map(|end| end.min(bytes.len())) {
        match scanner.end(&bytes[..end]) {
            Ok(None) => {}
            Ok(Some(length)) => {
                assert!(length <= end);
                return match inspect(&bytes[..length]) {
                    Ok(status) => Verdict::Good { length, status },
                    Err(bad) => is_told(bad),
                };
            }
            Err(bad) => return is_told(bad),
        }
    }
    Verdict::Open
}

/// Its text goes into a status line and into the log.
fn is_told(bad: BadHead) -> Verdict {
    let text = bad.to_string();
    assert!(text.len() < 200 && text.bytes().all(|byte| (b' '..=b'~').contains(&byte)), "{text:?}");
    Verdict::Bad
}

/// What RFC 9112 and our limits say.
fn expected(bytes: &[u8]) -> Verdict {
    let mut lines = bytes.split_inclusive(|byte| *byte == b'\n').peekable();
    let mut length = 0;
    // Section 2.2: one empty line before it is forgiven, as mod_proxy_http does.
    if let Some(blank) = lines.next_if(|line| is_blank(line)) {
        length += blank.len();
    }
    let status_line = lines.next().unwrap_or_default();
    length += status_line.len();
    let begin = b"HTTP/1.";
    if !status_line.starts_with(begin) && !begin.starts_with(status_line) && status_line != b"\r" {
        return Verdict::Bad;
    }
    let is_whole = status_line.ends_with(b"\n");
    if status_line.len() - usize::from(is_whole) > MAX_STATUS_LINE {
        return Verdict::Bad;
    }
    for (fields, line) in lines.enumerate() {
        length += line.len();
        if is_blank(line) {
            let head = &bytes[..length];
            let is_clean = !head.contains(&0)
                && !head.iter().zip(&head[1..]).any(|(a, b)| *a == b'\r' && *b != b'\n');
            return match status(status_line) {
                Some(status) if is_clean && length <= MAX_HEAD && fields <= MAX_FIELDS => {
                    Verdict::Good { length, status }
                }
                _ => Verdict::Bad,
            };
        }
    }
    // The blank line does not fit any more.
    if bytes.len() >= MAX_HEAD { Verdict::Bad } else { Verdict::Open }
}

fn is_blank(line: &[u8]) -> bool {
    matches!(line, b"\n" | b"\r\n")
}

/// Section 4: `HTTP-version SP status-code SP [ reason-phrase ]`. The space behind the code may be
/// missing, as servers leave it out.
fn status(line: &[u8]) -> Option<Status> {
    let line = line.strip_suffix(b"\n")?;
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    let (minor, line) = line.strip_prefix(b"HTTP/1.")?.split_first()?;
    let line = line.strip_prefix(b" ")?;
    let (code, reason) = line.split_at_checked(3)?;
    let is_text = |byte: &u8| matches!(byte, b'\t' | b' '..=b'~' | 0x80..);
    let is_right = matches!(minor, b'0' | b'1')
        && matches!(code, [b'1'..=b'5', rest @ ..] if rest.iter().all(u8::is_ascii_digit))
        && (reason.is_empty() || reason[0] == b' ' && reason.iter().all(is_text));
    let code = code.iter().fold(0, |code, digit| code * 10 + u16::from(digit.wrapping_sub(b'0')));
    is_right.then(|| Status { minor: minor - b'0', code })
}
