//! Connections: plain or TLS, from one of many loopback addresses.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::AsRawFd;
use std::pin::Pin;
use std::task::{Context, Poll};

use openssl::asn1::Asn1Time;
use openssl::ec::{EcGroup, EcKey};
use openssl::hash::MessageDigest;
use openssl::nid::Nid;
use openssl::pkey::PKey;
use openssl::ssl::{Ssl, SslAcceptor, SslConnector, SslContext, SslMethod, SslVerifyMode};
use openssl::x509::X509Builder;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio_openssl::SslStream;

/// The server's name in all requests.
pub(crate) const NAME: &str = "bench.test";

/// A connection.
pub(crate) enum Stream {
    /// Without TLS.
    Plain(TcpStream),
    /// With TLS.
    Tls(Box<SslStream<TcpStream>>),
}

impl Stream {
    /// Connects from `source`, any port.
    pub(crate) async fn connect(
        source: IpAddr,
        to: SocketAddr,
        tls: Option<&SslContext>,
    ) -> io::Result<Self> {
        let socket = TcpSocket::new_v4()?;
        choose_port_late(&socket)?;
        socket.bind(SocketAddr::new(source, 0))?;
        let tcp = socket.connect(to).await?;
        tcp.set_nodelay(true)?;
        let Some(context) = tls else { return Ok(Stream::Plain(tcp)) };
        let mut session = Ssl::new(context)?;
        session.set_hostname(NAME)?;
        let mut stream = Box::new(SslStream::new(session, tcp)?);
        Pin::new(&mut *stream).connect().await.map_err(io::Error::other)?;
        Ok(Stream::Tls(stream))
    }

    /// The server's side of a connection.
    pub(crate) async fn accepted(tcp: TcpStream, tls: Option<&SslContext>) -> io::Result<Self> {
        tcp.set_nodelay(true)?;
        let Some(context) = tls else { return Ok(Stream::Plain(tcp)) };
        let mut stream = Box::new(SslStream::new(Ssl::new(context)?, tcp)?);
        Pin::new(&mut *stream).accept().await.map_err(io::Error::other)?;
        Ok(Stream::Tls(stream))
    }
}

/// Has connect choose the port rather than bind (IP_BIND_ADDRESS_NO_PORT of ip(7)): a port taken
/// by bind, at whatever address, is one that no proxy beside this client can connect from.
fn choose_port_late(socket: &TcpSocket) -> io::Result<()> {
    let on: libc::c_int = 1;
    // SAFETY: the descriptor is the socket's, which outlives the call; the value is an int that
    // lives as long, and its size is given.
    let done = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::IPPROTO_IP,
            libc::IP_BIND_ADDRESS_NO_PORT,
            (&raw const on).cast(),
            size_of::<libc::c_int>() as libc::socklen_t,
        )
    };
    if done == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// A listener that several processes may share.
pub(crate) fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = TcpSocket::new_v4()?;
    socket.set_reuseaddr(true)?;
    socket.set_reuseport(true)?;
    socket.bind(address)?;
    socket.listen(4096)
}

/// What a client takes: any certificate, one cipher, so that all peers do the same work.
pub(crate) fn client_context() -> io::Result<SslContext> {
    let mut builder = SslConnector::builder(SslMethod::tls_client())?;
    builder.set_verify(SslVerifyMode::NONE);
    builder.set_ciphersuites("TLS_AES_128_GCM_SHA256")?;
    Ok(builder.build().into_context())
}

/// A server with a certificate of its own making (ECDSA, P-256).
pub(crate) fn server_context() -> io::Result<SslContext> {
    let group = EcGroup::from_curve_name(Nid::X9_62_PRIME256V1)?;
    let key = PKey::from_ec_key(EcKey::generate(&group)?)?;
    let mut certificate = X509Builder::new()?;
    let (from, to) = (Asn1Time::days_from_now(0)?, Asn1Time::days_from_now(1)?);
    certificate.set_not_before(&from)?;
    certificate.set_not_after(&to)?;
    certificate.set_pubkey(&key)?;
    certificate.sign(&key, MessageDigest::sha256())?;
    let mut builder = SslAcceptor::mozilla_intermediate_v5(SslMethod::tls_server())?;
    builder.set_private_key(&key)?;
    builder.set_certificate(&certificate.build())?;
    Ok(builder.build().into_context())
}

impl AsyncRead for Stream {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Stream::Plain(stream) => Pin::new(stream).poll_read(cx, buffer),
            Stream::Tls(stream) => Pin::new(&mut **stream).poll_read(cx, buffer),
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Stream::Plain(stream) => Pin::new(stream).poll_write(cx, bytes),
            Stream::Tls(stream) => Pin::new(&mut **stream).poll_write(cx, bytes),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Stream::Plain(stream) => Pin::new(stream).poll_flush(cx),
            Stream::Tls(stream) => Pin::new(&mut **stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Stream::Plain(stream) => Pin::new(stream).poll_shutdown(cx),
            Stream::Tls(stream) => Pin::new(&mut **stream).poll_shutdown(cx),
        }
    }
}
