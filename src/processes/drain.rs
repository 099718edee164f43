//! The end of a child: it leaves its tunnels to a process that it forks for them, or to one that
//! collects them, and exits at once.

use std::io;
use std::os::fd::AsFd;
use std::time::Duration;

use os::forked::{Fork, end_unless_alive, fork_drain};
use relay::Tunnel;
use shared::Slot;

use crate::processes::collecting::arrived;
use crate::processes::collector::{self, Left};
use crate::processes::drain_process::{self, DrainSlot, HANG_SECONDS, Prepared, Terms, surplus};
use crate::processes::registry::{self, Drain};
use crate::processes::{access, lines, record};

/// How long the child waits until it can be found, at the most.
const FOUND_WAIT: Duration = Duration::from_secs(1);

/// Forks the process in which `tunnels` go on. In the old process, which must
/// not touch them again. Returns how many older drain processes must end for it.
///
/// # Errors
/// The tunnels, if there is no process for them.
pub(crate) fn hand_on(
    prepared: &'static Prepared,
    slot: &'static Slot,
    terms: Terms,
    tunnels: Vec<Tunnel>,
) -> Result<usize, (io::Error, Vec<Tunnel>)> {
    let Left { mut tunnels, claim, unsettled } = collector::leave(slot, tunnels);
    tunnels.extend(unsettled.into_iter().flat_map(|queue| arrived(queue, slot)));
    if tunnels.is_empty() && claim.is_none() {
        return Ok(0);
    }
    failpoint::step!("drain.claimed");
    let place = failpoint::check!("drain.place").ok().and_then(|()| registry::claim());
    let child = std::process::id();
    let is_shared = slot.is_shared();
    // One that nobody finds would outlive a restart.
    let forked = match place {
        None if registry::is_there() => Err(io::Error::other("there are as many as can be")),
        // SAFETY: the new process calls nothing of httpd, and takes no lock that its child had: it
        // has the tunnels, what was prepared for it, and its place in shared memory.
        _ => failpoint::check!("drain.fork").and_then(|()| unsafe { fork_drain() }),
    };
    match forked {
        Ok(Fork::Child(forked)) => forked.run(|forked| {
            end_unless_alive(HANG_SECONDS);
            failpoint::step!("drain.forked");
            let Prepared { server, nowhere, ended, found } = prepared;
            let own = [server.as_fd(), ended.as_fd(), found.as_fd()].into_iter();
            let sockets = tunnels.iter().flat_map(Tunnel::descriptors);
            let write = registry::lines().map(|[_, write]| write);
            let access = registry::access_lines().map(|[_, send]| send);
            let of_server = write.into_iter().chain(access).chain(registry::lock_file());
            let queue = claim.as_ref().map(|claim| claim.queue);
            let keep = own.chain(sockets).chain(of_server).chain(queue);
            // SAFETY: all that this process goes on with is kept. The rest is the child's, which
            // lives on in statics that are not used here.
            unsafe { forked.close_all_but(keep, nowhere.as_fd()) };
            failpoint::step!("drain.closed");
            // Before anything that might have something to say.
            lines::install_in_drain_process(&forked, terms.ends_are_logged);
            access::install_in_drain_process(&forked);
            record::signal_ends(&forked, ended);
            let drain_slot = DrainSlot::take((slot, is_shared), place, child);
            failpoint::step!("drain.slot");
            found.signal();
            failpoint::step!("drain.found");
            let left = drain_process::run(forked, prepared, &drain_slot, terms, tunnels, claim);
            access::finish();
            lines::finish();
            failpoint::step!("drain.end");
            drain_slot.leave(left);
        }),
        Ok(Fork::Parent(pid)) => {
            failpoint::step!("drain.parent");
            slot.become_drain(child, pid);
            if let Some(place) = place {
                place.pass(child, pid);
            }
            if let Some(claim) = claim {
                claim.pass_to(pid);
            }
            // This process may yet take its time to exit.
            tunnels.into_iter().for_each(Tunnel::leave_to_fork);
            // The server may stop as soon as this process is gone, and the next look is to count it.
            prepared.found.wait(FOUND_WAIT);
            Ok(make_room(terms.max_processes))
        }
        Err(error) => {
            if let Some(place) = place {
                registry::release(place, child);
            }
            tunnels.extend(claim.into_iter().flat_map(|claim| arrived(claim.give_up(), slot)));
            Err((error, tunnels))
        }
    }
}

/// Ends the oldest drain processes if there are too many, and says how many. Children that end
/// together may not see each other here: each process looks for itself too, when it begins.
fn make_room(max_processes: usize) -> usize {
    let surplus = surplus(max_processes);
    for (drain, notice) in &surplus {
        if !drain.tell(*notice) {
            drain.terminate();
        }
    }
    surplus.len()
}

/// Tells every drain process to end.
pub(crate) fn tell_all() {
    registry::drains().into_iter().for_each(Drain::terminate);
}
