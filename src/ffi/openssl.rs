//! The OpenSSL that mod_ssl uses, as one child process sees it, and references to its sessions.

use std::io;
use std::os::fd::RawFd;
use std::ptr::NonNull;

use once_cell::sync::OnceCell;
use tls::{Context, Library, Ssl, Taken};

use super::sys;

/// mod_ssl's OpenSSL as one child process sees it.
pub(super) struct OpenSsl {
    pub context: &'static Context,
    pub library: Library,
    /// A connection that does not exist, for callbacks of mod_ssl that use an SSL's connection
    /// without a check (its keylog callback does).
    pub stub: NonNull<sys::conn_rec>,
}

// SAFETY: function addresses, and a stub that nobody writes to.
unsafe impl Send for OpenSsl {}
// SAFETY: as above.
unsafe impl Sync for OpenSsl {}

/// Set once in a child; stays empty in the parent, whose modules come and go.
static OPENSSL: OnceCell<Result<OpenSsl, String>> = OnceCell::new();

/// Looks for it, once in each child.
pub(super) fn init(find: impl FnOnce() -> Result<OpenSsl, String>) {
    OPENSSL.get_or_init(find);
}

/// The one of this child.
pub(super) fn openssl() -> Option<&'static OpenSsl> {
    OPENSSL.get()?.as_ref().ok()
}

/// Why this child has no OpenSSL to take sessions of, if that is so.
pub(super) fn why_none() -> Option<String> {
    match OPENSSL.get() {
        Some(Ok(_)) => None,
        Some(Err(why)) => Some(why.clone()),
        None => Some("OpenSSL was not looked for".to_owned()),
    }
}

/// A reference to an SSL that keeps it alive when mod_ssl gives it up.
pub(super) struct SslRef {
    ssl: NonNull<Ssl>,
    openssl: &'static OpenSsl,
}

// SAFETY: OpenSSL ties an SSL to no thread; `SslRef` is used by one at a time.
unsafe impl Send for SslRef {}

impl SslRef {
    /// `None` if this child has not found mod_ssl's OpenSSL.
    ///
    /// # Safety
    /// It is alive.
    pub(super) unsafe fn new(ssl: NonNull<Ssl>) -> Option<Self> {
        let openssl = openssl()?;
        // SAFETY: by the caller.
        unsafe { openssl.library.up_ref(ssl.as_ptr()) };
        Some(Self { ssl, openssl })
    }

    /// Makes the SSL ours.
    ///
    /// # Safety
    /// mod_ssl has given up its reference, and the memory of its BIOs is still
    /// valid. `fd` is the connection's socket and stays open for as long as the
    /// session lives. `ciphertext` was read of it before what it has now.
    pub(super) unsafe fn take_over(self, fd: RawFd, ciphertext: Vec<u8>) -> io::Result<Taken> {
        let this = std::mem::ManuallyDrop::new(self);
        let stub = this.openssl.stub.as_ptr().cast();
        // SAFETY: by the caller; the reference is the one that `new` made.
        unsafe { tls::take_over(this.openssl.context, this.ssl.as_ptr(), fd, ciphertext, stub) }
    }
}

impl Drop for SslRef {
    fn drop(&mut self) {
        // SAFETY: gives up the reference that `new` made.
        unsafe { self.openssl.library.free(self.ssl.as_ptr()) };
    }
}
