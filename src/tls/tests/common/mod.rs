//! What the tests of TLS share: certificates, peers by the openssl crate, sessions taken over.
#![allow(dead_code, reason = "each test binary uses its own part")]

use std::ffi::{c_int, c_void};
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::fd::AsRawFd;
use std::sync::OnceLock;
use std::thread;
use std::time::{Duration, Instant};

use openssl::asn1::Asn1Time;
use openssl::ec::{EcGroup, EcKey};
use openssl::hash::MessageDigest;
use openssl::nid::Nid;
use openssl::pkey::{PKey, Private};
use openssl::ssl::{
    Ssl, SslContext, SslContextBuilder, SslMethod, SslOptions, SslStream, SslVerifyMode, SslVersion,
};
use openssl::x509::{X509, X509NameBuilder};
use relay::{Counters, End, Record, Relay, Rules, Settings, Side, Tls, Tracker, Tunnel};
use tls::{Context, Library, Reason, Taken};

pub(crate) mod forge;

pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// Whether sessions are to leave OpenSSL: the tests are built in `tests/native.rs` once more.
pub(crate) const NATIVE: bool =
    matches!(env!("CARGO_CRATE_NAME").as_bytes(), [b'n', b'a', b't', ..]);

/// A session that was taken over.
pub(crate) type Session = Box<dyn Tls>;

/// Functions of the OpenSSL that the openssl crate links, which it has no names for.
pub(crate) mod raw {
    use std::ffi::{c_int, c_void};

    unsafe extern "C" {
        pub(crate) fn SSL_key_update(ssl: *mut c_void, kind: c_int) -> c_int;
        pub(crate) fn SSL_renegotiate(ssl: *mut c_void) -> c_int;
        pub(crate) fn SSL_do_handshake(ssl: *mut c_void) -> c_int;
        pub(crate) fn SSL_set_post_handshake_auth(ssl: *mut c_void, on: c_int);
        pub(crate) fn SSL_verify_client_post_handshake(ssl: *mut c_void) -> c_int;
        pub(crate) fn SSL_new_session_ticket(ssl: *mut c_void) -> c_int;
    }
}

pub(crate) const KEY_UPDATE_NOT_REQUESTED: c_int = 0;
pub(crate) const KEY_UPDATE_REQUESTED: c_int = 1;

fn identity() -> &'static (X509, PKey<Private>) {
    static IDENTITY: OnceLock<(X509, PKey<Private>)> = OnceLock::new();
    IDENTITY.get_or_init(|| {
        let group = EcGroup::from_curve_name(Nid::X9_62_PRIME256V1).expect("group");
        let key = PKey::from_ec_key(EcKey::generate(&group).expect("key")).expect("key");
        let mut name = X509NameBuilder::new().expect("name");
        name.append_entry_by_text("CN", "localhost").expect("name");
        let name = name.build();
        let mut certificate = X509::builder().expect("certificate");
        certificate.set_version(2).expect("version");
        certificate.set_subject_name(&name).expect("subject");
        certificate.set_issuer_name(&name).expect("issuer");
        certificate.set_pubkey(&key).expect("key");
        let (from, to) = (Asn1Time::days_from_now(0), Asn1Time::days_from_now(1));
        certificate.set_not_before(&from.expect("time")).expect("time");
        certificate.set_not_after(&to.expect("time")).expect("time");
        certificate.sign(&key, MessageDigest::sha256()).expect("sign");
        (certificate.build(), key)
    })
}

/// A context builder for either side, as mod_ssl would have it.
pub(crate) fn builder(version: SslVersion) -> SslContextBuilder {
    let (certificate, key) = identity();
    let mut builder = SslContext::builder(SslMethod::tls()).expect("context");
    builder.set_min_proto_version(Some(version)).expect("version");
    builder.set_max_proto_version(Some(version)).expect("version");
    builder.set_certificate(certificate).expect("certificate");
    builder.set_private_key(key).expect("key");
    builder.set_verify(SslVerifyMode::NONE);
    builder.set_session_id_context(b"test").expect("context id");
    builder.clear_options(SslOptions::NO_RENEGOTIATION);
    builder
}

pub(crate) fn tcp_pair() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind(("127.0.0.1", 0)).expect("bind");
    let one = TcpStream::connect(listener.local_addr().expect("address")).expect("connect");
    let (two, _) = listener.accept().expect("accept");
    for socket in [&one, &two] {
        socket.set_nodelay(true).expect("nodelay");
    }
    one.set_read_timeout(Some(PATIENCE)).expect("timeout");
    one.set_write_timeout(Some(PATIENCE)).expect("timeout");
    (one, two)
}

/// The context of the sessions under test, on a libssl found as at run time.
pub(crate) fn context() -> &'static Context {
    static CONTEXT: OnceLock<&'static Context> = OnceLock::new();
    CONTEXT.get_or_init(|| {
        if !NATIVE {
            return Context::new(library()).expect("context");
        }
        let context = Context::with_native(library()).expect("context");
        assert_eq!(context.why_not_native(), None);
        context
    })
}

pub(crate) fn library() -> Library {
    // SAFETY: a function of an object that stays loaded, the libssl linked by the openssl crate.
    unsafe { Library::used_at(openssl_sys::SSL_read as *const c_void) }.expect("library")
}

/// The peer, and the end of a connection that is to be taken over, after the handshake.
pub(crate) fn connect(
    peer: &SslContext,
    ours: &SslContext,
    ours_is_server: bool,
) -> (SslStream<TcpStream>, SslStream<TcpStream>) {
    let (one, two) = tcp_pair();
    connect_over(one, two, peer, ours, ours_is_server)
}

pub(crate) fn connect_over(
    one: TcpStream,
    two: TcpStream,
    peer: &SslContext,
    ours: &SslContext,
    ours_is_server: bool,
) -> (SslStream<TcpStream>, SslStream<TcpStream>) {
    let mut both = shake_hands(one, two, peer, traced(ours), ours_is_server);
    greet(&mut both.0, &mut both.1);
    both
}

/// The handshake alone.
pub(crate) fn shake_hands(
    one: TcpStream,
    two: TcpStream,
    peer: &SslContext,
    ours: Ssl,
    ours_is_server: bool,
) -> (SslStream<TcpStream>, SslStream<TcpStream>) {
    let peer = Ssl::new(peer).expect("ssl");
    thread::scope(|scope| {
        let ours = scope.spawn(move || {
            let mut stream = SslStream::new(ours, two).expect("stream");
            if ours_is_server {
                stream.accept().expect("accept");
            } else {
                stream.connect().expect("connect");
            }
            stream
        });
        let mut stream = SslStream::new(peer, one).expect("stream");
        if ours_is_server {
            stream.connect().expect("connect");
        } else {
            // SAFETY: a live SSL, not in its handshake yet; only heeded by clients.
            unsafe { raw::SSL_set_post_handshake_auth(stream.ssl().as_raw(), 0) };
            stream.accept().expect("accept");
        }
        (stream, ours.join().expect("handshake"))
    })
}

/// An SSL whose session is followed from now on, where sessions are native.
pub(crate) fn traced(context: &SslContext) -> Ssl {
    use foreign_types_shared::ForeignType as _;
    if NATIVE {
        // SAFETY: a live SSL_CTX without sessions that are under way.
        unsafe { library().trace_context(context.as_ptr().cast()) };
    }
    let ssl = Ssl::new(context).expect("ssl");
    if NATIVE {
        // SAFETY: a live SSL whose handshake has not begun.
        unsafe { self::context().trace(ssl.as_raw().cast()) };
    }
    ssl
}

/// A byte each way, as a handshake of HTTP would bring, where sessions are native.
pub(crate) fn greet<S: Read + Write>(peer: &mut SslStream<S>, ours: &mut SslStream<TcpStream>) {
    if !NATIVE {
        return;
    }
    peer.write_all(b"?").expect("write");
    ours.read_exact(&mut [0]).expect("read");
    ours.write_all(b"!").expect("write");
    peer.read_exact(&mut [0]).expect("read");
}

/// The pointer behind an SslStream.
pub(crate) trait AsRaw {
    fn as_raw(&self) -> *mut c_void;
}

impl AsRaw for openssl::ssl::SslRef {
    fn as_raw(&self) -> *mut c_void {
        use foreign_types_shared::ForeignTypeRef as _;
        self.as_ptr().cast()
    }
}

/// Takes a connection over from the openssl crate, as the module does from mod_ssl: another
/// reference and another descriptor, then the former owner lets go.
pub(crate) fn take_over(ours: SslStream<TcpStream>) -> (Session, TcpStream) {
    take_over_behind(ours, Vec::new())
}

/// The same, when `ciphertext` was read of the socket already.
pub(crate) fn take_over_behind(
    ours: SslStream<TcpStream>,
    ciphertext: Vec<u8>,
) -> (Session, TcpStream) {
    let (taken, socket) = taken(ours, ciphertext);
    assert_eq!(taken.reason(), if NATIVE { None } else { Some(Reason::Off) });
    (taken.into_tls(), socket)
}

/// The same, whatever becomes of it.
pub(crate) fn taken(ours: SslStream<TcpStream>, ciphertext: Vec<u8>) -> (Taken, TcpStream) {
    let socket = ours.get_ref().try_clone().expect("dup");
    socket.set_nonblocking(true).expect("nonblocking");
    let ssl = ours.ssl().as_raw().cast::<tls::Ssl>();
    let context = context();
    // SAFETY: a live SSL whose handshake is finished; the reference is given to the session,
    // which is the only one to use it; the socket is kept by the caller.
    let taken = unsafe {
        library().up_ref(ssl);
        tls::take_over(context, ssl, socket.as_raw_fd(), ciphertext, std::ptr::null_mut())
    };
    drop(ours);
    (taken.expect("taken over"), socket)
}

/// Has the peer send a KeyUpdate.
pub(crate) fn key_update(peer: &SslStream<TcpStream>, kind: c_int) {
    // SAFETY: a live SSL of TLS 1.3 that this thread alone uses.
    unsafe {
        assert_eq!(raw::SSL_key_update(peer.ssl().as_raw(), kind), 1);
        assert_eq!(raw::SSL_do_handshake(peer.ssl().as_raw()), 1);
    }
}

pub(crate) fn until(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !condition() {
        assert!(Instant::now() < deadline, "in vain: {what}");
        thread::sleep(Duration::from_millis(1));
    }
}

/// Tells nobody.
pub(crate) struct Untold;

impl Record for Untold {
    fn ended(&mut self, _: &End) {}
}

/// A relay of one thread.
pub(crate) fn start_relay() -> Relay {
    let counters: &'static Counters = Box::leak(Box::default());
    Relay::start(&Settings { threads: 1, ..Settings::default() }, counters).expect("relay")
}

/// The two peers of a WebSocket tunnel with TLS towards the client.
pub(crate) fn tls_client_tunnel(
    relay: &Relay,
    version: SslVersion,
) -> (SslStream<TcpStream>, TcpStream) {
    let context = builder(version).build();
    let (client, ours) = connect(&context, &context, true);
    let (session, socket) = take_over(ours);
    let side = Side { fd: socket.into(), tls: Some(session), read_ahead: Vec::new() };
    let (backend, plain) = tcp_pair();
    let frames = [Tracker::client_to_backend(), Tracker::backend_to_client()];
    let tunnel =
        Tunnel::new(side, Side::plain(plain.into()), frames, Rules::default(), Box::new(Untold));
    relay.adopt(tunnel).expect("adopted");
    (client, backend)
}

/// A client's frame with `size` bytes of payload, from 126 on.
pub(crate) fn masked_frame(size: u16) -> Vec<u8> {
    let [high, low] = size.to_be_bytes();
    let mut frame = vec![0x82, 0x80 | 126, high, low, 1, 2, 3, 4];
    frame.resize(8 + usize::from(size), 7);
    frame
}

/// Reads as the relay does, but polling. `None` is the end.
pub(crate) fn read(session: &mut Session, buffer: &mut [u8]) -> std::io::Result<Option<usize>> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        session.recheck();
        match session.read(buffer, &mut relay::Budget::default()) {
            Ok(0) => return Ok(None),
            Ok(n) => return Ok(Some(n)),
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {
                assert!(Instant::now() < deadline, "nothing to read");
                thread::sleep(Duration::from_micros(200));
            }
            Err(error) => return Err(error),
        }
    }
}

pub(crate) fn read_exact(session: &mut Session, expected: &[u8]) {
    let mut got = vec![0; expected.len()];
    let mut at = 0;
    while at < got.len() {
        at += read(session, &mut got[at..]).expect("read").expect("no end yet");
    }
    assert!(got == expected, "wrong bytes");
}

pub(crate) fn flush(session: &mut Session) {
    until("all is flushed", || match session.flush() {
        Ok(()) => true,
        Err(error) => {
            assert_eq!(error.kind(), std::io::ErrorKind::WouldBlock);
            false
        }
    });
    assert_eq!(session.kept(), 0);
}
