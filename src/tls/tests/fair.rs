//! Peers that make much work of few bytes do not hold up quiet tunnels.

mod common;

use std::ffi::c_int;
use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use common::*;
use openssl::hash::MessageDigest;
use openssl::pkey::PKey;
use openssl::sign::Signer;
use openssl::ssl::{Ssl, SslStream, SslVersion};
use openssl::symm::{Cipher, encrypt_aead};
use relay::{Budget, Counters, Relay, Rules, Settings, Side, Tracker, Tunnel};

/// What a hostile client sends, again and again.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Pattern {
    /// So many KeyUpdates of this kind, then one byte in a record of its own.
    KeyUpdates(usize, c_int),
    /// A record of one byte.
    Bytes,
    /// So many records of no byte, then one of one byte.
    Empty(usize),
    /// A Ping without payload in a record of its own.
    Pings,
}

impl Pattern {
    /// The bytes of the tunnel in one repetition.
    fn bytes(self) -> &'static [u8] {
        match self {
            Pattern::Pings => &[0x89, 0x80, 1, 2, 3, 4],
            _ => &[7],
        }
    }

    /// The records in one repetition.
    fn records(self) -> usize {
        match self {
            Pattern::KeyUpdates(count, _) | Pattern::Empty(count) => count + 1,
            Pattern::Bytes | Pattern::Pings => 1,
        }
    }
}

const PATTERNS: [(SslVersion, Pattern); 8] = [
    (SslVersion::TLS1_3, Pattern::KeyUpdates(60, KEY_UPDATE_NOT_REQUESTED)),
    (SslVersion::TLS1_3, Pattern::KeyUpdates(60, KEY_UPDATE_REQUESTED)),
    (SslVersion::TLS1_3, Pattern::Bytes),
    (SslVersion::TLS1_3, Pattern::Empty(20)),
    (SslVersion::TLS1_3, Pattern::Pings),
    (SslVersion::TLS1_2, Pattern::Bytes),
    (SslVersion::TLS1_2, Pattern::Empty(20)),
    (SslVersion::TLS1_2, Pattern::Pings),
];

/// A socket whose writes are only taken down once `recorded` is there.
struct Recorder {
    socket: TcpStream,
    recorded: Option<Vec<u8>>,
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

/// A client after its handshake, and the session that it has with us.
struct Client {
    stream: SslStream<Recorder>,
    version: SslVersion,
    /// The lines of SSLKEYLOGFILE.
    secrets: Arc<Mutex<String>>,
}

fn client(version: SslVersion) -> (Client, Session, TcpStream) {
    let secrets = Arc::new(Mutex::new(String::new()));
    let mut context = builder(version);
    context.set_ciphersuites("TLS_AES_128_GCM_SHA256").expect("ciphers");
    context.set_cipher_list("ECDHE-ECDSA-AES128-GCM-SHA256").expect("ciphers");
    let ours = context.build();
    let mut context = builder(version);
    let lines = Arc::clone(&secrets);
    context.set_keylog_callback(move |_, line| {
        let mut lines = lines.lock().expect("lines");
        lines.push_str(line);
        lines.push('\n');
    });
    let context = context.build();
    let (one, two) = tcp_pair();
    let ours = traced(&ours);
    let recorder = Recorder { socket: one, recorded: None };
    let mut stream = SslStream::new(Ssl::new(&context).expect("ssl"), recorder).expect("stream");
    let accepted = thread::spawn(move || {
        let mut stream = SslStream::new(ours, two).expect("stream");
        stream.accept().expect("accept");
        stream
    });
    stream.connect().expect("connect");
    let mut ours = accepted.join().expect("handshake");
    greet(&mut stream, &mut ours);
    let (session, socket) = take_over(ours);
    (Client { stream, version, secrets }, session, socket)
}

fn hmac(key: &[u8], parts: &[&[u8]]) -> Vec<u8> {
    let key = PKey::hmac(key).expect("key");
    let mut signer = Signer::new(MessageDigest::sha256(), &key).expect("signer");
    for part in parts {
        signer.update(part).expect("update");
    }
    signer.sign_to_vec().expect("sign")
}

fn from_hex(text: &str) -> Vec<u8> {
    let pairs = text.as_bytes().chunks(2).map(|pair| std::str::from_utf8(pair).expect("hex"));
    pairs.map(|pair| u8::from_str_radix(pair, 16).expect("hex")).collect()
}

/// Makes records that no library makes: those of no byte. The client has sent none yet.
struct Forge {
    version: SslVersion,
    key: Vec<u8>,
    iv: Vec<u8>,
    sequence: u64,
}

impl Forge {
    fn new(client: &Client) -> Self {
        let secrets = client.secrets.lock().expect("secrets");
        let secret = |label: &str| {
            let line = secrets.lines().find(|line| line.starts_with(label)).expect("a secret");
            from_hex(line.rsplit(' ').next().expect("a secret"))
        };
        let greeting = u64::from(NATIVE);
        if client.version == SslVersion::TLS1_3 {
            // RFC 8446 7.1 and 7.3.
            let secret = secret("CLIENT_TRAFFIC_SECRET_0 ");
            let expand = |label: &str, length: u8| {
                let label = format!("tls13 {label}");
                let head = [0, length, label.len() as u8];
                let mut out = hmac(&secret, &[&head, label.as_bytes(), &[0, 1]]);
                out.truncate(length.into());
                out
            };
            Forge {
                version: client.version,
                key: expand("key", 16),
                iv: expand("iv", 12),
                sequence: greeting,
            }
        } else {
            // RFC 5246 5, 6.3 and RFC 5288. One record went before: the Finished.
            let master = secret("CLIENT_RANDOM ");
            let ssl = client.stream.ssl();
            let (mut here, mut there) = ([0; 32], [0; 32]);
            assert_eq!((ssl.client_random(&mut here), ssl.server_random(&mut there)), (32, 32));
            let seed = [&b"key expansion"[..], &there, &here].concat();
            let first = hmac(&master, &[&seed]);
            let second = hmac(&master, &[&first]);
            let mut block = hmac(&master, &[&first, &seed]);
            block.extend(hmac(&master, &[&second, &seed]));
            let (key, iv) = (block[..16].to_vec(), block[32..36].to_vec());
            Forge { version: client.version, key, iv, sequence: 1 + greeting }
        }
    }

    fn record(&mut self, bytes: &[u8], out: &mut Vec<u8>) {
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
            let inner = [bytes, &[0x17]].concat();
            let head = [0x17, 3, 3, 0, (inner.len() + 16) as u8];
            let sealed = seal(&nonce, &head, &inner, &mut tag);
            out.extend([&head[..], &sealed, &tag].concat());
        } else {
            let nonce = [&self.iv[..], &sequence].concat();
            let aad = [&sequence[..], &[0x17, 3, 3, 0, bytes.len() as u8]].concat();
            let sealed = seal(&nonce, &aad, bytes, &mut tag);
            let head = [0x17, 3, 3, 0, (8 + bytes.len() + 16) as u8];
            out.extend([&head[..], &sequence, &sealed, &tag].concat());
        }
    }
}

/// The ciphertext of `times` repetitions of a pattern.
fn ciphertext(client: &mut Client, pattern: Pattern, times: usize) -> Vec<u8> {
    if let Pattern::Empty(count) = pattern {
        let mut forge = Forge::new(client);
        let mut out = Vec::new();
        for _ in 0..times {
            for _ in 0..count {
                forge.record(b"", &mut out);
            }
            forge.record(pattern.bytes(), &mut out);
        }
        return out;
    }
    client.stream.get_mut().recorded = Some(Vec::new());
    for _ in 0..times {
        if let Pattern::KeyUpdates(count, kind) = pattern {
            for _ in 0..count {
                // SAFETY: a live SSL of TLS 1.3 that this thread alone uses.
                unsafe {
                    assert_eq!(raw::SSL_key_update(client.stream.ssl().as_raw(), kind), 1);
                    assert_eq!(raw::SSL_do_handshake(client.stream.ssl().as_raw()), 1);
                }
            }
        }
        client.stream.write_all(pattern.bytes()).expect("write");
    }
    client.stream.get_mut().recorded.take().expect("it was recorded")
}

/// How much one read does is bounded, whatever there is to read.
#[test]
fn one_read_goes_through_few_records() {
    /// Records in one read that bring bytes, and those that bring none.
    const MOST: usize = 129;
    const MOST_SILENT: usize = 32;
    for (version, pattern) in PATTERNS {
        let times = if pattern.records() == 1 { 1500 } else { 20 };
        let (mut client, mut session, socket) = client(version);
        let sent = ciphertext(&mut client, pattern, times);
        let mut wire = &client.stream.get_ref().socket;
        wire.write_all(&sent).expect("write");
        let mut all = vec![0; sent.len()];
        until("all is there", || socket.peek(&mut all).expect("peek") == sent.len());
        let (mut came, mut reads, mut most) = (0, 0, 0);
        let mut buffer = vec![0; 65_536];
        while came < times * pattern.bytes().len() {
            let mut budget = Budget::default();
            session.recheck();
            reads += 1;
            match session.read(&mut buffer, &mut budget) {
                Ok(n) => {
                    came += n;
                    most = most.max(n / pattern.bytes().len());
                }
                Err(error) => {
                    assert_eq!(error.kind(), std::io::ErrorKind::Interrupted);
                    assert!(budget.is_spent());
                }
            }
        }
        println!("{version:?}, {pattern:?}: {reads} reads, at most {most} records with bytes");
        assert!(most <= MOST, "{version:?}, {pattern:?}: {most} records in one read");
        let silent = times * (pattern.records() - 1);
        let least = silent / MOST_SILENT;
        assert!(reads >= least, "{version:?}, {pattern:?}: {reads} reads, expected {least}");
    }
}

/// A plain tunnel, or one whose client speaks TLS.
fn tunnel(relay: &Relay, side: Side) -> TcpStream {
    let (backend, plain) = tcp_pair();
    let frames = [Tracker::client_to_backend(), Tracker::backend_to_client()];
    let tunnel =
        Tunnel::new(side, Side::plain(plain.into()), frames, Rules::default(), Box::new(Untold));
    relay.adopt(tunnel).expect("adopted");
    backend
}

/// How quiet tunnels fare beside clients that send `sent` each, `total` bytes of the tunnels in all,
/// or over and over if that is endless.
/// Returns the times that messages took, in order, and how many bytes of the hostile tunnels
/// passed each.
fn beside(hostile: Vec<(TcpStream, Side, Vec<u8>)>, total: u64) -> (Vec<Duration>, Vec<u64>) {
    const QUIET: usize = 20;
    const MESSAGES: usize = 200;
    let counters: &'static Counters = Box::leak(Box::default());
    let settings = Settings { threads: 1, buffer_size: 65_536, ..Settings::default() };
    let relay = Relay::start(&settings, counters).expect("relay");
    let mut quiet: Vec<_> =
        (0..QUIET).map(|_| tls_client_tunnel(&relay, SslVersion::TLS1_3)).collect();
    let (mut times, mut passed) = (Vec::new(), Vec::new());
    thread::scope(|scope| {
        let mut sockets = Vec::new();
        for (socket, side, sent) in hostile {
            let mut backend = tunnel(&relay, side);
            sockets.push(socket.try_clone().expect("dup"));
            scope.spawn(move || {
                let mut bytes = vec![0; 65_536];
                while backend.read(&mut bytes).is_ok_and(|n| n > 0) {}
            });
            let mut answers = socket.try_clone().expect("dup");
            scope.spawn(move || {
                let mut bytes = vec![0; 65_536];
                while answers.read(&mut bytes).is_ok_and(|n| n > 0) {}
            });
            scope.spawn(move || {
                let mut socket = socket;
                while socket.write_all(&sent).is_ok() && total == u64::MAX {}
            });
        }
        until("the flood runs", || counters.bytes_up.load(Relaxed) > 100);
        for index in 0..MESSAGES {
            if counters.bytes_up.load(Relaxed) > total / 10 * 9 {
                break;
            }
            let (client, backend) = &mut quiet[index % QUIET];
            let before = counters.bytes_up.load(Relaxed);
            let begin = Instant::now();
            client.write_all(b"quiet").expect("write");
            backend.read_exact(&mut [0; 5]).expect("read");
            times.push(begin.elapsed());
            passed.push(counters.bytes_up.load(Relaxed) - before);
            // Wherever the relay is in its round.
            thread::sleep(Duration::from_micros(index as u64 * 7919 % 3000));
        }
        for socket in sockets {
            let _ = socket.shutdown(Shutdown::Both);
        }
    });
    times.sort_unstable();
    passed.sort_unstable();
    (times, passed)
}

fn check(what: &str, (times, passed): (Vec<Duration>, Vec<u64>), most: u64) {
    let count = times.len();
    assert!(count > 20, "{what}: only {count} messages while the flood ran");
    let (median, late) = (times[count / 2], times[count * 99 / 100]);
    println!(
        "{what}: {count} messages, median {median:.1?}, 99 % {late:.1?}, worst {:.1?}; bytes that \
         passed: median {}, 99 % {}",
        times[count - 1],
        passed[count / 2],
        passed[count * 99 / 100]
    );
    // Of a few turns of each hostile tunnel: the relay's own measure of time.
    assert!(passed[count / 2] <= most, "{what}: {} bytes passed a message", passed[count / 2]);
    // A busy machine makes it so late, a relay that is held up much later.
    assert!(median < Duration::from_millis(500), "{what}: a message took {median:?}");
}

const HOSTILE: usize = 8;

#[test]
fn quiet_tunnels_pass_peers_of_small_records() {
    for (version, pattern) in PATTERNS {
        let times = match pattern {
            Pattern::KeyUpdates(..) => 100,
            Pattern::Empty(_) => 4_000,
            Pattern::Bytes | Pattern::Pings => 100_000,
        };
        let hostile: Vec<_> = thread::scope(|scope| {
            let made: Vec<_> = (0..HOSTILE)
                .map(|_| {
                    scope.spawn(move || {
                        let (mut client, session, socket) = client(version);
                        let sent = ciphertext(&mut client, pattern, times);
                        let peer = client.stream.get_ref().socket.try_clone().expect("dup");
                        let side =
                            Side { fd: socket.into(), tls: Some(session), read_ahead: Vec::new() };
                        (peer, side, sent)
                    })
                })
                .collect();
            made.into_iter().map(|made| made.join().expect("made")).collect()
        });
        let total = HOSTILE * times * pattern.bytes().len();
        let turn = HOSTILE * 129 * pattern.bytes().len();
        check(&format!("{version:?}, {pattern:?}"), beside(hostile, total as u64), 8 * turn as u64);
    }
}

/// Frames of one byte, and of none, without TLS.
#[test]
fn quiet_tunnels_pass_peers_of_small_frames() {
    for frame in [&[0x82, 0x81, 1, 2, 3, 4, 5][..], &[0x89, 0x80, 1, 2, 3, 4]] {
        let hostile = (0..HOSTILE).map(|_| {
            let (peer, socket) = tcp_pair();
            (peer, Side::plain(socket.into()), frame.repeat(100_000))
        });
        let turn = HOSTILE as u64 * (256 << 10);
        check(
            &format!("plain, frames of {} bytes", frame.len()),
            beside(hostile.collect(), u64::MAX),
            8 * turn,
        );
    }
}
