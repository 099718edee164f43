//! Load for WebSocket proxies: the back end, the client and a bare relay to compare with.
//!
//! ```text
//! wsload backend [tls] ADDRESS...            echo, bulk and plain GET; prints its port
//! wsload relay BACKEND                       a relay without HTTP, tokio's copy_bidirectional
//! wsload tunnels URL [COMMAND...]            holds tunnels and does what it is told, see below
//! wsload bulk URL up=MIB down=MIB frame=BYTES
//! wsload handshakes URL seconds=S clients=N [count=N]
//! wsload get URL seconds=S clients=N [until=input]
//! ```
//!
//! URLs are `ws://ADDRESS:PORT/` and `wss://`; `source=127.0.0.2` before a URL is where clients
//! come from (they spread over this address and the fifteen after it). Commands of `tunnels`, as
//! arguments or else as lines on standard input:
//!
//! - `open N`: N more, as many as can be had;
//! - `echo SIZE SECONDS [N]`: messages there and back on N of them (all), every byte checked;
//! - `check`: one message on each; those that do not answer are dropped;
//! - `storm SECONDS`: opens each again as soon as it has ended, until all are open.
//!
//! Each prints one line of JSON. Times are in microseconds where the name ends in `_us`. The
//! program ends with status 1 when a byte differs from what was sent.

mod arguments;
mod backend;
mod bulk;
mod client;
mod frame;
mod relay;
mod requests;
mod stats;
mod stream;
mod tunnels;

use std::io;
use std::process::ExitCode;

use tokio::runtime::Builder;

use crate::arguments::{Arguments, invalid};

async fn run(command: &str, arguments: &Arguments) -> io::Result<()> {
    match command {
        "backend" => backend::run(arguments).await,
        "relay" => relay::run(arguments).await,
        "tunnels" => tunnels::run(arguments).await,
        "bulk" => bulk::run(arguments).await,
        "handshakes" => requests::handshakes(arguments).await,
        "get" => requests::get(arguments).await,
        _ => Err(invalid("unknown command")),
    }
}

fn main() -> ExitCode {
    let mut words = std::env::args().skip(1);
    let Some(command) = words.next() else {
        eprintln!("wsload: backend, relay, tunnels, bulk, handshakes or get; see bench/main.rs");
        return ExitCode::FAILURE;
    };
    let arguments = Arguments::new(words);
    // The relay is what others are compared with, so it has all cores.
    let mut builder = match command.as_str() {
        "relay" => Builder::new_multi_thread(),
        _ => Builder::new_current_thread(),
    };
    let result = builder
        .enable_all()
        .build()
        .and_then(|runtime| runtime.block_on(run(&command, &arguments)));
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("wsload {command}: {error}");
            ExitCode::FAILURE
        }
    }
}
