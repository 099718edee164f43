//! A session that stays in OpenSSL, with BIOs in memory.

use std::ffi::{CStr, c_int, c_long};
use std::ptr;

use openssl_sys::{BIO, SSL};
use records::Alert;

use crate::twins::{Seen, Stand};

unsafe extern "C" {
    fn SSL_in_init(ssl: *const SSL) -> c_int;
}

/// One that stayed.
pub(crate) struct Stayed {
    pub seen: Seen,
    ssl: *mut SSL,
    incoming: *mut BIO,
    outgoing: *mut BIO,
}

/// What is added to the number of an alert for that of an error (SSL_AD_REASON_OFFSET).
const ALERT_ERRORS: c_int = 1000;
const CTRL_MODE: c_int = 33;
const CTRL_CLEAR_MODE: c_int = 78;
const CTRL_SET_EOF_RETURN: c_int = 130;

impl Stayed {
    /// `ssl` is a reference that is given to it, and is used by it alone.
    pub(crate) fn new(ssl: *mut SSL, seen: Seen) -> Self {
        // SAFETY: a live SSL that is ours alone, and BIOs that are given to it. It is as a session is
        // that nobody took over, but that it allows no renegotiation.
        unsafe {
            let new = || {
                let bio = openssl_sys::BIO_new(openssl_sys::BIO_s_mem());
                assert!(!bio.is_null());
                bio
            };
            let (incoming, outgoing) = (new(), new());
            for bio in [incoming, outgoing] {
                // What is empty is to be asked again.
                openssl_sys::BIO_ctrl(bio, CTRL_SET_EOF_RETURN, -1, ptr::null_mut());
            }
            openssl_sys::SSL_set_bio(ssl, incoming, outgoing);
            openssl_sys::SSL_set_shutdown(ssl, 0);
            let modes: [(c_int, c_long); 2] = [
                (CTRL_CLEAR_MODE, openssl_sys::SSL_MODE_RELEASE_BUFFERS),
                (CTRL_MODE, openssl_sys::SSL_MODE_AUTO_RETRY),
            ];
            for (command, mode) in modes {
                openssl_sys::SSL_ctrl(ssl, command, mode, ptr::null_mut());
            }
            Stayed { seen, ssl, incoming, outgoing }
        }
    }

    pub(crate) fn give(&mut self, bytes: &[u8]) {
        if !bytes.is_empty() && self.seen.stand == Stand::Open {
            // SAFETY: a live BIO of ours; that many bytes are there.
            let written = unsafe {
                openssl_sys::BIO_write(self.incoming, bytes.as_ptr().cast(), bytes.len() as c_int)
            };
            assert_eq!(written, bytes.len() as c_int);
            self.read();
        }
    }

    fn read(&mut self) {
        let mut buffer = [0_u8; 16_384];
        while self.seen.stand == Stand::Open {
            // SAFETY: a live SSL of ours; there is that much room.
            let (count, error) = unsafe {
                openssl_sys::ERR_clear_error();
                let room = buffer.len() as c_int;
                let count = openssl_sys::SSL_read(self.ssl, buffer.as_mut_ptr().cast(), room);
                (count, openssl_sys::SSL_get_error(self.ssl, count))
            };
            match error {
                openssl_sys::SSL_ERROR_NONE => {
                    self.seen.data.extend_from_slice(&buffer[..count as usize]);
                }
                openssl_sys::SSL_ERROR_WANT_READ => break,
                openssl_sys::SSL_ERROR_ZERO_RETURN => self.seen.stand = Stand::Closed,
                openssl_sys::SSL_ERROR_SSL | openssl_sys::SSL_ERROR_SYSCALL => {
                    let stand = error_stand();
                    // A close_notify of TLS 1.3 that is called an error, behind a warning, is one that
                    // SSL_get_error does not know.
                    let is_closed = stand == Stand::Cut && self.has_received_close_notify();
                    self.seen.stand = if is_closed { Stand::Closed } else { stand };
                }
                other => panic!("SSL_get_error says {other}"),
            }
        }
    }

    fn has_received_close_notify(&self) -> bool {
        // SAFETY: a live SSL of ours.
        unsafe { openssl_sys::SSL_get_shutdown(self.ssl) & openssl_sys::SSL_RECEIVED_SHUTDOWN != 0 }
    }

    /// Whether a handshake message has come in part: it sends nothing then.
    pub(crate) fn is_within_message(&self) -> bool {
        // SAFETY: a live SSL of ours.
        unsafe { SSL_in_init(self.ssl) != 0 }
    }

    pub(crate) fn cut(&mut self) {
        // SAFETY: a live BIO of ours.
        unsafe {
            openssl_sys::BIO_ctrl(self.incoming, CTRL_SET_EOF_RETURN, 0, ptr::null_mut());
        }
        self.read();
    }

    pub(crate) fn write(&mut self, text: &[u8]) {
        // SAFETY: a live SSL of ours; that many bytes are there.
        let written =
            unsafe { openssl_sys::SSL_write(self.ssl, text.as_ptr().cast(), text.len() as c_int) };
        assert_eq!(written, text.len() as c_int);
    }

    pub(crate) fn close(&mut self) {
        // SAFETY: a live SSL of ours.
        let result = unsafe { openssl_sys::SSL_shutdown(self.ssl) };
        assert!(result >= 0);
    }

    pub(crate) fn take_output(&mut self) {
        let mut output = Vec::new();
        let mut buffer = [0_u8; 16_384];
        loop {
            let room = buffer.len() as c_int;
            // SAFETY: a live BIO of ours; there is that much room.
            let count =
                unsafe { openssl_sys::BIO_read(self.outgoing, buffer.as_mut_ptr().cast(), room) };
            let Ok(count) = usize::try_from(count) else { break };
            output.extend_from_slice(&buffer[..count]);
        }
        self.seen.take_sent(&output);
    }
}

impl Drop for Stayed {
    fn drop(&mut self) {
        // SAFETY: our reference, given up once; the BIOs go with it.
        unsafe {
            let both = openssl_sys::SSL_SENT_SHUTDOWN | openssl_sys::SSL_RECEIVED_SHUTDOWN;
            openssl_sys::SSL_set_shutdown(self.ssl, both);
            openssl_sys::SSL_free(self.ssl);
        }
    }
}

/// What the first error of this thread's queue says.
fn error_stand() -> Stand {
    // SAFETY: they take no pointer; the string is static, in OpenSSL's tables.
    let (code, text) = unsafe {
        let code = openssl_sys::ERR_get_error();
        let text = openssl_sys::ERR_reason_error_string(code);
        openssl_sys::ERR_clear_error();
        (code, (!text.is_null()).then(|| CStr::from_ptr(text).to_string_lossy()))
    };
    let alert = openssl_sys::ERR_GET_REASON(code) - ALERT_ERRORS;
    match u8::try_from(alert) {
        Ok(alert) => Stand::Alerted(Alert(alert)),
        // 1.1.1 has no error for it.
        Err(_) if code == 0 => Stand::Cut,
        Err(_) => match text.as_deref() {
            Some("unexpected eof while reading") => Stand::Cut,
            text => Stand::Refused(text.unwrap_or("unknown").to_owned()),
        },
    }
}
