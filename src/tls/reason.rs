//! Why a session goes on in OpenSSL.

use std::fmt;

macro_rules! reasons {
    ($($name:ident $short:literal $text:literal;)*) => {
        /// Why a session did not leave OpenSSL, see [`take_over`](crate::take_over).
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum Reason {
            $(#[doc = concat!($text, ".")] $name,)*
        }

        impl Reason {
            /// All of them.
            pub const ALL: &[Reason] = &[$(Reason::$name,)*];

            /// A name for counters: lower case letters and hyphens.
            pub const fn name(self) -> &'static str {
                match self {
                    $(Reason::$name => $short,)*
                }
            }
        }

        impl fmt::Display for Reason {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(match self {
                    $(Reason::$name => $text,)*
                })
            }
        }
    };
}

reasons! {
    Off "off" "native sessions are off, or this OpenSSL does not allow them";
    Untraced "untraced" "its handshake was not followed";
    Version "version" "its TLS version is neither 1.2 nor 1.3";
    Suite "suite" "its cipher is neither AES-GCM nor ChaCha20-Poly1305, or it has an extension that changes records";
    Unfinished "unfinished" "a TLS record or message has come or gone only in part";
    Ended "ended" "the peer has ended it";
    NoRecord "no-record" "a direction has had no record yet";
    LargeRecord "large-record" "the last record of a direction was too large to be kept";
    Unproved "unproved" "the keys that are known do not open the last records";
    Failed "failed" "OpenSSL failed";
}
