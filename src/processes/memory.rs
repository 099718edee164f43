//! The memory that all processes of the server share, made in the parent and kept across reloads.

use std::io;
use std::os::fd::BorrowedFd;
use std::ptr::{from_ref, null_mut};
use std::sync::atomic::Ordering::Relaxed;
use std::sync::atomic::{AtomicPtr, AtomicU32};

use messages::NoRegister;
use once_cell::sync::OnceCell;
use os::descriptors::Place;
use os::{fdpass, futex, process};
use shared::{Memory, Message, Processes, Register, Shareable, Shared, Slot};

use crate::config;
use crate::ffi::log::Server;
use crate::ffi::retained::{retained, retained_descriptors};
use crate::ffi::role::Parent;
use crate::ffi::server::Process;

/// Where the memory is, in this process. Set by [`create`], for each configuration.
static MEMORY: AtomicPtr<Memory> = AtomicPtr::new(null_mut());

/// Where the register is, in this process. Set likewise.
static REGISTER: AtomicPtr<Register> = AtomicPtr::new(null_mut());

/// The configuration that this process was started with. Set likewise.
static GENERATION: AtomicU32 = AtomicU32::new(0);

/// The queue for tunnels that change their process, its receiving and its sending end: open in
/// the parent, and so in all its children. Set likewise.
static QUEUE: [Place; 2] = [const { Place::new() }; 2];

/// Who is told when a process is found that is gone. Set once, by a child when it starts.
static WHEN_GONE: OnceCell<fn(u32, usize)> = OnceCell::new();

/// From now on `told` is called with each process that is found to be gone, and the number of relayed
/// tunnels that it did not end.
pub(crate) fn tell_gone(_: &Process<'_>, told: fn(u32, usize)) {
    // A child starts once.
    let _ = WHEN_GONE.set(told);
}

/// Of what is in the queue: messages, the relay's part of them, the TLS sessions in that, and what they
/// say of the memory.
const QUEUE_LAYOUT: u64 = {
    let mut layout = 0;
    layout = mix(layout, Message::VERSION as u64);
    layout = mix(layout, relay::FROZEN_VERSION as u64);
    layout = mix(layout, tls::FROZEN_VERSION as u64);
    layout = mix(layout, Memory::LAYOUT);
    mix(layout, Register::LAYOUT)
};

/// Another layout if either is another.
const fn mix(layout: u64, part: u64) -> u64 {
    (layout ^ part).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(29)
}

/// The processes of this system.
#[derive(Debug)]
pub(crate) struct System;

impl Processes for System {
    fn own(&self) -> u32 {
        std::process::id()
    }

    fn exists(&self, pid: u32) -> bool {
        process::is_alive(pid)
    }

    fn runs(&self, pid: u32) -> bool {
        process::runs(pid)
    }

    fn seconds(&self) -> u32 {
        process::seconds()
    }

    fn gone(&self, pid: u32, tunnels: usize) {
        if let Some(told) = WHEN_GONE.get() {
            told(pid, tunnels);
        }
    }

    fn wake(&self, word: &AtomicU32) {
        futex::wake(word);
    }
}

/// Makes the memory.
///
/// # Errors
/// It cannot be had.
pub(crate) fn create(_: &Parent, main: Server<'_>) -> io::Result<()> {
    failpoint::check!("reload.memory")?;
    let memory: &Memory = retained(c"mod_wsforward_shared")?;
    // Without it nothing is listed, and all else goes on: memory may be promised to nobody.
    let register: Option<&Register> = retained(c"mod_wsforward_register")
        .inspect_err(|error| main.say(&NoRegister { error }))
        .ok();
    let queue = retained_descriptors(c"mod_wsforward_queue", QUEUE_LAYOUT, fdpass::pair)?;
    for (place, end) in QUEUE.iter().zip(queue) {
        place.set(end);
    }
    let key = || Ok::<_, io::Error>([random()?, random()?]);
    if let Some(register) = register {
        register.begin(config::settings().register_size as usize, key)?;
    }
    REGISTER.store(register.map_or(null_mut(), |one| from_ref(one).cast_mut()), Relaxed);
    GENERATION.store(memory.begin(key)?, Relaxed);
    MEMORY.store(from_ref(memory).cast_mut(), Relaxed);
    Ok(())
}

/// A number that nobody can guess, never 0.
fn random() -> io::Result<u64> {
    let mut number = 0u64;
    while number == 0 {
        // SAFETY: writes no more than the size of the number.
        let got = unsafe { libc::getrandom((&raw mut number).cast(), size_of::<u64>(), 0) };
        if got < 0 {
            let error = io::Error::last_os_error();
            if error.kind() != io::ErrorKind::Interrupted {
                return Err(error);
            }
            number = 0;
        }
    }
    Ok(number)
}

/// The memory, if there is any.
pub(crate) fn shared() -> Option<Shared<'static>> {
    // SAFETY: NULL, or what `create` stored: a reference for ever.
    let memory = unsafe { MEMORY.load(Relaxed).as_ref() }?;
    // SAFETY: likewise.
    let register = unsafe { REGISTER.load(Relaxed).as_ref() };
    Some(Shared::new(memory, register, &System, GENERATION.load(Relaxed)))
}

/// Whether the logs of this process are those of the server: with the next configuration others are
/// opened, and what was renamed meanwhile may be removed.
pub(crate) fn has_current_logs() -> bool {
    shared().is_none_or(Shared::is_current)
}

/// Gives a slot back when its process, which is this one, ends.
pub(crate) fn release(slot: &Slot) {
    if let Some(shared) = shared() {
        shared.release(slot);
    }
}

/// The queue for tunnels that change their process: its receiving and its sending end.
pub(crate) fn queue() -> Option<[BorrowedFd<'static>; 2]> {
    let [receive, send] = &QUEUE;
    Some([receive.get()?, send.get()?])
}
