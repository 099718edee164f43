//! Where WebSocket frames begin and end, in any split. Against `tungstenite`, with the rules of
//! RFC 6455 added that it does not ask for.

use std::io::{self, Cursor, Read, Write};

use relay::{Breach, By, Guard, Refused, Rules, Strict, Tracker};
use tungstenite::Message;
use tungstenite::error::Error;
use tungstenite::protocol::frame::FrameHeader;
use tungstenite::protocol::frame::coding::{Control, Data, OpCode};
use tungstenite::protocol::{Role, WebSocket, WebSocketConfig};

use crate::input;

/// So much is tried in each split.
const SHORT: usize = 200;
const LONGEST: usize = 4096;

/// What can be seen of a tracker.
type Seen = (bool, bool, Option<u16>);

/// A byte of flags, one for the sizes of pieces, then what one side sends.
pub fn run(mut data: &[u8]) {
    let flags = input::byte(&mut data);
    let piece = 1 + usize::from(input::byte(&mut data));
    let bytes = &data[..data.len().min(LONGEST)];
    let role = if flags & 1 == 0 { Role::Server } else { Role::Client };
    let start = match role {
        Role::Server => Tracker::client_to_backend(),
        Role::Client => Tracker::backend_to_client(),
    };
    let frames = Frames::read(bytes, role);
    let expected: Vec<Seen> = (0..=bytes.len()).map(|at| frames.seen_at(at)).collect();

    let mut tracker = start.clone();
    for at in 0..=bytes.len() {
        assert_eq!(seen(&tracker), expected[at], "byte by byte, at {at}");
        if at <= SHORT && bytes.len() <= SHORT {
            let mut other = start.clone();
            other.feed(&bytes[..at]);
            assert_eq!(seen(&other), expected[at], "the first {at} at once");
            other.feed(&bytes[at..]);
            assert_eq!(seen(&other), expected[bytes.len()], "cut at {at}");
        }
        tracker.feed(&bytes[at..bytes.len().min(at + 1)]);
    }
    let mut tracker = start;
    let mut at = 0;
    for piece in bytes.chunks(piece) {
        tracker.feed(piece);
        at += piece.len();
        assert_eq!(seen(&tracker), expected[at], "in pieces, at {at}");
    }
    compare_messages(bytes, role, &frames);
    compare_guard(bytes, role, 1 + usize::from(flags >> 1));
}

fn seen(tracker: &Tracker) -> Seen {
    (tracker.at_boundary(), tracker.has_closed(), tracker.close_code())
}

/// RFC 6455 7.1.5: a Close frame without a status code.
const NO_STATUS: u16 = 1005;

/// The frames of one direction, as `tungstenite` reads their headers.
struct Frames {
    /// Where frames begin, and where the last one ends.
    boundaries: Vec<usize>,
    /// The first Close frame: from which byte on its status code is known, and the code.
    close: Option<(usize, u16)>,
    /// Where the first frame begins that RFC 6455 does not allow.
    bad: Option<Bad>,
}

enum Bad {
    /// Its length is written in more bytes than it needs, or is above 2^63.
    Length,
    Other,
}

impl Frames {
    fn read(bytes: &[u8], role: Role) -> Self {
        let mut frames = Self { boundaries: vec![0], close: None, bad: None };
        let mut cursor = Cursor::new(bytes);
        loop {
            let start = cursor.position();
            let (header, length) = match FrameHeader::parse(&mut cursor) {
                Ok(Some(found)) => found,
                Ok(None) => {
                    frames.begin_close(start as usize, bytes, role);
                    return frames;
                }
                Err(_) => {
                    frames.bad = Some(Bad::Other);
                    return frames;
                }
            };
            let payload = cursor.position();
            frames.bad = what_is_wrong(&header, length, payload - start, role);
            if frames.bad.is_some() {
                return frames;
            }
            let at = |place: u64| bytes.get(usize::try_from(place).ok()?).copied();
            if header.opcode == OpCode::Control(Control::Close) && frames.close.is_none() {
                let [first, second] = header.mask.map_or([0; 2], |[a, b, ..]| [a, b]);
                frames.close = match (length, at(payload), at(payload + 1)) {
                    (0, ..) => Some((start as usize + 2, NO_STATUS)),
                    (_, Some(high), Some(low)) => {
                        let code = u16::from_be_bytes([high ^ first, low ^ second]);
                        let code = if code == 0 { NO_STATUS } else { code };
                        Some((payload as usize + 2, code))
                    }
                    _ => None,
                };
            }
            if payload + length > bytes.len() as u64 {
                return frames;
            }
            cursor.set_position(payload + length);
            frames.boundaries.push((payload + length) as usize);
        }
    }

    /// A Close frame without a payload says so before its masking key is there, without which
    /// `tungstenite` sees no header.
    fn begin_close(&mut self, start: usize, bytes: &[u8], role: Role) {
        if let [first, 0x80, ..] = bytes[start..]
            && first & 0x8f == 0x88
            && role == Role::Server
            && self.close.is_none()
        {
            self.close = Some((start + 2, NO_STATUS));
        }
    }

    /// What is to be seen behind the first bytes.
    fn seen_at(&self, at: usize) -> Seen {
        let close = self.close.filter(|(known, _)| *known <= at).map(|(_, code)| code);
        let is_boundary = self.boundaries.contains(&at);
        (is_boundary && close.is_none(), is_boundary && close.is_some(), close)
    }
}

/// RFC 6455 5.1, 5.2, 5.5.
fn what_is_wrong(header: &FrameHeader, length: u64, size: u64, role: Role) -> Option<Bad> {
    let is_control = matches!(header.opcode, OpCode::Control(_));
    let is_close = header.opcode == OpCode::Control(Control::Close);
    if header.mask.is_some() != (role == Role::Server)
        || is_control && (!header.is_final || length > 125)
        || is_close && length == 1
    {
        Some(Bad::Other)
    } else if header.len(length) as u64 != size || length >> 63 != 0 {
        Some(Bad::Length)
    } else {
        None
    }
}

/// Whatever `tungstenite` takes for messages has the frames that were found.
fn compare_messages(bytes: &[u8], role: Role, frames: &Frames) {
    let config = WebSocketConfig::default()
        .read_buffer_size(LONGEST)
        .write_buffer_size(0)
        .max_frame_size(Some(2 * LONGEST));
    let mut socket = WebSocket::from_raw_socket(Peer(bytes), role, Some(config));
    let mut close = None;
    loop {
        match socket.read() {
            Ok(Message::Close(frame)) => {
                close = Some(frame.map_or(NO_STATUS, |frame| u16::from(frame.code)));
            }
            Ok(_) => {}
            Err(Error::ConnectionClosed) => break,
            // What is wrong may be the text, or the order of fragments.
            Err(_) => return,
        }
    }
    // It does not ask how lengths are written.
    if !matches!(frames.bad, Some(Bad::Length)) {
        let found = frames.close.map(|(_, code)| code);
        assert!(close.is_none() || found.is_some(), "it has a Close frame");
        // It puts 1002 in the place of codes that are nobody's.
        assert!(close.is_none_or(|close| close == 1002 || found == Some(close)));
    }
}

/// What WSForwardStrict refuses is what RFC 6455 does, in any split: by the headers that
/// `tungstenite` reads.
fn compare_guard(bytes: &[u8], role: Role, piece: usize) {
    let sender = if role == Role::Server { By::Client } else { By::Backend };
    let rules = Rules { strict: Some(Strict::On), ..Rules::default() };
    let guard = || Guard::new(&rules, sender).expect("strict");
    let whole = guard().check(bytes);
    match first_refused(bytes, role) {
        Found::Wrong(start) => {
            assert_eq!(whole, Err(Refused { allowed: start, breach: Breach::Protocol }));
        }
        // Its first bytes may show what is wrong with it.
        Found::Cut(start) => {
            assert!(whole.is_ok() || whole.is_err_and(|of| of.allowed == start));
        }
        Found::Nothing => assert_eq!(whole, Ok(())),
    }
    let mut pieces = guard();
    let refused = bytes.chunks(piece).find_map(|piece| pieces.check(piece).err());
    assert_eq!(refused.map(|of| of.breach), whole.err().map(|of| of.breach));
}

/// What is wrong with the headers of one direction, if something is.
enum Found {
    /// This header.
    Wrong(usize),
    /// Nothing, but this one is not whole.
    Cut(usize),
    Nothing,
}

fn first_refused(bytes: &[u8], role: Role) -> Found {
    let mut cursor = Cursor::new(bytes);
    let mut in_message = false;
    loop {
        let start = cursor.position() as usize;
        let (header, length) = match FrameHeader::parse(&mut cursor) {
            Ok(Some(found)) => found,
            Ok(None) => return Found::Cut(start),
            Err(_) => return Found::Wrong(start),
        };
        let size = cursor.position() - start as u64;
        let is_out_of_order = match header.opcode {
            OpCode::Data(Data::Continue) => !in_message,
            OpCode::Data(_) => in_message,
            OpCode::Control(_) => false,
        };
        if header.rsv1
            || header.rsv2
            || header.rsv3
            || is_out_of_order
            || what_is_wrong(&header, length, size, role).is_some()
        {
            return Found::Wrong(start);
        }
        match header.opcode {
            // Nothing behind it is looked at.
            OpCode::Control(Control::Close) => return Found::Nothing,
            OpCode::Control(_) => {}
            OpCode::Data(_) => in_message = !header.is_final,
        }
        let end = cursor.position().saturating_add(length);
        if end > bytes.len() as u64 {
            return Found::Nothing;
        }
        cursor.set_position(end);
    }
}

/// What was sent, and what takes the answers.
struct Peer<'a>(&'a [u8]);

impl Read for Peer<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.0.read(buffer)
    }
}

impl Write for Peer<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
