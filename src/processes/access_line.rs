//! A line of an access log that is known but for what only the end of the tunnel says: how it is
//! kept until then, and how it is completed.

use std::fmt::Write;
use std::time::Duration;

use relay::{By, End, Progress, Why};

use crate::ffi::access_log::{Line, Portion};
use crate::ffi::log_items::{
    BYTES_BOTH, BYTES_IN, BYTES_OUT, MICROS, MICROS_TOO, MILLIS, OWN, SECONDS,
};
use crate::ffi::noted::Values;

/// The names of `%{name}^WS`.
pub(crate) const NAMES: [&str; 11] = [
    "duration",
    "bytes-up",
    "bytes-down",
    "messages-up",
    "messages-down",
    "by",
    "reason",
    "code-client",
    "code-backend",
    BACKEND,
    ID,
];
const BACKEND: &str = "backend";
const ID: &str = "id";

/// Before a text, where there could be the number of an item.
const TEXT: u8 = u8::MAX;

/// The values of [`NAMES`] that are known when a tunnel begins.
pub(crate) fn at_begin(id: String, backend: String) -> Values {
    Box::new(move |at| match *NAMES.get(at)? {
        BACKEND => Some(backend.clone()),
        ID => Some(id.clone()),
        _ => None,
    })
}

/// All of them.
pub(crate) fn at_end(id: String, backend: String, end: End) -> Values {
    let known = at_begin(id, backend);
    Box::new(move |at| {
        let name = NAMES.get(at)?;
        known(at).or_else(|| Some(value_of(name, &(&end).into())))
    })
}

/// What a line says of a tunnel: of one that has ended, or of one that goes on.
struct Told<'t> {
    bytes: [u64; 2],
    messages: [Option<u64>; 2],
    duration: Duration,
    end: Option<(By, &'t Why)>,
    /// Of the client's Close frame, and of the back end's.
    codes: [Option<u16>; 2],
}

impl<'t> From<&'t End> for Told<'t> {
    fn from(end: &'t End) -> Self {
        Told {
            bytes: [end.bytes_up, end.bytes_down],
            messages: [end.messages_up, end.messages_down],
            duration: end.duration,
            end: Some((end.by, &end.why)),
            codes: [end.client_close, end.backend_close],
        }
    }
}

impl From<&Progress> for Told<'_> {
    fn from(progress: &Progress) -> Self {
        Told {
            bytes: [progress.bytes_up, progress.bytes_down],
            messages: [progress.messages_up, progress.messages_down],
            duration: progress.duration,
            end: None,
            codes: [None; 2],
        }
    }
}

fn value_of(name: &str, told: &Told<'_>) -> String {
    let none = || "-".to_owned();
    let or_none = |number: Option<u64>| number.map_or_else(none, |n| n.to_string());
    let [messages_up, messages_down] = told.messages;
    let [client_close, backend_close] = told.codes;
    match name {
        "duration" => format!("{:.3}", told.duration.as_secs_f64()),
        "bytes-up" => told.bytes[0].to_string(),
        "bytes-down" => told.bytes[1].to_string(),
        "messages-up" => or_none(messages_up),
        "messages-down" => or_none(messages_down),
        "by" => match told.end {
            Some((By::Client, _)) => "client",
            Some((By::Backend, _)) => "backend",
            Some((By::Us, _)) => "server",
            None => "-",
        }
        .to_owned(),
        "reason" => told.end.map_or_else(none, |(_, why)| why.name().to_owned()),
        "code-client" => or_none(client_close.map(u64::from)),
        "code-backend" => or_none(backend_close.map(u64::from)),
        _ => none(),
    }
}

/// What a tunnel keeps of its lines at most, in bytes: the limits reckon with 32 KiB for a tunnel, and a
/// message to another process, of at most [`os::fdpass::MESSAGE`] bytes, has room for as much again and
/// more. A client has a say in it by its headers, of which a byte takes four where it is escaped.
const MAX_KEPT_BYTES: usize = 16 * 1024;

/// A message also has the text by which a tunnel is known, which may be as long as a line of a request's
/// head, its TLS sessions, and what is under way in it.
const _: () = assert!(MAX_KEPT_BYTES <= os::fdpass::MESSAGE / 4);

/// A line as bytes, for [`complete`]. All of a tunnel's are one behind the other, `others` bytes until
/// now. `None` if a tunnel would keep too much.
pub(crate) fn keep(line: &Line<'_>, others: usize) -> Option<Vec<u8>> {
    let mut kept = Vec::new();
    put_text(&mut kept, line.log);
    let micros = u64::try_from(line.since.as_micros()).unwrap_or(u64::MAX);
    for number in [micros, line.bytes[0], line.bytes[1]] {
        kept.extend_from_slice(&number.to_le_bytes());
    }
    let mut body = Vec::new();
    let mut text = Vec::new();
    let flush = |text: &mut Vec<u8>, body: &mut Vec<u8>| {
        if !text.is_empty() {
            body.push(TEXT);
            put_text(body, text);
            text.clear();
        }
    };
    for portion in &line.portions {
        match portion {
            Portion::Text(bytes) => text.extend_from_slice(bytes),
            Portion::Item(item) => {
                flush(&mut text, &mut body);
                body.push(*item);
            }
        }
    }
    flush(&mut text, &mut body);
    put_text(&mut kept, &body);
    (kept.len().saturating_add(others) <= MAX_KEPT_BYTES).then_some(kept)
}

fn put_text(out: &mut Vec<u8>, text: &[u8]) {
    // No text of httpd is that long.
    let length = u32::try_from(text.len()).unwrap_or(u32::MAX);
    out.extend_from_slice(&length.to_le_bytes());
    out.extend_from_slice(&text[..usize::try_from(length).unwrap_or(0).min(text.len())]);
}

/// What is still to be read.
struct Rest<'b>(&'b [u8]);

impl<'b> Rest<'b> {
    fn bytes(&mut self, length: usize) -> Option<&'b [u8]> {
        let (bytes, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(bytes)
    }

    fn number(&mut self) -> Option<u64> {
        self.bytes(8)?.try_into().ok().map(u64::from_le_bytes)
    }

    fn text(&mut self) -> Option<&'b [u8]> {
        let length = self.bytes(4)?.try_into().ok().map(u32::from_le_bytes)?;
        self.bytes(usize::try_from(length).ok()?)
    }
}

/// Completes the lines that were kept, each as a message for [`read`].
pub(crate) fn complete(kept: &[u8], end: &End, each: impl FnMut(Vec<u8>)) {
    complete_as(kept, &end.into(), each);
}

/// The same for a tunnel that is still open: lines of how far it is.
pub(crate) fn complete_so_far(kept: &[u8], progress: &Progress, each: impl FnMut(Vec<u8>)) {
    complete_as(kept, &progress.into(), each);
}

fn complete_as(kept: &[u8], told: &Told<'_>, mut each: impl FnMut(Vec<u8>)) {
    let mut rest = Rest(kept);
    while !rest.0.is_empty() {
        // Another process may have made them.
        let Some(message) = complete_one(&mut rest, told) else { return };
        each(message);
    }
}

fn complete_one(rest: &mut Rest<'_>, told: &Told<'_>) -> Option<Vec<u8>> {
    let mut message = Vec::new();
    put_text(&mut message, rest.text()?);
    let since = Duration::from_micros(rest.number()?);
    let bytes = [rest.number()?, rest.number()?];
    let mut body = Rest(rest.text()?);
    while let Some(&[kind]) = body.bytes(1) {
        if kind == TEXT {
            message.extend_from_slice(body.text()?);
        } else {
            message.extend_from_slice(item(kind, since, bytes, told).as_bytes());
        }
    }
    Some(message)
}

fn item(item: u8, since: Duration, [bytes_in, bytes_out]: [u64; 2], told: &Told<'_>) -> String {
    let duration = since.saturating_add(told.duration);
    let bytes_in = bytes_in.saturating_add(told.bytes[0]);
    let bytes_out = bytes_out.saturating_add(told.bytes[1]);
    match item {
        MICROS | MICROS_TOO => duration.as_micros().to_string(),
        SECONDS => duration.as_secs().to_string(),
        MILLIS => duration.as_millis().to_string(),
        BYTES_IN => bytes_in.to_string(),
        BYTES_OUT => bytes_out.to_string(),
        BYTES_BOTH => bytes_in.saturating_add(bytes_out).to_string(),
        own => {
            let name = own.checked_sub(OWN).and_then(|at| NAMES.get(usize::from(at)));
            name.map_or_else(|| "-".to_owned(), |name| value_of(name, told))
        }
    }
}

/// The name of the log, and the line.
pub(crate) fn read(message: &[u8]) -> Option<(&[u8], &[u8])> {
    let mut rest = Rest(message);
    let name = rest.text()?;
    Some((name, rest.0))
}

/// The name of a log for a message of the error log.
pub(crate) fn shown(name: &[u8]) -> String {
    let mut shown = String::new();
    // Writing to a String does not fail.
    let _ = write!(shown, "{}", name.escape_ascii());
    shown
}
