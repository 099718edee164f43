//! Memory that processes share, while one of them writes into it what it likes: the others go on,
//! and come to an end. As long as none does, what is counted is what was done.

use std::collections::BTreeMap;
use std::ptr::{NonNull, null_mut};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};

use shared::{
    About, Direction, Mapping, Memory, Message, Metric, Place, Processes, Register, Registry, Sent,
    Shareable, Shared, Slot, TallyEntry, Timed, TunnelEntry,
};

use crate::input;

/// So many tunnels may be listed, which is more than there are steps.
const LISTED: usize = 300;
const MOST_STEPS: usize = 150;
/// So often a script looks at all tunnels, once a process has written what it likes.
const MOST_LOOKS: usize = 3;
/// The processes of a script.
const FIRST_PID: u32 = 100;
const PIDS: u32 = 6;
/// Clients, back ends and virtual hosts.
const NAMES: [&[u8]; 4] = [b"a.example", b"b.example", b"", &[0xff; 300]];
/// What is kept of one (src/shared/names.rs).
const NAME_BYTES: usize = 240;
/// How long a text for a form is good, in seconds.
const NONCE_SECONDS: u32 = 3600;

/// Steps: a byte that says what is done, one that says to what, and what it takes besides.
pub fn run(data: &[u8]) {
    if let Some(message) = Message::decode(data) {
        assert_eq!(message.encode().as_deref(), Some(data), "it is written as it was read");
    }
    // Before the first script, whose memory it would clear.
    words_in_use();
    let areas = areas();
    areas.iter().for_each(Area::clear);
    Script::begin(areas).play(data);
}

/// Processes of a script.
#[derive(Default)]
struct World {
    own: AtomicU32,
    /// A bit for each.
    dead: AtomicU32,
    seconds: AtomicU32,
}

impl Processes for World {
    fn own(&self) -> u32 {
        self.own.load(Relaxed)
    }

    fn exists(&self, pid: u32) -> bool {
        let nth = pid.wrapping_sub(FIRST_PID);
        nth < PIDS && self.dead.load(Relaxed) >> nth & 1 == 0
    }

    fn runs(&self, pid: u32) -> bool {
        self.exists(pid)
    }

    fn seconds(&self) -> u32 {
        self.seconds.load(Relaxed)
    }

    fn wake(&self, _: &AtomicU32) {}
}

/// Memory that is mapped for ever.
struct Area {
    start: NonNull<u8>,
    length: usize,
    layout: u64,
}

// SAFETY: says where memory is that all threads may use, by atomics alone.
unsafe impl Send for Area {}
// SAFETY: as above.
unsafe impl Sync for Area {}

impl Area {
    fn new<T: Shareable>() -> Self {
        let (length, access) = (size_of::<T>(), libc::PROT_READ | libc::PROT_WRITE);
        let kind = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
        // SAFETY: new memory, of nobody's.
        let start = unsafe { libc::mmap(null_mut(), length, access, kind, -1, 0) };
        assert_ne!(start, libc::MAP_FAILED);
        Self { start: NonNull::new(start.cast()).expect("memory"), length, layout: T::LAYOUT }
    }

    fn get<T: Shareable + 'static>(&self) -> &'static T {
        // SAFETY: zero in the beginning, never unmapped, and accessed by atomics alone.
        let mapping = unsafe { Mapping::new(self.start, self.length, self.layout) };
        mapping.get().expect("it is one of these")
    }

    fn words(&self) -> &[AtomicU64] {
        // SAFETY: so much memory, aligned, mapped for ever; any bytes are valid.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr().cast(), self.length / 8) }
    }

    /// All zero again.
    fn clear(&self) {
        // SAFETY: it is ours, and nobody has a reference to what is no atomic.
        let done =
            unsafe { libc::madvise(self.start.as_ptr().cast(), self.length, libc::MADV_DONTNEED) };
        assert_eq!(done, 0);
    }
}

fn areas() -> &'static [Area; 3] {
    static AREAS: OnceLock<[Area; 3]> = OnceLock::new();
    AREAS.get_or_init(|| [Area::new::<Memory>(), Area::new::<Register>(), Area::new::<Registry>()])
}

/// Where something stands when a bit of everything was done: that is where it is worth to write.
fn words_in_use() -> &'static [&'static AtomicU64] {
    static WORDS: OnceLock<Vec<&AtomicU64>> = OnceLock::new();
    WORDS.get_or_init(|| {
        let areas = areas();
        areas.iter().for_each(Area::clear);
        let mut script = Script::begin(areas);
        for step in (0..STEPS).cycle().take(4 * usize::from(STEPS)) {
            if step != WRITE && step != DIE {
                script.step(step, step.wrapping_mul(5), &mut &b"text"[..]);
            }
        }
        let words = areas.iter().flat_map(Area::words);
        words.filter(|word| word.load(Relaxed) != 0).collect()
    })
}

/// A tunnel that is counted and listed.
#[derive(Clone, Copy)]
struct Tunnel {
    pid: u32,
    client: usize,
    backend: usize,
    vhost: usize,
    entries: [Option<TallyEntry>; 2],
    listed: Option<TunnelEntry>,
    is_relayed: bool,
    is_ordered: bool,
    bytes: [u64; 2],
}

struct Script {
    world: &'static World,
    shared: Shared<'static>,
    registry: &'static Registry,
    slots: BTreeMap<u32, &'static Slot>,
    places: Vec<(Place<'static>, u32)>,
    tunnels: Vec<Tunnel>,
    /// Bytes of tunnels that have ended, by virtual host and direction.
    bytes: BTreeMap<(usize, usize), u64>,
    handed_over: u64,
    shown: u64,
    nonces: Vec<(String, u32)>,
    /// Somebody has written into the memory: nothing is known of it any more.
    is_hostile: bool,
    /// All tunnels were looked at so often: what a hostile process makes of it takes long.
    looks: usize,
}

/// What a script knows of the steps.
const WRITE: u8 = 0;
const DIE: u8 = 1;
const STEPS: u8 = 20;

impl Script {
    fn begin([memory, register, registry]: &'static [Area; 3]) -> Self {
        static WORLD: World =
            World { own: AtomicU32::new(0), dead: AtomicU32::new(0), seconds: AtomicU32::new(0) };
        for (word, value) in [(&WORLD.own, FIRST_PID), (&WORLD.dead, 0), (&WORLD.seconds, 1)] {
            word.store(value, Relaxed);
        }
        let memory = memory.get::<Memory>();
        let register = register.get::<Register>();
        let generation = memory.begin(|| Ok::<_, ()>([1, 2])).expect("numbers");
        register.begin(LISTED, || Ok::<_, ()>([3, 4])).expect("numbers");
        Self {
            world: &WORLD,
            shared: Shared::new(memory, Some(register), &WORLD, generation),
            registry: registry.get::<Registry>(),
            slots: BTreeMap::new(),
            places: Vec::new(),
            tunnels: Vec::new(),
            bytes: BTreeMap::new(),
            handed_over: 0,
            shown: 0,
            nonces: Vec::new(),
            is_hostile: false,
            looks: 0,
        }
    }

    fn play(mut self, mut data: &[u8]) {
        for _ in 0..MOST_STEPS {
            if data.is_empty() {
                break;
            }
            let [what, to] = [0; 2].map(|_| input::byte(&mut data));
            self.step(what % STEPS, to, &mut data);
        }
        self.look();
        let _ = self.shared.series().count();
        if !self.is_hostile {
            self.compare();
        }
    }

    fn own(&self) -> u32 {
        self.world.own()
    }

    fn step(&mut self, what: u8, to: u8, data: &mut &[u8]) {
        let nth = usize::from(to);
        let pid = FIRST_PID + u32::from(to) % PIDS;
        match what {
            WRITE => self.write(nth, data),
            DIE => self.die(pid),
            2 => self.become_process(pid),
            3 => self.claim(),
            4 => self.release(),
            5..8 => self.open(nth, data),
            8 => self.relay(nth),
            9 => self.pass(nth, data),
            10 => self.end(nth),
            11 if self.may_look() => self.order(nth, data),
            12 => self.carry(nth),
            13 => {
                let may_send = to & 1 == 0;
                let sent = if to & 2 == 0 { Sent::Some } else { Sent::Nothing };
                if let Some(mut claim) = self.shared.leave(may_send, |_| sent) {
                    claim.take_over();
                    assert!(claim.is_held());
                    if to & 4 == 0 { claim.give_up() } else { claim.pass_to(pid) }
                }
            }
            14 => self.take_place(to),
            15 => self.nonce(nth),
            16 => {
                self.world.seconds.fetch_add(u32::from(to) << 4, Relaxed);
            }
            17 => {
                let metric = Metric::Micros { of: Timed::Handshake };
                let shown = self.shared.never_less(metric, u64::from(to));
                self.shown = self.shown.max(u64::from(to));
                assert!(self.is_hostile && shown >= u64::from(to) || shown == self.shown);
                self.shared.count_duration(Timed::Handshake, 1 << (to % 64));
            }
            18 => self.drain(pid),
            _ if self.may_look() => self.look(),
            _ => {}
        }
    }

    fn may_look(&mut self) -> bool {
        self.looks += usize::from(self.is_hostile);
        self.looks <= MOST_LOOKS
    }

    /// Another process writes into the memory.
    fn write(&mut self, nth: usize, data: &mut &[u8]) {
        let words = words_in_use();
        let high = usize::from(input::byte(data));
        let Some(word) = words.get((high << 8 | nth) % words.len()) else { return };
        let how = input::byte(data);
        let value = match how & 7 {
            0 => u64::MAX,
            1 => 0,
            2 => word.load(Relaxed) ^ 1 << (how >> 3),
            3 => word.load(Relaxed) ^ 1 << (32 + (how >> 3)),
            4 => words[usize::from(how >> 3) % words.len()].load(Relaxed),
            5 => u64::from(how >> 3),
            _ => {
                let mut bytes = [0; 8];
                bytes.iter_mut().for_each(|byte| *byte = input::byte(data));
                u64::from_le_bytes(bytes)
            }
        };
        word.store(value, Relaxed);
        self.is_hostile = true;
    }

    /// A process ends between two steps; another one finds it.
    fn die(&mut self, pid: u32) {
        if pid == self.own() {
            return;
        }
        self.world.dead.fetch_or(1 << (pid - FIRST_PID), Relaxed);
        self.slots.remove(&pid);
        let (gone, left) = self.tunnels.drain(..).partition(|tunnel| tunnel.pid == pid);
        self.tunnels = left;
        let gone: Vec<Tunnel> = gone;
        gone.iter().for_each(|tunnel| self.count_ended(tunnel));
        self.places.retain(|(_, of)| *of != pid);
    }

    /// Ids come again, once those that have died were found.
    fn become_process(&mut self, pid: u32) {
        self.shared.processes().for_each(drop);
        self.world.dead.fetch_and(!(1 << (pid - FIRST_PID)), Relaxed);
        self.world.own.store(pid, Relaxed);
    }

    fn claim(&mut self) {
        let own = self.own();
        if self.slots.contains_key(&own) {
            return;
        }
        let slot = self.shared.claim();
        assert!(self.is_hostile || slot.is_some());
        if let Some(slot) = slot {
            assert!(self.is_hostile || slot.pid() == own && slot.is_shared());
            self.slots.insert(own, slot);
        }
    }

    fn release(&mut self) {
        let own = self.own();
        if let Some(slot) = self.slots.remove(&own) {
            self.shared.release(slot);
            let (gone, left) = self.tunnels.drain(..).partition(|tunnel| tunnel.pid == own);
            self.tunnels = left;
            let gone: Vec<Tunnel> = gone;
            gone.iter().for_each(|tunnel| self.count_ended(tunnel));
        }
    }

    fn count_ended(&mut self, tunnel: &Tunnel) {
        for (way, bytes) in tunnel.bytes.into_iter().enumerate().filter(|(_, bytes)| *bytes > 0) {
            *self.bytes.entry((tunnel.vhost, way)).or_default() += bytes;
        }
    }

    fn open(&mut self, nth: usize, data: &mut &[u8]) {
        let own = self.own();
        let Some(slot) = self.slots.get(&own).copied() else { return };
        let [client, backend, vhost] = [nth, nth >> 2, nth >> 4].map(|nth| nth % NAMES.len());
        let shared = self.shared;
        let entries = [
            shared.count_client(shared.client_key(NAMES[client]), slot, usize::MAX),
            shared.count_backend(shared.backend_key(NAMES[backend]), slot, usize::MAX),
        ]
        .map(|counted| counted.expect("no limit"));
        let length = usize::from(input::byte(data));
        let text = input::bytes(data, length);
        let port = self.tunnels.len() as u16;
        let about = About {
            client: match nth & 1 {
                0 => [192, 0, 2, nth as u8].into(),
                _ => [nth as u16; 8].into(),
            },
            port,
            vhost: shared.vhost_name(NAMES[vhost]),
            backend: shared.backend_name(NAMES[backend]),
            is_client_tls: nth & 2 != 0,
            is_backend_tls: nth & 4 != 0,
            started_micros: nth as u64,
            id: text,
            user: text,
            subprotocol: NAMES[client],
            path: text,
        };
        let listed = shared.register_tunnel(&about, slot);
        assert!(self.is_hostile || entries.iter().all(Option::is_some) && listed.is_some());
        slot.counts.handed_over.fetch_add(1, Relaxed);
        self.handed_over += 1;
        if !self.is_hostile {
            let found =
                shared.tunnels().find(|one| Some(one.entry) == listed).expect("it is there");
            assert_eq!((found.client, found.port, found.pid), (about.client, port, own));
            assert_eq!((found.vhost, found.backend), (about.vhost, about.backend));
            assert!(text.starts_with(found.id()) && text.starts_with(found.path()));
            assert_eq!(shared.text_of_vhost(found.vhost), kept(NAMES[vhost]));
            assert_eq!(shared.text_of_backend(found.backend), kept(NAMES[backend]));
        }
        self.tunnels.push(Tunnel {
            pid: own,
            client,
            backend,
            vhost,
            entries,
            listed,
            is_relayed: false,
            is_ordered: false,
            bytes: [0; 2],
        });
    }

    /// The index of one of the tunnels.
    fn one(&self, nth: usize) -> Option<usize> {
        nth.checked_rem(self.tunnels.len())
    }

    fn relay(&mut self, nth: usize) {
        if let Some(at) = self.one(nth)
            && let Some(listed) = self.tunnels[at].listed
        {
            self.shared.mark_relayed(listed);
            self.tunnels[at].is_relayed = true;
        }
    }

    /// A tunnel goes to another process, as a message.
    fn pass(&mut self, nth: usize, data: &mut &[u8]) {
        let (Some(at), own) = (self.one(nth), self.own()) else { return };
        let Some(slot) = self.slots.get(&own).copied() else { return };
        let (shared, tunnel) = (self.shared, self.tunnels[at]);
        let length = usize::from(input::byte(data)) % 16;
        let bytes = input::bytes(data, length);
        let message = Message {
            frozen: bytes,
            client_entry: tunnel.entries[0],
            backend_entry: tunnel.entries[1],
            tunnel_entry: tunnel.listed,
            vhost: shared.vhost_name(NAMES[tunnel.vhost]),
            backend: shared.backend_name(NAMES[tunnel.backend]),
            label: str::from_utf8(bytes).unwrap_or_default(),
            access_lines: bytes,
        };
        let encoded = message.encode().expect("it is short");
        let message =
            Message::decode(&encoded).filter(|found| *found == message).expect("the same");
        let entries = [
            message.client_entry.and_then(|entry| shared.move_client(entry, slot)),
            message.backend_entry.and_then(|entry| shared.move_backend(entry, slot)),
        ];
        let listed = message.tunnel_entry.and_then(|entry| shared.move_tunnel(entry, slot));
        assert!(self.is_hostile || entries.iter().all(Option::is_some) && listed.is_some());
        self.tunnels[at] = Tunnel { pid: own, entries, listed, ..tunnel };
    }

    fn end(&mut self, nth: usize) {
        let Some(at) = self.one(nth) else { return };
        let tunnel = self.tunnels.swap_remove(at);
        let [client, backend] = tunnel.entries;
        client.into_iter().for_each(|entry| self.shared.forget_client(entry));
        backend.into_iter().for_each(|entry| self.shared.forget_backend(entry));
        tunnel.listed.into_iter().for_each(|entry| self.shared.forget_tunnel(entry));
        self.count_ended(&tunnel);
    }

    fn order(&mut self, nth: usize, data: &mut &[u8]) {
        let Some(at) = self.one(nth) else { return };
        let shared = self.shared;
        let length = usize::from(input::byte(data));
        let text = input::bytes(data, length);
        let number = shared.new_order(text, text);
        let told = shared.order_text(number);
        assert!(self.is_hostile || told.is_some());
        if let Some((reason, who)) = told {
            assert!(self.is_hostile || text.starts_with(&reason) && text.starts_with(&who));
            assert!(reason.len() <= 123 && who.len() <= 64);
        }
        let listed = self.tunnels[at].listed;
        let found = shared.tunnels().find(|tunnel| Some(tunnel.entry) == listed);
        if let Some(found) = found {
            let is_first = shared.order_close(&found, 1001, number);
            assert!(self.is_hostile || is_first != self.tunnels[at].is_ordered);
            self.tunnels[at].is_ordered = true;
        }
    }

    fn carry(&mut self, nth: usize) {
        let Some(at) = self.one(nth) else { return };
        let Some(listed) = self.tunnels[at].listed else { return };
        let activity = self.shared.activity(listed);
        assert!(self.is_hostile || activity.is_some());
        if let Some(activity) = activity {
            let bytes = [1, nth as u64];
            for (count, by) in activity.bytes.iter().zip(bytes) {
                count.fetch_add(by, Relaxed);
            }
            let [up, down] = self.tunnels[at].bytes;
            self.tunnels[at].bytes = [up + bytes[0], down + bytes[1]];
            let is_ordered = activity.order(listed).is_some();
            assert!(self.is_hostile || is_ordered == self.tunnels[at].is_ordered);
        }
    }

    fn take_place(&mut self, to: u8) {
        let own = self.own();
        if to & 1 == 0 {
            let place = self.registry.claim(self.world, u64::from(to));
            assert!(self.is_hostile || place.is_some());
            if let Some(place) = place {
                assert!(place.number() < Registry::PLACES);
                self.places.push((place, own));
            }
        } else if let Some((place, of)) = self.places.pop() {
            place.pass(of, own);
            place.release(own);
        }
    }

    fn nonce(&mut self, nth: usize) {
        let now = self.world.seconds();
        let user = NAMES[nth % 2];
        if nth & 2 == 0 {
            self.nonces.push((self.shared.new_nonce(user), now));
        } else if let Some((text, then)) = self.nonces.pop() {
            assert!(self.is_hostile || !self.shared.use_nonce(&text, b"another"));
            let made_for = NAMES.iter().take(2).filter(|user| self.shared.use_nonce(&text, user));
            let is_young = now - then <= NONCE_SECONDS;
            let found = made_for.count();
            assert!(self.is_hostile || found == usize::from(is_young), "{found} {now} {then}");
            assert!(!self.shared.use_nonce(&text, user), "it was used");
        }
    }

    /// The slot of this process becomes the one of a process that it has forked.
    fn drain(&mut self, pid: u32) {
        let own = self.own();
        if self.slots.contains_key(&pid) {
            return;
        }
        if let Some(slot) = self.slots.remove(&own) {
            self.become_process(pid);
            slot.become_drain(own, pid);
            self.slots.insert(pid, slot);
            self.tunnels.iter_mut().filter(|of| of.pid == own).for_each(|of| of.pid = pid);
        }
    }

    /// Everything is looked at, as a page about the server does.
    fn look(&self) {
        let shared = self.shared;
        assert!(shared.processes().count() <= 4096);
        let _ = (shared.open(), shared.total(|counts| &counts.lines_lost), shared.collector());
        for tunnel in shared.tunnels() {
            let texts = [tunnel.id(), tunnel.user(), tunnel.subprotocol(), tunnel.path()];
            assert!(texts.iter().map(|text| text.len()).sum::<usize>() <= 4 * 256);
            for text in [shared.text_of_vhost(tunnel.vhost), shared.text_of_backend(tunnel.backend)]
            {
                assert!(text.len() <= NAME_BYTES);
            }
        }
        for slot in self.slots.values() {
            let _ = shared.ordered(slot).count();
            let _ = shared.slot_of(slot.pid());
        }
        assert!(self.registry.taken() <= Registry::PLACES);
        assert!(self.registry.places().all(|(number, _)| number < Registry::PLACES));
    }

    /// What is there is what was done.
    fn compare(&self) {
        let shared = self.shared;
        assert_eq!(shared.processes().count(), self.slots.len());
        let count = |is_its: &dyn Fn(&Tunnel) -> bool| {
            self.tunnels.iter().filter(|tunnel| is_its(tunnel)).count()
        };
        for (at, name) in NAMES.into_iter().enumerate() {
            let [client, backend] = [shared.client_key(name), shared.backend_key(name)];
            assert_eq!(shared.open_of_client(client), count(&|of| of.client == at));
            assert_eq!(shared.open_of_backend(backend), count(&|of| of.backend == at));
        }
        let mut listed: Vec<_> =
            shared.tunnels().map(|of| (of.entry, of.pid, of.is_relayed, of.bytes)).collect();
        let expected = self
            .tunnels
            .iter()
            .map(|of| (of.listed.expect("there is room"), of.pid, of.is_relayed, of.bytes));
        for one in expected {
            let at = listed.iter().position(|other| *other == one).expect("it is listed");
            listed.swap_remove(at);
        }
        assert!(listed.is_empty());
        for (pid, slot) in &self.slots {
            let ordered = count(&|of| of.pid == *pid && of.is_ordered);
            assert_eq!(shared.ordered(slot).count(), ordered);
        }
        assert_eq!(shared.total(|counts| &counts.handed_over), self.handed_over);
        let mut bytes = self.bytes.clone();
        for (metric, value) in shared.series() {
            let Metric::Bytes { vhost, direction } = metric else { continue };
            let vhost = NAMES.iter().position(|name| shared.vhost_name(name) == vhost);
            let way = Direction::ALL.iter().position(|way| *way == direction);
            let of = (vhost.expect("one of these"), way.expect("one of both"));
            assert_eq!(bytes.remove(&of), Some(value));
        }
        assert!(bytes.is_empty());
        assert!(self.registry.taken() >= self.places.len());
    }
}

/// What is kept of a name.
fn kept(name: &[u8]) -> &[u8] {
    &name[..name.len().min(NAME_BYTES)]
}
