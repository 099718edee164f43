//! Key material, which is overwritten when it goes.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering, compiler_fence};

use crate::suite::{IV_BYTES, Suite};

const MAX_KEY_BYTES: usize = 32;
const MAX_SECRET_BYTES: usize = 48;

/// Overwrites `bytes` with zeros, also where the compiler knows that nobody reads them again.
pub fn wipe(bytes: &mut [u8]) {
    for byte in bytes {
        // SAFETY: a valid place for a byte, by the reference.
        unsafe { std::ptr::from_mut(byte).write_volatile(0) };
    }
    compiler_fence(Ordering::SeqCst);
}

/// Bytes on the heap that moving their owner leaves in their place, and that are overwritten when
/// they go.
struct Wiped<const N: usize>(Box<[u8; N]>);

impl<const N: usize> Wiped<N> {
    /// Zeros.
    fn new() -> Self {
        Wiped(Box::new([0; N]))
    }
}

impl<const N: usize> Drop for Wiped<N> {
    fn drop(&mut self) {
        wipe(&mut *self.0);
    }
}

/// A traffic secret of TLS 1.3 (RFC 8446 7.1).
pub struct Secret {
    bytes: Wiped<MAX_SECRET_BYTES>,
    length: usize,
}

impl Secret {
    /// A copy of `secret`; none if that has not the length of a secret of `suite`.
    pub fn new(suite: Suite, secret: &[u8]) -> Option<Self> {
        let mut copy = Secret::zero(suite);
        if secret.len() != copy.length {
            return None;
        }
        copy.bytes_mut().copy_from_slice(secret);
        Some(copy)
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        &self.bytes.0[..self.length]
    }

    pub(crate) fn bytes_mut(&mut self) -> &mut [u8] {
        &mut self.bytes.0[..self.length]
    }

    /// Zeros.
    pub(crate) fn zero(suite: Suite) -> Self {
        Secret { bytes: Wiped::new(), length: suite.secret_bytes() }
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret")
    }
}

/// The key and the IV of a direction.
pub struct Keys {
    /// The key, then the IV.
    bytes: Wiped<{ MAX_KEY_BYTES + IV_BYTES }>,
    id: u64,
}

/// The last [`Keys::id`].
static LAST_ID: AtomicU64 = AtomicU64::new(0);

impl Keys {
    /// Zeros.
    pub(crate) fn zero() -> Self {
        // Relaxed: that they differ is all that is asked.
        Keys { bytes: Wiped::new(), id: LAST_ID.fetch_add(1, Ordering::Relaxed) + 1 }
    }

    /// Copies of a key and an IV, as the key block of TLS 1.2 has them (RFC 5246 6.3); none if they
    /// have not the lengths of `suite` ([`Suite::key_bytes`], [`Suite::tls12_iv_bytes`]).
    pub fn tls12(suite: Suite, key: &[u8], iv: &[u8]) -> Option<Self> {
        let mut keys = Keys::zero();
        if key.len() != suite.key_bytes() || iv.len() != suite.tls12_iv_bytes() {
            return None;
        }
        keys.bytes.0[..key.len()].copy_from_slice(key);
        keys.bytes.0[MAX_KEY_BYTES..][..iv.len()].copy_from_slice(iv);
        Some(keys)
    }

    /// The key and the IV, to be written.
    pub(crate) fn parts_mut(&mut self, suite: Suite) -> (&mut [u8], &mut [u8]) {
        let (key, iv) = self.bytes.0.split_at_mut(MAX_KEY_BYTES);
        (&mut key[..suite.key_bytes()], iv)
    }

    /// The key, which has [`Suite::key_bytes`].
    pub fn key(&self, suite: Suite) -> &[u8] {
        &self.bytes.0[..suite.key_bytes()]
    }

    /// The IV. With GCM of TLS 1.2 the last 8 bytes are zeros.
    pub(crate) fn iv(&self) -> [u8; IV_BYTES] {
        let mut iv = [0; IV_BYTES];
        iv.copy_from_slice(&self.bytes.0[MAX_KEY_BYTES..]);
        iv
    }

    /// A number that no other keys had or will have in this process: for who keeps contexts. Never
    /// 0.
    pub fn id(&self) -> u64 {
        self.id
    }

    pub(crate) const FROZEN_BYTES: usize = MAX_KEY_BYTES + IV_BYTES;

    pub(crate) fn freeze(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&*self.bytes.0);
    }

    pub(crate) fn thaw(bytes: &[u8; Self::FROZEN_BYTES]) -> Self {
        let mut keys = Keys::zero();
        keys.bytes.0.copy_from_slice(bytes);
        keys
    }
}

impl fmt::Debug for Keys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Keys").field("id", &self.id).finish_non_exhaustive()
    }
}
