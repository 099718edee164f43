//! What OpenSSL and sessions that left it are known to take differently, and why that is right. Nothing
//! else is forgiven.

use records::Version::{self, Tls12, Tls13};

use crate::twins::Stand;

/// A difference: what each says, as [`text`] has it.
struct Known {
    /// The version that has it; none stands for both.
    version: Option<Version>,
    left: &'static str,
    stayed: &'static str,
    #[allow(dead_code, reason = "it is there to be read")]
    why: &'static str,
}

const fn known(
    version: Option<Version>,
    left: &'static str,
    stayed: &'static str,
    why: &'static str,
) -> Known {
    Known { version, left, stayed, why }
}

const KNOWN: [Known; 0] = [
];

/// Whether it is known that one makes this of what the other makes that of.
pub(crate) fn is_known(version: Version, left: &Stand, stayed: &Stand) -> bool {
    let (left, stayed) = (text(left), text(stayed));
    KNOWN.iter().any(|known| {
        known.version.is_none_or(|of| of == version) && known.left == left && known.stayed == stayed
    })
}

fn text(stand: &Stand) -> String {
    match stand {
        Stand::Open => "goes on".to_owned(),
        Stand::Closed => "close_notify".to_owned(),
        Stand::Cut => "cut".to_owned(),
        Stand::Alerted(alert) => format!("alert {alert}"),
        Stand::Refused(why) => why.clone(),
    }
}
