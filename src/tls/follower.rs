//! One direction of a session that is followed by its records' headers, while OpenSSL has it.

use records::HEADER_BYTES;

/// A last record that is larger is not kept, in bytes: this is held for each connection of httpd's.
pub(crate) const MAX_KEPT_BYTES: usize = 8 * 1024;

const CHANGE_CIPHER_SPEC: u8 = 20;

/// What is known of a direction. Nothing of it is trusted: what it says is proved by the keys.
#[derive(Debug, Default)]
pub(crate) struct Follower {
    head: [u8; HEADER_BYTES],
    have: usize,
    /// Bytes of the present record still to come.
    left: usize,
    /// Records with the present keys, roughly: those with earlier ones may be among them.
    count: u64,
    /// The last record, unless it is larger.
    last: Vec<u8>,
    is_kept: bool,
    /// All bytes that passed.
    pub bytes: u64,
}

impl Follower {
    /// Follows bytes that went this way.
    pub(crate) fn follow(&mut self, mut bytes: &[u8]) {
        self.bytes += bytes.len() as u64;
        while !bytes.is_empty() {
            if self.left == 0 {
                let part = (HEADER_BYTES - self.have).min(bytes.len());
                self.head[self.have..self.have + part].copy_from_slice(&bytes[..part]);
                self.have += part;
                bytes = &bytes[part..];
                if self.have == HEADER_BYTES {
                    self.begin();
                }
                continue;
            }
            let (part, rest) = bytes.split_at(self.left.min(bytes.len()));
            if self.is_kept {
                self.last.extend_from_slice(part);
            }
            self.left -= part.len();
            bytes = rest;
        }
    }

    /// A header is complete.
    fn begin(&mut self) {
        let [kind, _, _, high, low] = self.head;
        self.have = 0;
        self.left = u16::from_be_bytes([high, low]).into();
        // RFC 5246 7.1: numbers begin anew. In TLS 1.3 it comes somewhere before the keys of data.
        if kind == CHANGE_CIPHER_SPEC {
            self.new_keys();
            return;
        }
        self.count += 1;
        self.last.clear();
        self.is_kept = HEADER_BYTES + self.left <= MAX_KEPT_BYTES;
        if self.is_kept {
            self.last.extend_from_slice(&self.head);
        } else {
            self.last = Vec::new();
        }
    }

    /// Records that come are of new keys, except for a few that are on their way.
    pub(crate) fn new_keys(&mut self) {
        self.count = 0;
        // What the handshake had, certificates above all, is larger than what follows.
        self.last = Vec::new();
        self.is_kept = false;
    }

    /// Whether all records that began are complete.
    pub(crate) fn is_between_records(&self) -> bool {
        self.left == 0 && self.have == 0
    }

    /// The number of records with the present keys, and those that were on their way when they came.
    pub(crate) fn count(&self) -> u64 {
        self.count
    }

    /// The last record, if it was kept.
    pub(crate) fn last(&self) -> Option<&[u8]> {
        self.is_kept.then_some(&self.last[..])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(kind: u8, length: usize) -> Vec<u8> {
        let [.., high, low] = (length as u64).to_be_bytes();
        let mut record = vec![kind, 3, 3, high, low];
        record.extend((0..length).map(|n| (n % 251) as u8));
        record
    }

    #[test]
    fn records_are_counted_from_change_cipher_spec_on_and_the_last_is_kept() {
        let records = [
            record(22, 300),
            record(CHANGE_CIPHER_SPEC, 1),
            record(22, 40),
            record(23, 0),
            record(23, MAX_KEPT_BYTES - HEADER_BYTES),
        ];
        for piece in [1, 2, 3, 4, 5, 6, 7, 100, 20_000] {
            let mut follower = Follower::default();
            for bytes in records.concat().chunks(piece) {
                follower.follow(bytes);
            }
            assert!(follower.is_between_records());
            assert_eq!(follower.count(), 3);
            assert_eq!(follower.last(), Some(&records[4][..]));
            assert_eq!(follower.bytes, records.concat().len() as u64);
            // One byte more is too large.
            let large = record(23, MAX_KEPT_BYTES - HEADER_BYTES + 1);
            let (most, rest) = large.split_at(large.len() - 1);
            for bytes in most.chunks(piece) {
                follower.follow(bytes);
                assert!(!follower.is_between_records());
            }
            follower.follow(rest);
            assert!(follower.is_between_records());
            assert_eq!((follower.count(), follower.last()), (4, None));
            assert_eq!(follower.last.capacity(), 0);
            follower.new_keys();
            assert_eq!((follower.count(), follower.last()), (0, None));
            follower.follow(&record(23, 100));
            follower.new_keys();
            assert_eq!(follower.last.capacity(), 0);
        }
    }
}
