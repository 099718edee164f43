//! What OpenSSL and sessions that left it are known to take differently, and why that is right. Nothing
//! else is forgiven.

use records::Version::{self, Tls12, Tls13};

use crate::twins::Stand;

/// A difference.
struct Known {
    /// The version that has it; none stands for both.
    version: Option<Version>,
    /// Whether it is only there when we have said close_notify.
    behind_ours: bool,
    /// What the one that left says, as [`text`] has it: any of these.
    left: &'static [&'static str],
    /// What the one that stayed says: any of these.
    stayed: &'static [&'static str],
    /// Why that is right.
    #[allow(dead_code, reason = "it is there to be read")]
    why: &'static str,
}

const KNOWN: [Known; 18] = [
    Known {
        version: Some(Tls13),
        behind_ours: false,
        left: &[GOES_ON],
        stayed: &["wrong version number"],
        why: "RFC 8446 5.1: the version in a record's header is ignored for all purposes",
    },
    Known {
        version: Some(Tls13),
        behind_ours: false,
        left: &["TLS record too long"],
        stayed: &[
            GOES_ON,
            "unexpected message",
            "unexpected record",
            "bad record type",
            "bad length",
            "excessive message size",
            "length mismatch",
            "record too small",
        ],
        why: "RFC 8446 5.4: text, type and padding have 2^14 + 1 bytes at most; OpenSSL looks at the \
              text alone",
    },
    Known {
        version: Some(Tls13),
        behind_ours: false,
        left: &[
            GOES_ON,
            "TLS handshake message behind a KeyUpdate in one record",
            "TLS KeyUpdate with an unknown value",
            "TLS handshake message of a wrong length",
            "unexpected TLS handshake message",
        ],
        stayed: &["length mismatch"],
        why: "RFC 8446 4.6.1: a client may ignore tickets: one that is wrong is not seen, but what is \
              behind it",
    },
    Known {
        version: None,
        behind_ours: false,
        left: &["TLS alert of a wrong length"],
        stayed: &["invalid alert"],
        why: "RFC 8446 6.2, RFC 5246 7.2.2: decode_error is for a length that is not right; OpenSSL \
              says unexpected_message",
    },
    Known {
        version: None,
        behind_ours: false,
        left: &["TLS handshake message of a wrong length"],
        stayed: &["excessive message size"],
        why: "the same; OpenSSL says illegal_parameter",
    },
    Known {
        version: Some(Tls13),
        behind_ours: false,
        left: &["TLS handshake message of a wrong length"],
        stayed: &["not on record boundary"],
        why: "a KeyUpdate that is wrong in two ways",
    },
    Known {
        version: Some(Tls12),
        behind_ours: false,
        left: &["unexpected type of TLS record", "TLS ChangeCipherSpec after the handshake"],
        stayed: &[
            "cipher operation failed",
            "decryption failed or bad record mac",
            "encrypted length too long",
            "invalid aad",
            "invalid data",
            "packet length too long",
            "wrong version number",
        ],
        why: "a record that is wrong in two ways; who left looks at the type first",
    },
    Known {
        version: Some(Tls12),
        behind_ours: false,
        left: &["TLS record that does not decrypt"],
        stayed: &["invalid aad", "invalid data"],
        why: "RFC 5246 7.2.2: bad_record_mac; OpenSSL calls what is too short an internal_error",
    },
    Known {
        version: Some(Tls12),
        behind_ours: false,
        left: &["TLS record that does not decrypt"],
        stayed: &["packet length too long", "encrypted length too long"],
        why: "RFC 5246 6.2.3: 2^14 + 2048 bytes are allowed; OpenSSL has room for fewer",
    },
    Known {
        version: Some(Tls12),
        behind_ours: false,
        left: &["empty TLS record of a type that must not be empty"],
        stayed: &[GOES_ON],
        why: "RFC 5246 6.2.1: a handshake record must not be empty",
    },
    Known {
        version: Some(Tls12),
        behind_ours: false,
        left: &["too many attempts at TLS renegotiation"],
        stayed: &[GOES_ON],
        why: "each costs an answer: OpenSSL has no bound",
    },
    Known {
        version: None,
        behind_ours: false,
        left: &["too many empty TLS records", "too many TLS warnings"],
        stayed: &[GOES_ON],
        why: "they are counted from the last data on; OpenSSL counts from any other record on",
    },
    Known {
        version: Some(Tls12),
        behind_ours: false,
        left: &[GOES_ON, "TLS alert of an unknown level"],
        stayed: &["no renegotiation"],
        why: "RFC 5246 7.2.2: no_renegotiation is a warning, of somebody who was not asked",
    },
    Known {
        version: None,
        behind_ours: false,
        left: &[CLOSED, ALERT],
        stayed: &["too many warn alerts"],
        why: "OpenSSL counts any end that is called a warning as one more of them",
    },
    Known {
        version: Some(Tls13),
        behind_ours: false,
        left: &["other TLS record within a handshake message"],
        stayed: &[GOES_ON, CLOSED, ALERT, "wrong version number"],
        why: "RFC 8446 5.1: no other record comes between those of a message; OpenSSL looks for data \
              alone once it has a message's header",
    },
    Known {
        version: Some(Tls12),
        behind_ours: false,
        left: &[GOES_ON],
        stayed: &["unexpected record"],
        why: "data between the records of a message: RFC 5246 does not say that they are wrong",
    },
    Known {
        version: Some(Tls13),
        behind_ours: false,
        left: &["TLS ChangeCipherSpec after the handshake"],
        stayed: &[GOES_ON],
        why: "RFC 8446 5: behind the handshake it is an unexpected record; clients of OpenSSL 3.5 take \
              it",
    },
    Known {
        version: Some(Tls12),
        behind_ours: true,
        left: &["TLS handshake message of a wrong length", "unexpected TLS handshake message"],
        stayed: &[GOES_ON],
        why: "behind its close_notify OpenSSL takes no notice of messages",
    },
];

const GOES_ON: &str = "goes on";
const CLOSED: &str = "close_notify";
const ALERT: &str = "an alert";

/// Whether it is known that one says this where the other says that.
pub(crate) fn is_known(
    (version, has_closed): (Version, bool),
    left: &Stand,
    stayed: &Stand,
) -> bool {
    let (left, stayed) = (text(left), text(stayed));
    KNOWN.iter().any(|known| {
        known.version.is_none_or(|of| of == version)
            && (has_closed || !known.behind_ours)
            && known.left.contains(&&*left)
            && known.stayed.contains(&&*stayed)
    })
}

fn text(stand: &Stand) -> String {
    match stand {
        Stand::Open => GOES_ON.to_owned(),
        Stand::Closed => CLOSED.to_owned(),
        Stand::Cut => "cut".to_owned(),
        Stand::Alerted(_) => ALERT.to_owned(),
        Stand::Refused(why) => why.clone(),
    }
}
