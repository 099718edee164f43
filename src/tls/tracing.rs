//! How the owner of sessions has them followed.

use crate::callbacks::{self, Tracing};
use crate::context::Context;
use crate::keylog;
use crate::library::Library;
use crate::reason::Reason;
use crate::symbols::{Ssl, SslCtx};
use crate::trace::Trace;

impl Library {
    /// The function that this OpenSSL has not, for want of which no session can be native.
    pub fn lacks_for_native(&self) -> Option<&'static str> {
        self.native.err()
    }

    /// Has the sessions of an SSL_CTX tell their secrets to their traces. A keylog callback that is
    /// there goes on being called. Does nothing where [`lacks_for_native`](Self::lacks_for_native)
    /// names something, or if it was done before.
    ///
    /// # Safety
    /// `ctx` is a live SSL_CTX of this library, and no session of it has begun. This module stays
    /// loaded for as long as it has sessions.
    pub unsafe fn trace_context(&self, ctx: *mut SslCtx) {
        let Ok(table) = &self.native else { return };
        // SAFETY: by the caller.
        unsafe { keylog::replace(&table.functions, ctx, callbacks::keylog) };
    }
}

impl Context {
    /// Has a session followed from its handshake on, if sessions of this context can be native. What
    /// is noted is the SSL's, and wiped and freed when it is.
    ///
    /// # Safety
    /// `ssl` is a live SSL of the context's library, of an SSL_CTX that was given to
    /// [`Library::trace_context`], whose handshake has not begun. One thread at a time uses it.
    pub unsafe fn trace(&self, ssl: *mut Ssl) {
        let Some(tracing) = Tracing::get().filter(|_| self.native.is_ok()) else { return };
        // SAFETY: by the caller.
        unsafe { tracing.await_handshake(ssl) };
    }

    /// The trace of a session that its owner has let go of.
    ///
    /// # Errors
    /// Why it cannot be used.
    ///
    /// # Safety
    /// A live SSL of the context's library, used by this thread alone.
    pub(crate) unsafe fn take_trace(&self, ssl: *mut Ssl) -> Result<Box<Trace>, Reason> {
        let tracing = Tracing::get().filter(|_| self.native.is_ok()).ok_or(Reason::Off)?;
        // SAFETY: by the caller.
        unsafe { tracing.take(ssl) }
    }
}
