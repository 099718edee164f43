//! A non-blocking connection, plain or TLS, whose writes never wait: what the socket does not
//! take is kept, and what is kept is for the caller to bound.

use std::io::{self, Read, Write};
use std::net::Shutdown;

use foreign_types_shared::ForeignTypeRef;
use mio::net::TcpStream;
use openssl::ssl::{ErrorCode, Ssl, SslContext, SslRef, SslStream};

/// The socket, and what waits to be written to it.
pub(crate) struct Socket {
    pub tcp: TcpStream,
    waiting: Vec<u8>,
    gone: usize,
}

impl Read for Socket {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        self.tcp.read(bytes)
    }
}

impl Write for Socket {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.waiting.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// How the peer's bytes end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Came {
    Bytes(usize),
    Nothing,
    End,
    /// The end of a TLS stream without close_notify.
    Cut,
}

pub(crate) enum Wire {
    Plain(Socket),
    Tls(SslStream<Socket>),
}

impl Wire {
    pub(crate) fn new(
        tcp: TcpStream,
        context: Option<&SslContext>,
        accepts: bool,
    ) -> io::Result<Self> {
        tcp.set_nodelay(true)?;
        let socket = Socket { tcp, waiting: Vec::new(), gone: 0 };
        let Some(context) = context else { return Ok(Self::Plain(socket)) };
        let mut ssl = Ssl::new(context)?;
        if accepts {
            ssl.set_accept_state();
        } else {
            ssl.set_connect_state();
            ssl.set_hostname("localhost")?;
        }
        Ok(Self::Tls(SslStream::new(ssl, socket)?))
    }

    pub(crate) fn socket(&mut self) -> &mut Socket {
        match self {
            Self::Plain(socket) => socket,
            Self::Tls(stream) => stream.get_mut(),
        }
    }

    /// True once the TLS handshake is done.
    pub(crate) fn is_open(&mut self) -> io::Result<bool> {
        let Self::Tls(stream) = self else { return Ok(true) };
        if stream.ssl().is_init_finished() {
            return Ok(true);
        }
        match stream.do_handshake() {
            Ok(()) => Ok(true),
            Err(error) if error.code() == ErrorCode::WANT_READ => Ok(false),
            Err(error) => Err(io::Error::other(format!("handshake: {error}"))),
        }
    }

    pub(crate) fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        match self {
            Self::Plain(socket) => socket.write_all(bytes),
            Self::Tls(stream) => match stream.ssl_write(bytes) {
                Ok(taken) if taken == bytes.len() => Ok(()),
                Ok(taken) => Err(io::Error::other(format!("wrote {taken} of {}", bytes.len()))),
                Err(error) => Err(io::Error::other(format!("write: {error}"))),
            },
        }
    }

    pub(crate) fn read(&mut self, bytes: &mut [u8]) -> io::Result<Came> {
        match self {
            Self::Plain(socket) => match socket.read(bytes) {
                Ok(0) => Ok(Came::End),
                Ok(taken) => Ok(Came::Bytes(taken)),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(Came::Nothing),
                Err(error) => Err(error),
            },
            Self::Tls(stream) => match stream.ssl_read(bytes) {
                Ok(taken) => Ok(Came::Bytes(taken)),
                Err(error) => match (error.code(), error.io_error()) {
                    (ErrorCode::WANT_READ, _) => Ok(Came::Nothing),
                    (ErrorCode::ZERO_RETURN, _) => Ok(Came::End),
                    (ErrorCode::SYSCALL, None) => Ok(Came::Cut),
                    _ if error.to_string().contains("unexpected eof") => Ok(Came::Cut),
                    _ => Err(io::Error::other(format!("read: {error}"))),
                },
            },
        }
    }

    /// Bytes that wait to be written.
    pub(crate) fn waiting(&mut self) -> usize {
        let socket = self.socket();
        socket.waiting.len() - socket.gone
    }

    /// Writes to the socket what it takes, at most so much; whether it would take more.
    pub(crate) fn flush(&mut self, mut most: usize) -> io::Result<bool> {
        let socket = self.socket();
        while socket.gone < socket.waiting.len() && most > 0 {
            let end = socket.waiting.len().min(socket.gone.saturating_add(most));
            match socket.tcp.write(&socket.waiting[socket.gone..end]) {
                Ok(taken) => {
                    socket.gone += taken;
                    most -= taken;
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(false),
                Err(error) => return Err(error),
            }
        }
        if socket.gone == socket.waiting.len() {
            socket.gone = 0;
            socket.waiting.clear();
            if socket.waiting.capacity() > 16384 {
                socket.waiting = Vec::new();
            }
        }
        Ok(true)
    }

    /// Has a KeyUpdate sent, if this is TLS 1.3: `now`, or before the next bytes.
    pub(crate) fn key_update(&mut self, requested: bool, now: bool) -> io::Result<()> {
        let Self::Tls(stream) = self else { return Ok(()) };
        if stream.ssl().version_str() != "TLSv1.3" {
            return Ok(());
        }
        // SAFETY: a live SSL that this thread alone uses.
        let made =
            unsafe { SSL_key_update(SslRef::as_ptr(stream.ssl()).cast(), i32::from(requested)) };
        if made != 1 {
            return Err(io::Error::other("no KeyUpdate could be made"));
        }
        if now {
            stream
                .do_handshake()
                .map_err(|error| io::Error::other(format!("KeyUpdate: {error}")))?;
        }
        Ok(())
    }

    /// Ends the TLS stream by close_notify.
    pub(crate) fn close_notify(&mut self) {
        if let Self::Tls(stream) = self {
            // What the peer has to say to that is read as ever.
            let _ = stream.shutdown();
        }
    }

    /// Ends the sending, when all was flushed.
    pub(crate) fn shutdown(&mut self) -> io::Result<()> {
        match self.socket().tcp.shutdown(Shutdown::Write) {
            // The peer closed meanwhile.
            Err(error) if error.kind() == io::ErrorKind::NotConnected => Ok(()),
            other => other,
        }
    }
}

unsafe extern "C" {
    fn SSL_key_update(ssl: *mut std::ffi::c_void, kind: std::ffi::c_int) -> std::ffi::c_int;
}
