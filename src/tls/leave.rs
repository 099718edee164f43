//! How a session leaves OpenSSL.
//!
//! Its keys are worked out from what its [`Trace`] noted, and are proved: each direction's last record,
//! of which the ciphertext was kept, is opened with them. What is not so, or cannot be shown, goes on
//! in OpenSSL.

use std::ffi::c_void;
use std::io;
use std::os::fd::RawFd;

use records::{Keys, Receiver, Role, Secret, Sender, Suite, TrafficKeys, Version, wipe};
use relay::Tls;

use crate::algorithms::Algorithms;
use crate::context::Context;
use crate::derive;
use crate::evp::Evp;
use crate::native::Native;
use crate::native_symbols::WANT_WRITING;
use crate::proof::{self, Direction};
use crate::reason::Reason;
use crate::session::Session;
use crate::symbols::{RECEIVED_SHUTDOWN, Ssl};
use crate::trace::{Trace, Way};

/// The length of a master secret (RFC 5246 8.1) and of a random (RFC 5246 7.4.1.2).
const MASTER_SECRET_BYTES: usize = 48;
const RANDOM_BYTES: usize = 32;

/// A session that was taken over.
#[derive(Debug)]
pub enum Taken {
    /// Its SSL is freed.
    Native(Box<Native>),
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
            Taken::Native(native) => native,
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
    // SAFETY: a live SSL that is ours alone, by the caller.
    let trace = unsafe { context.take_trace(ssl) };
    // SAFETY: the caller's promises are those that are asked for.
    let session = unsafe { Session::take_over(context, ssl, fd, ciphertext, app_data) }?;
    let left = trace.and_then(|trace| {
        let algorithms = context.native.as_ref().map_err(|_| Reason::Off)?;
        let (receiver, sender) = prove(&session, &trace, algorithms)?;
        Ok((algorithms, receiver, sender))
    });
    Ok(match left {
        Ok((algorithms, receiver, sender)) => {
            // The session goes, with its SSL; the descriptor stays the caller's.
            let ciphertext = session.into_ahead();
            Taken::Native(Box::new(Native::new(algorithms, fd, (receiver, sender), ciphertext)))
        }
        Err(reason) => Taken::OpenSsl(session, reason),
    })
}

/// Both directions of a session, if it can leave as it is.
fn prove(
    session: &Session,
    trace: &Trace,
    algorithms: &'static Algorithms,
) -> Result<(Receiver, Sender), Reason> {
    let facts = Facts::of(session, algorithms)?;
    // Not the thread's: these contexts go with what they know.
    let evp = Evp::new(algorithms);
    let [received, sent] = match facts.version {
        Version::Tls13 => {
            let keys = |way: &Way| {
                let secret = Secret::new(facts.suite, way.secret()).ok_or(Reason::Untraced)?;
                TrafficKeys::tls13(&evp, facts.suite, secret).map_err(|_| Reason::Failed)
            };
            [keys(&trace.received)?, keys(&trace.sent)?]
        }
        Version::Tls12 => facts.key_block(session, algorithms)?,
    };
    let prove = |direction, keys, way: &Way| proof::prove(&evp, keys, (direction, &way.follower));
    let received = prove(Direction::Received, received, &trace.received)?;
    let sent = prove(Direction::Sent, sent, &trace.sent)?;
    Ok((Receiver::new(received, facts.role), Sender::new(sent)))
}

/// What is known of a session that can leave.
struct Facts {
    version: Version,
    suite: Suite,
    role: Role,
}

impl Facts {
    fn of(session: &Session, algorithms: &Algorithms) -> Result<Self, Reason> {
        let (ssl, library) = (session.ssl(), session.library());
        let (functions, native) = (&library.functions, &algorithms.functions);
        // SAFETY: a live SSL, which the session has alone; what it returns is its own.
        unsafe {
            if !library.is_init_finished(ssl)
                || !library.is_between_records(ssl)
                || (native.SSL_want)(ssl) == WANT_WRITING
            {
                return Err(Reason::Unfinished);
            }
            if (functions.SSL_get_shutdown)(ssl) & RECEIVED_SHUTDOWN != 0 {
                return Err(Reason::Ended);
            }
            let version = match library.version(ssl) {
                0x0303 => Version::Tls12,
                0x0304 => Version::Tls13,
                _ => return Err(Reason::Version),
            };
            let cipher = (native.SSL_get_current_cipher)(ssl);
            if cipher.is_null() {
                return Err(Reason::Suite);
            }
            let suite = suite((native.SSL_CIPHER_get_protocol_id)(cipher));
            let suite = suite.filter(|(of, _)| *of == version).ok_or(Reason::Suite)?.1;
            // RFC 3749; RFC 6066 4.
            let of = (functions.SSL_get_session)(ssl);
            if of.is_null()
                || !(native.SSL_get_current_compression)(ssl).is_null()
                || (native.SSL_SESSION_get_max_fragment_length)(of) != 0
                || !algorithms.has(suite)
            {
                return Err(Reason::Suite);
            }
            let is_server = (functions.SSL_is_server)(ssl) != 0;
            Ok(Facts { version, suite, role: if is_server { Role::Server } else { Role::Client } })
        }
    }

    /// TLS 1.2: the keys of what is received and of what is sent (RFC 5246 6.3).
    fn key_block(
        &self,
        session: &Session,
        algorithms: &Algorithms,
    ) -> Result<[TrafficKeys; 2], Reason> {
        const MAX_BYTES: usize = 2 * (32 + 12);
        let (ssl, functions, native) =
            (session.ssl(), &session.library().functions, &algorithms.functions);
        let mut master = [0; MASTER_SECRET_BYTES];
        let mut randoms = [[0; RANDOM_BYTES]; 2];
        let [client, server] = &mut randoms;
        // SAFETY: a live SSL, which the session has alone, and its SSL_SESSION; each array has the
        // room that is said.
        let lengths = unsafe {
            [
                (native.SSL_SESSION_get_master_key)(
                    (functions.SSL_get_session)(ssl),
                    master.as_mut_ptr(),
                    MASTER_SECRET_BYTES,
                ),
                (native.SSL_get_client_random)(ssl, client.as_mut_ptr(), RANDOM_BYTES),
                (native.SSL_get_server_random)(ssl, server.as_mut_ptr(), RANDOM_BYTES),
            ]
        };
        let mut block = [0; MAX_BYTES];
        let (key_bytes, iv_bytes) = (self.suite.key_bytes(), self.suite.tls12_iv_bytes());
        let block_bytes = &mut block[..2 * (key_bytes + iv_bytes)];
        let derived = if lengths == [MASTER_SECRET_BYTES, RANDOM_BYTES, RANDOM_BYTES] {
            derive::key_block(algorithms, self.suite, &master, [&*client, &*server], block_bytes)
                .map_err(|_| Reason::Failed)
        } else {
            Err(Reason::Failed)
        };
        wipe(&mut master);
        let (keys, ivs) = block_bytes.split_at(2 * key_bytes);
        let of = |index: usize| {
            let key = keys.chunks_exact(key_bytes).nth(index)?;
            let iv = ivs.chunks_exact(iv_bytes).nth(index)?;
            Some(TrafficKeys::tls12(self.suite, Keys::tls12(self.suite, key, iv)?))
        };
        // What the client sends has the first.
        let (received, sent) = match self.role {
            Role::Server => (of(0), of(1)),
            Role::Client => (of(1), of(0)),
        };
        wipe(&mut block);
        derived?;
        Ok([received.ok_or(Reason::Failed)?, sent.ok_or(Reason::Failed)?])
    }
}

/// The suites that can leave, by their numbers (RFC 8446 B.4, RFC 5288, RFC 5289, RFC 5487, RFC
/// 7905, RFC 8442).
fn suite(number: u16) -> Option<(Version, Suite)> {
    Some(match number {
        0x1301 => (Version::Tls13, Suite::Aes128Gcm),
        0x1302 => (Version::Tls13, Suite::Aes256Gcm),
        0x1303 => (Version::Tls13, Suite::Chacha20Poly1305),
        0x009c | 0x009e | 0x00a2 | 0x00a8 | 0x00aa | 0x00ac | 0xc02b | 0xc02d | 0xc02f | 0xc031
        | 0xd001 => (Version::Tls12, Suite::Aes128Gcm),
        0x009d | 0x009f | 0x00a3 | 0x00a9 | 0x00ab | 0x00ad | 0xc02c | 0xc02e | 0xc030 | 0xc032
        | 0xd002 => (Version::Tls12, Suite::Aes256Gcm),
        0xcca8..=0xccae => (Version::Tls12, Suite::Chacha20Poly1305),
        _ => return None,
    })
}
