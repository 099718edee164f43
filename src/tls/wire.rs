//! The BIO below a session: a socket that takes everything it is given.
//!
//! What the socket does not take is kept, so that `SSL_write` always completes. An unfinished
//! write would be in the way of whatever a read has to answer (OpenSSL fails with "bad length"
//! on a KeyUpdate then). Errors and the end never pass through OpenSSL, which would make them
//! its own and forbid the other direction: they are noted here, and OpenSSL is told to retry.

use std::ffi::{c_char, c_int, c_long, c_void};
use std::io;
use std::os::fd::{BorrowedFd, RawFd};
use std::sync::atomic::{AtomicPtr, Ordering::Relaxed};
use std::{ptr, slice};

use relay::socket::{receive, send};

use crate::symbols::{
    BIO_CTRL_DUP, BIO_CTRL_FLUSH, BIO_FLAGS_READ, BIO_FLAGS_RWS, BIO_FLAGS_SHOULD_RETRY,
    BIO_TYPE_SOURCE_SINK, Bio, BioMethod, Functions,
};

/// The most ciphertext that reading may add to what is kept, in bytes: a peer that asks for
/// answers (KeyUpdate) without reading them gets no further.
pub(crate) const ANSWERS: usize = 256 * 1024;

/// The most records that OpenSSL gets for one read: it goes through all those without data that it
/// can get before it comes back, and new keys (KeyUpdate) take some 20 us each.
pub(crate) const RECORDS: usize = 8;

/// The most reads of the wire that bring bytes for one read of OpenSSL's, while it is not known where
/// records begin. A record takes two, its header and the rest. Odd, so that OpenSSL does not stand
/// within a record after each share of them.
const UNFOLLOWED_READS: usize = 2 * RECORDS - 1;

/// What the BIO's functions need of OpenSSL: they get nothing but the BIO. Written by every
/// `method`, before any BIO is made with it.
static FUNCTIONS: AtomicPtr<Functions> = AtomicPtr::new(ptr::null_mut());

/// The socket and what is kept for it.
#[derive(Debug)]
pub(crate) struct Wire {
    fd: RawFd,
    /// What was read of the socket and not yet passed on.
    ahead: Vec<u8>,
    /// Where records begin; none if that is not known.
    records: Option<Records>,
    /// Meanwhile: how many reads have brought bytes since OpenSSL was last allowed some.
    reads: usize,
    kept: Vec<u8>,
    sent: usize,
    /// The most that may be kept.
    limit: usize,
    /// The socket was found empty and not asked again since.
    pub empty: bool,
    /// The last read was told to come again for want of bytes.
    pub starved: bool,
    /// The socket came to its end.
    pub ended: bool,
    /// More than `limit` would have been kept.
    pub overflowed: bool,
    /// Nothing more may be written: it is dropped silently.
    pub finished: bool,
    /// More follows at once, be it a FIN: the kernel may send all of it together.
    pub more: bool,
    /// The socket's error.
    pub errno: Option<i32>,
}

/// Follows the records that OpenSSL is given, by their headers (RFC 8446 5.1).
#[derive(Debug, Default)]
struct Records {
    /// Bytes of the present record still to come.
    left: usize,
    head: [u8; 5],
    have: usize,
    /// How many OpenSSL was given since it was last allowed some.
    begun: usize,
}

impl Records {
    /// Follows `bytes` up to where one record too many would begin, and returns how many that are.
    #[inline]
    fn follow(&mut self, bytes: &[u8]) -> usize {
        let mut at = 0;
        loop {
            let rest = self.left.min(bytes.len() - at);
            self.left -= rest;
            at += rest;
            if at == bytes.len() || (self.begun == RECORDS && self.have == 0) {
                return at;
            }
            if self.have == 0 {
                self.begun += 1;
            }
            let part = (self.head.len() - self.have).min(bytes.len() - at);
            self.head[self.have..self.have + part].copy_from_slice(&bytes[at..at + part]);
            self.have += part;
            at += part;
            if self.have == self.head.len() {
                let [_, _, _, high, low] = self.head;
                self.left = u16::from_be_bytes([high, low]).into();
                self.have = 0;
            }
        }
    }
}

impl Wire {
    fn fd(&self) -> BorrowedFd<'_> {
        // SAFETY: open for as long as the session lives, by who had it take the socket over
        // (`Session::take_over`), and the wire is used by nobody else.
        unsafe { BorrowedFd::borrow_raw(self.fd) }
    }

    /// What comes next is the beginning of a record.
    pub(crate) fn follow_records(&mut self) {
        self.records = Some(Records::default());
    }

    /// Whether it is known where records begin.
    pub(crate) fn follows_records(&self) -> bool {
        self.records.is_some()
    }

    /// How many records OpenSSL was given since this was asked last, or as many as may be, if that is
    /// not known. It may have as many as [`RECORDS`] again.
    pub(crate) fn take_begun(&mut self) -> usize {
        match &mut self.records {
            Some(records) => std::mem::take(&mut records.begun),
            None => std::mem::take(&mut self.reads).div_ceil(2),
        }
    }

    /// Whether OpenSSL has the first part of a record, as far as that is known.
    pub(crate) fn is_within_record(&self) -> bool {
        self.records.as_ref().is_some_and(|records| records.left > 0 || records.have > 0)
    }

    /// Whether something was read of the socket and not yet passed on.
    pub(crate) fn has_ahead(&self) -> bool {
        !self.ahead.is_empty()
    }

    /// Takes that away.
    pub(crate) fn take_ahead(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.ahead)
    }

    /// How much of `bytes` is to be passed on.
    fn follow(&mut self, bytes: &[u8]) -> usize {
        if let Some(records) = &mut self.records {
            return records.follow(bytes);
        }
        if self.reads == UNFOLLOWED_READS {
            return 0;
        }
        self.reads += 1;
        bytes.len()
    }

    pub(crate) fn kept(&self) -> usize {
        self.kept.len() - self.sent
    }

    /// Whatever is written now comes from us and is kept, be it much.
    pub(crate) fn lift_limit(&mut self) {
        self.limit = usize::MAX;
    }

    /// What is written from now on answers the peer.
    pub(crate) fn set_limit(&mut self) {
        self.limit = self.kept().saturating_add(ANSWERS);
    }

    /// Sends what is kept; `WouldBlock` while some remains.
    pub(crate) fn flush(&mut self) -> io::Result<()> {
        while self.kept() > 0 {
            match send(self.fd(), &self.kept[self.sent..], self.more)? {
                0 => return Err(io::ErrorKind::WouldBlock.into()),
                n => self.sent += n,
            }
        }
        // The capacity goes too: an idle session keeps nothing.
        self.kept = Vec::new();
        self.sent = 0;
        self.set_limit();
        Ok(())
    }

    /// Sends, and keeps what the socket does not take. Never fails: see `errno`, `overflowed`.
    fn write(&mut self, mut bytes: &[u8]) {
        if self.finished || self.errno.is_some() {
            return;
        }
        while self.kept() == 0 && !bytes.is_empty() {
            match send(self.fd(), bytes, self.more) {
                Ok(0) => break,
                Ok(n) => bytes = bytes.get(n..).unwrap_or_default(),
                Err(error) => {
                    self.errno = error.raw_os_error();
                    return;
                }
            }
        }
        if self.kept().saturating_add(bytes.len()) > self.limit {
            self.overflowed = true;
            return;
        }
        if self.sent >= self.kept() {
            self.kept.drain(..self.sent);
            self.sent = 0;
        }
        self.kept.extend_from_slice(bytes);
    }

    /// Receives. `None` when OpenSSL is to come again, for the reason noted.
    fn read(&mut self, buffer: &mut [u8]) -> Option<usize> {
        if !self.ahead.is_empty() {
            let n = buffer.len().min(self.ahead.len());
            buffer[..n].copy_from_slice(&self.ahead[..n]);
            let n = self.follow(&buffer[..n]);
            self.ahead.drain(..n);
            if self.ahead.is_empty() {
                self.ahead = Vec::new();
            }
            // None when it has had its share.
            return (n > 0).then_some(n);
        }
        if self.empty {
            self.starved = true;
            return None;
        }
        match receive(self.fd(), buffer) {
            Ok(0) => {
                self.ended = true;
                None
            }
            Ok(n) => {
                // Readiness is told by its edges: a short read has emptied the socket. Where an urgent
                // byte stopped it, who reads asks again (relay's Stream).
                self.empty = n < buffer.len();
                let passed = self.follow(&buffer[..n]);
                self.ahead = buffer[passed..n].to_vec();
                (passed > 0).then_some(passed)
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                self.empty = true;
                self.starved = true;
                None
            }
            Err(error) => {
                self.errno = error.raw_os_error();
                None
            }
        }
    }
}

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
pub(crate) fn bio(
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
    let wire = Box::into_raw(Box::new(Wire {
        fd,
        ahead,
        records: None,
        reads: 0,
        kept: Vec::new(),
        sent: 0,
        limit: ANSWERS,
        empty: false,
        starved: false,
        ended: false,
        overflowed: false,
        finished: false,
        more: false,
        errno: None,
    }));
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
/// `bio` was made by [`bio`] and is alive. The wire is not referred to by anyone else for as
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
    // SAFETY: the BIO is being freed; its data, if any, is the wire that `bio` boxed, and no one
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

#[cfg(test)]
mod tests {
    use std::io::{ErrorKind, Read, Write};
    use std::os::fd::AsRawFd;
    use std::os::unix::net::UnixStream;

    use super::{ANSWERS, RECORDS, UNFOLLOWED_READS, Wire};

    fn wire(socket: &UnixStream) -> Wire {
        Wire {
            fd: socket.as_raw_fd(),
            ahead: Vec::new(),
            records: None,
            reads: 0,
            kept: Vec::new(),
            sent: 0,
            limit: super::ANSWERS,
            empty: false,
            starved: false,
            ended: false,
            overflowed: false,
            finished: false,
            more: false,
            errno: None,
        }
    }

    /// A peer that reads slowly enough for something to be kept at any time.
    #[test]
    fn what_was_sent_is_not_kept() {
        let (ours, mut peer) = UnixStream::pair().expect("pair");
        let mut wire = wire(&ours);
        let (mut written, mut read) = (0_usize, 0);
        let mut buffer = vec![0; 4096];
        while written < 20 << 20 {
            let chunk: Vec<u8> = (written..written + 1000).map(|n| (n % 251) as u8).collect();
            wire.write(&chunk);
            assert!(!wire.overflowed);
            written += chunk.len();
            if wire.kept() > 100_000 {
                let n = peer.read(&mut buffer).expect("read");
                assert!((0..n).all(|at| buffer[at] == ((read + at) % 251) as u8));
                read += n;
                let _ = wire.flush();
            }
            assert!(wire.kept.len() < 3 * 100_000, "{} for {}", wire.kept.len(), wire.kept());
        }
        assert!(wire.kept() > 0);
    }

    /// Records with payloads of these lengths, and where each of them begins.
    fn records(lengths: &[u16]) -> (Vec<u8>, Vec<usize>) {
        let (mut bytes, mut begins) = (Vec::new(), Vec::new());
        for length in lengths {
            let [high, low] = length.to_be_bytes();
            begins.push(bytes.len());
            bytes.extend([23, 3, 3, high, low]);
            bytes.resize(bytes.len() + usize::from(*length), 0xff);
        }
        (bytes, begins)
    }

    /// In any pieces: it stops where one too many would begin, and nowhere else.
    #[test]
    fn records_are_followed_and_shared_out() {
        let lengths = [0, 1, 300, 16_384, 0, 0, 5, 256, 2, 255, 0, 65_535, 7, 1, 1, 1, 1, 1, 1, 9];
        let (bytes, begins) = records(&lengths);
        for piece in [1, 2, 3, 4, 5, 6, 7, 300, 16_389, 70_000, usize::MAX] {
            let (ours, _peer) = UnixStream::pair().expect("pair");
            let mut wire = wire(&ours);
            wire.follow_records();
            assert!(wire.follows_records());
            let (mut at, mut shared_out) = (0, 0);
            while at < bytes.len() {
                let end = at.saturating_add(piece).min(bytes.len());
                let passed = wire.follow(&bytes[at..end]);
                at += passed;
                let is_between = at == bytes.len() || begins.contains(&at);
                assert_eq!(wire.is_within_record(), !is_between, "{at}, {piece}");
                let begun = begins.iter().filter(|begin| **begin < at).count() - shared_out;
                assert!(begun <= RECORDS);
                if at < end {
                    assert!(is_between && begun == RECORDS, "{at}, {piece}");
                    assert_eq!(wire.follow(&bytes[at..end]), 0, "it had its share");
                    assert_eq!(wire.take_begun(), RECORDS);
                    shared_out += RECORDS;
                }
            }
            assert_eq!(wire.take_begun(), lengths.len() - shared_out);
            assert_eq!(wire.take_begun(), 0);
        }
    }

    /// Where it is not known where they begin, all that is asked for is passed on, a few times.
    #[test]
    fn reads_are_shared_out_where_records_are_not_followed() {
        let (ours, mut peer) = UnixStream::pair().expect("pair");
        let mut wire = wire(&ours);
        wire.ahead = vec![1; UNFOLLOWED_READS + 2];
        peer.write_all(&[2; 3]).expect("write");
        assert!(!wire.follows_records());
        for _ in 0..UNFOLLOWED_READS {
            assert_eq!(wire.read(&mut [0]), Some(1));
        }
        // It is to come again, and not for want of bytes.
        for _ in 0..2 {
            assert_eq!(wire.read(&mut [0]), None);
            assert!(!wire.starved && !wire.ended && wire.has_ahead());
        }
        assert!(!wire.is_within_record());
        assert_eq!(wire.take_begun(), RECORDS);
        assert_eq!(wire.take_begun(), 0);
        let mut rest = [0; 2];
        assert_eq!((wire.read(&mut rest), rest), (Some(2), [1; 2]));
        assert_eq!(wire.read(&mut [0]), Some(1));
        assert_eq!(wire.take_begun(), 1);
        // From there on it is known.
        wire.follow_records();
        assert_eq!(wire.read(&mut rest), Some(2));
        assert_eq!((wire.take_begun(), wire.is_within_record()), (1, true));
    }

    #[test]
    fn records_beyond_the_share_wait() {
        let (bytes, begins) = records(&[3; 2 * RECORDS + 1]);
        for is_ahead in [true, false] {
            let (ours, mut peer) = UnixStream::pair().expect("pair");
            let mut wire = wire(&ours);
            wire.follow_records();
            if is_ahead {
                wire.ahead.clone_from(&bytes);
            } else {
                peer.write_all(&bytes).expect("write");
            }
            let mut buffer = [0; 1000];
            for share in [0..RECORDS, RECORDS..2 * RECORDS] {
                let (from, to) = (begins[share.start], begins[share.end]);
                assert_eq!(wire.read(&mut buffer), Some(to - from));
                assert_eq!(buffer[..to - from], bytes[from..to]);
                // It is to come again, and not for want of bytes.
                assert_eq!(wire.read(&mut buffer), None);
                assert!(!wire.starved && !wire.ended && wire.has_ahead());
                assert_eq!(wire.take_begun(), RECORDS);
            }
            assert_eq!(wire.read(&mut buffer), Some(8));
            assert!(!wire.has_ahead());
        }
        // So do those that come of the socket when it had its share. That is not the end.
        let (ours, mut peer) = UnixStream::pair().expect("pair");
        let mut wire = wire(&ours);
        wire.follow_records();
        peer.write_all(&bytes[..begins[RECORDS]]).expect("write");
        let mut buffer = [0; 1000];
        assert_eq!(wire.read(&mut buffer), Some(begins[RECORDS]));
        peer.write_all(&bytes[begins[RECORDS]..]).expect("write");
        wire.empty = false;
        assert_eq!(wire.read(&mut buffer), None);
        assert!(!wire.starved && !wire.ended && wire.has_ahead());
        assert_eq!(wire.take_begun(), RECORDS);
        assert_eq!(wire.read(&mut buffer), Some(begins[2 * RECORDS] - begins[RECORDS]));
    }

    #[test]
    fn what_was_read_before_comes_first() {
        let (ours, mut peer) = UnixStream::pair().expect("pair");
        let mut wire = wire(&ours);
        wire.ahead = b"before".to_vec();
        peer.write_all(b"behind").expect("write");
        let mut buffer = [0; 4];
        let mut read = |wire: &mut Wire| {
            wire.starved = false;
            wire.read(&mut buffer).map(|n| buffer[..n].to_vec())
        };
        assert!(wire.has_ahead());
        assert_eq!(read(&mut wire).as_deref(), Some(&b"befo"[..]));
        assert_eq!(read(&mut wire).as_deref(), Some(&b"re"[..]));
        assert!(!wire.has_ahead() && wire.ahead.capacity() == 0);
        // There may be more, until a read leaves room.
        assert_eq!(read(&mut wire).as_deref(), Some(&b"behi"[..]));
        assert!(!wire.empty);
        assert_eq!(read(&mut wire).as_deref(), Some(&b"nd"[..]));
        assert!(wire.empty && !wire.starved);
        // It is not asked again before somebody says so.
        peer.write_all(b"last").expect("write");
        assert_eq!(read(&mut wire), None);
        assert!(wire.empty && wire.starved);
        wire.empty = false;
        assert_eq!(read(&mut wire).as_deref(), Some(&b"last"[..]));
        assert_eq!(read(&mut wire), None);
        assert!(wire.empty && wire.starved && !wire.ended);
        drop(peer);
        wire.empty = false;
        assert_eq!(read(&mut wire), None);
        assert!(wire.ended && !wire.starved && wire.errno.is_none());
    }

    #[test]
    fn a_reset_is_noted_and_nothing_follows() {
        let (ours, peer) = UnixStream::pair().expect("pair");
        let mut reading = wire(&ours);
        reading.write(b"unread");
        drop(peer);
        assert_eq!(reading.read(&mut [0; 4]), None);
        assert_eq!(reading.errno, Some(libc::ECONNRESET));
        assert!(!reading.ended && !reading.starved);
        let mut writing = wire(&ours);
        writing.write(b"more");
        assert_eq!((writing.errno, writing.kept()), (Some(libc::EPIPE), 0));
        writing.write(b"more");
        assert_eq!(writing.kept(), 0);
    }

    /// Even where the socket has room by then.
    #[test]
    fn what_is_kept_goes_first() {
        let (ours, mut peer) = UnixStream::pair().expect("pair");
        let mut wire = wire(&ours);
        wire.lift_limit();
        let bytes: Vec<u8> = (0..2 << 20).map(|n: usize| (n % 251) as u8).collect();
        wire.write(&bytes);
        let kept = wire.kept();
        assert!(kept > 500_000);
        let mut read = vec![0; bytes.len() - kept];
        peer.read_exact(&mut read).expect("read");
        wire.write(b"behind it");
        assert_eq!(wire.kept(), kept + 9);
        peer.set_nonblocking(true).expect("nonblocking");
        let mut part = [0; 65_536];
        while wire.flush().is_err() {
            // What went out takes no memory beyond as much again.
            wire.write(b"");
            assert!(wire.kept.len() <= 2 * wire.kept());
            while let Ok(n) = peer.read(&mut part) {
                read.extend_from_slice(&part[..n]);
            }
            assert!(read.len() <= bytes.len() + 9);
        }
        while let Ok(n) = peer.read(&mut part) {
            read.extend_from_slice(&part[..n]);
        }
        assert!(read == [&bytes[..], b"behind it"].concat());
    }

    #[test]
    fn nothing_follows_the_last() {
        let (ours, peer) = UnixStream::pair().expect("pair");
        peer.set_nonblocking(true).expect("nonblocking");
        let mut wire = wire(&ours);
        wire.finished = true;
        wire.write(b"late");
        assert_eq!((wire.kept(), wire.errno), (0, None));
        assert_eq!((&peer).read(&mut [0; 4]).expect_err("nothing").kind(), ErrorKind::WouldBlock);
    }

    #[test]
    fn answers_are_bounded_and_what_is_ours_is_not() {
        const MUCH: usize = 4 << 20;
        let (ours, peer) = UnixStream::pair().expect("pair");
        peer.set_nonblocking(true).expect("nonblocking");
        let mut wire = wire(&ours);
        wire.lift_limit();
        wire.write(&vec![1; MUCH]);
        let kept = wire.kept();
        assert!(kept > ANSWERS);
        wire.set_limit();
        wire.write(&vec![2; ANSWERS]);
        assert_eq!((wire.kept(), wire.overflowed), (kept + ANSWERS, false));
        wire.write(&[3]);
        assert_eq!((wire.kept(), wire.overflowed), (kept + ANSWERS, true));
        let mut read = 0;
        let mut buffer = vec![0; 1 << 20];
        while let Err(error) = wire.flush() {
            assert_eq!(error.kind(), ErrorKind::WouldBlock);
            assert!(wire.kept() > 0 && read <= MUCH + ANSWERS);
            while let Ok(n) = (&peer).read(&mut buffer) {
                read += n;
            }
        }
        while let Ok(n) = (&peer).read(&mut buffer) {
            read += n;
        }
        assert_eq!(read, MUCH + ANSWERS);
        // An idle session keeps nothing, and what it may keep of answers is as in the beginning.
        assert_eq!((wire.kept(), wire.kept.capacity(), wire.sent), (0, 0, 0));
        assert_eq!(wire.limit, ANSWERS);
    }
}
