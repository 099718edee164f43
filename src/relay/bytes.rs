//! How numbers and bytes are written to, and read from, a frozen tunnel.

use std::time::Duration;

pub(crate) fn put_u64(out: &mut Vec<u8>, value: u64) {
    out.extend_from_slice(&value.to_le_bytes());
}

/// What is still to be read of a frozen tunnel.
pub(crate) struct Reader<'a>(pub &'a [u8]);

impl<'a> Reader<'a> {
    pub(crate) fn bytes(&mut self, length: usize) -> Option<&'a [u8]> {
        let (bytes, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(bytes)
    }

    pub(crate) fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        self.bytes(N)?.try_into().ok()
    }

    pub(crate) fn u8(&mut self) -> Option<u8> {
        self.array().map(u8::from_le_bytes)
    }

    pub(crate) fn u64(&mut self) -> Option<u64> {
        self.array().map(u64::from_le_bytes)
    }
}

/// A value of a fixed size.
pub(crate) trait Field: Sized {
    const BYTES: usize;
    fn put(&self, out: &mut Vec<u8>);
    fn take(from: &mut Reader<'_>) -> Option<Self>;
}

/// Stands for no duration; half a million years are none.
const NO_DURATION: u64 = u64::MAX;

/// In microseconds.
impl Field for Option<Duration> {
    const BYTES: usize = size_of::<u64>();

    fn put(&self, out: &mut Vec<u8>) {
        put_u64(out, self.map_or(NO_DURATION, micros));
    }

    fn take(from: &mut Reader<'_>) -> Option<Self> {
        let micros = from.u64()?;
        Some((micros != NO_DURATION).then(|| Duration::from_micros(micros)))
    }
}

/// The largest number stands for none.
impl Field for Option<u64> {
    const BYTES: usize = size_of::<u64>();

    fn put(&self, out: &mut Vec<u8>) {
        put_u64(out, self.unwrap_or(u64::MAX));
    }

    fn take(from: &mut Reader<'_>) -> Option<Self> {
        from.u64().map(|number| Some(number).filter(|number| *number != u64::MAX))
    }
}

/// A duration in microseconds, as far as they can be counted.
pub(crate) fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros())
        .map_or(NO_DURATION - 1, |micros| micros.min(NO_DURATION - 1))
}
