//! The keylog callbacks that there were before ours (mod_ssl has one for SSLKEYLOGFILE), which go on
//! being called.

use std::ffi::c_char;
use std::sync::RwLock;

use crate::native_symbols::{KeylogCallback, NativeFunctions};
use crate::symbols::{Ssl, SslCtx};

/// The keylog callback that an SSL_CTX had before ours.
struct Former {
    /// The address of the SSL_CTX.
    ctx: usize,
    callback: KeylogCallback,
    /// SSL_get_SSL_CTX, also where no session is native.
    get_ssl_ctx: unsafe extern "C" fn(*const Ssl) -> *mut SslCtx,
}

/// Of all SSL_CTXs that had one.
static FORMER: RwLock<Vec<Former>> = RwLock::new(Vec::new());

/// Puts `ours` in the place of the callback that an SSL_CTX has.
///
/// # Safety
/// A live SSL_CTX of which no session has begun. `ours` passes all on by [`pass_on`].
pub(crate) unsafe fn replace(native: &NativeFunctions, ctx: *mut SslCtx, ours: KeylogCallback) {
    let Ok(mut all) = FORMER.write() else { return };
    // SAFETY: a live SSL_CTX, by the caller.
    unsafe {
        let former = (native.SSL_CTX_get_keylog_callback)(ctx);
        if former.is_some_and(|former| std::ptr::fn_addr_eq(former, ours)) {
            return;
        }
        // Of one that is gone and had the same address.
        all.retain(|former| former.ctx != ctx.addr());
        let get_ssl_ctx = native.SSL_get_SSL_CTX;
        all.extend(former.map(|callback| Former { ctx: ctx.addr(), callback, get_ssl_ctx }));
        (native.SSL_CTX_set_keylog_callback)(ctx, Some(ours));
    }
}

/// Calls what OpenSSL would have called.
///
/// # Safety
/// What OpenSSL gives to a keylog callback.
pub(crate) unsafe fn pass_on(ssl: *const Ssl, line: *const c_char) {
    let former = FORMER.read().ok().and_then(|all| {
        // SAFETY: a live SSL, by the caller.
        let ctx = all.first().map(|any| unsafe { (any.get_ssl_ctx)(ssl) })?;
        Some(all.iter().find(|former| former.ctx == ctx.addr())?.callback)
    });
    if let Some(former) = former {
        // SAFETY: by the caller.
        unsafe { former(ssl, line) };
    }
}
