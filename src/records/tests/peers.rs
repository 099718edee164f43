//! Sessions that rustls began, and that go on here on one side.

mod common;

use std::io::{Read, Write};
use std::sync::{Arc, Mutex};

use common::{Direction, Ring};
use records::{Content, Receiver, Role, Sender, Suite, Version};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, ring as provider};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::{
    ClientConfig, ClientConnection, Connection, ConnectionTrafficSecrets, DigitallySignedStruct,
    ExtractedSecrets, KeyLog, ServerConfig, ServerConnection, SignatureScheme,
};

/// The secrets of one connection.
#[derive(Debug, Default)]
struct Log(Mutex<Vec<(String, Vec<u8>)>>);

impl KeyLog for Log {
    fn log(&self, label: &str, _: &[u8], secret: &[u8]) {
        self.0.lock().expect("whole").push((label.to_owned(), secret.to_vec()));
    }
}

#[derive(Debug)]
struct AnyServer;

impl ServerCertVerifier for AnyServer {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ECDSA_NISTP256_SHA256]
    }
}

fn provider(version: Version, suite: Suite) -> Arc<CryptoProvider> {
    use provider::cipher_suite as all;
    let suite = match (version, suite) {
        (Version::Tls12, Suite::Aes128Gcm) => all::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256,
        (Version::Tls12, Suite::Aes256Gcm) => all::TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384,
        (Version::Tls12, Suite::Chacha20Poly1305) => {
            all::TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256
        }
        (Version::Tls13, Suite::Aes128Gcm) => all::TLS13_AES_128_GCM_SHA256,
        (Version::Tls13, Suite::Aes256Gcm) => all::TLS13_AES_256_GCM_SHA384,
        (Version::Tls13, Suite::Chacha20Poly1305) => all::TLS13_CHACHA20_POLY1305_SHA256,
    };
    CryptoProvider { cipher_suites: vec![suite], ..provider::default_provider() }.into()
}

/// What one side writes, as records.
fn written(from: &mut Connection) -> Vec<Vec<u8>> {
    let mut bytes = Vec::new();
    while from.wants_write() {
        from.write_tls(&mut bytes).expect("written");
    }
    let mut rest = &bytes[..];
    let mut records = Vec::new();
    while !rest.is_empty() {
        let (record, behind) = rest.split_at(5 + usize::from(rest[3]) * 256 + usize::from(rest[4]));
        records.push(record.to_vec());
        rest = behind;
    }
    records
}

fn give(to: &mut Connection, mut bytes: &[u8]) {
    while !bytes.is_empty() {
        to.read_tls(&mut bytes).expect("read");
        to.process_new_packets().expect("right");
    }
}

/// A session of which one side is ours, and the other is rustls's.
struct Session {
    peer: Connection,
    receiver: Receiver,
    sender: Sender,
    /// What the sender began with.
    sent: Direction,
}

impl Session {
    fn new(version: Version, suite: Suite, role: Role) -> Self {
        let provider = provider(version, suite);
        let versions = match version {
            Version::Tls12 => [&rustls::version::TLS12],
            Version::Tls13 => [&rustls::version::TLS13],
        };
        let log = Arc::new(Log::default());
        let certificate = CertificateDer::from(&include_bytes!("common/certificate.der")[..]);
        let key = PrivateKeyDer::try_from(&include_bytes!("common/key.der")[..]).expect("a key");
        let builder = ServerConfig::builder_with_provider(provider.clone());
        let builder = builder.with_protocol_versions(&versions).expect("versions");
        let mut config = builder
            .with_no_client_auth()
            .with_single_cert(vec![certificate], key)
            .expect("a certificate");
        config.enable_secret_extraction = true;
        config.key_log = log.clone();
        let server = ServerConnection::new(config.into()).expect("a server");
        let builder = ClientConfig::builder_with_provider(provider);
        let builder = builder.with_protocol_versions(&versions).expect("versions").dangerous();
        let mut config =
            builder.with_custom_certificate_verifier(Arc::new(AnyServer)).with_no_client_auth();
        config.enable_secret_extraction = true;
        let name = ServerName::try_from("localhost").expect("a name");
        let client = ClientConnection::new(config.into(), name).expect("a client");

        let (mut client, mut server) = (Connection::from(client), Connection::from(server));
        while client.is_handshaking() || server.is_handshaking() {
            give(&mut server, &written(&mut client).concat());
            if client.is_handshaking() {
                give(&mut client, &written(&mut server).concat());
            }
        }
        // What the server sends behind the handshake, two tickets, is there for whoever is the client.
        let tickets = written(&mut server);
        let (ours, mut peer) = match role {
            Role::Client => (client, server),
            Role::Server => (server, client),
        };
        if role == Role::Server {
            give(&mut peer, &tickets.concat());
        }
        let secrets = match ours {
            Connection::Client(client) => client.dangerous_extract_secrets(),
            Connection::Server(server) => server.dangerous_extract_secrets(),
        };
        let (sent, received) = directions(version, suite, role, secrets.expect("secrets"), &log);
        let mut session = Session {
            peer,
            receiver: Receiver::new(received.proved(), role),
            sender: Sender::new(sent.proved()),
            sent,
        };
        if role == Role::Client {
            assert_eq!(tickets.is_empty(), version == Version::Tls12);
            for mut ticket in tickets {
                assert_eq!(session.receiver.open(&Ring, &mut ticket), Ok(Content::Nothing));
            }
        }
        session
    }

    /// What the peer has written: data, and what else.
    fn receive(&mut self) -> (Vec<u8>, Vec<Content>) {
        let (mut data, mut other) = (Vec::new(), Vec::new());
        for mut record in written(&mut self.peer) {
            assert_eq!(self.receiver.record_bytes(&record), Ok(Some(record.len())));
            match self.receiver.open(&Ring, &mut record).expect("right") {
                Content::Data(place) => data.extend_from_slice(&record[place]),
                content => other.push(content),
            }
        }
        (data, other)
    }

    fn send(&mut self, text: &[u8]) {
        let mut out = Vec::new();
        self.sender.seal_data(&Ring, text, &mut out).expect("sealed");
        let mut found = Vec::new();
        for part in out.chunks(20_000) {
            give(&mut self.peer, part);
            let mut room = vec![0; 100_000];
            if let Ok(count) = self.peer.reader().read(&mut room) {
                found.extend_from_slice(&room[..count]);
            }
        }
        assert_eq!(found, text);
    }

    fn both_ways(&mut self) {
        for length in [1, 2, 100, 16_384, 16_385, 40_000] {
            let text: Vec<u8> = (0..=255).cycle().take(length).collect();
            self.send(&text);
            self.peer.writer().write_all(&text).expect("taken");
            assert_eq!(self.receive(), (text, vec![]));
        }
    }
}

/// What was sent by us, and received.
fn directions(
    version: Version,
    suite: Suite,
    role: Role,
    secrets: ExtractedSecrets,
    log: &Log,
) -> (Direction, Direction) {
    let logged = log.0.lock().expect("whole");
    let direction = |label: &str, (number, secrets): (u64, ConnectionTrafficSecrets)| {
        let secret = logged.iter().find(|(name, _)| name == label).map(|(_, secret)| secret);
        let (key, iv) = match &secrets {
            ConnectionTrafficSecrets::Aes128Gcm { key, iv }
            | ConnectionTrafficSecrets::Aes256Gcm { key, iv }
            | ConnectionTrafficSecrets::Chacha20Poly1305 { key, iv } => (key.as_ref(), iv.as_ref()),
            _ => panic!("a suite of ours"),
        };
        let iv_bytes = if version == Version::Tls12 { suite.tls12_iv_bytes() } else { 12 };
        let explicit = u64::from_be_bytes(iv[4..].try_into().expect("8 bytes")) ^ number;
        let secret = secret.cloned().unwrap_or_default();
        let (key, iv) = (key.to_vec(), iv[..iv_bytes].to_vec());
        Direction { version, suite, secret, key, iv, number, explicit }
    };
    let (client, server) = ("CLIENT_TRAFFIC_SECRET_0", "SERVER_TRAFFIC_SECRET_0");
    match role {
        Role::Client => (direction(client, secrets.tx), direction(server, secrets.rx)),
        Role::Server => (direction(server, secrets.tx), direction(client, secrets.rx)),
    }
}

fn each(test: impl Fn(Session, Version, Role)) {
    for (version, suite) in common::sessions() {
        for role in [Role::Client, Role::Server] {
            println!("{version:?} {suite:?} {role:?}");
            test(Session::new(version, suite, role), version, role);
        }
    }
}

#[test]
fn data_go_both_ways() {
    each(|mut session, _, _| session.both_ways());
}

#[test]
fn keys_change_as_the_peer_asks() {
    each(|mut session, version, _| {
        if version == Version::Tls12 {
            return;
        }
        for round in 0..5 {
            session.both_ways();
            session.peer.refresh_traffic_keys().expect("new keys");
            if round % 2 == 0 {
                // It asks twice, and is answered once.
                session.peer.refresh_traffic_keys().expect("new keys");
            }
            let (data, asked) = session.receive();
            assert!(data.is_empty());
            assert_eq!(asked, vec![Content::KeyUpdate { answer: true }; 2 - round % 2]);
            session.sender.owe_key_update();
            assert!(session.sender.owes());
        }
        session.both_ways();
    });
}

#[test]
fn both_ends_say_goodbye() {
    each(|mut session, _, _| {
        let mut out = Vec::new();
        session.sender.seal_close_notify(&Ring, &mut out).expect("sealed");
        let mut bytes = &out[..];
        session.peer.read_tls(&mut bytes).expect("read");
        assert!(session.peer.process_new_packets().expect("right").peer_has_closed());
        session.peer.writer().write_all(b"last words").expect("taken");
        session.peer.send_close_notify();
        assert_eq!(session.receive(), (b"last words".to_vec(), vec![Content::CloseNotify]));
    });
}

#[test]
fn a_session_goes_on_elsewhere() {
    each(|mut session, _, _| {
        session.both_ways();
        let Session { peer, receiver, sender, sent } = session;
        let mut frozen = Vec::new();
        receiver.freeze(&mut frozen);
        sender.freeze(&mut frozen);
        let mut from = &frozen[..];
        let receiver = Receiver::thaw(&mut from).expect("thawed");
        let sender = Sender::thaw(&mut from).expect("thawed");
        assert!(from.is_empty());
        Session { peer, receiver, sender, sent }.both_ways();
    });
}

#[test]
fn the_last_record_tells_the_number() {
    each(|mut session, version, _| {
        assert_eq!((session.sender.version(), session.receiver.version()), (version, version));
        let mut last = Vec::new();
        session.sender.seal_data(&Ring, b"first", &mut Vec::new()).expect("sealed");
        session.sender.seal_data(&Ring, b"second", &mut last).expect("sealed");
        // Another sender goes on behind it.
        let next = session.sent.keys().prove(&Ring, &last, 0..=8).expect("proved").0;
        let mut here = Vec::new();
        session.sender.seal_data(&Ring, b"third", &mut here).expect("sealed");
        let mut there = Vec::new();
        Sender::new(next).seal_data(&Ring, b"third", &mut there).expect("sealed");
        assert_eq!(here, there);
    });
}
