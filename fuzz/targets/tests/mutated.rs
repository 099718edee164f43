//! Frames as they should be, with a few bytes changed: most of what a fuzzer makes up is wrong at
//! once, and what is wrong late is rare. And steps of sessions, of which most do something.

use fuzz_targets::{frames, sessions};

struct Random(u64);

impl Random {
    /// xorshift64.
    fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % bound as u64) as usize
    }
}

fn add_frame(random: &mut Random, bytes: &mut Vec<u8>, masked: bool, in_message: &mut bool) {
    const LENGTHS: [usize; 8] = [0, 1, 2, 7, 125, 126, 127, 300];
    let control = random.below(3) == 0;
    let fin = control || random.below(2) == 0;
    let opcode = match (control, *in_message) {
        (true, _) => 8 + random.below(6).min(2) as u8,
        (false, true) => 0,
        (false, false) => 1 + random.below(2) as u8,
    };
    let length = LENGTHS[random.below(if control { 5 } else { LENGTHS.len() })];
    *in_message = if control { *in_message } else { !fin };
    bytes.push(opcode | if fin { 0x80 } else { 0 });
    let mask = if masked { 0x80 } else { 0 };
    match length {
        0..126 => bytes.push(mask | length as u8),
        _ => {
            bytes.push(mask | 126);
            bytes.extend_from_slice(&(length as u16).to_be_bytes());
        }
    }
    let rest = length + if masked { 4 } else { 0 };
    bytes.extend((0..rest).map(|_| random.below(256) as u8));
}

#[test]
fn frames() {
    let mut random = Random(0x9e37_79b9_7f4a_7c15);
    for round in 0..5_000 {
        let masked = random.below(2) == 0;
        // Flags and the size of pieces.
        let flags = (random.below(128) << 1) as u8 | u8::from(!masked);
        let mut bytes = vec![flags, random.below(256) as u8];
        let mut in_message = false;
        for _ in 0..1 + random.below(5) {
            add_frame(&mut random, &mut bytes, masked, &mut in_message);
        }
        for _ in 0..random.below(3) {
            let at = 2 + random.below(bytes.len() - 2);
            bytes[at] ^= 1 << random.below(8);
        }
        bytes.truncate(if round % 2 == 0 {
            bytes.len()
        } else {
            2 + random.below(bytes.len() - 1)
        });
        frames::run(&bytes);
    }
}

/// Counts and bytes at which sessions do one thing or another: limits, types, alerts, messages.
const BYTES: [u8; 32] = [
    0, 1, 2, 3, 4, 5, 6, 7, 9, 10, 11, 13, 16, 20, 21, 22, 23, 24, 32, 33, 0x24, 0x25, 47, 90, 100,
    126, 127, 128, 129, 200, 254, 255,
];

#[test]
fn sessions() {
    let mut random = Random(0x2545_f491_4f6c_dd1d);
    for round in 0..600 {
        // Each version, role and suite; in pieces or not.
        let mut bytes = vec![round as u8, random.below(256) as u8, random.below(256) as u8];
        for _ in 0..1 + random.below(6) {
            bytes.push(random.below(256) as u8);
            for _ in 0..1 + random.below(5) {
                bytes.push(BYTES[random.below(BYTES.len())]);
            }
        }
        println!("{bytes:?}");
        sessions::run(&bytes);
    }
}
