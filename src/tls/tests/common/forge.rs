//! Peers whose records are taken down before they go out, or are made by the test itself.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::{Arc, Mutex};
use std::thread;

use openssl::hash::MessageDigest;
use openssl::pkey::PKey;
use openssl::sign::Signer;
use openssl::ssl::{Ssl, SslStream, SslVersion};
use openssl::symm::{Cipher, encrypt_aead};

use super::{NATIVE, builder, greet, tcp_pair, traced};

/// The types of a record's content (RFC 8446 5.1).
pub(crate) const HANDSHAKE: u8 = 22;
pub(crate) const DATA: u8 = 23;

/// One that wants none in return (RFC 8446 4.6.3).
pub(crate) const KEY_UPDATE: [u8; 5] = [24, 0, 0, 1, 0];

/// A socket whose writes are only taken down once `recorded` is there.
pub(crate) struct Recorder {
    pub socket: TcpStream,
    pub recorded: Option<Vec<u8>>,
}

impl Read for Recorder {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        self.socket.read(buffer)
    }
}

impl Write for Recorder {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        match &mut self.recorded {
            Some(recorded) => recorded.write(bytes),
            None => self.socket.write(bytes),
        }
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// A peer after its handshake.
pub(crate) struct Peer {
    pub stream: SslStream<Recorder>,
    version: SslVersion,
    is_server: bool,
    /// The lines of SSLKEYLOGFILE.
    secrets: Arc<Mutex<String>>,
}

impl Peer {
    /// Its socket, for bytes as they are.
    pub(crate) fn wire(&self) -> &TcpStream {
        &self.stream.get_ref().socket
    }
}

/// A peer, and our end of its connection, which is to be taken over.
pub(crate) fn shaken(version: SslVersion, ours_is_server: bool) -> (Peer, SslStream<TcpStream>) {
    let secrets = Arc::new(Mutex::new(String::new()));
    let mut contexts = [builder(version), builder(version)];
    for context in &mut contexts {
        context.set_ciphersuites("TLS_AES_128_GCM_SHA256").expect("ciphers");
        context.set_cipher_list("ECDHE-ECDSA-AES128-GCM-SHA256").expect("ciphers");
        // A server's first record is the test's too.
        context.set_num_tickets(0).expect("tickets");
    }
    let [ours, mut theirs] = contexts;
    let lines = Arc::clone(&secrets);
    theirs.set_keylog_callback(move |_, line| {
        let mut lines = lines.lock().expect("lines");
        lines.push_str(line);
        lines.push('\n');
    });
    let (ours, theirs) = (ours.build(), theirs.build());
    let (one, two) = tcp_pair();
    let ours = traced(&ours);
    let recorder = Recorder { socket: one, recorded: None };
    let mut stream = SslStream::new(Ssl::new(&theirs).expect("ssl"), recorder).expect("stream");
    let other = thread::spawn(move || {
        let mut stream = SslStream::new(ours, two).expect("stream");
        let shaken = if ours_is_server { stream.accept() } else { stream.connect() };
        shaken.expect("handshake");
        stream
    });
    let shaken = if ours_is_server { stream.connect() } else { stream.accept() };
    shaken.expect("handshake");
    let mut ours = other.join().expect("handshake");
    greet(&mut stream, &mut ours);
    (Peer { stream, version, is_server: !ours_is_server, secrets }, ours)
}

fn hmac(key: &[u8], parts: &[&[u8]]) -> Vec<u8> {
    let key = PKey::hmac(key).expect("key");
    let mut signer = Signer::new(MessageDigest::sha256(), &key).expect("signer");
    for part in parts {
        signer.update(part).expect("update");
    }
    signer.sign_to_vec().expect("sign")
}

/// RFC 8446 7.1.
fn expand(secret: &[u8], label: &str, length: u8) -> Vec<u8> {
    let label = format!("tls13 {label}");
    let head = [0, length, label.len() as u8];
    let mut out = hmac(secret, &[&head, label.as_bytes(), &[0, 1]]);
    out.truncate(length.into());
    out
}

fn from_hex(text: &str) -> Vec<u8> {
    let pairs = text.as_bytes().chunks(2).map(|pair| std::str::from_utf8(pair).expect("hex"));
    pairs.map(|pair| u8::from_str_radix(pair, 16).expect("hex")).collect()
}

/// Makes records that no library makes. The peer has sent none of its own yet.
pub(crate) struct Forge {
    version: SslVersion,
    /// TLS 1.3: what the keys are made of.
    secret: Vec<u8>,
    key: Vec<u8>,
    iv: Vec<u8>,
    sequence: u64,
}

impl Forge {
    pub(crate) fn new(peer: &Peer) -> Self {
        let secrets = peer.secrets.lock().expect("secrets");
        let secret = |label: &str| {
            let line = secrets.lines().find(|line| line.starts_with(label)).expect("a secret");
            from_hex(line.rsplit(' ').next().expect("a secret"))
        };
        let greeting = u64::from(NATIVE);
        if peer.version == SslVersion::TLS1_3 {
            // RFC 8446 7.3.
            let who = if peer.is_server { "SERVER" } else { "CLIENT" };
            let secret = secret(&format!("{who}_TRAFFIC_SECRET_0 "));
            let (key, iv) = (expand(&secret, "key", 16), expand(&secret, "iv", 12));
            Forge { version: peer.version, secret, key, iv, sequence: greeting }
        } else {
            // RFC 5246 5, 6.3 and RFC 5288. One record went before: the Finished.
            let master = secret("CLIENT_RANDOM ");
            let ssl = peer.stream.ssl();
            let (mut here, mut there) = ([0; 32], [0; 32]);
            assert_eq!((ssl.client_random(&mut here), ssl.server_random(&mut there)), (32, 32));
            let seed = [&b"key expansion"[..], &there, &here].concat();
            let first = hmac(&master, &[&seed]);
            let second = hmac(&master, &[&first]);
            let mut block = hmac(&master, &[&first, &seed]);
            block.extend(hmac(&master, &[&second, &seed]));
            let which = usize::from(peer.is_server);
            let (key, iv) =
                (block[16 * which..][..16].to_vec(), block[32 + 4 * which..][..4].to_vec());
            Forge { version: peer.version, secret: master, key, iv, sequence: 1 + greeting }
        }
    }

    /// A record with data.
    pub(crate) fn record(&mut self, bytes: &[u8], out: &mut Vec<u8>) {
        self.record_of(DATA, bytes, out);
    }

    pub(crate) fn record_of(&mut self, kind: u8, bytes: &[u8], out: &mut Vec<u8>) {
        let sequence = self.sequence.to_be_bytes();
        self.sequence += 1;
        let mut tag = [0; 16];
        let seal = |nonce: &[u8], aad: &[u8], bytes: &[u8], tag: &mut [u8]| {
            encrypt_aead(Cipher::aes_128_gcm(), &self.key, Some(nonce), aad, bytes, tag)
                .expect("seal")
        };
        if self.version == SslVersion::TLS1_3 {
            let mut nonce = self.iv.clone();
            for (place, byte) in nonce[4..].iter_mut().zip(sequence) {
                *place ^= byte;
            }
            let inner = [bytes, &[kind]].concat();
            let head = [DATA, 3, 3, 0, (inner.len() + 16) as u8];
            let sealed = seal(&nonce, &head, &inner, &mut tag);
            out.extend([&head[..], &sealed, &tag].concat());
        } else {
            let nonce = [&self.iv[..], &sequence].concat();
            let aad = [&sequence[..], &[kind, 3, 3, 0, bytes.len() as u8]].concat();
            let sealed = seal(&nonce, &aad, bytes, &mut tag);
            let head = [kind, 3, 3, 0, (8 + bytes.len() + 16) as u8];
            out.extend([&head[..], &sequence, &sealed, &tag].concat());
        }
    }

    /// A KeyUpdate in a record of its own.
    pub(crate) fn key_update(&mut self, out: &mut Vec<u8>) {
        self.record_of(HANDSHAKE, &KEY_UPDATE, out);
        self.update();
    }

    /// A KeyUpdate has ended.
    pub(crate) fn update(&mut self) {
        self.secret = expand(&self.secret, "traffic upd", 32);
        (self.key, self.iv) = (expand(&self.secret, "key", 16), expand(&self.secret, "iv", 12));
        self.sequence = 0;
    }
}
