//! Over socket pairs.

use std::io::{ErrorKind, Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;

use super::{ANSWERS, RECORDS, UNFOLLOWED_READS, Wire};

fn wire(socket: &UnixStream) -> Wire {
    Wire::new(socket.as_raw_fd(), Vec::new())
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
