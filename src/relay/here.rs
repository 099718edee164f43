//! The end of tunnels where no thread can be had for them.

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::mpsc;
use std::task::Poll;
use std::time::{Duration, Instant};

use tokio::sync::mpsc::unbounded_channel;

use crate::counters::Counters;
use crate::end::{By, Order};
use crate::runtime::Settings;
use crate::thread::{self, Adopted, Message, Shared, Thread};
use crate::tunnel::Tunnel;

/// Ends tunnels on the calling thread, as [`Relay::end_all`](crate::Relay::end_all) does on its
/// own. `counters` are those that count them no longer, because a relay gave them back.
pub fn end_here(
    settings: &Settings,
    counters: &'static Counters,
    tunnels: Vec<Tunnel>,
    order: Order,
    close_code: Option<u16>,
    within: Duration,
) {
    let Ok(runtime) = thread::runtime() else {
        // Without a descriptor for it: the peers see an end, if not why.
        for tunnel in tunnels {
            counters.count_adopted();
            counters.count_ended(&order.into());
            tunnel.end(By::Us, order.into());
        }
        return;
    };
    let shared = Arc::new(Shared::default());
    let (messages, mut received) = unbounded_channel();
    for tunnel in tunnels {
        counters.count_adopted();
        shared.load.fetch_add(1, Relaxed);
        let shared = Arc::clone(&shared);
        // Sending fails only without a receiver.
        let _ = messages.send(Message::Adopt(Box::new(Adopted {
            tunnel: Some(tunnel),
            shared,
            counters,
        })));
    }
    let (done, is_done) = mpsc::channel();
    let deadline = Instant::now() + within;
    let _ = messages.send(Message::End { order, code: close_code, deadline, done });
    let thread = Thread::new(shared, counters, settings);
    runtime.block_on(async {
        let mut serving = pin!(thread.serve(&mut received));
        poll_fn(|cx| {
            if serving.as_mut().poll(cx).is_ready() || is_done.try_recv().is_ok() {
                return Poll::Ready(());
            }
            Poll::Pending
        })
        .await;
    });
}
