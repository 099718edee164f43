//! Pings in a tunnel that is carried.

use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use shared::Why;

use super::Carried;
use crate::buffers::ThreadBuffers;
use crate::cause::Cause;
use crate::end::By;
use crate::ping::Due;
use crate::rules::GOING_AWAY;
use crate::thread::Thread;
use crate::tunnel::TunnelState;

impl Carried {
    /// Sends Pings to sides that have said nothing for the interval, and ends a tunnel of which one
    /// has not answered.
    pub(super) fn poll_pings(&mut self, cx: &mut Context<'_>, thread: &Thread) -> Poll<Cause> {
        if self.pings.is_none() {
            return Poll::Pending;
        }
        let now = thread.now();
        let send = |carried: &mut Self| carried.send_pings(cx, now, &mut thread.buffers());
        match self.count(thread, send).0 {
            Ok(None) => Poll::Pending,
            Ok(Some(by)) => {
                self.begin_end(by, Why::PingTimeout, [Some(GOING_AWAY); 2]);
                self.poll_ending(cx, thread)
            }
            Err(cause) => self.poll_failed(cx, thread, cause),
        }
    }

    /// The same. Returns the side that has not answered.
    fn send_pings(
        &mut self,
        cx: &mut Context<'_>,
        now: Instant,
        buffers: &mut ThreadBuffers,
    ) -> Result<Option<By>, Cause> {
        let Carried { client, backend, state, pings: Some(pings), .. } = self else {
            return Ok(None);
        };
        let mut gone = None;
        for at in 0..pings.sides.len() {
            let (from, to, sink, other) = match at {
                0 => (&state.up, &mut state.down, &mut *client, &*backend),
                _ => (&state.down, &mut state.up, &mut *backend, &*client),
            };
            let by = pings.sides[at].by;
            // Its answer may lie behind what is not read of it.
            if from.held_until().is_some() || from.is_blocked(other) {
                pings.held_back(at, now);
            }
            match pings.note(at, from.arrived(), now) {
                Due::Nothing => {}
                // A side that has ended is not asked.
                Due::Gone | Due::Ping if !from.is_open() => pings.pinged(at, false, now),
                Due::Ping => match to.ping(cx, sink, buffers) {
                    Ok(is_sent) => pings.pinged(at, is_sent, now),
                    Err(error) => return Err(Cause::from_error(&error, by)),
                },
                Due::Gone => gone = gone.or(Some(by)),
            }
        }
        Ok(gone)
    }

    /// Has Pings that are soon due go to sides that are about to get something of the other: both are one
    /// call and, without TLS, one packet, and the tunnel is looked at once less. Where all are silent that
    /// is the Pong of the other.
    pub(super) fn want_pings_along(&mut self, cx: &mut Context<'_>, now: Instant) {
        let Carried { client, backend, state, pings: Some(pings), .. } = self else {
            return;
        };
        for at in 0..pings.sides.len() {
            let (from, to, source) = match at {
                0 => (&state.up, &mut state.down, &*backend),
                _ => (&state.down, &mut state.up, &*client),
            };
            if pings.is_near(at, now) && from.is_open() && source.has_news(cx) {
                to.ping_along();
            }
        }
    }

    /// Takes note of the Pings that went so.
    pub(super) fn note_pings_along(&mut self, now: Instant) {
        let Some(pings) = &mut self.pings else {
            return;
        };
        for (at, to) in [&mut self.state.down, &mut self.state.up].into_iter().enumerate() {
            if to.take_pinged() {
                pings.pinged(at, true, now);
            }
        }
    }

    /// Whether a peer that is gone shows within this time by not answering a Ping: both sides can be
    /// sent one now, and are read. Whatever changes that comes in a poll.
    pub(crate) fn is_asked_within(&self, limit: Duration) -> bool {
        let Carried { client, backend, state: TunnelState { up, down, ending, .. }, .. } = self;
        self.pings.as_ref().is_some_and(|pings| pings.longest() <= limit)
            && ending.is_none()
            && up.can_ping(backend)
            && down.can_ping(client)
            && up.held_until().is_none()
    }
}
