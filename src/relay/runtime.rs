//! The relay: its threads, and how tunnels come to them and leave them.

use std::fmt;
use std::io;
use std::mem::MaybeUninit;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::Ordering::{Acquire, Relaxed};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use messages::ThreadDiedAtStart;
use tokio::sync::mpsc::{UnboundedSender, unbounded_channel};

use shared::Counters;

use crate::end::Ending;
use crate::seat::Seat;
use crate::serve::{self, Adopted, ThreadCommand};
use crate::settings::Settings;
use crate::thread::Shared;
use crate::tunnel::Tunnel;

/// A relay thread calls nothing that needs more.
const STACK_BYTES: usize = 512 * 1024;

/// What [`Relay::end_all`] waits beyond its time for closes to be made.
const CLOSE_GRACE: Duration = Duration::from_secs(1);

/// One relay thread as seen from outside.
struct Handle {
    shared: Arc<Shared>,
    commands: UnboundedSender<ThreadCommand>,
    join: Mutex<Option<JoinHandle<Vec<Tunnel>>>>,
}

impl Handle {
    fn is_alive(&self) -> bool {
        self.shared.alive.load(Relaxed)
    }

    fn load(&self) -> usize {
        self.shared.load.load(Acquire)
    }
}

/// Relay threads and the tunnels they carry.
///
/// Dropping it without [`stop`](Self::stop) closes the tunnels; the threads end by themselves.
pub struct Relay {
    threads: Vec<Handle>,
    counters: &'static Counters,
}

impl Relay {
    /// Starts the threads, with all signals blocked in them. `counters` may live in memory
    /// shared with other processes, but are this relay's alone.
    ///
    /// # Errors
    /// A thread or its runtime cannot be made (EAGAIN, EMFILE); none is left running then.
    pub fn start(settings: &Settings, counters: &'static Counters) -> io::Result<Self> {
        let mut relay = Relay { threads: Vec::new(), counters };
        for index in 0..settings.threads.max(1) {
            let handle = spawn(index, settings, counters)?;
            relay.threads.push(handle);
        }
        Ok(relay)
    }

    /// Gives a tunnel to the thread that has the fewest. From any thread.
    ///
    /// # Errors
    /// The tunnel, when no relay thread is alive.
    #[expect(clippy::result_large_err, reason = "the tunnel is given back, not lost")]
    pub fn adopt(&self, tunnel: Tunnel) -> Result<(), Tunnel> {
        self.adopt_counted(tunnel, &mut || {})
    }

    /// The same; calls `counted` as soon as the counters have the tunnel, and before the thread does,
    /// for whoever counts it until then.
    ///
    /// # Errors
    /// As [`adopt`](Self::adopt).
    #[expect(clippy::result_large_err, reason = "the tunnel is given back, not lost")]
    pub fn adopt_counted(&self, tunnel: Tunnel, counted: &mut dyn FnMut()) -> Result<(), Tunnel> {
        let mut tunnel = tunnel;
        loop {
            let fewest = self
                .threads
                .iter()
                .filter(|thread| thread.is_alive())
                .min_by_key(|thread| thread.load());
            let Some(thread) = fewest else {
                return Err(tunnel);
            };
            match self.give(thread, tunnel, counted) {
                Ok(()) => return Ok(()),
                Err(refused) => tunnel = refused,
            }
        }
    }

    #[expect(clippy::result_large_err, reason = "the tunnel is given back, not lost")]
    fn give(
        &self,
        thread: &Handle,
        tunnel: Tunnel,
        counted: &mut dyn FnMut(),
    ) -> Result<(), Tunnel> {
        self.counters.count_adopted();
        counted();
        thread.shared.load.fetch_add(1, Relaxed);
        failpoint::step!("relay.give");
        let adopted = Adopted {
            tunnel: Some(tunnel),
            shared: Arc::clone(&thread.shared),
            counters: self.counters,
        };
        let Err(refused) = thread.commands.send(ThreadCommand::Adopt(adopted)) else {
            return Ok(());
        };
        // Stopped or dead between the look and the call.
        thread.shared.alive.store(false, Relaxed);
        match refused.0 {
            ThreadCommand::Adopt(mut adopted) => match adopted.tunnel.take() {
                Some(tunnel) => {
                    thread.shared.load.fetch_sub(1, Relaxed);
                    self.counters.count_refused();
                    Err(tunnel)
                }
                None => Ok(()),
            },
            _ => Ok(()),
        }
    }

    /// Relay threads alive.
    pub fn alive(&self) -> usize {
        self.threads.iter().filter(|thread| thread.is_alive()).count()
    }

    /// Whether every thread that lives has answered since this was asked last: one that hangs
    /// does not. From one thread at a time.
    pub fn is_responsive(&self) -> bool {
        let mut all = true;
        for thread in self.threads.iter().filter(|thread| thread.is_alive()) {
            let Shared { asked, answered, .. } = &*thread.shared;
            if asked.load(Relaxed) != answered.load(Relaxed) {
                all = false;
            } else if thread.commands.send(ThreadCommand::Ask).is_ok() {
                asked.fetch_add(1, Relaxed);
            }
        }
        all
    }

    /// Tunnels that the relay has. One that ended is among them until its record was told.
    pub fn open(&self) -> usize {
        self.threads.iter().map(Handle::load).sum()
    }

    /// Stops and joins all threads. Every tunnel is given back as it is, so that this process,
    /// or one forked after this call, can go on with it in another relay. Of tunnels given back
    /// twice by a fork, only one may be used; the other may be dropped.
    pub fn stop(&self) -> Vec<Tunnel> {
        for thread in &self.threads {
            // A dead thread hears nothing and has nothing.
            let _ = thread.commands.send(ThreadCommand::Stop);
        }
        let mut tunnels = Vec::new();
        for thread in &self.threads {
            let join = thread.join.lock().unwrap_or_else(PoisonError::into_inner).take();
            if let Some(Ok(given)) = join.map(JoinHandle::join) {
                tunnels.extend(given);
            }
        }
        tunnels
    }

    /// Ends all tunnels, those adopted meanwhile too, and waits until they are gone. Each side
    /// gets what is kept for it, then a Close frame if it is between two frames there, then
    /// close_notify and FIN. Tunnels whose peers have not ended in time are closed. Returns how
    /// many are left: 0 unless a thread hangs.
    pub fn end_all(&self, how: Ending) -> usize {
        let deadline = how.deadline();
        let (told, all_done) = self.tell_end(how, deadline);
        let patience = deadline + CLOSE_GRACE;
        for _ in 0..told {
            let rest = patience.saturating_duration_since(Instant::now());
            match all_done.recv_timeout(rest) {
                Ok(()) => {}
                // Stopped or died meanwhile; the others are still to be heard.
                Err(RecvTimeoutError::Disconnected) => break,
                Err(RecvTimeoutError::Timeout) => break,
            }
        }
        self.open()
    }

    /// Has the tunnels look at what their [`Activity`](crate::Activity) orders, by the seats that are
    /// written there. A seat is to be read after the order was: a tunnel that has none yet, 0, sees
    /// the order when it takes one. From any thread.
    pub fn look_at_orders(&self, seats: impl Iterator<Item = u32>) {
        let mut tasks = vec![Vec::new(); self.threads.len()];
        for seat in seats.filter_map(Seat::from_word) {
            if let Some(tasks) = tasks.get_mut(seat.thread) {
                tasks.push(seat.task);
            }
        }
        for (thread, tasks) in self.threads.iter().zip(tasks) {
            if !tasks.is_empty() {
                // A dead thread has no tunnels.
                let _ = thread.commands.send(ThreadCommand::Look(tasks));
            }
        }
    }

    /// Begins the same, and does not wait. It takes the place of one that goes on. Tunnels that are
    /// adopted once all are gone are not ended.
    pub fn begin_end(&self, how: Ending) {
        self.tell_end(how, how.deadline());
    }

    /// Tells all threads to end their tunnels. Returns how many were told, and where each of them
    /// says that it is done.
    fn tell_end(&self, how: Ending, deadline: Instant) -> (usize, Receiver<()>) {
        let (done, all_done) = mpsc::channel();
        let mut told = 0;
        for thread in &self.threads {
            let command = ThreadCommand::End { how, deadline, done: done.clone() };
            told += usize::from(thread.commands.send(command).is_ok());
        }
        (told, all_done)
    }

    #[cfg(test)]
    pub(crate) fn kill_thread(&self, index: usize) {
        let _ = self.threads[index].commands.send(ThreadCommand::Die);
    }
}

impl fmt::Debug for Relay {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Relay")
            .field("alive", &self.alive())
            .field("open", &self.open())
            .finish_non_exhaustive()
    }
}

fn spawn(index: usize, settings: &Settings, counters: &'static Counters) -> io::Result<Handle> {
    let shared = Arc::new(Shared::default());
    let (commands, received) = unbounded_channel();
    let (ready, is_ready): (SyncSender<io::Result<()>>, Receiver<_>) = sync_channel(1);
    let settings = settings.clone();
    let thread_shared = Arc::clone(&shared);
    let life = move || {
        let runtime = match serve::runtime() {
            Ok(runtime) => runtime,
            Err(error) => {
                let _ = ready.send(Err(error));
                return Vec::new();
            }
        };
        thread_shared.alive.store(true, Relaxed);
        counters.threads.fetch_add(1, Relaxed);
        let _ = ready.send(Ok(()));
        serve::run(runtime, (thread_shared, index), counters, &settings, received)
    };
    let join = spawn_without_signals(&format!("relay-{index}"), life)?;
    match is_ready.recv() {
        Ok(Ok(())) => Ok(Handle { shared, commands, join: Mutex::new(Some(join)) }),
        Ok(Err(error)) => Err(error),
        Err(_) => Err(io::Error::other(ThreadDiedAtStart.to_string())),
    }
}

/// Starts a thread that takes no signal: those of the process are for the threads it had before.
///
/// # Errors
/// It cannot be started.
fn spawn_without_signals<T: Send + 'static>(
    name: &str,
    life: impl FnOnce() -> T + Send + 'static,
) -> io::Result<JoinHandle<T>> {
    let _blocked = BlockedSignals::new();
    std::thread::Builder::new().name(name.to_owned()).stack_size(STACK_BYTES).spawn(life)
}

/// The same for what is to go on as long as the process: if `life` panics, it begins again.
///
/// # Errors
/// It cannot be started.
pub fn spawn_lasting(
    name: &str,
    mut life: impl FnMut() + Send + 'static,
) -> io::Result<JoinHandle<()>> {
    /// If it panics again and again, nothing else suffers.
    const PAUSE: Duration = Duration::from_millis(100);
    spawn_without_signals(name, move || {
        while catch_unwind(AssertUnwindSafe(&mut life)).is_err() {
            std::thread::sleep(PAUSE);
        }
    })
}

/// All signals blocked in this thread, and so in the threads it makes, until dropped.
struct BlockedSignals {
    before: libc::sigset_t,
}

impl BlockedSignals {
    fn new() -> Self {
        let mut all = MaybeUninit::<libc::sigset_t>::uninit();
        let mut before = MaybeUninit::<libc::sigset_t>::uninit();
        // SAFETY: sigfillset initialises `all`, sigemptyset `before` (in case the call after it
        // fails, which with these arguments it cannot); pthread_sigmask reads the one, writes
        // the other.
        let before = unsafe {
            libc::sigfillset(all.as_mut_ptr());
            libc::sigemptyset(before.as_mut_ptr());
            libc::pthread_sigmask(libc::SIG_SETMASK, all.as_ptr(), before.as_mut_ptr());
            before.assume_init()
        };
        BlockedSignals { before }
    }
}

impl Drop for BlockedSignals {
    fn drop(&mut self) {
        // SAFETY: `before` was initialised by `new` and is only read.
        unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, &self.before, std::ptr::null_mut()) };
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::os::unix::net::UnixStream;
    use std::sync::OnceLock;
    use std::sync::atomic::Ordering::Relaxed;
    use std::sync::mpsc::{Sender, channel};
    use std::time::{Duration, Instant};

    use super::Relay;
    use crate::{By, Counters, End, Record, Rules, Settings, Side, Tracker, Tunnel, Why};

    struct Told(Sender<End>);

    impl Record for Told {
        fn ended(&mut self, end: &End) {
            let _ = self.0.send(end.clone());
        }
    }

    /// Sends how many tunnels its relay has when it is told of the end, and afterwards.
    struct Open(&'static OnceLock<Relay>, Sender<usize>);

    impl Open {
        fn send(&self) {
            let _ = self.1.send(self.0.get().expect("the relay").open());
        }
    }

    impl Record for Open {
        fn ended(&mut self, _: &End) {
            self.send();
        }

        fn settled(&mut self) {
            self.send();
        }
    }

    #[test]
    fn a_tunnel_is_open_until_its_record_was_told() {
        let relay: &'static OnceLock<Relay> = Box::leak(Box::default());
        let counters: &'static Counters = Box::leak(Box::default());
        let started = Relay::start(&Settings::default(), counters).expect("relay");
        let relay_ref = relay.get_or_init(|| started);
        let (sender, open) = channel();
        let adopt = || {
            let (client, a) = UnixStream::pair().expect("pair");
            let (backend, b) = UnixStream::pair().expect("pair");
            let record = Box::new(Open(relay, sender.clone()));
            let sides = [a, b].map(|side| Side::plain(side.into()));
            let [a, b] = sides;
            let tunnel =
                Tunnel::new(a, b, [Tracker::opaque(), Tracker::opaque()], Rules::default(), record);
            relay_ref.adopt(tunnel).map(|()| (client, backend)).map_err(drop)
        };
        let told = || open.recv_timeout(Duration::from_secs(30)).expect("told");
        // The peers hang up.
        drop(adopt().expect("adopted"));
        assert_eq!([told(), told()], [1, 0]);
        // The thread dies, and with it a tunnel that it carries and one that is on its way to it.
        let carried = adopt().expect("adopted");
        relay_ref.kill_thread(0);
        let under_way = adopt();
        let count = if under_way.is_ok() { 2 } else { 1 };
        let seen: Vec<usize> = (0..2 * count).map(|_| told()).collect();
        assert_eq!(seen.last(), Some(&0));
        assert!(seen.chunks(2).all(|pair| pair[0] == pair[1] + 1), "{seen:?}");
        drop((carried, under_way));
        relay_ref.stop();
    }

    #[test]
    fn a_thread_that_is_to_last_goes_on_after_a_panic() {
        let (sender, lives) = channel();
        let mut life = 0;
        let thread = super::spawn_lasting("lasts", move || {
            life += 1;
            let _ = sender.send(life);
            assert!(life > 2, "the test's panic");
        });
        thread.expect("a thread").join().expect("its end");
        assert_eq!(lives.iter().collect::<Vec<_>>(), [1, 2, 3]);
    }

    #[test]
    fn a_dead_thread_is_noticed() {
        let counters: &'static Counters = Box::leak(Box::default());
        let settings = Settings { threads: 2, ..Settings::default() };
        let relay = Relay::start(&settings, counters).expect("relay");
        let (sender, ends) = channel();
        let mut peers = Vec::new();
        let mut adopt = || {
            let (client, a) = UnixStream::pair().expect("pair");
            let (backend, b) = UnixStream::pair().expect("pair");
            peers.push((client, backend));
            relay
                .adopt(Tunnel::new(
                    Side::plain(a.into()),
                    Side::plain(b.into()),
                    [Tracker::opaque(), Tracker::opaque()],
                    Rules::default(),
                    Box::new(Told(sender.clone())),
                ))
                .map_err(drop)
        };
        for _ in 0..40 {
            adopt().expect("adopted");
        }
        let told = || ends.recv_timeout(Duration::from_secs(30)).expect("told");
        relay.kill_thread(0);
        for _ in 0..20 {
            let end = told();
            assert_eq!((end.by, end.why), (By::Us, Why::ThreadDied));
        }
        // The other one goes on, and takes what comes.
        adopt().expect("adopted");
        // A record is told a moment before its tunnel is settled.
        let until = Instant::now() + Duration::from_secs(30);
        while relay.open() > 21 && Instant::now() < until {
            std::thread::yield_now();
        }
        assert_eq!((relay.alive(), relay.open()), (1, 21));
        relay.kill_thread(1);
        for _ in 0..21 {
            assert_eq!(told().why, Why::ThreadDied);
        }
        while adopt().is_ok() {
            // Adopted by a thread that was about to die: its record is told too.
            assert_eq!(told().why, Why::ThreadDied);
        }
        assert!(relay.stop().is_empty());
        assert_eq!((relay.alive(), relay.open()), (0, 0));
        assert_eq!(counters.open.load(Relaxed), 0);
        assert_eq!(counters.threads.load(Relaxed), 0);
        let died = counters.ended_by.of(&Why::ThreadDied).load(Relaxed);
        assert_eq!(died, counters.adopted.load(Relaxed));
        for (mut client, mut backend) in peers {
            assert_eq!(client.read(&mut [0]).expect("an end"), 0);
            assert_eq!(backend.read(&mut [0]).expect("an end"), 0);
        }
    }
}
