//! How a session leaves OpenSSL.

use std::ffi::c_void;
use std::io;
use std::os::fd::RawFd;

use relay::Tls;

use crate::context::Context;
use crate::native::Native;
use crate::reason::Reason;
use crate::session::Session;
use crate::symbols::Ssl;

/// A session that was taken over.
#[derive(Debug)]
pub enum Taken {
    /// Its SSL is freed.
    Native(Native),
    /// It goes on in OpenSSL, for that reason.
    OpenSsl(Session, Reason),
}

impl Taken {
    /// Why it goes on in OpenSSL, if it does.
    pub fn reason(&self) -> Option<Reason> {
        match self {
            Taken::Native(_) => None,
            Taken::OpenSsl(_, reason) => Some(*reason),
        }
    }

    /// The session.
    pub fn into_tls(self) -> Box<dyn Tls> {
        match self {
            Taken::Native(native) => Box::new(native),
            Taken::OpenSsl(session, _) => Box::new(session),
        }
    }
}

/// Takes a session over, out of OpenSSL if that can be proved to be right, else as
/// [`Session::take_over`] does.
///
/// # Errors
/// As [`Session::take_over`].
///
/// # Safety
/// As [`Session::take_over`].
pub unsafe fn take_over(
    context: &'static Context,
    ssl: *mut Ssl,
    fd: RawFd,
    ciphertext: Vec<u8>,
    app_data: *mut c_void,
) -> io::Result<Taken> {
    // SAFETY: the caller's promises are those that are asked for.
    let session = unsafe { Session::take_over(context, ssl, fd, ciphertext, app_data) }?;
    Ok(Taken::OpenSsl(session, Reason::Off))
}
