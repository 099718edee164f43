//! Both ends of tunnels that live for long, for ci/soak: clients that talk, leave and come back, and
//! back ends that may be killed. They say what happens, line by line; who reads that knows what was
//! to happen.

mod backend;
mod clients;
mod frames;
mod link;
mod traffic;

use std::io;

/// `soak-clients key=value ...` and `soak-backend PORT [CERTIFICATE KEY]`.
pub(crate) fn run(role: &str, arguments: &[String]) -> io::Result<()> {
    match role {
        "soak-clients" => clients::run(arguments),
        "soak-backend" => backend::run(arguments),
        _ => Err(io::Error::other(format!("{role}: unknown"))),
    }
}
