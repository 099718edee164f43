//! Every reason that is counted. A new one is one line here.

use std::fmt;
use std::io;
use std::sync::atomic::AtomicU64;

/// An enum of reasons, and a type with one count for each of them. A line is a variant, its name
/// in figures and logs, and a text that says more. How many there are, and which count is whose,
/// follows from that: no index is written anywhere.
macro_rules! reasons {
    (
        $(#[$outer:meta])*
        pub enum $name:ident, counted in $counts:ident {
            $($variant:ident $(($payload:ty))? = $label:literal, $text:literal;)+
        }
    ) => {
        $(#[$outer])*
        #[derive(Clone, Debug, PartialEq, Eq)]
        pub enum $name {
            $(#[doc = $text] $variant $(($payload))?,)+
        }

        impl $name {
            /// How many there are.
            pub const KINDS: usize = [$($label),+].len();

            /// A short name, for figures and logs.
            pub const fn name(&self) -> &'static str {
                match self {
                    $(Self::$variant { .. } => $label,)+
                }
            }

            /// What it means.
            pub const fn text(&self) -> &'static str {
                match self {
                    $(Self::$variant { .. } => $text,)+
                }
            }
        }

        #[doc = concat!("A count for each [`", stringify!($name), "`].")]
        #[allow(non_snake_case, reason = "named as the reasons are")]
        #[repr(C)]
        #[derive(Debug)]
        pub struct $counts {
            $($variant: AtomicU64,)+
        }

        impl $counts {
            /// The name of each reason, and where it is counted.
            pub const EACH: [(&'static str, fn(&Self) -> &AtomicU64); $name::KINDS] =
                [$(($label, |counts| &counts.$variant)),+];

            /// All zero.
            pub const fn new() -> Self {
                Self { $($variant: AtomicU64::new(0),)+ }
            }

            /// The count of a reason.
            pub const fn of(&self, why: &$name) -> &AtomicU64 {
                match why {
                    $($name::$variant { .. } => &self.$variant,)+
                }
            }

            /// All of them, in the order of [`Self::EACH`].
            pub const fn all(&self) -> [&AtomicU64; $name::KINDS] {
                [$(&self.$variant),+]
            }
        }

        impl Default for $counts {
            fn default() -> Self {
                Self::new()
            }
        }
    };
}

reasons! {
    /// Why an upgrade request is refused.
    #[derive(Copy)]
    pub enum Refusal, counted in Refusals {
        Tunnels = "max-tunnels", "WSForwardMaxTunnels is reached.";
        Descriptors = "descriptors", "The limit of descriptors of the process allows no more.";
        Client = "max-tunnels-per-client", "WSForwardMaxTunnelsPerClient is reached.";
        Backend = "max-tunnels-per-backend", "WSForwardMaxTunnelsPerBackend is reached.";
        Memory = "memory", "No more fit the server's memory.";
        Expired = "expired", "The time of WSFORWARD_EXPIRES has come already.";
        Origin = "origin", "WSForwardOrigin does not allow its Origin.";
        NotReady = "not-ready", "WSForwardReadyFile is absent.";
    }
}

reasons! {
    /// Why a tunnel stays in its worker thread.
    #[derive(Copy)]
    pub enum Fallback, counted in Fallbacks {
        Http2 = "http2", "It is a stream of HTTP/2.";
        Filter = "filter", "A connection has a filter that must see its bytes.";
        Tls = "tls", "Its TLS cannot be taken over.";
        Descriptors = "descriptors", "No descriptor could be had.";
        Ended = "ended", "A side ended before the hand-over.";
        NoRelay = "no-relay", "There is no relay in this process.";
    }
}

reasons! {
    /// What became of the TLS session of a side at the hand-over: it left OpenSSL, or why it did not.
    #[derive(Copy)]
    pub enum TlsSession, counted in TlsSessions {
        Native = "native", "It left OpenSSL.";
        Off = "off", "WSForwardTLS is openssl, or native cannot be.";
        Untraced = "untraced", "Its handshake was not followed.";
        Version = "version", "Its TLS version is neither 1.2 nor 1.3.";
        Suite = "suite", "Its cipher is neither AES-GCM nor ChaCha20-Poly1305.";
        Unfinished = "unfinished", "A record or message had come or gone only in part.";
        Ended = "ended", "The peer had ended it.";
        NoRecord = "no-record", "A direction had no record yet.";
        LargeRecord = "large-record", "The last record of a direction was too large to be kept.";
        Unproved = "unproved", "The keys that are known did not open the last records.";
        Failed = "failed", "OpenSSL failed.";
    }
}

reasons! {
    /// Why a tunnel ended.
    pub enum Why, counted in Ends {
        Closed = "closed", "Both directions came to their end; the side that ended first said so before, by its Close frame or by its TLS's close_notify, if it has TLS.";
        Truncated = "truncated", "As closed, but the TLS side that ended first did so without either (RFC 8446 6.1: possibly truncated).";
        Reset = "reset", "A side was reset or gone when written to.";
        Error(i32) = "error", "A system call on a side failed with this errno.";
        Tls(String) = "tls", "A side's TLS failed; the text is the TLS library's.";
        IdleTimeout = "idle-timeout", "No byte in either direction for the idle timeout.";
        PingTimeout = "ping-timeout", "A side did not answer a Ping within the time of WSForwardPing.";
        MessageTooBig = "message-too-big", "A message was longer than WSForwardMaxMessage.";
        ProtocolError = "protocol-error", "A frame was not as RFC 6455 wants it, with WSForwardStrict On.";
        Lifetime = "lifetime", "It was open for WSForwardMaxLifetime.";
        Expired = "expired", "The time of WSFORWARD_EXPIRES came.";
        ClosedByAdmin = "closed-by-admin", "An administrator ended it, by the status handler.";
        Stopped = "stopped", "Ordered, because the server stops.";
        DrainTimeout = "drain-timeout", "Ordered, because it outlived its process for longer than allowed.";
        Panic = "panic", "A panic in this tunnel's task. A fault of the program.";
        ThreadDied = "thread-died", "The relay thread that carried it died. A fault of the program.";
    }
}

impl Why {
    /// The reason behind an I/O error of a side.
    pub fn from_error(error: &io::Error) -> Self {
        match error.raw_os_error() {
            Some(libc::ECONNRESET | libc::EPIPE | libc::ECONNABORTED) => Self::Reset,
            Some(errno) => Self::Error(errno),
            None => Self::Tls(error.to_string()),
        }
    }

    /// Whether the sides are to see a reset rather than an end.
    pub const fn is_abrupt(&self) -> bool {
        matches!(self, Self::Reset | Self::Error(_) | Self::Tls(_) | Self::Panic | Self::ThreadDied)
    }
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Error(errno) => write!(f, "error: {}", io::Error::from_raw_os_error(*errno)),
            Self::Tls(text) => write!(f, "tls: {text}"),
            other => f.write_str(other.name()),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;
    use std::sync::atomic::Ordering::Relaxed;

    use super::*;

    #[test]
    fn each_reason_has_a_name_and_a_count_of_its_own() {
        let counts = Ends::new();
        let why = [
            Why::Closed,
            Why::Truncated,
            Why::Reset,
            Why::Error(5),
            Why::Tls(String::new()),
            Why::IdleTimeout,
            Why::PingTimeout,
            Why::MessageTooBig,
            Why::ProtocolError,
            Why::Lifetime,
            Why::Expired,
            Why::ClosedByAdmin,
            Why::Stopped,
            Why::DrainTimeout,
            Why::Panic,
            Why::ThreadDied,
        ];
        for (number, why) in (1..).zip(&why) {
            counts.of(why).store(number, Relaxed);
        }
        let found: Vec<_> =
            Ends::EACH.iter().map(|(name, of)| (*name, of(&counts).load(Relaxed))).collect();
        let expected: Vec<_> = why.iter().map(Why::name).zip(1..).collect();
        assert_eq!(found, expected);
        assert_eq!(counts.all().iter().map(|count| count.load(Relaxed)).sum::<u64>(), 136);
        let names: HashSet<_> = found.iter().map(|(name, _)| name).collect();
        assert_eq!(names.len(), Why::KINDS);
    }

    #[test]
    fn counts_take_no_more_than_their_numbers() {
        assert_eq!(size_of::<Ends>(), Why::KINDS * size_of::<AtomicU64>());
        assert_eq!(size_of::<Fallbacks>(), Fallback::KINDS * size_of::<AtomicU64>());
        assert_eq!(size_of::<Refusals>(), Refusal::KINDS * size_of::<AtomicU64>());
        assert_eq!(size_of::<TlsSessions>(), TlsSession::KINDS * size_of::<AtomicU64>());
    }

    #[test]
    fn an_error_says_what_it_is() {
        assert_eq!(Why::Stopped.to_string(), "stopped");
        let refused = Why::from_error(&io::Error::from_raw_os_error(libc::EPERM));
        assert_eq!(refused.to_string(), "error: Operation not permitted (os error 1)");
        assert_eq!(Why::from_error(&io::Error::other("bad record")).to_string(), "tls: bad record");
        let gone = Why::from_error(&io::Error::from_raw_os_error(libc::EPIPE));
        assert!(gone == Why::Reset && gone.is_abrupt() && !Why::Closed.is_abrupt());
    }
}
