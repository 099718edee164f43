//! A response head (RFC 9112, sections 2 to 5): where it ends, and whether it
//! is clean enough to be parsed by others.
//!
//! Headers of an answer other than `101` stay the business of `mod_proxy_http`
//! (folded lines, `ProxyBadHeader`, bare LF and all). Here are only the bounds
//! that keep a hostile back end cheap and what must never reach a client.

use std::fmt;

use memchr::{memchr, memchr_iter};
use messages::{
    BareCrInHead, HeadTooLong, NoStatusLine, NulInHead, StatusOutOfRange, TooManyFields,
};

/// The longest head accepted, in bytes, its blank line included.
pub const MAX_HEAD: usize = 64 * 1024;
/// The most header lines accepted, folded continuations included.
pub const MAX_FIELDS: usize = 100;

/// The longest status line accepted, in bytes: `mod_proxy_http` reads it into
/// a buffer of 8192 and takes one that fills it for a corrupt one.
const MAX_STATUS_LINE: usize = 8000;

/// What a clean head begins with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Status {
    /// The minor version: 0 or 1.
    pub minor: u8,
    /// 100 to 599.
    pub code: u16,
}

/// Why a head is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BadHead {
    /// No blank line within [`MAX_HEAD`] bytes.
    TooLong,
    /// More lines than [`MAX_FIELDS`].
    TooManyFields,
    /// Not `HTTP/1.0` or `HTTP/1.1`, a status and a reason.
    StatusLine,
    /// A status outside of 100 to 599.
    StatusCode(u16),
    /// A NUL byte.
    Nul,
    /// A CR that no LF follows.
    BareCr,
}

impl fmt::Display for BadHead {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooLong => HeadTooLong { most: &MAX_HEAD }.fmt(f),
            Self::TooManyFields => TooManyFields { most: &MAX_FIELDS }.fmt(f),
            Self::StatusLine => NoStatusLine.fmt(f),
            Self::StatusCode(code) => StatusOutOfRange { code: &format_args!("{code:03}") }.fmt(f),
            Self::Nul => NulInHead.fmt(f),
            Self::BareCr => BareCrInHead.fmt(f),
        }
    }
}

impl std::error::Error for BadHead {}

/// Finds the end of a head in bytes that arrive in any pieces; what was
/// scanned once is not scanned again.
#[derive(Debug, Default)]
pub struct Scanner {
    scanned: usize,
}

impl Scanner {
    /// The length of the head at the start of `bytes` (all that arrived so
    /// far), its blank line included, or `None` if it is not complete yet.
    ///
    /// # Errors
    /// Early, as soon as `bytes` can become no acceptable head.
    pub fn end(&mut self, bytes: &[u8]) -> Result<Option<usize>, BadHead> {
        let start = leading_blank(bytes);
        if !could_be_http(&bytes[start..]) {
            return Err(BadHead::StatusLine);
        }
        if self.scanned <= start
            && let Some(longest) = bytes.get(start..=start + MAX_STATUS_LINE)
            && memchr(b'\n', longest).is_none()
        {
            return Err(BadHead::StatusLine);
        }
        let mut from = self.scanned.max(start);
        while let Some(at) = memchr(b'\n', &bytes[from..]) {
            let line_end = from + at;
            let blank = match bytes.get(line_end + 1) {
                Some(b'\n') => Some(line_end + 2),
                Some(b'\r') => match bytes.get(line_end + 2) {
                    Some(b'\n') => Some(line_end + 3),
                    Some(_) => None,
                    None => break,
                },
                Some(_) => None,
                None => break,
            };
            if let Some(end) = blank {
                return if end > MAX_HEAD { Err(BadHead::TooLong) } else { Ok(Some(end)) };
            }
            from = line_end + 1;
            self.scanned = from;
        }
        if bytes.len() >= MAX_HEAD {
            return Err(BadHead::TooLong);
        }
        Ok(None)
    }
}

/// The one blank line that `mod_proxy_http` forgives before a status line.
fn leading_blank(bytes: &[u8]) -> usize {
    match bytes {
        [b'\r', b'\n', ..] => 2,
        [b'\n', ..] => 1,
        _ => 0,
    }
}

/// Whether `bytes` are, or can still become, an HTTP/1.x status line.
fn could_be_http(bytes: &[u8]) -> bool {
    const VERSION: &[u8] = b"HTTP/1.";
    let len = bytes.len().min(VERSION.len());
    bytes[..len] == VERSION[..len] || bytes == b"\r"
}

/// Checks a complete head (as [`Scanner::end`] delimits it).
///
/// # Errors
/// What is wrong with it.
pub fn inspect(head: &[u8]) -> Result<Status, BadHead> {
    let head = &head[leading_blank(head)..];
    if memchr(0, head).is_some() {
        return Err(BadHead::Nul);
    }
    if any_pair(head, |one, next| (one == b'\r') & (next != b'\n')) || head.ends_with(b"\r") {
        return Err(BadHead::BareCr);
    }
    // Two of the line ends belong to the status line and to the blank line.
    if memchr_iter(b'\n', head).count().saturating_sub(2) > MAX_FIELDS {
        return Err(BadHead::TooManyFields);
    }
    let line_end = memchr(b'\n', head).ok_or(BadHead::StatusLine)?;
    if line_end > MAX_STATUS_LINE {
        return Err(BadHead::StatusLine);
    }
    status(&head[..=line_end])
}

/// Whether `is_found` is true of any byte and the one behind it. All are looked at, which takes less time
/// than to stop at the first: several at a time.
pub(crate) fn any_pair(bytes: &[u8], is_found: impl Fn(u8, u8) -> bool) -> bool {
    let behind = bytes.get(1..).unwrap_or_default();
    bytes.iter().zip(behind).fold(false, |found, (one, next)| found | is_found(*one, *next))
}

/// Parses the status line alone, so that the fields stay for others to judge.
fn status(line: &[u8]) -> Result<Status, BadHead> {
    let mut no_fields = [];
    let mut response = httparse::Response::new(&mut no_fields);
    // The line is whole, so the reason is there if it is right: the last thing looked at.
    let _ = response.parse(line);
    match (response.version, response.code, response.reason) {
        (Some(minor), Some(code @ 100..=599), Some(_)) => Ok(Status { minor, code }),
        (Some(_), Some(code), Some(_)) => Err(BadHead::StatusCode(code)),
        _ => Err(BadHead::StatusLine),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    fn end(bytes: &[u8]) -> Result<Option<usize>, BadHead> {
        Scanner::default().end(bytes)
    }

    #[test]
    fn the_end_is_found_in_any_pieces() {
        for head in [
            &b"HTTP/1.1 200 OK\r\nA: b\r\n\r\n"[..],
            b"HTTP/1.0 200 OK\nA: b\n\n",
            b"HTTP/1.1 200 OK\r\nA: b\r\n c\r\n\r\n",
            b"\r\nHTTP/1.1 200 OK\r\n\r\n",
            b"\nHTTP/1.1 200 OK\n\n",
            b"HTTP/1.1 200\r\n\r\n",
        ] {
            let mut with_body = head.to_vec();
            with_body.extend_from_slice(b"\r\n\r\nbody");
            assert_eq!(end(&with_body), Ok(Some(head.len())));
            for step in 1..=head.len() {
                let mut scanner = Scanner::default();
                let mut arrived = 0;
                while arrived + step < head.len() {
                    arrived += step;
                    assert_eq!(scanner.end(&head[..arrived]), Ok(None), "{arrived}");
                }
                assert_eq!(scanner.end(head), Ok(Some(head.len())));
            }
        }
    }

    #[test]
    fn what_cannot_be_http_is_refused_at_the_first_byte() {
        for bytes in [&b"<"[..], b"hello", b"HTTP/2", b"HTTP/0.9 200", b"HTTQ", b"\r\n\r\n"] {
            assert_eq!(end(bytes), Err(BadHead::StatusLine), "{bytes:?}");
        }
        assert_eq!(end(b"\r"), Ok(None));
        assert_eq!(end(b"HTT"), Ok(None));
        assert_eq!(end(b""), Ok(None));
    }

    #[test]
    fn an_endless_head_is_cut() {
        let mut line = b"HTTP/1.1 200 ".to_vec();
        line.resize(MAX_STATUS_LINE + 2, b'x');
        assert_eq!(end(&line), Err(BadHead::StatusLine));
        // Wherever it is cut, the longest one is none too many.
        let mut head = line[..MAX_STATUS_LINE].to_vec();
        head.extend_from_slice(b"\n\n");
        for cut in MAX_STATUS_LINE - 2..=head.len() {
            let mut scanner = Scanner::default();
            assert!(scanner.end(&head[..cut]).is_ok(), "{cut}");
            assert_eq!(scanner.end(&head), Ok(Some(head.len())), "{cut}");
        }
        assert!(inspect(&head).is_ok());
        head.insert(MAX_STATUS_LINE, b'x');
        for cut in MAX_STATUS_LINE + 1..=head.len() {
            assert_eq!(end(&head[..cut]), Err(BadHead::StatusLine), "{cut}");
        }
        let mut head = b"HTTP/1.1 200 OK\r\n".to_vec();
        while head.len() < MAX_HEAD {
            head.extend_from_slice(b"X-Pad: 0123456789\r\n");
        }
        assert_eq!(end(&head), Err(BadHead::TooLong));
        head.truncate(MAX_HEAD - 4);
        head.extend_from_slice(b"\r\n\r\n");
        assert_eq!(end(&head), Ok(Some(MAX_HEAD)));
        head.insert(20, b'y');
        assert_eq!(end(&head), Err(BadHead::TooLong));
    }

    #[test]
    fn heads_are_inspected() {
        let status = |code, minor| Ok(Status { minor, code });
        let cases: [(&[u8], Result<Status, BadHead>); 15] = [
            (b"HTTP/1.1 200 OK\r\n\r\n", status(200, 1)),
            (b"HTTP/1.0 404 Not Found\nA: b\n\n", status(404, 0)),
            (b"\r\nHTTP/1.1 101 x\r\n\r\n", status(101, 1)),
            (b"\nHTTP/1.1 101 x\n\n", status(101, 1)),
            (b"HTTP/1.1 204\r\n\r\n", status(204, 1)),
            (b"HTTP/1.1 401 Caf\xe9\r\n\r\n", status(401, 1)),
            (b"HTTP/1.1 000 OK\r\n\r\n", Err(BadHead::StatusCode(0))),
            (b"HTTP/1.1 099 OK\r\n\r\n", Err(BadHead::StatusCode(99))),
            (b"HTTP/1.1 600 OK\r\n\r\n", Err(BadHead::StatusCode(600))),
            (b"HTTP/1.1 20 OK\r\n\r\n", Err(BadHead::StatusLine)),
            (b"HTTP/1.1 2000 OK\r\n\r\n", Err(BadHead::StatusLine)),
            (b"HTTP/1.2 200 OK\r\n\r\n", Err(BadHead::StatusLine)),
            (b"HTTP/1.1\r\n\r\n", Err(BadHead::StatusLine)),
            (b"HTTP/1.1 200 OK\r\nA: b\0c\r\n\r\n", Err(BadHead::Nul)),
            (b"HTTP/1.1 200 OK\r\nA: b\rc\r\n\r\n", Err(BadHead::BareCr)),
        ];
        for (head, expected) in cases {
            assert_eq!(inspect(head), expected, "{}", head.escape_ascii());
        }
    }

    #[test]
    fn each_fault_is_told_in_words_of_its_own() {
        let all = [
            BadHead::TooLong,
            BadHead::TooManyFields,
            BadHead::StatusLine,
            BadHead::StatusCode(7),
            BadHead::Nul,
            BadHead::BareCr,
        ];
        let texts: HashSet<_> = all.iter().map(BadHead::to_string).collect();
        assert_eq!(texts.len(), all.len());
        assert!(texts.iter().any(|text| text.contains("007")), "{texts:?}");
    }

    #[test]
    fn fields_are_counted() {
        let head = |fields: usize| {
            let mut head = b"HTTP/1.1 200 OK\r\n".to_vec();
            (0..fields).for_each(|n| head.extend_from_slice(format!("X-{n}: y\r\n").as_bytes()));
            head.extend_from_slice(b"\r\n");
            head
        };
        assert!(inspect(&head(MAX_FIELDS)).is_ok());
        assert_eq!(inspect(&head(MAX_FIELDS + 1)), Err(BadHead::TooManyFields));
    }
}
