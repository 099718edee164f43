//! The back end: echoes messages, takes and sends bulk, answers a plain GET.

use std::io::{self, ErrorKind};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use openssl::ssl::SslContext;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio::time::sleep;

use crate::arguments::{Arguments, PLAIN_ANSWER, invalid, parse};
use crate::bulk::{self, Plan};
use crate::frame::{self, CLOSE, PING, PONG};
use crate::stream::{Stream, listen, server_context};

/// The largest message echoed.
const MAX_MESSAGE: u64 = 1 << 26;

/// The most bytes of a request head.
const MAX_HEAD: usize = 16_384;

/// The open tunnels, which may be closed all at once.
#[derive(Clone, Default)]
struct Tunnels(Arc<Mutex<JoinSet<io::Result<()>>>>);

impl Tunnels {
    fn add(&self, tunnel: impl Future<Output = io::Result<()>> + Send + 'static) {
        let mut tunnels = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        // Those that have ended.
        while tunnels.try_join_next().is_some() {}
        tunnels.spawn(tunnel);
    }

    /// As if this process were killed. Plain requests go on.
    fn close(&self) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).abort_all();
    }
}

/// Serves until standard input ends, so that it does not outlive who started it. A line `close`
/// there closes all tunnels.
pub(crate) async fn run(arguments: &Arguments) -> io::Result<()> {
    let mut words = arguments.rest(0);
    let mut tls = None;
    if words.first().is_some_and(|word| word == "tls") {
        tls = Some(Arc::new(server_context()?));
        words = &words[1..];
    }
    let tunnels = Tunnels::default();
    // The first address decides the port of all whose port is 0.
    let mut port = 0;
    for word in words {
        let mut address: std::net::SocketAddr = parse(word)?;
        if address.port() == 0 {
            address.set_port(port);
        }
        let listener = listen(address)?;
        port = listener.local_addr()?.port();
        tokio::spawn(accept(listener, tls.clone(), tunnels.clone()));
    }
    println!(r#"{{"port": {port}}}"#);
    let mut lines = BufReader::new(tokio::io::stdin()).lines();
    while let Some(line) = lines.next_line().await? {
        match &*line {
            "close" => tunnels.close(),
            _ => return Err(invalid("a line is \"close\"")),
        }
    }
    Ok(())
}

async fn accept(listener: TcpListener, tls: Option<Arc<SslContext>>, tunnels: Tunnels) {
    loop {
        match listener.accept().await {
            Ok((tcp, _)) => {
                let (tls, tunnels) = (tls.clone(), tunnels.clone());
                // What goes wrong on a connection is for its client to tell.
                tokio::spawn(async move { serve(tcp, tls, tunnels).await });
            }
            // Most likely out of descriptors: some may be closed soon.
            Err(_) => sleep(Duration::from_millis(10)).await,
        }
    }
}

/// What a request asks for.
enum Request {
    Plain { close: bool },
    Upgrade { accept: String, bulk: Option<Plan> },
}

async fn serve(tcp: TcpStream, tls: Option<Arc<SslContext>>, tunnels: Tunnels) -> io::Result<()> {
    let mut stream = Stream::accepted(tcp, tls.as_deref()).await?;
    let mut bytes = Vec::with_capacity(2048);
    loop {
        let Some((request, length)) = parse_request(&bytes)? else {
            if bytes.len() > MAX_HEAD || stream.read_buf(&mut bytes).await? == 0 {
                return Ok(());
            }
            continue;
        };
        bytes.drain(..length);
        match request {
            Request::Plain { close } => {
                let connection = if close { "Connection: close\r\n" } else { "" };
                let mut answer = format!(
                    "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: {}\r\n{connection}\r\n",
                    PLAIN_ANSWER.len()
                )
                .into_bytes();
                answer.extend_from_slice(PLAIN_ANSWER);
                stream.write_all(&answer).await?;
                if close {
                    return stream.shutdown().await;
                }
            }
            Request::Upgrade { accept, bulk } => {
                let answer = format!(
                    "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\
                     Connection: Upgrade\r\nSec-WebSocket-Accept: {accept}\r\n\r\n"
                );
                stream.write_all(answer.as_bytes()).await?;
                tunnels.add(async move {
                    match bulk {
                        Some(plan) => bulk::serve(stream, bytes, &plan).await,
                        None => echo(stream, bytes).await,
                    }
                });
                return Ok(());
            }
        }
    }
}

/// The request at the start of `bytes` and the length of its head, once it is whole.
fn parse_request(bytes: &[u8]) -> io::Result<Option<(Request, usize)>> {
    let mut fields = [httparse::EMPTY_HEADER; 64];
    let mut request = httparse::Request::new(&mut fields);
    let parsed = request.parse(bytes).map_err(|error| invalid(&error.to_string()))?;
    let httparse::Status::Complete(length) = parsed else { return Ok(None) };
    let field = |name: &str| {
        let found = request.headers.iter().find(|field| field.name.eq_ignore_ascii_case(name));
        found.and_then(|field| std::str::from_utf8(field.value).ok())
    };
    let is = |name: &str, word: &str| {
        field(name).is_some_and(|value| value.to_ascii_lowercase().contains(word))
    };
    let key = field("sec-websocket-key").filter(|_| is("upgrade", "websocket"));
    let request = match key {
        Some(key) => Request::Upgrade {
            accept: frame::accept(key),
            bulk: request.path.and_then(Plan::from_path),
        },
        None => Request::Plain { close: request.version != Some(1) || is("connection", "close") },
    };
    Ok(Some((request, length)))
}

/// Sends each message back, in the frame it came in.
async fn echo(mut stream: Stream, mut bytes: Vec<u8>) -> io::Result<()> {
    loop {
        let mut done = 0;
        while let Some(header) = frame::header(&bytes[done..])? {
            if header.payload > MAX_MESSAGE {
                return Err(invalid("too large a message to echo"));
            }
            let payload = done + header.length;
            let end = payload + header.payload as usize;
            if end > bytes.len() {
                bytes.reserve(end - bytes.len());
                break;
            }
            let key = header.key.ok_or_else(|| invalid("an unmasked frame"))?;
            frame::mask(&mut bytes[payload..end], key, 0);
            let opcode = if header.opcode == PING { PONG } else { header.opcode };
            // The new header is four bytes shorter: it goes right before the payload.
            let mut answer = Vec::with_capacity(frame::MAX_HEADER);
            frame::put_header(&mut answer, opcode, header.payload, None);
            let start = payload - answer.len();
            bytes[start..payload].copy_from_slice(&answer);
            stream.write_all(&bytes[start..end]).await?;
            if opcode == CLOSE {
                // RFC 6455 7.1.1: the server closes first.
                return stream.shutdown().await;
            }
            done = end;
        }
        bytes.drain(..done);
        if stream.read_buf(&mut bytes).await? == 0 {
            return match bytes.is_empty() {
                true => stream.shutdown().await,
                false => Err(ErrorKind::UnexpectedEof.into()),
            };
        }
    }
}
