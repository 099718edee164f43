//! mod_proxy's balancers: a method of our own, `lbmethod=bytunnels`, and what httpd's own methods are
//! not to choose.
//!
//! Each method asks mod_proxy for the best member (`proxy_balancer_get_best_worker`, an optional
//! function), which goes through those that can be used: by lbset, spares and hot standbys where
//! others fail, none that is drained, and those in error once it is time to retry them. Of two it
//! asks the method which is better. This puts itself before that function, and passes over members
//! that may have no more tunnels. mod_proxy holds a lock of the balancer meanwhile.

use std::ffi::{CStr, c_char, c_int, c_void};
use std::ptr::{NonNull, null_mut};
use std::sync::atomic::{AtomicPtr, Ordering};

use super::guard::guard;
use super::optional::symbol;
use super::pool::Pool;
use super::request::Request;
use super::sys;

/// What the module knows of members.
pub(crate) trait BalanceHooks {
    /// Whether a request may become a tunnel, so that members are chosen by theirs.
    fn may_be_tunnel(r: Request<'_>) -> bool;
    /// How many tunnels the back end of this worker has.
    fn tunnels(worker: &[u8]) -> u64;
    /// Whether it may have no more.
    fn is_full(worker: &[u8]) -> bool;
    /// All are full, it seems: looks closer at what was counted.
    fn look_closer();
    /// This worker is chosen for a request: its tunnel counts from now on. `false` if others were
    /// faster, and it does not.
    fn choose(r: Request<'_>, worker: &[u8]) -> bool;
}

type IsBest =
    unsafe extern "C" fn(*mut sys::proxy_worker, *mut sys::proxy_worker, *mut c_void) -> c_int;
type BestWorker = unsafe extern "C" fn(
    *mut sys::proxy_balancer,
    *mut sys::request_rec,
    Option<IsBest>,
    *mut c_void,
) -> *mut sys::proxy_worker;
type WorkerName = unsafe extern "C" fn(*mut sys::apr_pool_t, *mut sys::proxy_worker) -> *mut c_char;

const BEST_WORKER_NAME: &CStr = c"proxy_balancer_get_best_worker";

/// mod_proxy's function of that name. Looked up again for every configuration, before it is used.
static BEST_WORKER: AtomicPtr<c_void> = AtomicPtr::new(null_mut());
/// `ap_proxy_worker_name()`, looked up at the same time.
static WORKER_NAME: AtomicPtr<c_void> = AtomicPtr::new(null_mut());

/// So often others are faster only by chance.
const TRIES: usize = 3;

/// Makes the method known, before any directive names it. mod_proxy need not be there.
pub(super) fn register_method<H: BalanceHooks>(config: Pool<'_>) {
    let method = config.write(sys::proxy_balancer_method {
        name: c"bytunnels".as_ptr(),
        finder: Some(find_by_tunnels::<H>),
        context: null_mut(),
        reset: Some(reset),
        age: Some(age),
        updatelbstatus: None,
    });
    // SAFETY: the names are literals, and the method lives as long as the configuration; httpd
    // forgets providers with it.
    unsafe {
        sys::ap_register_provider(
            config.as_ptr(),
            c"proxylbmethod".as_ptr(),
            c"bytunnels".as_ptr(),
            c"0".as_ptr(),
            method.as_ptr().cast(),
        );
    }
}

/// All modules are loaded, and no method has looked for mod_proxy's function yet.
pub(super) fn register<H: BalanceHooks>() {
    WORKER_NAME.store(symbol(c"ap_proxy_worker_name"), Ordering::Relaxed);
    BEST_WORKER.store(null_mut(), Ordering::Relaxed);
    // SAFETY: looks the name up.
    let found = unsafe { sys::apr_dynamic_fn_retrieve(BEST_WORKER_NAME.as_ptr()) };
    let own: BestWorker = best_worker::<H>;
    let Some(found) = found.map(|found| found as *mut c_void) else { return };
    if found == own as *mut c_void {
        return;
    }
    BEST_WORKER.store(found, Ordering::Relaxed);
    // SAFETY: a module that asks for the function of this name gets one of the same type.
    unsafe {
        sys::apr_dynamic_fn_register(
            BEST_WORKER_NAME.as_ptr(),
            Some(std::mem::transmute::<BestWorker, unsafe extern "C" fn()>(own)),
        );
    }
}

/// A worker of mod_proxy's.
#[derive(Clone, Copy)]
pub(super) struct Worker<'w> {
    worker: NonNull<sys::proxy_worker>,
    pool: Pool<'w>,
}

impl<'w> Worker<'w> {
    /// # Safety
    /// `worker` lives at least as long as `'w`.
    pub(super) unsafe fn from_raw(worker: *mut sys::proxy_worker, pool: Pool<'w>) -> Option<Self> {
        NonNull::new(worker).map(|worker| Self { worker, pool })
    }

    /// As balancer-manager shows it.
    pub(super) fn name(&self) -> &'w [u8] {
        let function = WORKER_NAME.load(Ordering::Relaxed);
        if function.is_null() {
            return b"";
        }
        // SAFETY: mod_proxy.h declares the function of this name with this type.
        let name: WorkerName = unsafe { std::mem::transmute(function) };
        // SAFETY: both are alive.
        let name = unsafe { name(self.pool.as_ptr(), self.worker.as_ptr()) };
        // SAFETY: NULL, or NUL-terminated, in the pool or the worker's own.
        if name.is_null() { b"" } else { unsafe { CStr::from_ptr(name) }.to_bytes() }
    }

    /// What all processes share of it.
    fn shared(&self) -> *mut sys::proxy_worker_shared {
        // SAFETY: alive; mod_proxy sets it before a worker is used.
        unsafe { (*self.worker.as_ptr()).s }
    }

    fn factor(&self) -> i32 {
        // SAFETY: memory of the worker's that httpd itself reads so.
        unsafe { (*self.shared()).lbfactor }.max(1)
    }

    fn status(&self) -> i32 {
        // SAFETY: as above.
        unsafe { (*self.shared()).lbstatus }
    }

    /// As httpd's own methods use it: who waits gains by its factor, who is chosen pays for all.
    fn add_status(&self, by: i32) {
        let status = self.status().wrapping_add(by);
        // SAFETY: as above, under the balancer's lock; other processes may write as well, which makes
        // it less exact, as it does for httpd.
        unsafe { (*self.shared()).lbstatus = status };
    }
}

/// What mod_proxy's function finds.
fn original(
    balancer: *mut sys::proxy_balancer,
    r: Request<'_>,
    is_best: Option<IsBest>,
    baton: *mut c_void,
) -> *mut sys::proxy_worker {
    let function = BEST_WORKER.load(Ordering::Relaxed);
    if function.is_null() {
        return null_mut();
    }
    // SAFETY: mod_proxy.h declares the function of this name with this type.
    let best: BestWorker = unsafe { std::mem::transmute(function) };
    // SAFETY: the balancer and the request are those that mod_proxy passed; the rest is for each other.
    unsafe { best(balancer, r.as_ptr(), is_best, baton) }
}

/// What is passed to [`passing_over`].
struct PassOver<'r> {
    pool: Pool<'r>,
    is_best: Option<IsBest>,
    baton: *mut c_void,
    has_passed_over: bool,
}

/// Asks the method which of two members is better, but for those that are full.
unsafe extern "C" fn passing_over<H: BalanceHooks>(
    current: *mut sys::proxy_worker,
    best: *mut sys::proxy_worker,
    baton: *mut c_void,
) -> c_int {
    guard(0, || {
        // SAFETY: what `choose` passes, which outlives the call.
        let Some(pass) = (unsafe { baton.cast::<PassOver<'_>>().as_mut() }) else { return 0 };
        // SAFETY: mod_proxy passes a live worker.
        let worker = unsafe { Worker::from_raw(current, pass.pool) };
        if worker.is_none_or(|worker| H::is_full(worker.name())) {
            pass.has_passed_over = true;
            return 0;
        }
        // SAFETY: as the method asked for it to be called.
        pass.is_best.map_or(0, |is_best| unsafe { is_best(current, best, pass.baton) })
    })
}

/// In the place of mod_proxy's function, for all methods.
unsafe extern "C" fn best_worker<H: BalanceHooks>(
    balancer: *mut sys::proxy_balancer,
    r: *mut sys::request_rec,
    is_best: Option<IsBest>,
    baton: *mut c_void,
) -> *mut sys::proxy_worker {
    guard(null_mut(), || {
        // SAFETY: mod_proxy passes a live request for the length of the call.
        let Some(request) = (unsafe { Request::from_raw(r) }) else { return null_mut() };
        choose::<H>(balancer, request, is_best, baton)
    })
}

fn choose<H: BalanceHooks>(
    balancer: *mut sys::proxy_balancer,
    r: Request<'_>,
    is_best: Option<IsBest>,
    baton: *mut c_void,
) -> *mut sys::proxy_worker {
    let pool = r.pool().filter(|_| H::may_be_tunnel(r));
    let Some(pool) = pool else { return original(balancer, r, is_best, baton) };
    for _ in 0..TRIES {
        let mut pass = PassOver { pool, is_best, baton, has_passed_over: false };
        let passing: IsBest = passing_over::<H>;
        let found = original(balancer, r, Some(passing), (&raw mut pass).cast());
        // SAFETY: NULL, or a live worker.
        match unsafe { Worker::from_raw(found, pool) } {
            Some(worker) if H::choose(r, worker.name()) => return found,
            Some(_) => {}
            None if pass.has_passed_over => H::look_closer(),
            None => return found,
        }
    }
    // One that is full, for which the request is refused when it comes to it: with none at all,
    // mod_proxy would say that all are in error.
    original(balancer, r, is_best, baton)
}

/// The search of one request for the member with the fewest tunnels.
struct Search<'r, H> {
    pool: Pool<'r>,
    /// Else all are equal.
    by_tunnels: bool,
    /// Members none of which is better than another.
    tied: Vec<Worker<'r>>,
    hooks: std::marker::PhantomData<H>,
}

impl<'r, H: BalanceHooks> Search<'r, H> {
    fn is_best(&mut self, current: Worker<'r>, best: Option<Worker<'r>>) -> bool {
        use std::cmp::Ordering::{Equal, Greater, Less};
        let Some(best) = best else {
            self.tied = vec![current];
            return true;
        };
        // Whose tunnels are fewer for its factor.
        let load = |of: Worker<'_>, other: Worker<'_>| match self.by_tunnels {
            true => u128::from(H::tunnels(of.name())) * u128::from(other.factor().unsigned_abs()),
            false => 0,
        };
        match load(current, best).cmp(&load(best, current)) {
            Less => {
                self.tied = vec![current];
                true
            }
            Equal => {
                self.tied.push(current);
                let turn = |of: Worker<'_>| of.status().saturating_add(of.factor());
                turn(current) > turn(best)
            }
            Greater => false,
        }
    }

    /// Of equal ones it was `best`'s turn.
    fn settle(&self, best: Worker<'_>) {
        let mut total = 0i32;
        for worker in &self.tied {
            worker.add_status(worker.factor());
            total = total.wrapping_add(worker.factor());
        }
        best.add_status(total.wrapping_neg());
    }
}

/// The method itself.
unsafe extern "C" fn find_by_tunnels<H: BalanceHooks>(
    balancer: *mut sys::proxy_balancer,
    r: *mut sys::request_rec,
) -> *mut sys::proxy_worker {
    guard(null_mut(), || {
        // SAFETY: mod_proxy passes a live request for the length of the call.
        let Some(request) = (unsafe { Request::from_raw(r) }) else { return null_mut() };
        let Some(pool) = request.pool() else { return null_mut() };
        let mut search: Search<'_, H> = Search {
            pool,
            by_tunnels: H::may_be_tunnel(request),
            tied: Vec::new(),
            hooks: std::marker::PhantomData,
        };
        let is_best: IsBest = has_fewer_tunnels::<H>;
        let found = choose::<H>(balancer, request, Some(is_best), (&raw mut search).cast());
        // SAFETY: NULL, or a live worker.
        if let Some(best) = unsafe { Worker::from_raw(found, pool) } {
            search.settle(best);
        }
        found
    })
}

unsafe extern "C" fn has_fewer_tunnels<H: BalanceHooks>(
    current: *mut sys::proxy_worker,
    best: *mut sys::proxy_worker,
    baton: *mut c_void,
) -> c_int {
    guard(0, || {
        // SAFETY: what `find_by_tunnels` passes, which outlives the call.
        let Some(search) = (unsafe { baton.cast::<Search<'_, H>>().as_mut() }) else { return 0 };
        let pool = search.pool;
        // SAFETY: mod_proxy passes live workers; there may be no best one yet.
        let (current, best) =
            unsafe { (Worker::from_raw(current, pool), Worker::from_raw(best, pool)) };
        c_int::from(current.is_some_and(|current| search.is_best(current, best)))
    })
}

/// balancer-manager changed the balancer: whose turn it is begins anew.
unsafe extern "C" fn reset(
    balancer: *mut sys::proxy_balancer,
    _server: *mut sys::server_rec,
) -> sys::apr_status_t {
    guard((), || {
        // SAFETY: mod_proxy passes a live balancer, whose members are an array of pointers to live
        // workers.
        unsafe {
            let Some(members) = balancer.as_ref().and_then(|balancer| balancer.workers.as_ref())
            else {
                return;
            };
            let first = members.elts.cast::<*mut sys::proxy_worker>();
            for at in 0..usize::try_from(members.nelts).unwrap_or(0) {
                (*(**first.add(at)).s).lbstatus = 0;
            }
        }
    });
    sys::APR_SUCCESS
}

/// As httpd's own methods have it.
unsafe extern "C" fn age(
    _balancer: *mut sys::proxy_balancer,
    _server: *mut sys::server_rec,
) -> sys::apr_status_t {
    guard(sys::APR_SUCCESS, || sys::APR_SUCCESS) as sys::apr_status_t
}
