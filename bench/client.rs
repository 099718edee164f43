//! The client's side of a handshake (RFC 6455 4.1) and of a plain GET.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use openssl::base64::encode_block;
use openssl::rand::rand_bytes;
use openssl::ssl::SslContext;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::timeout;

use crate::arguments::{PLAIN_ANSWER, invalid, parse, source_address};
use crate::frame;
use crate::stream::{NAME, Stream, client_context};

/// The longest that a connection with its handshake, or a GET, may take.
const PATIENCE: Duration = Duration::from_secs(5);

/// The longest response head.
const MAX_HEAD: usize = 16_384;

/// Where requests go.
pub(crate) struct Target {
    address: SocketAddr,
    tls: Option<SslContext>,
    source: Ipv4Addr,
}

impl Target {
    /// From `ws://ADDRESS:PORT` or `wss://`; clients come from `source` and those after it.
    pub(crate) fn new(url: &str, source: Ipv4Addr) -> io::Result<Self> {
        let (scheme, rest) = url.split_once("://").ok_or_else(|| invalid("not a URL"))?;
        let tls = match scheme {
            "ws" | "http" => None,
            "wss" | "https" => Some(client_context()?),
            _ => return Err(invalid("the URL is neither ws nor wss")),
        };
        Ok(Target { address: parse(rest.trim_end_matches('/'))?, tls, source })
    }

    async fn connect(&self, index: usize) -> io::Result<Stream> {
        let source = source_address(self.source, index);
        Stream::connect(source, self.address, self.tls.as_ref()).await
    }

    /// Opens a tunnel. What came after the head is returned with it.
    pub(crate) async fn open(&self, index: usize, path: &str) -> io::Result<(Stream, Vec<u8>)> {
        self.open_within(PATIENCE, index, path).await
    }

    /// The same with another patience.
    pub(crate) async fn open_within(
        &self,
        patience: Duration,
        index: usize,
        path: &str,
    ) -> io::Result<(Stream, Vec<u8>)> {
        timeout(patience, self.try_open(index, path)).await?
    }

    async fn try_open(&self, index: usize, path: &str) -> io::Result<(Stream, Vec<u8>)> {
        let mut nonce = [0; 16];
        rand_bytes(&mut nonce)?;
        let key = encode_block(&nonce);
        let mut stream = self.connect(index).await?;
        let request = format!(
            "GET {path} HTTP/1.1\r\nHost: {NAME}\r\nUpgrade: websocket\r\n\
             Connection: Upgrade\r\nSec-WebSocket-Key: {key}\r\nSec-WebSocket-Version: 13\r\n\
             Origin: http://{NAME}\r\n\r\n"
        );
        stream.write_all(request.as_bytes()).await?;
        let mut bytes = Vec::with_capacity(1024);
        loop {
            if stream.read_buf(&mut bytes).await? == 0 || bytes.len() > MAX_HEAD {
                return Err(invalid("no whole response head"));
            }
            let mut fields = [httparse::EMPTY_HEADER; 64];
            let mut response = httparse::Response::new(&mut fields);
            let parsed = response.parse(&bytes).map_err(|error| invalid(&error.to_string()))?;
            let httparse::Status::Complete(length) = parsed else { continue };
            if response.code != Some(101) {
                return Err(invalid("not answered with 101"));
            }
            let accept = frame::accept(&key);
            let has_accept = response.headers.iter().any(|field| {
                field.name.eq_ignore_ascii_case("sec-websocket-accept")
                    && field.value == accept.as_bytes()
            });
            if !has_accept {
                return Err(invalid("no right Sec-WebSocket-Accept"));
            }
            bytes.drain(..length);
            return Ok((stream, bytes));
        }
    }

    /// A GET on a connection of its own, as a new visitor does it.
    pub(crate) async fn get(&self, index: usize) -> io::Result<()> {
        timeout(PATIENCE, self.try_get(index)).await?
    }

    async fn try_get(&self, index: usize) -> io::Result<()> {
        let mut stream = self.connect(index).await?;
        let request = format!("GET / HTTP/1.1\r\nHost: {NAME}\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await?;
        let mut bytes = Vec::with_capacity(1024);
        // A proxy may leave out close_notify.
        while stream.read_buf(&mut bytes).await.unwrap_or(0) > 0 {}
        if bytes.starts_with(b"HTTP/1.1 200") && bytes.ends_with(PLAIN_ANSWER) {
            Ok(())
        } else {
            Err(invalid("not the back end's answer"))
        }
    }
}
