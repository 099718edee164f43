//! How processes end: what the MPM tells, and what it leaves to be found out.

use std::ffi::{c_char, c_int, c_void};
use std::sync::atomic::{AtomicBool, AtomicI32, Ordering};

use os::asked;

use super::guard::guard;
use super::log::Server;
use super::role::{Parent, SignalHandler};
use super::server::{Process, has_children, has_closed_listeners, is_threaded};
use super::{optional, pool, sys};

/// How a child process ends.
#[derive(Debug)]
pub(crate) enum ChildExit {
    /// Reload, MaxConnectionsPerChild, too many idle, or a graceful stop: what it
    /// holds may live on.
    Graceful,
    /// Stop, or a restart without grace.
    AtOnce,
    /// The same, within the handler of a signal (prefork).
    InHandler(SignalHandler),
}

/// What the module does when processes end.
pub(crate) trait EndHooks {
    /// A child process begins to end; its workers still run. Must not wait.
    fn child_stopping(graceful: bool);
    /// A child process ends: its workers have ended, and its pool is about to be destroyed.
    fn child_exit(how: ChildExit);
    /// The parent has set its signal handlers, and starts children.
    fn parent_runs(parent: &Parent);
    /// The server stops gracefully: it listens no more, and waits for its children, of which one has
    /// ended. Called for each of them.
    fn stops_gracefully(parent: &Parent);
    /// The last of them has ended. The logs are there still, which the MPM's next step may change: it
    /// ends the programs that they are piped to.
    fn children_gone(parent: &Parent, main: Server<'_>);
    /// The configuration goes away in the parent, because the server stops or
    /// restarts without grace. Not called for a graceful reload. The children have ended.
    fn parent_ends(parent: &Parent, main: Server<'_>);
}

/// Whether the parent was asked to stop, or to restart, at once. At the end of a graceful stop, behind
/// [`EndHooks::children_gone`], prefork's parent asks itself.
pub(crate) fn is_to_end_at_once(_: &Parent) -> bool {
    // SAFETY: reads what the MPM keeps in the parent.
    unsafe { sys::wsf_mpm_is_ungraceful() != 0 }
}

/// Whether the server goes on with another configuration once this one is gone.
pub(crate) fn restarts(_: &Parent) -> bool {
    // SAFETY: as above.
    unsafe { sys::wsf_mpm_restart_pending() != 0 }
}

unsafe extern "C" fn child_status<H: EndHooks>(
    server: *mut sys::server_rec,
    _pid: libc::pid_t,
    _generation: sys::ap_generation_t,
    _slot: c_int,
    status: sys::mpm_child_status,
) {
    guard((), || {
        if !is_parent() {
            return;
        }
        let parent = Parent::new();
        if status == sys::MPM_CHILD_STARTED {
            H::parent_runs(&parent);
        } else if has_closed_listeners(&parent) {
            H::stops_gracefully(&parent);
            if !has_children(&parent) {
                // SAFETY: the MPM passes the main server of the configuration that runs.
                H::children_gone(&parent, unsafe { Server::from_raw(server) });
            }
        }
    });
}

/// Whether the MPM told its child to end gracefully. Set by `child_stopping`, in the child; see `child_exit_kind`.
static GRACEFUL: AtomicBool = AtomicBool::new(false);

fn child_exit_kind() -> ChildExit {
    if !is_threaded() {
        // prefork does not say. It stops within the signal handler, while the signal is blocked; a
        // graceful end comes from its main loop.
        let in_handler = is_blocked(libc::SIGTERM) || is_blocked(libc::SIGHUP);
        if !in_handler {
            return ChildExit::Graceful;
        }
        pool::drop_nothing_more();
        return ChildExit::InHandler(SignalHandler::new());
    }
    if GRACEFUL.load(Ordering::Relaxed) { ChildExit::Graceful } else { ChildExit::AtOnce }
}

fn is_blocked(signal: c_int) -> bool {
    let mut mask = std::mem::MaybeUninit::<libc::sigset_t>::uninit();
    // SAFETY: asks for this thread's mask, which is written to `mask`.
    let rv = unsafe { libc::pthread_sigmask(libc::SIG_BLOCK, std::ptr::null(), mask.as_mut_ptr()) };
    // SAFETY: written by the call above, which then returned 0.
    rv == 0 && unsafe { libc::sigismember(mask.as_ptr(), signal) } == 1
}

unsafe extern "C" fn child_stopping<H: EndHooks>(_pool: *mut sys::apr_pool_t, graceful: c_int) {
    GRACEFUL.store(graceful != 0, Ordering::Relaxed);
    // What prefork says here means nothing; see `child_exit_kind`.
    if is_threaded() {
        guard((), || H::child_stopping(graceful != 0));
    }
}

/// httpd has the hook `child_stopping` from 2.4.49 on. Without it every end of a child counts as
/// [`ChildExit::AtOnce`].
pub(super) fn register<H: EndHooks>() {
    let none = std::ptr::null();
    let middle = sys::APR_HOOK_MIDDLE;
    // SAFETY: httpd copies the pointer; the callback stays loaded for as long as the hook.
    unsafe { sys::ap_hook_child_status(Some(child_status::<H>), none, none, middle) };
    type Register = unsafe extern "C" fn(
        Option<unsafe extern "C" fn(*mut sys::apr_pool_t, c_int)>,
        *const *const c_char,
        *const *const c_char,
        c_int,
    );
    let hook = optional::symbol(c"ap_hook_child_stopping");
    if hook.is_null() {
        return;
    }
    // SAFETY: mpm_common.h declares the function of this name with this type.
    let hook: Register = unsafe { std::mem::transmute(hook) };
    // SAFETY: the callback stays loaded for as long as the hook.
    unsafe { hook(Some(child_stopping::<H>), none, none, middle) };
}

/// Has [`EndHooks::child_exit`] called when the child that has just started ends.
pub(super) fn watch_child<H: EndHooks>(child: &Process<'_>) {
    // They are the parent's.
    asked::leave();
    // First of all modules, so that by LIFO it runs last: nobody else's cleanup finds our threads
    // gone, and the workers are joined before.
    // SAFETY: the pool is alive; the callback stays loaded with the child.
    unsafe {
        sys::apr_pool_pre_cleanup_register(
            child.pool().as_ptr(),
            std::ptr::null(),
            Some(child_exit::<H>),
        );
    }
}

unsafe extern "C" fn child_exit<H: EndHooks>(_data: *mut c_void) -> sys::apr_status_t {
    guard((), || H::child_exit(child_exit_kind()));
    sys::APR_SUCCESS
}

/// The process that reads the configuration, which sets this whenever it does: children inherit its
/// cleanups, and run them too when they exit.
static PARENT: AtomicI32 = AtomicI32::new(0);

/// Has [`EndHooks::parent_ends`] called when this configuration goes away.
///
/// # Safety
/// `pconf` and `main` are the configuration's own, as httpd passes them to post_config.
pub(super) unsafe fn watch_config<H: EndHooks>(
    pconf: *mut sys::apr_pool_t,
    main: *mut sys::server_rec,
) {
    // SAFETY: asks for a number.
    PARENT.store(unsafe { libc::getpid() }, Ordering::Relaxed);
    // These run before any cleanup: one of the MPM's forgets what it was told, and one of mod_so's
    // unloads this module. At the end of the process they run before any other pool is destroyed,
    // such as that of the programs that logs are piped to.
    // SAFETY: the pools are alive, by the caller, and the callbacks loaded until then: the second
    // is taken back by the first.
    unsafe {
        sys::apr_pool_pre_cleanup_register(pconf, main.cast(), Some(config_gone::<H>));
        let process = (*(*main).process).pool;
        sys::apr_pool_pre_cleanup_register(process, main.cast(), Some(process_gone::<H>));
    }
}

fn is_parent() -> bool {
    // SAFETY: asks for a number.
    unsafe { libc::getpid() == PARENT.load(Ordering::Relaxed) }
}

unsafe extern "C" fn process_gone<H: EndHooks>(main: *mut c_void) -> sys::apr_status_t {
    guard((), || {
        if is_parent() {
            let parent = Parent::new();
            // SAFETY: the main server, part of the configuration that goes away after this.
            let server = unsafe { Server::from_raw(main.cast()) };
            H::parent_ends(&parent, server);
        }
        // The MPM is about to forget what it was told (unixd.c). To ask for it later would make it anew,
        // in the memory of this pool: httpd's handler of SIGTERM would write to it when it is gone.
        // SAFETY: the main server is alive, and so is the pool of its configuration.
        unsafe {
            let pconf = (*(*main.cast::<sys::server_rec>()).process).pconf;
            sys::apr_pool_cleanup_kill(pconf, main, Some(config_gone::<H>));
        }
        // The module is about to be unloaded, in whatever process this is.
        asked::leave();
    });
    sys::APR_SUCCESS
}

unsafe extern "C" fn config_gone<H: EndHooks>(main: *mut c_void) -> sys::apr_status_t {
    guard((), || {
        // The module is about to be unloaded, in whatever process this is.
        asked::leave();
        if !is_parent() {
            return;
        }
        let server: *mut sys::server_rec = main.cast();
        // SAFETY: the server is alive, and its process's pool outlives it.
        unsafe {
            let process = (*(*server).process).pool;
            sys::apr_pool_cleanup_kill(process, main, Some(process_gone::<H>));
        }
        // SAFETY: reads what the MPM keeps in the parent. After a graceful stop it has forgotten
        // that it was told to stop, so whatever is not a restart is a stop.
        let (restarts, ungraceful) =
            unsafe { (sys::wsf_mpm_restart_pending() != 0, sys::wsf_mpm_is_ungraceful() != 0) };
        if !restarts || ungraceful {
            // SAFETY: the main server, part of the configuration that goes away after this.
            let main = unsafe { Server::from_raw(server) };
            H::parent_ends(&Parent::new(), main);
        }
    });
    sys::APR_SUCCESS
}
