//! A session that left OpenSSL, and the OpenSSL session that it was: both go on from the same state
//! with the same keys, are given the same bytes, and say what they make of them.

use std::io::{self, Read as _, Write as _};
use std::os::fd::AsRawFd as _;
use std::os::unix::net::UnixStream;
use std::ptr;

use foreign_types_shared::ForeignTypeRef as _;
use openssl::ssl::SslStream;
use records::Alert;
use relay::{Budget, Tls as _};
use tls::{Native, Taken};

use crate::direction::Direction;
use crate::pair::{End, context, library};
use crate::stayed::Stayed;

/// How a session stands.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Stand {
    Open,
    /// close_notify came.
    Closed,
    /// The end came without it.
    Cut,
    /// The peer sent a fatal alert.
    Alerted(Alert),
    /// It refused what came, for that reason.
    Refused(String),
}

/// What was seen of a session.
pub(crate) struct Seen {
    pub stand: Stand,
    pub data: Vec<u8>,
    /// The records that it sent: type and text.
    pub sent: Vec<(u8, Vec<u8>)>,
    wire: Direction,
}

impl Seen {
    fn new(wire: &Direction) -> Self {
        Seen { stand: Stand::Open, data: Vec::new(), sent: Vec::new(), wire: wire.clone() }
    }

    /// Opens records that it sent.
    pub(crate) fn take_sent(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let (kind, text, rest) = self.wire.open(bytes);
            bytes = rest;
            if kind == 22 && text.first() == Some(&24) {
                self.wire.update();
            }
            self.sent.push((kind, text));
        }
    }

    /// The alert that the peer was told at last.
    pub(crate) fn fatal_alert(&self) -> Option<Alert> {
        match self.sent.last() {
            Some((21, text)) if text[0] == 2 => Some(Alert(text[1])),
            _ => None,
        }
    }
}

/// One that left.
pub(crate) struct Left {
    pub seen: Seen,
    /// None for moments.
    native: Option<Box<Native>>,
    near: UnixStream,
    far: UnixStream,
    /// What it reads into, and what it sent.
    buffer: Vec<u8>,
    scratch: Vec<u8>,
}

/// Both, of one that has shaken hands. A read has room for `room` bytes.
pub(crate) fn twins(ours: SslStream<End>, sent: &Direction, room: usize) -> (Left, Stayed) {
    let (near, far) = UnixStream::pair().expect("sockets");
    near.set_nonblocking(true).expect("set");
    far.set_nonblocking(true).expect("set");
    let ssl = ours.ssl().as_ptr();
    // SAFETY: a live SSL whose handshake is finished. One more reference is given to the session, and
    // one to who stays, which uses it when the session is done with it. The socket stays open for
    // as long as the session lives.
    let taken = unsafe {
        library().up_ref(ssl.cast());
        library().up_ref(ssl.cast());
        tls::take_over(context(), ssl.cast(), near.as_raw_fd(), Vec::new(), ptr::null_mut())
    };
    drop(ours);
    let native = match taken.expect("taken over") {
        Taken::Native(native) => native,
        Taken::OpenSsl(_, reason) => panic!("{reason}"),
    };
    let (native, buffer, scratch) = (Some(native), vec![0; room], vec![0; 65_536]);
    (
        Left { seen: Seen::new(sent), native, near, far, buffer, scratch },
        Stayed::new(ssl, Seen::new(sent)),
    )
}

impl Left {
    /// Gives it bytes, and reads all there is.
    pub(crate) fn give(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() && self.seen.stand == Stand::Open {
            match self.far.write(bytes) {
                Ok(count) => bytes = &bytes[count..],
                Err(error) => assert_eq!(error.kind(), io::ErrorKind::WouldBlock),
            }
            self.read();
        }
    }

    fn native(&mut self) -> &mut Native {
        self.native.as_mut().expect("it is there")
    }

    fn read(&mut self) {
        self.native().recheck();
        while self.seen.stand == Stand::Open {
            let native = self.native.as_mut().expect("it is there");
            match native.read(&mut self.buffer, &mut Budget::default()) {
                Ok(0) if native.closed_cleanly() => self.seen.stand = Stand::Closed,
                Ok(0) => self.seen.stand = Stand::Cut,
                Ok(count) => self.seen.data.extend_from_slice(&self.buffer[..count]),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => self.seen.stand = stand(&error.to_string()),
            }
        }
    }

    /// Nothing comes any more.
    pub(crate) fn cut(&mut self) {
        self.far.shutdown(std::net::Shutdown::Write).expect("shut down");
        self.read();
    }

    pub(crate) fn write(&mut self, text: &[u8]) {
        self.native().write(text, false).expect("written");
    }

    pub(crate) fn close(&mut self) {
        self.native().close().expect("closed");
    }

    /// It goes to another process, if it can.
    pub(crate) fn move_on(&mut self) {
        let native = self.native.take().expect("it is there");
        let mut frozen = Vec::new();
        if let Err(native) = native.freeze(&mut frozen) {
            self.native = Some(native);
            return;
        }
        let mut from = &frozen[..];
        // SAFETY: its descriptor, which is open for as long as `self` is.
        let native = unsafe { Native::thaw(context(), &mut from, self.near.as_raw_fd()) };
        assert!(from.is_empty());
        self.native = Some(Box::new(native.expect("what was frozen")));
    }

    /// What it sent since it was asked.
    pub(crate) fn take_output(&mut self) -> Vec<u8> {
        let mut output = Vec::new();
        loop {
            let flushed = self.native().flush();
            loop {
                match self.far.read(&mut self.scratch) {
                    Ok(count) => output.extend_from_slice(&self.scratch[..count]),
                    Err(error) => {
                        assert_eq!(error.kind(), io::ErrorKind::WouldBlock);
                        break;
                    }
                }
            }
            if flushed.is_ok() {
                break;
            }
        }
        self.seen.take_sent(&output);
        output
    }
}

/// What a text of ours says.
fn stand(text: &str) -> Stand {
    match text.strip_prefix("the peer sent the TLS alert ") {
        Some(name) => {
            let alert = (0..=255).map(Alert).find(|alert| alert.to_string() == name);
            Stand::Alerted(alert.expect("an alert"))
        }
        None => Stand::Refused(text.to_owned()),
    }
}
