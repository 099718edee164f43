//! Ends tunnels on the calling thread, where the system allows no other.

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::mpsc;
use std::task::Poll;
use std::time::Duration;

use tokio::sync::mpsc::unbounded_channel;
use tokio::time::sleep;

use shared::Counters;

use crate::end::{By, Ending};
use crate::serve::{self, Adopted, ThreadCommand};
use crate::settings::Settings;
use crate::thread::{Shared, Thread};
use crate::tunnel::Tunnel;

/// How often `is_time` is asked.
const CHECK_INTERVAL: Duration = Duration::from_millis(100);

/// Carries tunnels on the calling thread until `is_time` says so, and then ends them there, as
/// [`Relay::end_all`](crate::Relay::end_all) does on its own. `counters` are those that count
/// them no longer, because a relay gave them back.
pub fn end_inline(
    settings: &Settings,
    counters: &'static Counters,
    tunnels: Vec<Tunnel>,
    mut is_time: impl FnMut() -> bool,
    how: Ending,
) {
    let Ok(runtime) = serve::runtime() else {
        // Without a descriptor for it: the peers see an end, if not why.
        for tunnel in tunnels {
            counters.count_adopted();
            counters.count_ended(&how.order.into());
            tunnel.end(By::Us, how.order.into());
        }
        return;
    };
    let shared = Arc::new(Shared::default());
    let (commands, mut received) = unbounded_channel();
    for tunnel in tunnels {
        counters.count_adopted();
        shared.load.fetch_add(1, Relaxed);
        let shared = Arc::clone(&shared);
        // Sending fails only without a receiver.
        let _ =
            commands.send(ThreadCommand::Adopt(Adopted { tunnel: Some(tunnel), shared, counters }));
    }
    let thread = Thread::new(Arc::clone(&shared), 0, counters, settings);
    runtime.block_on(async {
        let mut serving = pin!(serve::serve(&thread, &mut received));
        let mut all_ended = None;
        while shared.load.load(Relaxed) > 0 {
            if all_ended.is_none() && is_time() {
                let (done, is_done) = mpsc::channel();
                let deadline = how.deadline();
                let _ = commands.send(ThreadCommand::End { how, deadline, done });
                all_ended = Some(is_done);
            }
            let mut interval = pin!(sleep(CHECK_INTERVAL));
            poll_fn(|cx| {
                let is_served = serving.as_mut().poll(cx).is_ready();
                let is_done = all_ended.as_ref().is_some_and(|done| done.try_recv().is_ok());
                if is_served || is_done {
                    return Poll::Ready(());
                }
                interval.as_mut().poll(cx)
            })
            .await;
        }
    });
}
