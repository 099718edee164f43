//! The OpenSSL that the process has.

use std::ffi::{CStr, c_int, c_long, c_void};
use std::fmt;
use std::io;
use std::ptr;

use crate::native_symbols::NativeTable;
use crate::symbols::{CTRL_CLEAR_MODE, CTRL_MODE, Functions, MODE_AUTO_RETRY, Ssl};

/// 1.1.1, the first with TLS 1.3.
const OLDEST: std::ffi::c_ulong = 0x1010_1000;

/// Why there is no [`Library`].
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Error {
    /// The address is in no loaded object.
    NoObject,
    /// The object uses no libssl that can be found.
    NoLibssl,
    /// The libssl, or its libcrypto, has no such function.
    Missing(&'static str),
    /// It is older than OpenSSL 1.1.1; its version number.
    TooOld(std::ffi::c_ulong),
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Error::NoObject => f.write_str("the address is in no loaded object"),
            Error::NoLibssl => f.write_str("no libssl is in use there"),
            Error::Missing(name) => write!(f, "its OpenSSL has no {name}"),
            Error::TooOld(version) => {
                write!(f, "its OpenSSL is older than 1.1.1 (version number {version:#x})")
            }
        }
    }
}

impl std::error::Error for Error {}

/// A reference to a loaded object, given up when dropped: nothing is kept loaded by this crate.
struct Object(*mut c_void);

impl Object {
    /// The object that `address` is in, if it is loaded.
    fn of_address(address: *const c_void) -> Option<Self> {
        let mut info = libc::Dl_info {
            dli_fname: ptr::null(),
            dli_fbase: ptr::null_mut(),
            dli_sname: ptr::null(),
            dli_saddr: ptr::null_mut(),
        };
        // SAFETY: dladdr takes any address, and fills in info, which is ours.
        let found = unsafe { libc::dladdr(address, &mut info) };
        if found == 0 {
            return None;
        }
        let flags = libc::RTLD_NOLOAD | libc::RTLD_LAZY;
        // SAFETY: dli_fname is the name under which the loader knows the object, a C string of
        // its own that lives while the object does (were it null, that would be the main program);
        // RTLD_NOLOAD runs no code of it.
        let handle = unsafe { libc::dlopen(info.dli_fname, flags) };
        if !handle.is_null() {
            return Some(Object(handle));
        }
        // The main program is not known by its file's name.
        // SAFETY: dlopen(NULL) refers to the main program, which is always loaded.
        let handle = unsafe { libc::dlopen(ptr::null(), libc::RTLD_LAZY) };
        (!handle.is_null()).then_some(Object(handle))
    }

    /// A symbol of the object or of those it depends on.
    fn symbol(&self, name: &CStr) -> *mut c_void {
        // SAFETY: the handle is open until drop, the name is a C string.
        unsafe { libc::dlsym(self.0, name.as_ptr()) }
    }
}

impl Drop for Object {
    fn drop(&mut self) {
        // SAFETY: the handle came from a dlopen of ours and is closed once.
        unsafe { libc::dlclose(self.0) };
    }
}

/// An OpenSSL's functions: plain addresses, without anything to be freed. To be looked up anew
/// whenever the object that uses it may have been loaded anew.
///
/// The methods are for sessions that still have their owner; those that take an `SSL *` ask
/// that it is a live one of this library and that no other thread uses it meanwhile.
#[derive(Clone, Copy, Debug)]
pub struct Library {
    pub(crate) functions: Functions,
    /// What native sessions need besides, or which function of that there is not.
    pub(crate) native: Result<NativeTable, &'static str>,
}

impl Library {
    /// The library that the object around `address` uses (a function of mod_ssl, say).
    ///
    /// # Errors
    /// See [`Error`].
    ///
    /// # Safety
    /// The library is used only while that object stays loaded.
    pub unsafe fn used_at(address: *const c_void) -> Result<Self, Error> {
        let user = Object::of_address(address).ok_or(Error::NoObject)?;
        // SAFETY: as the caller's: what the object depends on stays loaded with it.
        unsafe { Self::used_by(&user) }
    }

    /// The library that the object behind a `dlopen` handle uses, or is.
    ///
    /// # Errors
    /// See [`Error`].
    ///
    /// # Safety
    /// `handle` is an open handle, and the library is used only while it stays open.
    pub unsafe fn used_by_handle(handle: *mut c_void) -> Result<Self, Error> {
        let user = std::mem::ManuallyDrop::new(Object(handle));
        // SAFETY: as the caller's: what the object depends on stays loaded with it.
        unsafe { Self::used_by(&user) }
    }

    /// # Safety
    /// The library is used only while `user` stays loaded.
    unsafe fn used_by(user: &Object) -> Result<Self, Error> {
        let address = user.symbol(c"SSL_read");
        if address.is_null() {
            return Err(Error::NoLibssl);
        }
        let libssl = Object::of_address(address).ok_or(Error::NoLibssl)?;
        // SAFETY: names of OpenSSL in the object that has SSL_read, or in what that depends on.
        let functions = unsafe { Functions::resolve(|name| libssl.symbol(name)) };
        let functions = functions.map_err(Error::Missing)?;
        // SAFETY: takes nothing and returns a constant.
        let version = unsafe { (functions.OpenSSL_version_num)() };
        if version < OLDEST {
            return Err(Error::TooOld(version));
        }
        // SAFETY: as above.
        let native = unsafe { NativeTable::resolve(|name| libssl.symbol(name)) };
        Ok(Library { functions, native })
    }

    /// Sets SSL_MODE_AUTO_RETRY: reads do not stop at records that are no data. Without it "no
    /// more to read" does not mean that nothing is left.
    ///
    /// # Safety
    /// See [`Library`].
    pub unsafe fn set_auto_retry(&self, ssl: *mut Ssl) {
        // SAFETY: a live SSL, by the caller.
        unsafe { (self.functions.SSL_ctrl)(ssl, CTRL_MODE, MODE_AUTO_RETRY, ptr::null_mut()) };
    }

    /// Undoes [`Self::set_auto_retry`]: a read comes back behind each record that is no data.
    ///
    /// # Safety
    /// See [`Library`].
    pub unsafe fn clear_auto_retry(&self, ssl: *mut Ssl) {
        // SAFETY: a live SSL, by the caller.
        unsafe {
            (self.functions.SSL_ctrl)(ssl, CTRL_CLEAR_MODE, MODE_AUTO_RETRY, ptr::null_mut())
        };
    }

    /// Takes another reference.
    ///
    /// # Safety
    /// See [`Library`].
    pub unsafe fn up_ref(&self, ssl: *mut Ssl) {
        // SAFETY: a live SSL, by the caller.
        unsafe { (self.functions.SSL_up_ref)(ssl) };
    }

    /// Gives a reference up.
    ///
    /// # Safety
    /// See [`Library`]; the reference was the caller's.
    pub unsafe fn free(&self, ssl: *mut Ssl) {
        // SAFETY: a reference of the caller's.
        unsafe { (self.functions.SSL_free)(ssl) };
    }

    /// Whether bytes wait inside, decrypted or not.
    ///
    /// # Safety
    /// See [`Library`].
    pub unsafe fn has_pending(&self, ssl: *const Ssl) -> bool {
        // SAFETY: a live SSL, by the caller.
        unsafe { (self.functions.SSL_has_pending)(ssl) != 0 }
    }

    /// Whether nothing was read of the next record.
    ///
    /// # Safety
    /// See [`Library`].
    pub(crate) unsafe fn is_between_records(&self, ssl: *const Ssl) -> bool {
        // SAFETY: a live SSL, by the caller; the string is static.
        unsafe {
            let state = CStr::from_ptr((self.functions.SSL_rstate_string)(ssl));
            // "Read header".
            state == c"RH" && !self.has_pending(ssl)
        }
    }

    /// Whether the handshake is over.
    ///
    /// # Safety
    /// See [`Library`].
    pub unsafe fn is_init_finished(&self, ssl: *const Ssl) -> bool {
        // SAFETY: a live SSL, by the caller.
        unsafe { (self.functions.SSL_is_init_finished)(ssl) != 0 }
    }

    /// The protocol version: 0x0303 is TLS 1.2, 0x0304 TLS 1.3.
    ///
    /// # Safety
    /// See [`Library`].
    pub unsafe fn version(&self, ssl: *const Ssl) -> c_int {
        // SAFETY: a live SSL, by the caller.
        unsafe { (self.functions.SSL_version)(ssl) }
    }

    /// Sends close_notify, without waiting for the peer's.
    ///
    /// # Errors
    /// It could not be written.
    ///
    /// # Safety
    /// See [`Library`].
    pub unsafe fn send_close_notify(&self, ssl: *mut Ssl) -> io::Result<()> {
        // SAFETY: a live SSL, by the caller.
        let result = unsafe {
            (self.functions.ERR_clear_error)();
            (self.functions.SSL_shutdown)(ssl)
        };
        if result < 0 { Err(self.last_error()) } else { Ok(()) }
    }

    /// Has what `close` does to a session, such as to shut it down, tell the peer nothing and leave the
    /// session as it was.
    ///
    /// # Safety
    /// See [`Library`]; it is so until `close` has returned, too.
    pub unsafe fn shutdown_quietly(&self, ssl: *mut Ssl, close: impl FnOnce()) {
        // SAFETY: a live SSL, by the caller.
        let before = unsafe {
            (self.functions.SSL_set_quiet_shutdown)(ssl, 1);
            (self.functions.SSL_get_shutdown)(ssl)
        };
        close();
        // SAFETY: as above.
        unsafe { (self.functions.SSL_set_shutdown)(ssl, before) };
    }

    /// The reason that OpenSSL gives for the failure of the last call of this thread.
    pub(crate) fn last_error(&self) -> io::Error {
        // SAFETY: both take no pointer; the string is static, in OpenSSL's tables.
        let reason = unsafe {
            let code = (self.functions.ERR_get_error)();
            let reason = (self.functions.ERR_reason_error_string)(code);
            (!reason.is_null()).then(|| CStr::from_ptr(reason).to_string_lossy())
        };
        io::Error::other(reason.unwrap_or("unknown TLS error".into()).into_owned())
    }

    /// # Safety
    /// See [`Library`].
    pub(crate) unsafe fn change_modes(&self, ssl: *mut Ssl, set: c_long, clear: c_long) {
        // SAFETY: a live SSL, by the caller.
        unsafe {
            (self.functions.SSL_ctrl)(ssl, CTRL_CLEAR_MODE, clear, ptr::null_mut());
            (self.functions.SSL_ctrl)(ssl, CTRL_MODE, set, ptr::null_mut());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// One that nothing here depends on, so that only itself has what is in it.
    #[test]
    fn an_object_is_found_by_an_address_in_it_and_is_not_kept_loaded() {
        let (name, symbol) = (c"libthread_db.so.1", c"td_init");
        // SAFETY: a library of libc's, without anything that runs when it is loaded or unloaded.
        let handle = unsafe { libc::dlopen(name.as_ptr(), libc::RTLD_LAZY | libc::RTLD_LOCAL) };
        assert!(!handle.is_null());
        // SAFETY: the handle is open, the name is a C string.
        let address = unsafe { libc::dlsym(handle, symbol.as_ptr()) };
        let object = Object::of_address(address).expect("it is loaded");
        assert_eq!(object.symbol(symbol), address);
        assert!(object.symbol(c"no_such_function").is_null());
        // SAFETY: opened above, and used no more.
        unsafe { libc::dlclose(handle) };
        // SAFETY: nothing is loaded by this, and what is found is closed.
        let is_loaded = || unsafe {
            let handle = libc::dlopen(name.as_ptr(), libc::RTLD_LAZY | libc::RTLD_NOLOAD);
            !handle.is_null() && libc::dlclose(handle) == 0
        };
        assert!(is_loaded());
        drop(object);
        assert!(!is_loaded());
        assert!(Object::of_address(ptr::null()).is_none());
        // The program itself is not known by its file's name.
        assert!(Object::of_address(Object::of_address as *const c_void).is_some());
    }

    #[test]
    fn each_error_says_what_there_is_not() {
        for (error, text) in [
            (Error::NoObject, "in no loaded object"),
            (Error::NoLibssl, "no libssl"),
            (Error::Missing("SSL_read"), "no SSL_read"),
            (Error::TooOld(0x1000_2000), "version number 0x10002000"),
        ] {
            assert!(error.to_string().contains(text), "{error}");
        }
    }
}
