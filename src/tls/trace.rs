//! What is noted of a session while it is its owner's, so that it can leave OpenSSL.

use crate::context::Context;
use crate::library::Library;
use crate::symbols::{Ssl, SslCtx};

impl Library {
    /// The function that this OpenSSL has not, for want of which no session can be native.
    pub fn lacks_for_native(&self) -> Option<&'static str> {
        Some("native sessions")
    }

    /// Has the sessions of an SSL_CTX tell their secrets to their traces. A keylog callback that is
    /// there goes on being called. Does nothing where [`lacks_for_native`](Self::lacks_for_native)
    /// names something, or if it was done before.
    ///
    /// # Safety
    /// `ctx` is a live SSL_CTX of this library, and no session of it has begun. This module stays
    /// loaded for as long as it has sessions.
    pub unsafe fn trace_context(&self, _ctx: *mut SslCtx) {}
}

impl Context {
    /// Has a session followed from its handshake on, if sessions of this context can be native. What
    /// is noted is the SSL's, and wiped and freed when it is.
    ///
    /// # Safety
    /// `ssl` is a live SSL of the context's library, of an SSL_CTX that was given to
    /// [`Library::trace_context`], whose handshake has not begun. One thread at a time uses it.
    pub unsafe fn trace(&self, _ssl: *mut Ssl) {}
}
