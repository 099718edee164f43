//! A relay and nothing else: what tokio does with two sockets, to compare proxies with.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use openssl::ssl::SslContext;
use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio::time::sleep;

use crate::arguments::{Arguments, parse, until_input_ends};
use crate::stream::{Stream, listen, server_context};

/// Relays from each address `plain=` and `tls=` to the back end until standard input ends.
pub(crate) async fn run(arguments: &Arguments) -> io::Result<()> {
    let backend: SocketAddr = parse(arguments.word(0)?)?;
    let any = "127.0.0.1:0".to_string();
    let plain = listen(parse(&arguments.setting("plain", any.clone())?)?)?;
    let tls = listen(parse(&arguments.setting("tls", any)?)?)?;
    println!(
        r#"{{"port": {}, "tls_port": {}}}"#,
        plain.local_addr()?.port(),
        tls.local_addr()?.port()
    );
    tokio::spawn(accept(plain, None, backend));
    tokio::spawn(accept(tls, Some(Arc::new(server_context()?)), backend));
    until_input_ends().await
}

async fn accept(listener: TcpListener, tls: Option<Arc<SslContext>>, backend: SocketAddr) {
    loop {
        match listener.accept().await {
            Ok((tcp, _)) => {
                let tls = tls.clone();
                // What goes wrong on a connection is for its client to tell.
                tokio::spawn(async move { relay(tcp, tls, backend).await });
            }
            // Most likely out of descriptors: some may be closed soon.
            Err(_) => sleep(Duration::from_millis(10)).await,
        }
    }
}

async fn relay(
    tcp: TcpStream,
    tls: Option<Arc<SslContext>>,
    backend: SocketAddr,
) -> io::Result<()> {
    let mut client = Stream::accepted(tcp, tls.as_deref()).await?;
    let mut backend = TcpStream::connect(backend).await?;
    backend.set_nodelay(true)?;
    copy_bidirectional(&mut client, &mut backend).await?;
    Ok(())
}
