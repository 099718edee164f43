//! A TLS session that the relay carries.

use std::ffi::{c_int, c_void};
use std::io;
use std::os::fd::RawFd;
use std::ptr;

use relay::{Budget, Tls};

use crate::bio;
use crate::context::Context;
use crate::library::Library;
use crate::symbols::{
    CTRL_GET_PEER_TMP_KEY, CTRL_GET_TMP_KEY, ERROR_SSL, ERROR_SYSCALL, ERROR_WANT_READ,
    ERROR_WANT_WRITE, ERROR_ZERO_RETURN, EVP_PKEY_RSA, EvpPkey, MODE_ACCEPT_MOVING_WRITE_BUFFER,
    MODE_AUTO_RETRY, MODE_ENABLE_PARTIAL_WRITE, MODE_RELEASE_BUFFERS, OP_ENABLE_KTLS,
    OP_NO_RENEGOTIATION, RECEIVED_SHUTDOWN, SENT_SHUTDOWN, Ssl,
};
use crate::wire::{RECORDS, Wire};

/// What a record with data costs beside its bytes, see [`Budget`].
const RECORD_COST: usize = 2048;
/// What one without data costs: new keys in both directions and the answer that says so (KeyUpdate)
/// take more than ten times as long as a small record.
const SILENT_COST: usize = 32 * 1024;
/// The most plain text in a record (RFC 8446 5.1).
const RECORD: usize = 16 * 1024;

/// A TLS session taken over from its former owner, with I/O on a non-blocking descriptor of the
/// relay's.
#[derive(Debug)]
pub struct Session {
    context: &'static Context,
    ssl: *mut Ssl,
    /// Owned by the SSL's BIO, so that it lives as long as `ssl` is ours.
    wire: *mut Wire,
    /// Records that OpenSSL was given and that have shown nothing yet.
    given: usize,
    /// What a read came upon behind bytes, for the next read to say.
    found: Option<io::Result<usize>>,
    clean: bool,
    closed: bool,
}

// SAFETY: OpenSSL ties an SSL to no thread; it is used by one at a time, its owner.
unsafe impl Send for Session {}

unsafe extern "C" fn no_info(_: *const Ssl, _: c_int, _: c_int) {}

/// A certificate that was asked for before the takeover may come after it. What it could allow has
/// been decided by then.
unsafe extern "C" fn no_verification(_: c_int, _: *mut c_void) -> c_int {
    1
}

impl Session {
    /// Takes `ssl` over: its BIOs are replaced by one on `fd`, its SSL_CTX and callbacks by
    /// ones that do nothing, `app_data` is put in the place of what the former owner's callbacks
    /// would look at. The descriptor stays the caller's, to be closed after the session.
    ///
    /// `ciphertext` is read before anything on `fd`. Bytes that the former owner's BIOs hold
    /// are lost: they must be empty.
    ///
    /// # Errors
    /// OpenSSL's, out of memory above all. The reference to `ssl` is given up then too.
    ///
    /// # Safety
    /// `ssl` is a live SSL of the context's library whose handshake is finished, the reference
    /// is the caller's and given to the session, and from now on nobody else uses it. `fd` is
    /// its socket and open for as long as the session lives. `app_data` is whatever the former
    /// owner's callbacks can stand, for as long as the process lives.
    pub unsafe fn take_over(
        context: &'static Context,
        ssl: *mut Ssl,
        fd: RawFd,
        ciphertext: Vec<u8>,
        app_data: *mut c_void,
    ) -> io::Result<Self> {
        let functions = &context.library.functions;
        let Some((bio, wire)) = bio::on(functions, context.method, fd, ciphertext) else {
            // SAFETY: the reference was given to us.
            unsafe { (functions.SSL_free)(ssl) };
            return Err(io::Error::from(io::ErrorKind::OutOfMemory));
        };
        let mut session =
            Session { context, ssl, wire, given: 0, found: None, clean: false, closed: false };
        // SAFETY: a live SSL that is ours alone, by the caller; the BIO is given to it. The order
        // matters: while the former owner's BIOs go, their callbacks must see no connection
        // (mod_ssl's look at app_data, and are content with none).
        unsafe {
            (functions.SSL_set_info_callback)(ssl, Some(no_info));
            (functions.SSL_set_msg_callback)(ssl, ptr::null_mut());
            (functions.SSL_set_ex_data)(ssl, 0, ptr::null_mut());
            (functions.SSL_set_bio)(ssl, bio, bio);
            // With no callback it would keep the one that it has. New tickets, which follow a
            // certificate, are made and kept by callbacks of the first SSL_CTX.
            (functions.SSL_set_verify)(ssl, 0, Some(no_verification));
            (functions.SSL_set_num_tickets)(ssl, 0);
            (functions.SSL_set_quiet_shutdown)(ssl, 0);
            let shutdown = (functions.SSL_get_shutdown)(ssl);
            (functions.SSL_set_shutdown)(ssl, shutdown & RECEIVED_SHUTDOWN);
            (functions.SSL_set_options)(ssl, OP_NO_RENEGOTIATION);
            (functions.SSL_clear_options)(ssl, OP_ENABLE_KTLS);
            // Without AUTO_RETRY a read comes back once all that it was given is done, and the loop
            // is ours to bound.
            context.library.change_modes(
                ssl,
                MODE_RELEASE_BUFFERS | MODE_ACCEPT_MOVING_WRITE_BUFFER,
                MODE_AUTO_RETRY | MODE_ENABLE_PARTIAL_WRITE,
            );
            // Where the former owner read the first part of a record, the next begins no one knows
            // where.
            (functions.SSL_set_read_ahead)(ssl, 0);
            if (functions.SSL_set_SSL_CTX)(ssl, context.neutral).is_null() {
                return Err(context.library.last_error());
            }
            (functions.SSL_set_ex_data)(ssl, 0, app_data);
        }
        session.follow_records();
        session.forget_session();
        session.forget_keys();
        Ok(session)
    }

    /// Has its records counted from here on, if the next byte of the wire begins one.
    fn follow_records(&mut self) {
        let (library, ssl) = (&self.context.library, self.ssl);
        // SAFETY: a live SSL of ours.
        if self.wire().follows_records() || !unsafe { library.is_between_records(ssl) } {
            return;
        }
        self.wire().follow_records();
        // A whole record, and more, in one recv. Not on a client: a ticket must be dealt with (see
        // `forget_session`) before what comes after it is looked at.
        // SAFETY: as above.
        unsafe {
            if (library.functions.SSL_is_server)(ssl) != 0 {
                (library.functions.SSL_set_read_ahead)(ssl, 1);
            }
        }
    }

    /// Its SSL, which is alive for as long as the session is.
    pub(crate) fn ssl(&self) -> *mut Ssl {
        self.ssl
    }

    /// The library that its SSL is of.
    pub(crate) fn library(&self) -> &'static Library {
        &self.context.library
    }

    /// Ends it here, without a word to the peer. Returns what was received and not given to OpenSSL.
    pub(crate) fn into_ahead(mut self) -> Vec<u8> {
        self.wire().take_ahead()
    }

    /// Frees the keys of the handshake's key exchange, which nobody asks for any more and OpenSSL
    /// keeps until the end: 6 to 8 KiB, where they are those of a hybrid exchange (ML-KEM).
    fn forget_keys(&mut self) {
        let functions = &self.context.library.functions;
        for which in [CTRL_GET_PEER_TMP_KEY, CTRL_GET_TMP_KEY] {
            let mut key: *mut EvpPkey = ptr::null_mut();
            // SAFETY: a live SSL of ours, which answers with a reference to be given up. The keys
            // are those of this SSL alone. One that gets another type loses what is in it, and is
            // a valid one without a key; every OpenSSL has RSA.
            unsafe {
                (functions.SSL_ctrl)(self.ssl, which, 0, (&raw mut key).cast());
                if !key.is_null() {
                    (functions.EVP_PKEY_set_type)(key, EVP_PKEY_RSA);
                    (functions.EVP_PKEY_free)(key);
                }
            }
        }
    }

    /// Empties the id of the SSL_SESSION. A fatal error would remove the session from the cache
    /// of the SSL_CTX it was made with, and so call the former owner back; one without an id is
    /// in no cache. A ticket that a client is sent makes a new SSL_SESSION with an id.
    fn forget_session(&mut self) {
        let functions = &self.context.library.functions;
        // SAFETY: a live SSL of ours; the SSL_SESSION is its own, and lives as long.
        unsafe {
            let session = (functions.SSL_get_session)(self.ssl);
            if !session.is_null() {
                (functions.SSL_SESSION_set1_id)(session, c"".as_ptr().cast(), 0);
            }
        }
    }

    /// The wire. Not to be held over a call of OpenSSL's.
    fn wire(&mut self) -> &mut Wire {
        // SAFETY: freed with the BIO, which the SSL owns, which is ours; OpenSSL's functions
        // refer to it only during calls that `self` makes, and none is made while it is lent.
        unsafe { &mut *self.wire }
    }

    /// What went wrong at the wire, if something did.
    fn check_wire(&mut self) -> io::Result<()> {
        let wire = self.wire();
        if let Some(errno) = wire.errno {
            return Err(io::Error::from_raw_os_error(errno));
        }
        if wire.overflowed {
            return Err(io::Error::other(
                "the peer requests TLS replies faster than it reads them",
            ));
        }
        Ok(())
    }

    /// One SSL_read: its error code, or how much it read.
    fn read_once(&mut self, buffer: &mut [u8]) -> Result<usize, c_int> {
        let functions = &self.context.library.functions;
        let room = c_int::try_from(buffer.len()).unwrap_or(c_int::MAX);
        // SAFETY: a live SSL of ours; buffer has room for that much.
        unsafe {
            (functions.ERR_clear_error)();
            let n = (functions.SSL_read)(self.ssl, buffer.as_mut_ptr().cast(), room);
            match usize::try_from(n) {
                Ok(n) if n > 0 => Ok(n),
                _ => Err((functions.SSL_get_error)(self.ssl, n)),
            }
        }
    }

    /// Reads at most one record with data. `Ok(0)` is the end.
    fn read_record(&mut self, buffer: &mut [u8], budget: &mut Budget) -> io::Result<usize> {
        let wire = self.wire();
        if wire.empty && !wire.has_ahead() && !self.has_pending() {
            self.wire().empty = false;
            return Err(io::ErrorKind::WouldBlock.into());
        }
        while !budget.is_spent() {
            self.wire().starved = false;
            let result = self.read_once(buffer);
            self.charge(budget, result.is_ok());
            self.follow_records();
            let error = match result {
                Ok(n) => return Ok(n),
                Err(error) => error,
            };
            match error {
                ERROR_ZERO_RETURN => {
                    self.clean = true;
                    return Ok(0);
                }
                ERROR_WANT_READ | ERROR_WANT_WRITE => {}
                ERROR_SSL => return Err(self.context.library.last_error()),
                ERROR_SYSCALL => {
                    self.check_wire()?;
                    return Err(self.context.library.last_error());
                }
                other => return Err(io::Error::other(format!("SSL_get_error says {other}"))),
            }
            self.forget_session();
            self.check_wire()?;
            let wire = self.wire();
            if wire.ended {
                return Ok(0);
            }
            if wire.starved {
                wire.empty = false;
                return Err(io::ErrorKind::WouldBlock.into());
            }
            // Records without data were dealt with, or it had its share of records.
            if !wire.follows_records() {
                budget.charge(SILENT_COST);
            }
        }
        Err(io::ErrorKind::Interrupted.into())
    }

    /// Charges what a read has cost, which may have brought the data of one record.
    fn charge(&mut self, budget: &mut Budget, has_data: bool) {
        let wire = self.wire();
        let (begun, part) = (wire.take_begun(), usize::from(wire.is_within_record()));
        self.given += begun;
        let silent = if !has_data {
            self.given.saturating_sub(part)
        } else {
            budget.charge(RECORD_COST);
            self.given = self.given.saturating_sub(1);
            // Those that are still inside may have data. They are not more than it gets at a time.
            let inside = if self.given > 0 && self.has_pending() { RECORDS } else { 0 };
            self.given.saturating_sub(inside)
        };
        budget.charge(silent * SILENT_COST);
        self.given -= silent;
    }

    fn has_pending(&self) -> bool {
        // SAFETY: a live SSL of ours.
        unsafe { self.context.library.has_pending(self.ssl) }
    }
}

impl Tls for Session {
    fn read(&mut self, buffer: &mut [u8], budget: &mut Budget) -> io::Result<usize> {
        if let Some(found) = self.found.take() {
            return found;
        }
        // As many records as there are and fit: what is sent on goes out in one piece.
        let mut filled = 0;
        while buffer.len() - filled >= RECORD.min(buffer.len()) {
            match self.read_record(&mut buffer[filled..], budget) {
                Ok(n) if n > 0 => filled += n,
                found if filled == 0 => return found,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.wire().empty = true;
                    break;
                }
                // The next read goes on from here.
                Err(error) if error.kind() == io::ErrorKind::Interrupted => break,
                found => {
                    self.found = Some(found);
                    break;
                }
            }
        }
        Ok(filled)
    }

    fn recheck(&mut self) {
        self.wire().empty = false;
    }

    fn closed_cleanly(&self) -> bool {
        self.clean
    }

    fn is_within_message(&self) -> bool {
        // SAFETY: a live SSL of ours.
        unsafe { !self.context.library.is_init_finished(self.ssl) }
    }

    fn write(&mut self, bytes: &[u8], more: bool) -> io::Result<()> {
        let functions = &self.context.library.functions;
        self.wire().more = more;
        for part in bytes.chunks(c_int::MAX as usize) {
            self.wire().lift_limit();
            let length = c_int::try_from(part.len()).map_err(io::Error::other)?;
            // SAFETY: a live SSL of ours; part has that many bytes.
            let written = unsafe {
                (functions.ERR_clear_error)();
                (functions.SSL_write)(self.ssl, part.as_ptr().cast(), length)
            };
            self.wire().set_limit();
            self.check_wire()?;
            if written != length {
                return Err(self.context.library.last_error());
            }
        }
        Ok(())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.wire().flush()
    }

    fn kept(&self) -> usize {
        // SAFETY: as in `wire`.
        unsafe { (*self.wire).kept() }
    }

    fn close(&mut self) -> io::Result<()> {
        if self.closed {
            return Ok(());
        }
        self.closed = true;
        self.wire().lift_limit();
        self.wire().more = true;
        // SAFETY: a live SSL of ours.
        let result = unsafe { self.context.library.send_close_notify(self.ssl) };
        let wire = self.wire();
        wire.set_limit();
        // RFC 8446 6.1: nothing follows close_notify.
        wire.finished = true;
        result
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        let functions = &self.context.library.functions;
        // SAFETY: our reference, given up once; the BIO and the wire go with it. An SSL that
        // counts as shut down leaves its session alone.
        unsafe {
            (functions.SSL_set_shutdown)(self.ssl, SENT_SHUTDOWN | RECEIVED_SHUTDOWN);
            (functions.SSL_free)(self.ssl);
        }
    }
}
