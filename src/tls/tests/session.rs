//! Sessions by themselves, without a relay.

mod common;

use std::ffi::c_void;
use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::thread;
use std::time::Duration;

use common::*;
use openssl::ssl::{SslRef, SslSessionCacheMode, SslStream, SslVerifyMode, SslVersion};
use openssl::x509::X509StoreContextRef;
use relay::Budget;
use tls::{Error, Library, Reason};

const VERSIONS: [SslVersion; 2] = [SslVersion::TLS1_2, SslVersion::TLS1_3];

fn pair(version: SslVersion, ours_is_server: bool) -> (SslStream<TcpStream>, Session, TcpStream) {
    let context = builder(version).build();
    let (peer, ours) = connect(&context, &context, ours_is_server);
    let (session, socket) = take_over(ours);
    (peer, session, socket)
}

#[test]
fn the_library_is_found_by_whoever_uses_it() {
    // SAFETY: libssl stays loaded, as the test links it.
    let by_handle = unsafe {
        let handle = libc::dlopen(c"libssl.so.3".as_ptr(), libc::RTLD_LAZY);
        assert!(!handle.is_null());
        Library::used_by_handle(handle)
    };
    assert!(by_handle.is_ok());
    // A function of this very program, which depends on libssl.
    // SAFETY: the program stays loaded.
    let by_user = unsafe { Library::used_at(flush as *const c_void) };
    assert!(by_user.is_ok());
    // SAFETY: nothing is found there, so nothing is used.
    unsafe {
        let handle = libc::dlopen(c"libc.so.6".as_ptr(), libc::RTLD_LAZY);
        assert_eq!(Library::used_by_handle(handle).err(), Some(Error::NoLibssl));
        let nowhere = std::ptr::null();
        assert_eq!(Library::used_at(nowhere).err(), Some(Error::NoObject));
    }
}

#[test]
fn bytes_go_both_ways() {
    for version in VERSIONS {
        for ours_is_server in [true, false] {
            let (mut peer, mut session, _socket) = pair(version, ours_is_server);
            peer.write_all(b"hello").expect("write");
            read_exact(&mut session, b"hello");
            session.write(b"world", false).expect("write");
            let mut got = [0; 5];
            peer.read_exact(&mut got).expect("read");
            assert_eq!(&got, b"world");
            let error =
                session.read(&mut [0; 10], &mut Budget::default()).expect_err("nothing there");
            assert_eq!(error.kind(), ErrorKind::WouldBlock);
        }
    }
}

#[test]
fn close_notify_is_told_from_a_bare_end() {
    for version in VERSIONS {
        for ours_is_server in [true, false] {
            for clean in [true, false] {
                let (mut peer, mut session, socket) = pair(version, ours_is_server);
                peer.write_all(b"last").expect("write");
                if clean {
                    peer.shutdown().expect("close_notify");
                }
                peer.get_ref().shutdown(Shutdown::Write).expect("shutdown");
                read_exact(&mut session, b"last");
                assert_eq!(read(&mut session, &mut [0; 9]).expect("an end"), None);
                assert_eq!(session.closed_cleanly(), clean);
                // Either way the other direction lives on.
                session.write(b"more", false).expect("write");
                let mut got = [0; 4];
                if clean {
                    // The openssl crate reads no more after its own close_notify on 1.2, so
                    // only that something came is seen.
                    assert!(session.kept() == 0);
                } else {
                    peer.read_exact(&mut got).expect("read");
                    assert_eq!(&got, b"more");
                }
                session.close().expect("close");
                session.close().expect("only once");
                assert!(session.write(b"late", false).is_err());
                flush(&mut session);
                socket.shutdown(Shutdown::Write).expect("shutdown");
                if !clean {
                    assert_eq!(peer.read(&mut got).expect("close_notify"), 0);
                }
            }
        }
    }
}

#[test]
fn a_reset_is_an_error_of_the_socket() {
    let (peer, mut session, _socket) = pair(SslVersion::TLS1_3, true);
    // Unread bytes (session tickets are read by then) make the close a reset.
    session.write(b"unread", false).expect("write");
    thread::sleep(Duration::from_millis(20));
    drop(peer);
    let error = read(&mut session, &mut [0; 9]).expect_err("a reset");
    assert_eq!(error.raw_os_error(), Some(libc::ECONNRESET));
}

#[test]
fn writes_always_complete_and_are_kept() {
    for version in VERSIONS {
        let (mut peer, mut session, _socket) = pair(version, true);
        let bytes: Vec<u8> = (0..12 << 20).map(|n: usize| (n * 7 % 251) as u8).collect();
        for chunk in bytes.chunks(65_536) {
            session.write(chunk, false).expect("write");
        }
        assert!(session.kept() > 1 << 20);
        assert_eq!(session.flush().expect_err("nobody reads").kind(), ErrorKind::WouldBlock);
        thread::scope(|scope| {
            scope.spawn(|| {
                let mut got = vec![0; bytes.len()];
                peer.read_exact(&mut got).expect("read");
                assert!(got == bytes);
            });
            flush(&mut session);
        });
    }
}

#[test]
fn key_updates_go_on_while_writes_are_blocked() {
    for ours_is_server in [true, false] {
        for kind in [KEY_UPDATE_REQUESTED, KEY_UPDATE_NOT_REQUESTED] {
            let (mut peer, mut session, _socket) = pair(SslVersion::TLS1_3, ours_is_server);
            let bytes = vec![42; 12 << 20];
            session.write(&bytes, false).expect("write");
            let kept = session.kept();
            assert!(kept > 1 << 20);
            for round in 0..20_u8 {
                key_update(&peer, kind);
                peer.write_all(&[round; 100]).expect("write");
                read_exact(&mut session, &[round; 100]);
                session.write(&[round], false).expect("write");
            }
            assert!(session.kept() > kept);
            thread::scope(|scope| {
                scope.spawn(|| {
                    let mut got = vec![0; bytes.len() + 20];
                    peer.read_exact(&mut got).expect("read");
                    assert!(got[..bytes.len()] == bytes);
                    assert_eq!(got[bytes.len()..], (0..20).collect::<Vec<u8>>());
                });
                flush(&mut session);
            });
        }
    }
}

#[test]
fn a_flood_of_key_updates_is_bounded() {
    let (peer, mut session, _socket) = pair(SslVersion::TLS1_3, true);
    peer.get_ref().set_nonblocking(true).expect("nonblocking");
    // The way of the answers is blocked.
    session.write(&vec![1; 12 << 20], false).expect("write");
    let kept = session.kept();
    assert!(kept > 1 << 20);
    let mut error = None;
    // Until it is stopped, or what could be has long been.
    for _ in 0..if NATIVE { 5_000 } else { 100_000 } {
        // SAFETY: a live SSL that this thread alone uses. That it cannot write is no matter.
        unsafe {
            raw::SSL_key_update(peer.ssl().as_raw(), KEY_UPDATE_REQUESTED);
            raw::SSL_do_handshake(peer.ssl().as_raw());
        }
        session.recheck();
        match session.read(&mut [0; 10], &mut Budget::default()) {
            Err(e) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => {}
            Err(e) => {
                error = Some(e);
                break;
            }
            Ok(n) => panic!("read {n} bytes"),
        }
        assert!(session.kept() <= kept + 256 * 1024);
    }
    if NATIVE {
        // What is owed is owed once, and goes when there is room.
        assert!(error.is_none() && session.kept() == kept, "{error:?}");
        return;
    }
    let error = error.expect("the flood is stopped").to_string();
    assert!(error.contains("TLS replies"), "{error}");
}

#[test]
fn renegotiation_is_refused() {
    for ours_is_server in [true, false] {
        let (peer, mut session, _socket) = pair(SslVersion::TLS1_2, ours_is_server);
        peer.get_ref().set_nonblocking(true).expect("nonblocking");
        // SAFETY: a live SSL that this thread alone uses.
        unsafe {
            assert_eq!(raw::SSL_renegotiate(peer.ssl().as_raw()), 1);
            raw::SSL_do_handshake(peer.ssl().as_raw());
        }
        thread::sleep(Duration::from_millis(20));
        session.recheck();
        let error = session.read(&mut [0; 10], &mut Budget::default()).expect_err("no bytes");
        let peer_says = {
            let mut peer = peer;
            peer.get_ref().set_nonblocking(false).expect("blocking");
            peer.read(&mut [0; 10]).expect_err("refused").to_string()
        };
        assert_eq!(error.kind(), ErrorKind::WouldBlock);
        assert!(peer_says.contains("no renegotiation"), "{peer_says}");
    }
}

#[test]
fn tickets_after_the_takeover_are_swallowed() {
    for version in VERSIONS {
        let (mut peer, mut session, _socket) = pair(version, false);
        if version == SslVersion::TLS1_3 {
            for _ in 0..5 {
                // SAFETY: a live SSL that this thread alone uses.
                assert_eq!(unsafe { raw::SSL_new_session_ticket(peer.ssl().as_raw()) }, 1);
                // SAFETY: as above.
                unsafe { raw::SSL_do_handshake(peer.ssl().as_raw()) };
            }
        }
        peer.write_all(b"after").expect("write");
        read_exact(&mut session, b"after");
    }
}

/// A backend asks for a certificate after the handshake: the answer is an empty one, and the
/// former owner's callback is not called.
#[test]
fn post_handshake_authentication_gets_an_empty_certificate() {
    static CALLED: AtomicUsize = AtomicUsize::new(0);
    unsafe extern "C" fn client_cert(
        _: *mut openssl_sys::SSL,
        _: *mut *mut openssl_sys::X509,
        _: *mut *mut openssl_sys::EVP_PKEY,
    ) -> std::ffi::c_int {
        CALLED.fetch_add(1, Relaxed);
        0
    }
    unsafe extern "C" {
        fn SSL_CTX_set_client_cert_cb(
            ctx: *mut openssl_sys::SSL_CTX,
            callback: unsafe extern "C" fn(
                *mut openssl_sys::SSL,
                *mut *mut openssl_sys::X509,
                *mut *mut openssl_sys::EVP_PKEY,
            ) -> std::ffi::c_int,
        );
        fn SSL_CTX_set_post_handshake_auth(ctx: *mut openssl_sys::SSL_CTX, on: std::ffi::c_int);
    }
    use foreign_types_shared::ForeignType as _;
    let ours = builder(SslVersion::TLS1_3).build();
    // SAFETY: a live context that nobody else uses yet.
    unsafe {
        SSL_CTX_set_client_cert_cb(ours.as_ptr(), client_cert);
        SSL_CTX_set_post_handshake_auth(ours.as_ptr(), 1);
    }
    let (mut peer, ours) = connect(&builder(SslVersion::TLS1_3).build(), &ours, false);
    let (mut session, _socket) = take_over(ours);
    peer_asks(&mut peer);
    if NATIVE {
        // An answer would need a hash of the whole handshake: the session ends.
        let error = read(&mut session, &mut [0; 9]).expect_err("no answer").to_string();
        assert!(error.contains("handshake message"), "{error}");
        let told = peer.read(&mut [0; 9]).expect_err("an alert").to_string();
        assert!(told.contains("unexpected message"), "{told}");
        assert_eq!(CALLED.load(Relaxed), 0, "the former owner was called");
        return;
    }
    peer.write_all(b"asked").expect("write");
    read_exact(&mut session, b"asked");
    flush(&mut session);
    session.write(b"answered", false).expect("write");
    let mut got = [0; 8];
    peer.read_exact(&mut got).expect("read");
    assert_eq!(&got, b"answered");
    assert!(peer.ssl().peer_certificate().is_none());
    assert_eq!(CALLED.load(Relaxed), 0, "the former owner was called");
}

/// A client was asked for a certificate before the takeover and answers after it: the former
/// owner neither verifies it nor keeps a session for it, and the tunnel goes on.
#[test]
fn the_former_owners_verification_is_not_called() {
    static VERIFIED: AtomicUsize = AtomicUsize::new(0);
    static STORED: AtomicUsize = AtomicUsize::new(0);
    use foreign_types_shared::ForeignType as _;
    let mut ours = builder(SslVersion::TLS1_3);
    ours.set_session_cache_mode(SslSessionCacheMode::SERVER);
    ours.set_new_session_callback(|_, _| {
        STORED.fetch_add(1, Relaxed);
    });
    let ours = ours.build();
    let peer = builder(SslVersion::TLS1_3).build();
    unsafe extern "C" {
        fn SSL_CTX_set_post_handshake_auth(ctx: *mut openssl_sys::SSL_CTX, on: std::ffi::c_int);
    }
    // SAFETY: a live context that nobody else uses yet.
    unsafe { SSL_CTX_set_post_handshake_auth(peer.as_ptr(), 1) };
    let (mut peer, mut ours) = connect(&peer, &ours, true);
    asks(&mut ours, |_, _| {
        VERIFIED.fetch_add(1, Relaxed);
        false
    });
    // It is not the last that is sent.
    ours.write_all(b"101").expect("write");
    let (taken, _socket) = taken(ours, Vec::new());
    // The answer is awaited.
    let reason = if NATIVE { Reason::Unfinished } else { Reason::Off };
    assert_eq!(taken.reason(), Some(reason));
    let mut session = taken.into_tls();
    // Tickets of the handshake.
    STORED.store(0, Relaxed);
    session.write(b"asked", false).expect("write");
    flush(&mut session);
    let mut got = [0; 8];
    peer.read_exact(&mut got).expect("read");
    assert_eq!(&got, b"101asked");
    peer.write_all(b"answered").expect("write");
    read_exact(&mut session, b"answered");
    let called = (VERIFIED.load(Relaxed), STORED.load(Relaxed));
    assert_eq!(called, (0, 0), "the former owner was called");
}

/// The former owner may have read ahead of its TLS, to within a record or beyond several.
#[test]
fn ciphertext_that_was_read_before_comes_first() {
    let message: Vec<u8> = (0..50_000_u32).map(|n| (n * 7) as u8).collect();
    for version in VERSIONS {
        for ours_is_server in [true, false] {
            for ahead in [0, 1, 4, 5, 6, 700, 16_384, 20_000, 49_000, usize::MAX] {
                let context = builder(version).build();
                let (mut peer, ours) = connect(&context, &context, ours_is_server);
                peer.write_all(&message).expect("write");
                // More than the message, by what TLS adds to it.
                let mut ciphertext = vec![0; 50_000];
                let mut socket = ours.get_ref();
                until("it has arrived", || {
                    socket.peek(&mut ciphertext).expect("peek") == ciphertext.len()
                });
                ciphertext.truncate(ahead);
                socket.read_exact(&mut ciphertext).expect("read");
                let (mut session, _socket) = take_over_behind(ours, ciphertext);
                read_exact(&mut session, &message);
                peer.write_all(b"and on").expect("write");
                read_exact(&mut session, b"and on");
            }
        }
    }
}

/// A back end asks for a certificate.
fn peer_asks(peer: &mut SslStream<TcpStream>) {
    asks(peer, |_, _| true);
}

/// A server asks for a certificate after its handshake, which `verify` is to look at.
fn asks(
    server: &mut SslStream<TcpStream>,
    verify: impl Fn(bool, &mut X509StoreContextRef) -> bool + Send + Sync + 'static,
) {
    use foreign_types_shared::ForeignTypeRef as _;
    // SAFETY: a live SSL of ours, which this thread alone uses.
    let ssl = unsafe { SslRef::from_ptr_mut(server.ssl().as_ptr()) };
    ssl.set_verify_callback(SslVerifyMode::PEER, verify);
    let ssl = server.ssl().as_raw();
    // SAFETY: a live server SSL that this thread alone uses.
    unsafe {
        assert_eq!(
            raw::SSL_verify_client_post_handshake(ssl),
            1,
            "{:?}",
            openssl::error::ErrorStack::get()
        );
        assert_eq!(raw::SSL_do_handshake(ssl), 1);
    }
}

/// The keys of the key exchange, where OpenSSL still has them, are not kept for as long as a tunnel
/// lasts: those of a hybrid exchange take kilobytes.
#[test]
fn keys_of_the_handshake_are_freed() {
    if NATIVE {
        // The SSL itself is freed.
        return;
    }
    const PEERS: std::ffi::c_int = 109;
    const OURS: std::ffi::c_int = 133;
    /// The type of such a key.
    fn key(ssl: *mut c_void, which: std::ffi::c_int) -> Option<std::ffi::c_int> {
        let mut key: *mut openssl_sys::EVP_PKEY = std::ptr::null_mut();
        // SAFETY: a live SSL, which gives a reference that is given up.
        unsafe {
            openssl_sys::SSL_ctrl(ssl.cast(), which, 0, (&raw mut key).cast());
            let found = (!key.is_null()).then(|| openssl_sys::EVP_PKEY_id(key));
            openssl_sys::EVP_PKEY_free(key);
            found
        }
    }
    for ours_is_server in [true, false] {
        let context = builder(SslVersion::TLS1_3).build();
        let (mut peer, ours) = connect(&context, &context, ours_is_server);
        let ssl = ours.ssl().as_raw();
        let before = [PEERS, OURS].map(|which| key(ssl, which));
        assert!(before.iter().any(Option::is_some), "OpenSSL keeps none");
        let (mut session, _socket) = take_over(ours);
        // SSL_get_peer_tmp_key has it still, but it is empty: of a type that no key exchange has.
        for key in [PEERS, OURS].into_iter().filter_map(|which| key(ssl, which)) {
            assert_eq!(key, openssl_sys::EVP_PKEY_RSA);
        }
        peer.write_all(b"and on").expect("write");
        read_exact(&mut session, b"and on");
    }
}

/// Fatal errors and frees must not remove sessions from the former owner's cache, by calling it.
#[test]
fn the_former_owners_session_cache_is_left_alone() {
    static REMOVED: AtomicUsize = AtomicUsize::new(0);
    static SERIAL: Mutex<()> = Mutex::new(());
    let _serial = SERIAL.lock();
    for version in VERSIONS {
        for ours_is_server in [true, false] {
            for fatal in [true, false] {
                let mut ours = builder(version);
                ours.set_session_cache_mode(SslSessionCacheMode::BOTH);
                ours.set_remove_session_callback(|_, _| {
                    REMOVED.fetch_add(1, Relaxed);
                });
                let ours = ours.build();
                let (mut peer, stream) = connect(&builder(version).build(), &ours, ours_is_server);
                let (mut session, socket) = take_over(stream);
                if !ours_is_server && version == SslVersion::TLS1_3 {
                    // SAFETY: a live SSL that this thread alone uses.
                    unsafe {
                        raw::SSL_new_session_ticket(peer.ssl().as_raw());
                        raw::SSL_do_handshake(peer.ssl().as_raw());
                    }
                }
                peer.write_all(b"x").expect("write");
                read_exact(&mut session, b"x");
                if fatal {
                    peer.get_ref().write_all(&[0x55; 200]).expect("write");
                    let error = read(&mut session, &mut [0; 10]).expect_err("no TLS");
                    assert_eq!(error.raw_os_error(), None);
                    // As OpenSSL calls it.
                    assert!(
                        error.to_string().contains("record")
                            || error.to_string().contains("version"),
                        "{error}"
                    );
                }
                let before = REMOVED.load(Relaxed);
                drop(session);
                drop(socket);
                assert_eq!((before, REMOVED.load(Relaxed)), (0, 0), "{version:?} {fatal}");
                drop(peer);
                drop(ours);
                REMOVED.store(0, Relaxed);
            }
        }
    }
}
