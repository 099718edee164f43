//! A direction as bytes, for another process.

use std::time::{Duration, Instant};

use super::{Along, Flow, Kept, Stage};
use crate::bytes::{Reader, put_u64};
use crate::end::By;
use crate::frames::Tracker;
use crate::guard::{Breach, Guard};
use crate::pace::Pace;
use crate::rules::Rules;

/// The most bytes that a frozen tunnel may have delivered.
const MAX_DELIVERED: u64 = u64::MAX / 2;

impl Flow {
    /// How many bytes [`freeze`](Self::freeze) appends besides those that are kept.
    pub(crate) const FROZEN_BYTES: usize =
        1 + 8 + Tracker::FROZEN_BYTES + 1 + Guard::FROZEN_BYTES + Pace::FROZEN_BYTES + 8;

    /// Its state as bytes. What TLS keeps is not among them; what is in a pipe neither: see
    /// [`gather`](Self::gather).
    pub(crate) fn freeze(&self, out: &mut Vec<u8>) {
        out.push(match self.stage {
            Stage::Open => 0,
            Stage::Ending => 1,
            Stage::Closing => 2,
            Stage::Ended => 3,
            Stage::Flushed => 4,
        });
        put_u64(out, self.delivered);
        self.frames.freeze(out);
        out.push(match self.breach {
            None => 0,
            Some(Breach::TooBig) => 1,
            Some(Breach::Protocol) => 2,
        });
        Guard::freeze(self.guard.as_deref(), out);
        Pace::freeze(self.pace.as_deref(), out);
        let kept = match self.kept.as_deref() {
            Some(Kept::Bytes { bytes, sent }) => &bytes[*sent..],
            _ => &[],
        };
        put_u64(out, kept.len() as u64);
        out.extend_from_slice(kept);
    }

    /// The direction that [`freeze`](Self::freeze) was called on, in a tunnel that began then and is
    /// so old.
    pub(crate) fn thaw(
        from: &mut Reader<'_>,
        rules: &Rules,
        sender: By,
        (started, age): (Instant, Duration),
    ) -> Option<Self> {
        let stage = match from.u8()? {
            0 => Stage::Open,
            1 => Stage::Ending,
            2 => Stage::Closing,
            3 => Stage::Ended,
            4 => Stage::Flushed,
            _ => return None,
        };
        // More would overflow what still comes, and nobody has carried so much.
        let delivered = from.u64().filter(|bytes| *bytes <= MAX_DELIVERED)?;
        let frames = Tracker::thaw(from)?;
        let breach = match from.u8()? {
            0 => None,
            1 => Some(Breach::TooBig),
            2 => Some(Breach::Protocol),
            _ => return None,
        };
        let guard = Guard::thaw(from, Self::guard(&frames, rules, sender))?;
        // It is one of a rule.
        if breach.is_some() && guard.is_none() {
            return None;
        }
        let pace = Pace::thaw(from, Self::pace(&frames, rules, sender, started), age)?;
        let length = usize::try_from(from.u64()?).ok()?;
        // The frames were followed when the bytes were read.
        let kept = from.bytes(length)?.to_vec();
        let mut flow = Flow {
            frames,
            guard: guard.map(Box::new),
            breach,
            pace: pace.map(Box::new),
            kept: None,
            delivered,
            arrived: 0,
            stage,
            flood_reads: 0,
            can_splice: true,
            along: Along::Nothing,
        };
        flow.keep(kept);
        Some(flow)
    }
}
