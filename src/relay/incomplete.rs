//! Messages of TLS's own that come in part and are not completed.
//!
//! TLS keeps room for such a message until the rest of it has come, for its whole length: a few bytes
//! that announce a long one would hold much more memory than an idle tunnel has.

use std::future::Future;
use std::task::{Context, Poll};
use std::time::Duration;

use shared::Why;
use tokio::time::sleep;

use crate::carried::Carried;
use crate::cause::Cause;
use crate::end::By;
use crate::flow::Flow;
use crate::stream::Stream;
use crate::tunnel::TunnelState;

impl Carried {
    /// Ready with the cause when a side has left a message incomplete for so long. The time runs from
    /// when a poll first leaves one incomplete until another leaves none, and only while the side is read.
    pub(crate) fn poll_incomplete(&mut self, cx: &mut Context<'_>, limit: Duration) -> Poll<Cause> {
        let TunnelState { up, down, .. } = &self.state;
        let is_read =
            |flow: &Flow, sink: &Stream| !flow.is_blocked(sink) && flow.held_until().is_none();
        let within = [
            self.client.is_within_message() && is_read(up, &self.backend),
            self.backend.is_within_message() && is_read(down, &self.client),
        ];
        let incomplete = match &mut self.seldom {
            None if within == [false; 2] => return Poll::Pending,
            seldom => &mut seldom.get_or_insert_default().incomplete,
        };
        for ((by, due), is_within) in
            [By::Client, By::Backend].into_iter().zip(incomplete).zip(within)
        {
            if !is_within {
                *due = None;
                continue;
            }
            let sleep = due.get_or_insert_with(|| Box::pin(sleep(limit)));
            if sleep.as_mut().poll(cx).is_ready() {
                let why = "a message that came in part was not completed in time";
                return Poll::Ready(Cause { by, why: Why::Tls(why.into()) });
            }
        }
        Poll::Pending
    }
}
