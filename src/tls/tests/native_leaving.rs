//! Which sessions leave OpenSSL, and which stay in it for what reason.

mod common;

use std::ffi::c_int;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::fd::AsRawFd;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::thread;

use common::*;
use openssl::ssl::{Ssl, SslContextBuilder, SslStream, SslVerifyMode, SslVersion};
use tls::{Native, Reason, Taken};

const VERSIONS: [SslVersion; 2] = [SslVersion::TLS1_2, SslVersion::TLS1_3];

/// A context with one cipher suite.
fn with_suite(version: SslVersion, suite: &str) -> SslContextBuilder {
    let mut context = builder(version);
    if version == SslVersion::TLS1_3 {
        context.set_ciphersuites(suite).expect("suite");
    } else {
        context.set_cipher_list(suite).expect("suite");
    }
    context
}

fn exchange(peer: &mut SslStream<TcpStream>, session: &mut Session) {
    for size in [1, 100, 16_384, 16_385, 70_000] {
        let bytes: Vec<u8> = (0..size).map(|n: usize| (n * 7 % 251) as u8).collect();
        let mut got = vec![0; size];
        thread::scope(|scope| {
            scope.spawn(|| {
                peer.write_all(&bytes).expect("write");
                peer.read_exact(&mut got).expect("read");
            });
            read_exact(session, &bytes);
            session.write(&bytes, false).expect("write");
            flush(session);
        });
        assert!(got == bytes);
    }
}

#[test]
fn sessions_with_aead_suites_leave() {
    for (version, suite) in [
        (SslVersion::TLS1_3, "TLS_AES_128_GCM_SHA256"),
        (SslVersion::TLS1_3, "TLS_AES_256_GCM_SHA384"),
        (SslVersion::TLS1_3, "TLS_CHACHA20_POLY1305_SHA256"),
        (SslVersion::TLS1_2, "ECDHE-ECDSA-AES128-GCM-SHA256"),
        (SslVersion::TLS1_2, "ECDHE-ECDSA-AES256-GCM-SHA384"),
        (SslVersion::TLS1_2, "ECDHE-ECDSA-CHACHA20-POLY1305"),
    ] {
        for ours_is_server in [true, false] {
            let context = with_suite(version, suite).build();
            let (mut peer, ours) = connect(&context, &context, ours_is_server);
            assert_eq!(peer.ssl().version2(), Some(version));
            let (taken, _socket) = taken(ours, Vec::new());
            assert_eq!(taken.reason(), None, "{suite}, {ours_is_server}");
            let mut session = taken.into_tls();
            exchange(&mut peer, &mut session);
            if version == SslVersion::TLS1_3 {
                key_update(&peer, KEY_UPDATE_REQUESTED);
                exchange(&mut peer, &mut session);
                key_update(&peer, KEY_UPDATE_NOT_REQUESTED);
                exchange(&mut peer, &mut session);
            }
            session.close().expect("close_notify");
            assert_eq!(peer.read(&mut [0]).expect("close_notify"), 0);
        }
    }
}

/// However many records went before, and however large they were.
#[test]
fn sessions_that_were_used_for_long_leave() {
    for version in VERSIONS {
        for ours_is_server in [true, false] {
            let context = builder(version).build();
            let (mut peer, mut ours) = connect(&context, &context, ours_is_server);
            for size in (0..300).map(|round| [1, 5000, 16_384][round % 3]) {
                let mut bytes = vec![7; size];
                peer.write_all(&bytes).expect("write");
                ours.read_exact(&mut bytes).expect("read");
                ours.write_all(&bytes).expect("write");
                peer.read_exact(&mut bytes).expect("read");
            }
            greet(&mut peer, &mut ours);
            let (mut session, _socket) = take_over(ours);
            exchange(&mut peer, &mut session);
        }
    }
}

/// What stays says why, and works.
fn stays(reason: Reason, mut peer: SslStream<TcpStream>, ours: SslStream<TcpStream>) {
    let (taken, _socket) = taken(ours, Vec::new());
    assert_eq!(taken.reason(), Some(reason));
    let mut session = taken.into_tls();
    exchange(&mut peer, &mut session);
}

#[test]
fn other_sessions_stay_and_say_why() {
    for ours_is_server in [true, false] {
        // CBC.
        let suite = "ECDHE-ECDSA-AES128-SHA256";
        let context = with_suite(SslVersion::TLS1_2, suite).build();
        let (peer, ours) = connect(&context, &context, ours_is_server);
        stays(Reason::Suite, peer, ours);
        for version in VERSIONS {
            // Nobody has followed it.
            let context = builder(version).build();
            let (one, two) = tcp_pair();
            let ours = Ssl::new(&context).expect("ssl");
            let (peer, ours) = shake_hands(one, two, &context, ours, ours_is_server);
            stays(Reason::Untraced, peer, ours);
            // The last record of a direction is large.
            let mut large = vec![1; 16_384];
            let (mut peer, mut ours) = connect(&context, &context, ours_is_server);
            peer.write_all(&large).expect("write");
            ours.read_exact(&mut large).expect("read");
            stays(Reason::LargeRecord, peer, ours);
            let (mut peer, mut ours) = connect(&context, &context, ours_is_server);
            ours.write_all(&large).expect("write");
            peer.read_exact(&mut large).expect("read");
            stays(Reason::LargeRecord, peer, ours);
        }
        // The peer has ended it.
        let context = builder(SslVersion::TLS1_3).build();
        let (mut peer, mut ours) = connect(&context, &context, ours_is_server);
        peer.shutdown().expect("close_notify");
        assert_eq!(ours.read(&mut [0]).expect("the end"), 0);
        let (taken, _socket) = taken(ours, Vec::new());
        let reason = taken.reason().expect("it stays");
        assert!(matches!(reason, Reason::Ended | Reason::Unfinished), "{reason}");
        assert_eq!(read(&mut taken.into_tls(), &mut [0]).expect("the end"), None);
    }
    // A client that has sent nothing with its keys of data.
    let context = builder(SslVersion::TLS1_3).build();
    let (one, two) = tcp_pair();
    let (peer, ours) = shake_hands(one, two, &context, traced(&context), true);
    stays(Reason::NoRecord, peer, ours);
}

/// What is set for records goes on being so: of the padding of TLS 1.3 (RFC 8446 5.4), and of small
/// fragments (RFC 6066 4), native sessions know nothing.
#[test]
fn sessions_with_records_of_their_own_kind_stay() {
    use foreign_types_shared::ForeignType as _;
    unsafe extern "C" {
        fn SSL_CTX_set_block_padding(ctx: *mut openssl_sys::SSL_CTX, size: usize) -> c_int;
        fn SSL_CTX_set_tlsext_max_fragment_length(
            ctx: *mut openssl_sys::SSL_CTX,
            mode: u8,
        ) -> c_int;
    }
    const FRAGMENTS_OF_4096_BYTES: u8 = 4;
    for ours_is_server in [true, false] {
        let ours = builder(SslVersion::TLS1_3).build();
        // SAFETY: a live context that nobody else uses yet.
        assert_eq!(unsafe { SSL_CTX_set_block_padding(ours.as_ptr(), 512) }, 1);
        let peers = builder(SslVersion::TLS1_3).build();
        let (peer, stream) = connect(&peers, &ours, ours_is_server);
        stays(Reason::Unfinished, peer, stream);
        // What the peer pads is read.
        let (mut peer, stream) = connect(&ours, &peers, ours_is_server);
        let (mut session, _socket) = take_over(stream);
        exchange(&mut peer, &mut session);
        for version in VERSIONS {
            let context = builder(version).build();
            // SAFETY: as above. It is the client that asks for it.
            let done = unsafe {
                SSL_CTX_set_tlsext_max_fragment_length(context.as_ptr(), FRAGMENTS_OF_4096_BYTES)
            };
            assert_eq!(done, 1);
            let (peer, stream) = connect(&context, &context, ours_is_server);
            stays(Reason::Suite, peer, stream);
        }
    }
}

/// A client that has answered what it was asked for is as any other.
#[test]
fn sessions_with_certificates_of_clients_leave() {
    for version in VERSIONS {
        let mut ours = builder(version);
        ours.set_verify_callback(SslVerifyMode::PEER, |_, _| true);
        let peers = builder(version).build();
        let (mut peer, ours) = connect(&peers, &ours.build(), true);
        assert!(ours.ssl().peer_certificate().is_some());
        let (mut session, _socket) = take_over(ours);
        exchange(&mut peer, &mut session);
    }
}

/// Secrets of KeyUpdates are noted too. Where it is the last record that brought new keys, nothing
/// proves those.
#[test]
fn keys_of_key_updates_are_known_once_they_are_used() {
    for ours_is_server in [true, false] {
        for kind in [KEY_UPDATE_NOT_REQUESTED, KEY_UPDATE_REQUESTED] {
            let context = builder(SslVersion::TLS1_3).build();
            let (mut peer, mut ours) = connect(&context, &context, ours_is_server);
            for _ in 0..3 {
                key_update(&peer, kind);
                greet(&mut peer, &mut ours);
            }
            let (mut session, _socket) = take_over(ours);
            exchange(&mut peer, &mut session);
        }
        let context = builder(SslVersion::TLS1_3).build();
        let (peer, mut ours) = connect(&context, &context, ours_is_server);
        key_update(&peer, KEY_UPDATE_NOT_REQUESTED);
        ours.get_ref().set_nonblocking(true).expect("nonblocking");
        until("it has arrived", || ours.get_ref().peek(&mut [0]).is_ok());
        assert!(ours.ssl_read(&mut [0]).is_err());
        stays(Reason::NoRecord, peer, ours);
    }
}

/// SSLKEYLOGFILE goes on working, with the same lines.
#[test]
fn a_keylog_callback_goes_on_being_called() {
    for version in VERSIONS {
        let lines = [(); 2].map(|()| Arc::new(Mutex::new(Vec::new())));
        let [ours, peers] = lines.each_ref().map(|lines| {
            let (mut context, lines) = (builder(version), Arc::clone(lines));
            context.set_keylog_callback(move |_, line| {
                lines.lock().expect("lines").push(line.to_owned());
            });
            context.build()
        });
        let (mut peer, stream) = connect(&peers, &ours, true);
        let [mut of_ours, mut of_peer] =
            lines.each_ref().map(|lines| lines.lock().expect("lines").clone());
        of_ours.sort();
        of_peer.sort();
        assert!(!of_peer.is_empty() && of_ours == of_peer, "{of_ours:?} {of_peer:?}");
        let (mut session, _socket) = take_over(stream);
        exchange(&mut peer, &mut session);
    }
}

/// The owner has read a part of a record.
#[test]
fn a_session_within_a_record_stays() {
    for version in VERSIONS {
        for part in [1, 4, 5, 6, 300] {
            // The wire from the peer to us lets so many bytes pass.
            let allowed = Arc::new(AtomicUsize::new(usize::MAX));
            let (far, inlet) = tcp_pair();
            let (outlet, near) = tcp_pair();
            let (mut one, mut two) =
                (inlet.try_clone().expect("dup"), outlet.try_clone().expect("dup"));
            let may = Arc::clone(&allowed);
            thread::spawn(move || {
                let mut byte = [0];
                while matches!(one.read(&mut byte), Ok(1)) {
                    until("a byte may pass", || may.load(Relaxed) > 0);
                    may.fetch_sub(1, Relaxed);
                    if two.write_all(&byte).is_err() {
                        break;
                    }
                }
            });
            let (mut back_in, mut back_out) = (outlet, inlet);
            thread::spawn(move || std::io::copy(&mut back_in, &mut back_out));
            let context = builder(version).build();
            let (mut peer, mut ours) = connect_over(far, near, &context, &context, true);
            ours.get_ref().set_nonblocking(true).expect("nonblocking");
            allowed.store(part, Relaxed);
            peer.write_all(&[9; 500]).expect("write");
            until("it has arrived", || ours.get_ref().peek(&mut [0; 500]).is_ok_and(|n| n == part));
            assert!(ours.ssl_read(&mut [0; 500]).is_err());
            let (taken, _socket) = taken(ours, Vec::new());
            assert_eq!(taken.reason(), Some(Reason::Unfinished), "{part}");
            allowed.store(usize::MAX, Relaxed);
            read_exact(&mut taken.into_tls(), &[9; 500]);
        }
    }
}

/// The owner has written a part of a record.
#[test]
fn a_session_that_waits_to_write_stays() {
    for version in VERSIONS {
        let context = builder(version).build();
        let (_peer, mut ours) = connect(&context, &context, true);
        ours.get_ref().set_nonblocking(true).expect("nonblocking");
        while ours.ssl_write(&[7; 16_384]).is_ok() {}
        let (taken, _socket) = taken(ours, Vec::new());
        assert_eq!(taken.reason(), Some(Reason::Unfinished));
    }
}

fn native(ours: SslStream<TcpStream>) -> (Box<Native>, TcpStream) {
    let (taken, socket) = taken(ours, Vec::new());
    match taken {
        Taken::Native(native) => (native, socket),
        Taken::OpenSsl(_, reason) => panic!("{reason}"),
    }
}

/// However much a read has room for.
#[test]
fn records_are_read_in_any_pieces() {
    let bytes: Vec<u8> = (0..60_000_u32).map(|n| (n * 7 % 251) as u8).collect();
    for version in VERSIONS {
        for room in [1, 7, 1000, 4096, 16_383, 16_384, 16_385, 65_536, 200_000] {
            let context = builder(version).build();
            let (mut peer, ours) = connect(&context, &context, true);
            let (mut session, _socket) = take_over(ours);
            let (mut got, mut buffer) = (Vec::new(), vec![0; room]);
            thread::scope(|scope| {
                scope.spawn(|| {
                    for part in
                        [&bytes[..1], &bytes[1..20_000], &bytes[20_000..20_100], &bytes[20_100..]]
                    {
                        peer.write_all(part).expect("write");
                    }
                });
                while got.len() < bytes.len() {
                    let n = read(&mut session, &mut buffer).expect("read").expect("no end yet");
                    got.extend_from_slice(&buffer[..n]);
                }
            });
            assert!(got == bytes, "{version:?}, {room}");
            exchange(&mut peer, &mut session);
        }
    }
}

/// What peers with an error in their records, or none at all, are told.
#[test]
fn what_is_no_record_ends_the_session() {
    for version in VERSIONS {
        for (bytes, what) in [
            (&[0x55; 200][..], "type"),
            (&[23, 3, 3, 0xff, 0xff], "long"),
            (&[20, 3, 3, 0, 1, 1], "ChangeCipherSpec"),
            (
                &[
                    23, 3, 3, 0, 30, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10,
                    1, 2, 3, 4, 5, 6, 7, 8, 9, 10,
                ],
                "decrypt",
            ),
        ] {
            let context = builder(version).build();
            let (mut peer, ours) = connect(&context, &context, true);
            let (mut session, _socket) = take_over(ours);
            // What came before it is read.
            peer.write_all(b"before").expect("write");
            peer.get_ref().write_all(bytes).expect("write");
            read_exact(&mut session, b"before");
            let error = read(&mut session, &mut [0; 9]).expect_err("no record");
            assert!(error.to_string().contains(what), "{error}");
            assert!(session.write(b"late", false).is_err());
            let told = peer.ssl_read(&mut [0]).expect_err("an alert").to_string();
            assert!(told.contains("alert"), "{told}");
        }
    }
}

/// Whose failure is known, and not told yet.
#[test]
fn a_session_that_has_failed_is_not_movable() {
    for version in VERSIONS {
        let context = builder(version).build();
        let (mut peer, ours) = connect(&context, &context, true);
        let (mut session, socket) = native(ours);
        peer.write_all(b"before").expect("write");
        peer.get_ref().write_all(&[0x55; 200]).expect("write");
        until("it has arrived", || socket.peek(&mut [0; 1000]).is_ok_and(|n| n > 200));
        let n = relay::Tls::read(&mut *session, &mut [0; 100], &mut relay::Budget::default());
        assert_eq!(n.expect("read"), 6);
        assert!(!session.is_movable());
    }
}

/// With all that is on its way: a part of a record, what was not yet sent.
#[test]
fn a_frozen_session_goes_on() {
    for version in VERSIONS {
        for ours_is_server in [true, false] {
            let contexts = builder(version).build();
            let (mut peer, ours) = connect(&contexts, &contexts, ours_is_server);
            let (native, socket) = native(ours);
            let mut native: Session = native;
            exchange(&mut peer, &mut native);
            drop(native);
            drop(socket);
            // Much is on its way, or it has failed.
            let (peer, ours) = connect(&contexts, &contexts, ours_is_server);
            let (mut session, _socket) = self::native(ours);
            relay::Tls::write(&mut *session, &[5; 12 << 20], false).expect("write");
            assert!(!session.is_movable());
            let mut session = session.freeze(&mut Vec::new()).expect_err("it is not");
            drop(peer);
            until("it has failed", || {
                relay::Tls::flush(&mut *session)
                    .is_err_and(|error| error.kind() != std::io::ErrorKind::WouldBlock)
            });
            assert!(!session.is_movable());

            let (mut peer, ours) = connect(&contexts, &contexts, ours_is_server);
            let (mut session, socket) = self::native(ours);
            let mut written = Vec::new();
            while relay::Tls::kept(&*session) == 0 {
                relay::Tls::write(&mut *session, &[5; 1000], false).expect("write");
                written.extend([5; 1000]);
            }
            // More is there than is asked for.
            peer.write_all(&[3; 20_000]).expect("write");
            until("it has arrived", || socket.peek(&mut [0; 20_000]).is_ok_and(|n| n == 20_000));
            let mut buffer = [0; 1000];
            for _ in 0..2 {
                let n = relay::Tls::read(&mut *session, &mut buffer, &mut relay::Budget::default());
                assert_eq!(n.expect("read"), 1000);
            }
            let mut frozen = vec![1, 2, 3];
            let expected = session.frozen_bytes();
            assert!(session.is_movable());
            session.freeze(&mut frozen).expect("it is movable");
            assert_eq!(frozen.len(), 3 + expected);
            frozen.push(4);
            for cut in [0, 1, 100, expected - 1] {
                // SAFETY: none is made.
                let cut = unsafe { Native::thaw(context(), &mut &frozen[3..3 + cut], -1) };
                assert!(cut.is_none());
            }
            let mut from = &frozen[3..];
            // SAFETY: its descriptor, which is open.
            let thawed = unsafe { Native::thaw(context(), &mut from, socket.as_raw_fd()) };
            assert_eq!(from, [4]);
            let mut session: Session = Box::new(thawed.expect("its bytes"));
            read_exact(&mut session, &[3; 18_000]);
            thread::scope(|scope| {
                scope.spawn(|| {
                    let mut got = vec![0; written.len()];
                    peer.read_exact(&mut got).expect("read");
                    assert!(got == written);
                });
                flush(&mut session);
            });
            exchange(&mut peer, &mut session);
            session.close().expect("close_notify");
            assert_eq!(peer.read(&mut [0]).expect("close_notify"), 0);
        }
    }
}
