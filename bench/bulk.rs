//! Bulk transfer through one tunnel, in frames of any length, each byte checked.

use std::io::{self, ErrorKind};
use std::time::{Duration, Instant};

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, split};
use tokio::time::timeout;

use crate::arguments::{Arguments, invalid};
use crate::client::Target;
use crate::frame::{self, BINARY, CLOSE};
use crate::stream::Stream;

/// The longest that a transfer may take.
const PATIENCE: Duration = Duration::from_secs(120);

const MIB: u64 = 1 << 20;

/// The client's masking key. Any will do: what is measured does not look at it.
const KEY: [u8; 4] = [0x5a, 0x17, 0xc3, 0x8e];

/// What goes each way, in bytes, and the payload of each frame but the last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Plan {
    up: u64,
    down: u64,
    frame: u64,
}

impl Plan {
    /// From a path as [`Self::path`] makes it.
    pub(crate) fn from_path(path: &str) -> Option<Plan> {
        let numbers = path.strip_prefix("/bulk/")?;
        let mut numbers = numbers.split('/').map(|number| number.parse().ok());
        let plan = Plan { up: numbers.next()??, down: numbers.next()??, frame: numbers.next()?? };
        (plan.frame > 0 && plan.frame.is_multiple_of(4)).then_some(plan)
    }

    fn path(&self) -> String {
        format!("/bulk/{}/{}/{}", self.up, self.down, self.frame)
    }
}

/// Sends `total` bytes of the pattern in frames.
async fn send(
    to: &mut (impl AsyncWrite + Unpin),
    total: u64,
    frame: u64,
    key: Option<[u8; 4]>,
) -> io::Result<()> {
    // Twice, so that from any offset there is a whole length of it.
    let mut pattern = frame::pattern().repeat(2);
    frame::mask(&mut pattern, key.unwrap_or_default(), 0);
    let length = pattern.len() / 2;
    let mut left = total;
    while left > 0 {
        let payload = left.min(frame);
        // Small frames leave in one write each, header and payload.
        let mut bytes = Vec::with_capacity(frame::MAX_HEADER + length);
        frame::put_header(&mut bytes, BINARY, payload, key);
        let mut sent = 0;
        while sent < payload {
            let part = (payload - sent).min(length as u64) as usize;
            // Each frame begins the pattern anew.
            let start = (sent % length as u64) as usize;
            bytes.extend_from_slice(&pattern[start..start + part]);
            to.write_all(&bytes).await?;
            bytes.clear();
            sent += part as u64;
        }
        left -= payload;
    }
    to.flush().await
}

/// Receives `total` bytes in frames and compares each with the pattern. `bytes` came before.
async fn receive(
    from: &mut (impl AsyncRead + Unpin),
    mut bytes: Vec<u8>,
    total: u64,
    masked: bool,
) -> io::Result<Vec<u8>> {
    let plain = frame::pattern().repeat(2);
    let mut expected = plain.clone();
    let mut expected_key = None;
    let length = (plain.len() / 2) as u64;
    let (mut left, mut payload_left, mut at) = (total, 0, 0);
    bytes.reserve(1 << 17);
    loop {
        let mut done = 0;
        while left > 0 || payload_left > 0 {
            if payload_left == 0 {
                let Some(header) = frame::header(&bytes[done..])? else { break };
                if header.opcode != BINARY || header.key.is_some() != masked {
                    return Err(invalid("not a frame that was to come"));
                }
                if expected_key != header.key {
                    expected.copy_from_slice(&plain);
                    frame::mask(&mut expected, header.key.unwrap_or_default(), 0);
                    expected_key = header.key;
                }
                done += header.length;
                left = left.checked_sub(header.payload).ok_or_else(|| invalid("too many bytes"))?;
                (payload_left, at) = (header.payload, 0);
            }
            let part = payload_left.min(length).min((bytes.len() - done) as u64) as usize;
            let start = (at % length) as usize;
            if bytes[done..done + part] != expected[start..start + part] {
                return Err(invalid("bytes differ from what was sent"));
            }
            done += part;
            at += part as u64;
            payload_left -= part as u64;
            if part == 0 {
                break;
            }
        }
        bytes.drain(..done);
        if left == 0 && payload_left == 0 {
            return Ok(bytes);
        }
        if from.read_buf(&mut bytes).await? == 0 {
            return Err(ErrorKind::UnexpectedEof.into());
        }
    }
}

/// The back end's part: after both directions a Close frame, then the end.
pub(crate) async fn serve(stream: Stream, bytes: Vec<u8>, plan: &Plan) -> io::Result<()> {
    let (mut from, mut to) = split(stream);
    let (sent, received) = tokio::join!(
        send(&mut to, plan.down, plan.frame, None),
        receive(&mut from, bytes, plan.up, true)
    );
    sent?;
    received?;
    let mut close = Vec::new();
    frame::put_header(&mut close, CLOSE, 0, None);
    to.write_all(&close).await?;
    to.shutdown().await
}

/// One transfer; prints its size and time.
pub(crate) async fn run(arguments: &Arguments) -> io::Result<()> {
    let plan = Plan {
        up: arguments.setting("up", 0)? * MIB,
        down: arguments.setting("down", 0)? * MIB,
        frame: arguments.setting("frame", 65_536)?,
    };
    if plan.frame == 0 || !plan.frame.is_multiple_of(4) {
        return Err(invalid("frame must be a multiple of four"));
    }
    let target = Target::new(arguments.word(0)?, arguments.source()?)?;
    let seconds = timeout(PATIENCE, transfer(&target, &plan)).await??;
    let mib = (plan.up + plan.down) as f64 / MIB as f64;
    println!(r#"{{"mib": {mib}, "seconds": {seconds:.6}, "mib_per_s": {:.1}}}"#, mib / seconds);
    Ok(())
}

async fn transfer(target: &Target, plan: &Plan) -> io::Result<f64> {
    let (stream, bytes) = target.open(0, &plan.path()).await?;
    let started = Instant::now();
    let (mut from, mut to) = split(stream);
    let (sent, received) = tokio::join!(
        send(&mut to, plan.up, plan.frame, Some(KEY)),
        receive(&mut from, bytes, plan.down, false)
    );
    sent?;
    let mut rest = received?;
    // The back end's Close says that it has got everything.
    while rest.len() < 2 {
        if from.read_buf(&mut rest).await? == 0 {
            return Err(ErrorKind::UnexpectedEof.into());
        }
    }
    let mut close = Vec::new();
    frame::put_header(&mut close, CLOSE, 0, None);
    if rest != close {
        return Err(invalid("no Close frame at the end"));
    }
    Ok(started.elapsed().as_secs_f64())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plan_survives_its_path() {
        let plan = Plan { up: 1, down: 1 << 40, frame: 65_536 };
        assert_eq!(Plan::from_path(&plan.path()), Some(plan));
        assert_eq!(Plan::from_path("/bulk/1/2/3"), None);
        assert_eq!(Plan::from_path("/"), None);
    }

    #[tokio::test]
    async fn what_is_sent_is_received_and_a_change_is_noticed() {
        for (total, frame) in [(1_000_000, 65_536), (1_000_000, 128), (300_000, 1 << 30), (5, 4)] {
            for key in [None, Some(KEY)] {
                let mut wire = Vec::new();
                send(&mut wire, total, frame, key).await.expect("sent");
                let got = receive(&mut &wire[..], Vec::new(), total, key.is_some()).await;
                assert_eq!(got.expect("received"), b"");
                let last = wire.len() - 1;
                wire[last] ^= 1;
                let got = receive(&mut &wire[..], Vec::new(), total, key.is_some()).await;
                assert_eq!(got.expect_err("noticed").kind(), ErrorKind::InvalidData);
            }
        }
    }
}
