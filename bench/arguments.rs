//! What every command of the load tool shares: its arguments, and the few values on which the
//! back end and the clients must agree.

use std::io::{self, ErrorKind};
use std::net::{IpAddr, Ipv4Addr};

use tokio::io::AsyncReadExt;

/// The body of a plain answer.
pub(crate) const PLAIN_ANSWER: &[u8] = b"plain\n";

/// What follows the command's name: plain words, and settings like `seconds=2`.
pub(crate) struct Arguments {
    words: Vec<String>,
    settings: Vec<(String, String)>,
}

impl Arguments {
    /// Those of the command line, behind the command.
    pub(crate) fn new(all: impl Iterator<Item = String>) -> Self {
        let mut arguments = Arguments { words: Vec::new(), settings: Vec::new() };
        for argument in all {
            match argument.split_once('=') {
                Some((name, value)) => arguments.settings.push((name.into(), value.into())),
                None => arguments.words.push(argument),
            }
        }
        arguments
    }

    /// The word at `index`.
    pub(crate) fn word(&self, index: usize) -> io::Result<&str> {
        self.words.get(index).map(String::as_str).ok_or_else(|| invalid("too few arguments"))
    }

    /// The words from `index` on.
    pub(crate) fn rest(&self, index: usize) -> &[String] {
        self.words.get(index..).unwrap_or_default()
    }

    /// The setting of that name, or the default.
    pub(crate) fn setting<T: std::str::FromStr>(&self, name: &str, default: T) -> io::Result<T> {
        match self.settings.iter().find(|(known, _)| known == name) {
            Some((_, value)) => parse(value),
            None => Ok(default),
        }
    }

    /// Where clients come from: the first of sixteen addresses.
    pub(crate) fn source(&self) -> io::Result<Ipv4Addr> {
        self.setting("source", Ipv4Addr::new(127, 0, 0, 2))
    }
}

/// A number or address from text.
pub(crate) fn parse<T: std::str::FromStr>(text: &str) -> io::Result<T> {
    text.parse().map_err(|_| invalid(&format!("cannot be read: {text}")))
}

/// An error of what was asked or received.
pub(crate) fn invalid(text: &str) -> io::Error {
    io::Error::new(ErrorKind::InvalidData, text)
}

/// The address `index` places after the first source, of sixteen.
pub(crate) fn source_address(first: Ipv4Addr, index: usize) -> IpAddr {
    IpAddr::V4(Ipv4Addr::from_bits(u32::from(first) + (index % 16) as u32))
}

/// Waits until standard input ends.
pub(crate) async fn until_input_ends() -> io::Result<()> {
    let mut input = tokio::io::stdin();
    let mut bytes = [0; 256];
    while input.read(&mut bytes).await? > 0 {}
    Ok(())
}
