//! Why a session goes on in OpenSSL.

use std::fmt;

macro_rules! reasons {
    ($($name:ident $text:literal;)*) => {
        /// Why a session did not leave OpenSSL, see [`take_over`](crate::take_over).
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Reason {
            $(#[doc = concat!($text, ".")] $name,)*
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
    Off "native sessions are off, or this OpenSSL does not allow them";
    Untraced "its handshake was not followed";
    Version "its TLS version is neither 1.2 nor 1.3";
    Suite "its cipher is neither AES-GCM nor ChaCha20-Poly1305, or it has an extension that changes records";
    Unfinished "a TLS record or message has come or gone only in part";
    Ended "the peer has ended it";
    NoRecord "a direction has had no record yet";
    LargeRecord "the last record of a direction was too large to be kept";
    Unproved "the keys that are known do not open the last records";
    Failed "OpenSSL failed";
}
