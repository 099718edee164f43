//! Why a tunnel ends, and how its end begins.

use std::io;
use std::time::Duration;

use shared::Why;

use crate::end::By;
use crate::flow::Fault;

/// Who ended the tunnel, and why.
pub(crate) struct Cause {
    pub by: By,
    pub why: Why,
}

/// How an orderly end begins.
pub(crate) struct Farewell<'a> {
    /// Of the Close frames for client and back end; without one there is none.
    pub codes: [Option<u16>; 2],
    /// What they say besides.
    pub reason: &'a str,
    /// How long the peers are waited for; without it until the thread says otherwise.
    pub linger: Option<Duration>,
}

impl Cause {
    pub(crate) fn from_error(error: &io::Error, by: By) -> Self {
        Cause { by, why: Why::from_error(error) }
    }

    pub(crate) fn from_fault(fault: Fault, source: By, sink: By) -> Self {
        match fault {
            Fault::Source(error) => Cause::from_error(&error, source),
            Fault::Sink(error) => Cause::from_error(&error, sink),
        }
    }
}
