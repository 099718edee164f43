//! A [`Wire`] as OpenSSL takes it: the BIO that a session reads of and writes to.

use std::ffi::{c_char, c_int, c_long, c_void};
use std::os::fd::RawFd;
use std::sync::atomic::{AtomicPtr, Ordering::Relaxed};
use std::{ptr, slice};

use crate::symbols::{
    BIO_CTRL_DUP, BIO_CTRL_FLUSH, BIO_FLAGS_READ, BIO_FLAGS_RWS, BIO_FLAGS_SHOULD_RETRY,
    BIO_TYPE_SOURCE_SINK, Bio, BioMethod, Functions,
};
use crate::wire::Wire;

/// What the BIO's functions need of OpenSSL: they get nothing but the BIO. Written by every
/// `method`, before any BIO is made with it.
static FUNCTIONS: AtomicPtr<Functions> = AtomicPtr::new(ptr::null_mut());

/// Makes the BIO_METHOD. Never freed, as its BIOs may outlive any owner of it.
pub(crate) fn method(functions: &'static Functions) -> Option<*mut BioMethod> {
    FUNCTIONS.store(ptr::from_ref(functions).cast_mut(), Relaxed);
    // No index of its own (there are only 128 of them per process): nobody looks for this type.
    // SAFETY: the name is a static C string; the functions have the types that BIO_meth_set_*
    // take and live as long as this module is loaded, which who uses BIOs of it sees to.
    unsafe {
        let method = (functions.BIO_meth_new)(BIO_TYPE_SOURCE_SINK, c"relayed socket".as_ptr());
        if method.is_null() {
            return None;
        }
        (functions.BIO_meth_set_read)(method, bio_read);
        (functions.BIO_meth_set_write)(method, bio_write);
        (functions.BIO_meth_set_ctrl)(method, bio_ctrl);
        (functions.BIO_meth_set_destroy)(method, bio_destroy);
        Some(method)
    }
}

/// Makes a BIO on `fd`, and its wire, which is freed with the BIO.
pub(crate) fn on(
    functions: &Functions,
    method: *const BioMethod,
    fd: RawFd,
    ahead: Vec<u8>,
) -> Option<(*mut Bio, *mut Wire)> {
    // SAFETY: the method was made by `method`.
    let bio = unsafe { (functions.BIO_new)(method) };
    if bio.is_null() {
        return None;
    }
    let wire = Box::into_raw(Box::new(Wire::new(fd, ahead)));
    // SAFETY: a live BIO of ours; bio_destroy frees the wire.
    unsafe {
        (functions.BIO_set_data)(bio, wire.cast::<c_void>());
        (functions.BIO_set_init)(bio, 1);
    }
    Some((bio, wire))
}

/// The functions and the wire of a BIO.
///
/// # Safety
/// `bio` was made by [`on`] and is alive. The wire is not referred to by anyone else for as
/// long as the reference is used: the session refers to it only outside of OpenSSL's calls.
unsafe fn wire_of<'a>(bio: *mut Bio) -> Option<(&'a Functions, &'a mut Wire)> {
    // SAFETY: set by `method` to functions that live forever, before there was a BIO.
    let functions = unsafe { FUNCTIONS.load(Relaxed).as_ref() }?;
    // SAFETY: a live BIO whose data is null or its wire, by the caller.
    let wire = unsafe { (functions.BIO_get_data)(bio).cast::<Wire>().as_mut() }?;
    Some((functions, wire))
}

unsafe extern "C" fn bio_read(bio: *mut Bio, buffer: *mut c_char, length: c_int) -> c_int {
    let Ok(length) = usize::try_from(length) else {
        return -1;
    };
    // SAFETY: OpenSSL calls this with a BIO of ours, during a call of the session's.
    let Some((functions, wire)) = (unsafe { wire_of(bio) }) else {
        return -1;
    };
    // SAFETY: OpenSSL gives room for length bytes; recv only writes to it.
    let buffer = unsafe { slice::from_raw_parts_mut(buffer.cast::<u8>(), length) };
    let received = wire.read(buffer);
    // SAFETY: a live BIO.
    unsafe { (functions.BIO_clear_flags)(bio, BIO_FLAGS_RWS | BIO_FLAGS_SHOULD_RETRY) };
    match received.map(c_int::try_from) {
        Some(Ok(n)) => n,
        _ => {
            // SAFETY: a live BIO.
            unsafe { (functions.BIO_set_flags)(bio, BIO_FLAGS_READ | BIO_FLAGS_SHOULD_RETRY) };
            -1
        }
    }
}

unsafe extern "C" fn bio_write(bio: *mut Bio, bytes: *const c_char, length: c_int) -> c_int {
    // SAFETY: OpenSSL calls this with a BIO of ours, during a call of the session's.
    let (Ok(size), Some((functions, wire))) = (usize::try_from(length), unsafe { wire_of(bio) })
    else {
        return -1;
    };
    // SAFETY: a live BIO.
    unsafe { (functions.BIO_clear_flags)(bio, BIO_FLAGS_RWS | BIO_FLAGS_SHOULD_RETRY) };
    // SAFETY: OpenSSL gives length bytes.
    wire.write(unsafe { slice::from_raw_parts(bytes.cast::<u8>(), size) });
    length
}

unsafe extern "C" fn bio_ctrl(_: *mut Bio, command: c_int, _: c_long, _: *mut c_void) -> c_long {
    match command {
        BIO_CTRL_FLUSH | BIO_CTRL_DUP => 1,
        // Not at the end of a file (the session looks after that), no kernel TLS, nothing else.
        _ => 0,
    }
}

unsafe extern "C" fn bio_destroy(bio: *mut Bio) -> c_int {
    // SAFETY: the same functions as in `wire_of`.
    let Some(functions) = (unsafe { FUNCTIONS.load(Relaxed).as_ref() }) else {
        return 0;
    };
    // SAFETY: the BIO is being freed; its data, if any, is the wire that `on` boxed, and no one
    // uses it after the SSL that owned the BIO.
    unsafe {
        let wire = (functions.BIO_get_data)(bio).cast::<Wire>();
        if !wire.is_null() {
            (functions.BIO_set_data)(bio, ptr::null_mut());
            drop(Box::from_raw(wire));
        }
    }
    1
}
