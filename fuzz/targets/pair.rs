//! Two OpenSSL sessions that have shaken hands in memory, and the keys of both directions.

use std::cell::{OnceCell, RefCell};
use std::ffi::c_long;
use std::io::{self, Read, Write};
use std::rc::Rc;
use std::sync::OnceLock;

use foreign_types_shared::ForeignType as _;
use openssl::asn1::Asn1Time;
use openssl::ec::{EcGroup, EcKey};
use openssl::hash::MessageDigest;
use openssl::nid::Nid;
use openssl::pkey::{PKey, Private};
use openssl::ssl::{
    ShutdownState, Ssl, SslContext, SslContextBuilder, SslMethod, SslOptions, SslRef, SslSession,
    SslSessionCacheMode, SslStream, SslVerifyMode, SslVersion,
};
use openssl::x509::{X509, X509NameBuilder};
use records::{Role, Suite, Version};
use tls::{Context, Library};

use crate::direction::Direction;
use crate::libcrypto;

unsafe extern "C" {
    fn SSL_SESSION_dup(session: *const openssl_sys::SSL_SESSION) -> *mut openssl_sys::SSL_SESSION;
    fn SSL_CTX_set_timeout(ctx: *mut openssl_sys::SSL_CTX, seconds: c_long) -> c_long;
}

/// How long a session can be resumed (RFC 8446 4.6.1 allows no more): longer than anybody fuzzes.
const RESUMABLE_SECONDS: c_long = 7 * 24 * 3600;

/// One end of a connection in memory.
#[derive(Clone, Default)]
pub(crate) struct End {
    pub incoming: Rc<RefCell<Vec<u8>>>,
    pub outgoing: Rc<RefCell<Vec<u8>>>,
}

impl End {
    fn both() -> [Self; 2] {
        let one = End::default();
        let other = End { incoming: Rc::clone(&one.outgoing), outgoing: Rc::clone(&one.incoming) };
        [one, other]
    }
}

impl Read for End {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let mut incoming = self.incoming.borrow_mut();
        let count = buffer.len().min(incoming.len());
        if count == 0 {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        buffer[..count].copy_from_slice(&incoming[..count]);
        incoming.drain(..count);
        Ok(count)
    }
}

impl Write for End {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.outgoing.borrow_mut().write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Two sessions that have shaken hands, and have said a few bytes.
pub(crate) struct Pair {
    pub peer: SslStream<End>,
    pub ours: SslStream<End>,
    /// What is received of the peer.
    pub received: Direction,
    pub sent: Direction,
}

pub(crate) fn library() -> &'static Library {
    static LIBRARY: OnceLock<Library> = OnceLock::new();
    LIBRARY.get_or_init(|| {
        // SAFETY: a function of the libssl that is linked, and so stays loaded.
        unsafe { Library::used_at(openssl_sys::SSL_read as *const _) }.expect("a libssl")
    })
}

/// That of the sessions that leave OpenSSL.
pub(crate) fn context() -> &'static Context {
    static CONTEXT: OnceLock<&'static Context> = OnceLock::new();
    CONTEXT.get_or_init(|| {
        let context = Context::with_native(*library()).expect("a context");
        assert_eq!(context.why_not_native(), None);
        context
    })
}

/// What is made once for a version and a suite.
struct Contexts {
    client: SslContext,
    server: SslContext,
    /// A handshake that resumes one costs a tenth.
    session: SslSession,
}

thread_local! {
    static CONTEXTS: [OnceCell<Contexts>; 6] = const { [const { OnceCell::new() }; 6] };
    /// The last traffic secrets of a client and of a server, by the keylog.
    static SECRETS: RefCell<[Vec<u8>; 2]> = const { RefCell::new([Vec::new(), Vec::new()]) };
    /// The last session that a client could resume.
    static SESSION: RefCell<Option<SslSession>> = const { RefCell::new(None) };
}

impl Contexts {
    fn new(version: Version, suite: Suite) -> Self {
        let mut client = builder(version, suite);
        client.set_session_cache_mode(
            SslSessionCacheMode::CLIENT | SslSessionCacheMode::NO_INTERNAL_STORE,
        );
        client.set_new_session_callback(|_, session| {
            SESSION.with_borrow_mut(|last| *last = Some(session));
        });
        let mut server = builder(version, suite);
        server.set_session_cache_mode(SslSessionCacheMode::OFF);
        let (client, server) = (client.build(), server.build());
        for context in [&client, &server] {
            // SAFETY: live SSL_CTXs, of which no session has begun. This program stays loaded.
            unsafe { library().trace_context(context.as_ptr().cast()) };
        }
        let [one, other] = End::both();
        let mut clients = stream(Ssl::new(&client).expect("an SSL"), one, Role::Client);
        let mut servers = stream(Ssl::new(&server).expect("an SSL"), other, Role::Server);
        shake_hands(&mut clients, &mut servers);
        // Tickets of TLS 1.3 come behind the handshake.
        assert!(clients.ssl_read(&mut [0]).is_err());
        let session = SESSION.with_borrow_mut(Option::take).expect("a session");
        // What ends without that cannot be resumed.
        clients.set_shutdown(ShutdownState::SENT | ShutdownState::RECEIVED);
        Contexts { client, server, session }
    }

    fn client(&self) -> Ssl {
        let mut ssl = Ssl::new(&self.client).expect("an SSL");
        // SAFETY: a live SSL_SESSION, of which the copy is an own one: what fails cannot be resumed
        // any more. It is of the client's SSL_CTX.
        unsafe {
            let copy = SSL_SESSION_dup(self.session.as_ptr());
            assert!(!copy.is_null());
            ssl.set_session(&SslSession::from_ptr(copy)).expect("set");
        }
        ssl
    }

    fn server(&self) -> Ssl {
        let mut ssl = Ssl::new(&self.server).expect("an SSL");
        ssl.set_num_tickets(0).expect("set");
        ssl
    }
}

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
        let (from, to) = (Asn1Time::days_from_now(0), Asn1Time::days_from_now(30));
        certificate.set_not_before(&from.expect("time")).expect("time");
        certificate.set_not_after(&to.expect("time")).expect("time");
        certificate.sign(&key, MessageDigest::sha256()).expect("sign");
        (certificate.build(), key)
    })
}

fn builder(version: Version, suite: Suite) -> SslContextBuilder {
    let (certificate, key) = identity();
    let mut builder = SslContext::builder(SslMethod::tls()).expect("a context");
    let only = match version {
        Version::Tls12 => SslVersion::TLS1_2,
        Version::Tls13 => SslVersion::TLS1_3,
    };
    builder.set_min_proto_version(Some(only)).expect("version");
    builder.set_max_proto_version(Some(only)).expect("version");
    let set = match (version, suite) {
        (Version::Tls13, Suite::Aes128Gcm) => builder.set_ciphersuites("TLS_AES_128_GCM_SHA256"),
        (Version::Tls13, Suite::Aes256Gcm) => builder.set_ciphersuites("TLS_AES_256_GCM_SHA384"),
        (Version::Tls13, Suite::Chacha20Poly1305) => {
            builder.set_ciphersuites("TLS_CHACHA20_POLY1305_SHA256")
        }
        (Version::Tls12, Suite::Aes128Gcm) => {
            builder.set_cipher_list("ECDHE-ECDSA-AES128-GCM-SHA256")
        }
        (Version::Tls12, Suite::Aes256Gcm) => {
            builder.set_cipher_list("ECDHE-ECDSA-AES256-GCM-SHA384")
        }
        (Version::Tls12, Suite::Chacha20Poly1305) => {
            builder.set_cipher_list("ECDHE-ECDSA-CHACHA20-POLY1305")
        }
    };
    set.expect("suite");
    // The quickest.
    builder.set_groups_list("P-256").expect("group");
    builder.set_certificate(certificate).expect("certificate");
    builder.set_private_key(key).expect("key");
    builder.set_verify(SslVerifyMode::NONE);
    builder.set_session_id_context(b"fuzz").expect("context id");
    builder.clear_options(SslOptions::NO_RENEGOTIATION);
    builder.set_keylog_callback(note_secret);
    // SAFETY: a live SSL_CTX that nobody else uses yet.
    unsafe { SSL_CTX_set_timeout(builder.as_ptr(), RESUMABLE_SECONDS) };
    builder
}

fn note_secret(_: &SslRef, line: &str) {
    let mut words = line.split(' ');
    let which = match words.next() {
        Some("CLIENT_TRAFFIC_SECRET_0") => 0,
        Some("SERVER_TRAFFIC_SECRET_0") => 1,
        _ => return,
    };
    let digits = words.nth(1).expect("a secret").as_bytes();
    let digit = |byte: &u8| char::from(*byte).to_digit(16).expect("a digit") as u8;
    let secret = digits.chunks(2).map(|pair| digit(&pair[0]) << 4 | digit(&pair[1])).collect();
    SECRETS.with_borrow_mut(|secrets| secrets[which] = secret);
}

fn stream(mut ssl: Ssl, end: End, role: Role) -> SslStream<End> {
    match role {
        Role::Client => ssl.set_connect_state(),
        Role::Server => ssl.set_accept_state(),
    }
    SslStream::new(ssl, end).expect("a stream")
}

fn shake_hands(one: &mut SslStream<End>, other: &mut SslStream<End>) {
    for _ in 0..10 {
        let done = [&mut *one, &mut *other].map(|stream| stream.do_handshake().is_ok());
        if done == [true; 2] {
            return;
        }
    }
    panic!("the handshake does not end");
}

impl Pair {
    /// Shakes hands; then both say so many bytes, one by one.
    pub(crate) fn new(version: Version, suite: Suite, role: Role, greetings: u8) -> Self {
        let index = usize::from(version == Version::Tls12) * 3 + suite as usize;
        CONTEXTS.with(|all| {
            let contexts = all[index].get_or_init(|| Contexts::new(version, suite));
            Pair::of(contexts, (version, suite), role, greetings)
        })
    }

    fn of(
        contexts: &Contexts,
        (version, suite): (Version, Suite),
        role: Role,
        greetings: u8,
    ) -> Self {
        let [client, server] = [contexts.client(), contexts.server()];
        let (theirs, ours) = match role {
            Role::Client => (server, client),
            Role::Server => (client, server),
        };
        // SAFETY: a live SSL of the context's library, whose handshake has not begun.
        unsafe { context().trace(ours.as_ptr().cast()) };
        let [one, other] = End::both();
        let mut ours = stream(ours, one, role);
        let other_role = if role == Role::Client { Role::Server } else { Role::Client };
        let mut peer = stream(theirs, other, other_role);
        shake_hands(&mut peer, &mut ours);
        assert!(ours.ssl().session_reused());
        for _ in 0..greetings {
            peer.write_all(b"?").expect("written");
            ours.read_exact(&mut [0]).expect("read");
            ours.write_all(b"!").expect("written");
            peer.read_exact(&mut [0]).expect("read");
        }
        let [mut of_client, mut of_server] = directions(version, suite, peer.ssl());
        // In TLS 1.2 the Finished is the first.
        let number = u64::from(greetings) + u64::from(version == Version::Tls12);
        (of_client.number, of_server.number) = (number, number);
        let (received, sent) = match role {
            Role::Client => (of_server, of_client),
            Role::Server => (of_client, of_server),
        };
        Pair { peer, ours, received, sent }
    }
}

/// What the client sends, and what the server does.
fn directions(version: Version, suite: Suite, ssl: &SslRef) -> [Direction; 2] {
    let ciphers = &libcrypto::CIPHERS;
    if version == Version::Tls13 {
        let secrets = SECRETS.with_borrow(Clone::clone);
        return secrets.map(|secret| Direction::tls13(ciphers, suite, secret));
    }
    let (mut master, mut client, mut server) = ([0; 48], [0; 32], [0; 32]);
    ssl.session().expect("a session").master_key(&mut master);
    ssl.client_random(&mut client);
    ssl.server_random(&mut server);
    let (key, iv) = (suite.key_bytes(), suite.tls12_iv_bytes());
    let block = libcrypto::key_block(suite, &master, [&client, &server], 2 * (key + iv));
    let (keys, ivs) = block.split_at(2 * key);
    [0, 1].map(|which| {
        let key = keys[which * key..][..key].to_vec();
        Direction::tls12(ciphers, suite, key, ivs[which * iv..][..iv].to_vec())
    })
}
