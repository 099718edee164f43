//! A session that left OpenSSL, and the OpenSSL session that it was: both go on from the same state
//! with the same keys, are given the same bytes, and say what they make of them.

use std::ffi::{CStr, c_int, c_long};
use std::io::{self, Read as _, Write as _};
use std::os::fd::AsRawFd as _;
use std::os::unix::net::UnixStream;
use std::ptr;

use foreign_types_shared::ForeignTypeRef as _;
use openssl::ssl::SslStream;
use openssl_sys::{BIO, SSL};
use records::Alert;
use relay::{Budget, Tls as _};
use tls::{Native, Taken};

use crate::direction::Direction;
use crate::pair::{End, context, library};

unsafe extern "C" {
    fn SSL_in_init(ssl: *const SSL) -> c_int;
}

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
    fn take_sent(&mut self, mut bytes: &[u8]) {
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

/// One that stayed, with BIOs in memory.
pub(crate) struct Stayed {
    pub seen: Seen,
    ssl: *mut SSL,
    incoming: *mut BIO,
    outgoing: *mut BIO,
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

/// What is added to the number of an alert for that of an error (SSL_AD_REASON_OFFSET).
const ALERT_ERRORS: c_int = 1000;
const CTRL_MODE: c_int = 33;
const CTRL_CLEAR_MODE: c_int = 78;
const CTRL_SET_EOF_RETURN: c_int = 130;

impl Stayed {
    /// `ssl` is a reference that is given to it, and is used by it alone.
    fn new(ssl: *mut SSL, seen: Seen) -> Self {
        // SAFETY: a live SSL that is ours alone, and BIOs that are given to it. It is as a session is
        // that nobody took over, but that it allows no renegotiation.
        unsafe {
            let new = || {
                let bio = openssl_sys::BIO_new(openssl_sys::BIO_s_mem());
                assert!(!bio.is_null());
                bio
            };
            let (incoming, outgoing) = (new(), new());
            for bio in [incoming, outgoing] {
                // What is empty is to be asked again.
                openssl_sys::BIO_ctrl(bio, CTRL_SET_EOF_RETURN, -1, ptr::null_mut());
            }
            openssl_sys::SSL_set_bio(ssl, incoming, outgoing);
            openssl_sys::SSL_set_shutdown(ssl, 0);
            let modes: [(c_int, c_long); 2] = [
                (CTRL_CLEAR_MODE, openssl_sys::SSL_MODE_RELEASE_BUFFERS),
                (CTRL_MODE, openssl_sys::SSL_MODE_AUTO_RETRY),
            ];
            for (command, mode) in modes {
                openssl_sys::SSL_ctrl(ssl, command, mode, ptr::null_mut());
            }
            Stayed { seen, ssl, incoming, outgoing }
        }
    }

    pub(crate) fn give(&mut self, bytes: &[u8]) {
        if !bytes.is_empty() && self.seen.stand == Stand::Open {
            // SAFETY: a live BIO of ours; that many bytes are there.
            let written = unsafe {
                openssl_sys::BIO_write(self.incoming, bytes.as_ptr().cast(), bytes.len() as c_int)
            };
            assert_eq!(written, bytes.len() as c_int);
            self.read();
        }
    }

    fn read(&mut self) {
        let mut buffer = [0_u8; 16_384];
        while self.seen.stand == Stand::Open {
            // SAFETY: a live SSL of ours; there is that much room.
            let (count, error) = unsafe {
                openssl_sys::ERR_clear_error();
                let room = buffer.len() as c_int;
                let count = openssl_sys::SSL_read(self.ssl, buffer.as_mut_ptr().cast(), room);
                (count, openssl_sys::SSL_get_error(self.ssl, count))
            };
            match error {
                openssl_sys::SSL_ERROR_NONE => {
                    self.seen.data.extend_from_slice(&buffer[..count as usize]);
                }
                openssl_sys::SSL_ERROR_WANT_READ => break,
                openssl_sys::SSL_ERROR_ZERO_RETURN => self.seen.stand = Stand::Closed,
                openssl_sys::SSL_ERROR_SSL | openssl_sys::SSL_ERROR_SYSCALL => {
                    self.seen.stand = error_stand();
                }
                other => panic!("SSL_get_error says {other}"),
            }
        }
    }

    /// Whether a handshake message has come in part: it sends nothing then.
    pub(crate) fn is_within_message(&self) -> bool {
        // SAFETY: a live SSL of ours.
        unsafe { SSL_in_init(self.ssl) != 0 }
    }

    pub(crate) fn cut(&mut self) {
        // SAFETY: a live BIO of ours.
        unsafe {
            openssl_sys::BIO_ctrl(self.incoming, CTRL_SET_EOF_RETURN, 0, ptr::null_mut());
        }
        self.read();
    }

    pub(crate) fn write(&mut self, text: &[u8]) {
        // SAFETY: a live SSL of ours; that many bytes are there.
        let written =
            unsafe { openssl_sys::SSL_write(self.ssl, text.as_ptr().cast(), text.len() as c_int) };
        assert_eq!(written, text.len() as c_int);
    }

    pub(crate) fn close(&mut self) {
        // SAFETY: a live SSL of ours.
        let result = unsafe { openssl_sys::SSL_shutdown(self.ssl) };
        assert!(result >= 0);
    }

    pub(crate) fn take_output(&mut self) {
        let mut output = Vec::new();
        let mut buffer = [0_u8; 16_384];
        loop {
            let room = buffer.len() as c_int;
            // SAFETY: a live BIO of ours; there is that much room.
            let count =
                unsafe { openssl_sys::BIO_read(self.outgoing, buffer.as_mut_ptr().cast(), room) };
            let Ok(count) = usize::try_from(count) else { break };
            output.extend_from_slice(&buffer[..count]);
        }
        self.seen.take_sent(&output);
    }
}

impl Drop for Stayed {
    fn drop(&mut self) {
        // SAFETY: our reference, given up once; the BIOs go with it.
        unsafe {
            let both = openssl_sys::SSL_SENT_SHUTDOWN | openssl_sys::SSL_RECEIVED_SHUTDOWN;
            openssl_sys::SSL_set_shutdown(self.ssl, both);
            openssl_sys::SSL_free(self.ssl);
        }
    }
}

/// What the first error of this thread's queue says.
fn error_stand() -> Stand {
    // SAFETY: they take no pointer; the string is static, in OpenSSL's tables.
    let (code, text) = unsafe {
        let code = openssl_sys::ERR_get_error();
        let text = openssl_sys::ERR_reason_error_string(code);
        openssl_sys::ERR_clear_error();
        (code, (!text.is_null()).then(|| CStr::from_ptr(text).to_string_lossy()))
    };
    let alert = openssl_sys::ERR_GET_REASON(code) - ALERT_ERRORS;
    match u8::try_from(alert) {
        Ok(alert) => Stand::Alerted(Alert(alert)),
        // 1.1.1 has no error for it.
        Err(_) if code == 0 => Stand::Cut,
        Err(_) => match text.as_deref() {
            Some("unexpected eof while reading") => Stand::Cut,
            text => Stand::Refused(text.unwrap_or("unknown").to_owned()),
        },
    }
}
