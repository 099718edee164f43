//! The frame tracker: whatever the splits, it knows where frames end.

mod common;

use common::{Random, frame_header};
use relay::Tracker;

fn frame(random: &mut Random, masked: bool, opcode: u8, fin: bool, length: usize) -> Vec<u8> {
    let mut bytes = frame_header(opcode | if fin { 0x80 } else { 0 }, masked, length);
    let mut rest = vec![0; length + if masked { 4 } else { 0 }];
    random.fill(&mut rest);
    bytes.extend_from_slice(&rest);
    bytes
}

fn close(random: &mut Random, masked: bool, code: u16, reason: usize) -> Vec<u8> {
    let mut bytes = frame(random, masked, 0x8, true, 2 + reason);
    let [high, low] = code.to_be_bytes();
    if masked {
        let [a, b] = [bytes[2], bytes[3]];
        bytes[6] = high ^ a;
        bytes[7] = low ^ b;
    } else {
        bytes[2] = high;
        bytes[3] = low;
    }
    bytes
}

fn tracker(masked: bool) -> Tracker {
    if masked { Tracker::client_to_backend() } else { Tracker::backend_to_client() }
}

#[test]
fn it_is_small() {
    assert!(size_of::<Tracker>() <= 40);
}

#[test]
fn boundaries_are_found_in_any_split() {
    const LENGTHS: [usize; 12] = [0, 1, 2, 5, 124, 125, 126, 127, 1000, 65_535, 65_536, 200_000];
    for seed in 0..60 {
        let mut random = Random::new(seed);
        let masked = seed % 2 == 0;
        let mut bytes = Vec::new();
        let mut boundaries = vec![0];
        for _ in 0..30 {
            let control = random.below(4) == 0;
            let length = LENGTHS[random.below(if control { 6 } else { LENGTHS.len() })];
            let opcode = if control { 0x9 } else { random.below(3) as u8 };
            let fin = control || random.below(2) == 0;
            bytes.extend(frame(&mut random, masked, opcode, fin, length));
            boundaries.push(bytes.len());
        }
        let end_of_frames = bytes.len();
        let code = 1000 + random.below(4000) as u16;
        let reason = random.below(100);
        bytes.extend(close(&mut random, masked, code, reason));
        let mut tracker = tracker(masked);
        let mut at = 0;
        while at < bytes.len() {
            assert_eq!(
                tracker.at_boundary(),
                at <= end_of_frames && boundaries.contains(&at),
                "seed {seed}, byte {at}"
            );
            let most = [3, 20, 70_000][random.below(3)];
            let n = (1 + random.below(most)).min(bytes.len() - at);
            tracker.feed(&bytes[at..at + n]);
            at += n;
        }
        assert!(!tracker.at_boundary(), "nothing follows a Close frame");
        assert!(tracker.has_closed(), "seed {seed}");
        assert_eq!(tracker.close_code(), Some(code), "seed {seed}");
    }
}

#[test]
fn every_split_of_a_close_frame_shows_its_code() {
    for masked in [true, false] {
        let mut random = Random::new(9);
        let mut bytes = frame(&mut random, masked, 0x1, true, 3);
        bytes.extend(close(&mut random, masked, 4321, 7));
        for split in 0..bytes.len() {
            let mut tracker = tracker(masked);
            tracker.feed(&bytes[..split]);
            assert!(!tracker.has_closed(), "{split} of {}", bytes.len());
            tracker.feed(&bytes[split..]);
            assert!(tracker.has_closed());
            assert_eq!(tracker.close_code(), Some(4321));
        }
        let mut tracker = tracker(masked);
        tracker.feed(&frame(&mut random, masked, 0x8, true, 0));
        assert_eq!(tracker.close_code(), Some(1005));
        assert!(!tracker.at_boundary());
    }
}

#[test]
fn of_two_close_frames_the_first_counts() {
    let mut tracker = Tracker::backend_to_client();
    tracker.feed(&[0x88, 2, 0x03, 0xe8, 0x88, 2, 0x0f, 0xff]);
    assert_eq!(tracker.close_code(), Some(1000));
    tracker.feed(&[0x88, 0]);
    assert_eq!(tracker.close_code(), Some(1000));
}

#[test]
fn invalid_headers_end_the_tracking() {
    let invalid: [(&str, &[u8]); 10] = [
        ("unmasked from a client", &[0x81, 0x01, 0x00]),
        ("reserved data opcode", &[0x83, 0x80, 0, 0, 0, 0]),
        ("reserved control opcode", &[0x8b, 0x80, 0, 0, 0, 0]),
        ("fragmented control frame", &[0x09, 0x80, 0, 0, 0, 0]),
        ("long control frame", &[0x89, 0xfe, 0, 126]),
        ("fragmented close", &[0x08, 0x80, 0, 0, 0, 0]),
        ("close of one byte", &[0x88, 0x81, 0, 0, 0, 0, 0]),
        ("16 bits for a small length", &[0x82, 0xfe, 0, 125]),
        ("64 bits for 65535", &[0x82, 0xff, 0, 0, 0, 0, 0, 0, 0xff, 0xff]),
        ("most significant bit", &[0x82, 0xff, 0x80, 0, 0, 0, 0, 1, 0, 0]),
    ];
    for (what, bytes) in invalid {
        let mut tracker = Tracker::client_to_backend();
        assert!(tracker.at_boundary());
        tracker.feed(bytes);
        tracker.feed(&vec![0; 70_000]);
        assert!(!tracker.at_boundary(), "{what}");
        // Nothing makes it track again.
        tracker.feed(&[0x88, 0x82, 0, 0, 0, 0, 3, 0xe8]);
        assert_eq!(tracker.close_code(), None, "{what}");
        assert!(!tracker.has_closed(), "{what}");
    }
    let mut tracker = Tracker::backend_to_client();
    tracker.feed(&[0x81, 0x80, 0, 0, 0, 0]);
    assert!(!tracker.at_boundary(), "masked from a server");
}

#[test]
fn reserved_bits_are_an_extensions() {
    let mut tracker = Tracker::backend_to_client();
    tracker.feed(&[0xc1, 1, 0]);
    assert!(tracker.at_boundary());
}

#[test]
fn random_bytes_never_upset_it() {
    for seed in 0..2000 {
        let mut random = Random::new(seed);
        let mut bytes = vec![0; 200];
        random.fill(&mut bytes);
        let mut tracker = tracker(seed % 2 == 0);
        for piece in bytes.chunks(1 + random.below(50)) {
            tracker.feed(piece);
        }
    }
}

#[test]
fn messages_are_counted_by_their_first_frames() {
    for masked in [true, false] {
        let mut random = Random::new(7);
        let mut tracker = tracker(masked);
        let mut bytes = Vec::new();
        // One message, one in three frames with a Ping between them, a Pong, one that is not over.
        for (opcode, fin, length) in
            [(1, true, 5), (2, false, 70_000), (9, true, 3), (0, false, 0), (0, true, 200)]
        {
            bytes.extend(frame(&mut random, masked, opcode, fin, length));
        }
        bytes.extend(frame(&mut random, masked, 0xa, true, 0));
        bytes.extend(frame(&mut random, masked, 1, false, 9));
        for piece in bytes.chunks(7) {
            tracker.feed(piece);
        }
        assert_eq!(tracker.messages_by_kind(), Some([2, 1]));
        tracker.feed(&close(&mut random, masked, 1000, 0));
        assert_eq!(tracker.messages(), Some(3));
    }
    assert_eq!(Tracker::opaque().messages(), None);
}
