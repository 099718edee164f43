//! What a message is made of, and the macro that makes one of each line of the catalogue.

use std::fmt;

/// How important a message is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// Something failed.
    Error,
    /// Something will fail, or does not do what the configuration says.
    Warn,
    /// What is seldom, and as it should be.
    Notice,
    /// What an administrator may want to know in daily work.
    Info,
    /// What explains a decision.
    Debug,
}

/// A number of docs/messages.md.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MessageId(pub u16);

impl fmt::Display for MessageId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "WSF{:04}", self.0)
    }
}

/// A text with a number.
pub trait Message: fmt::Display {
    /// Its number.
    const ID: MessageId;
    /// Its level, where it is not said otherwise.
    const LEVEL: Level;
}

/// A type for each text, whose fields are what is put into it. A line with a number and a level
/// is a [`Message`]; those in the braces behind it are what may stand in for `{why}` in it.
macro_rules! messages {
    ($(
        $name:ident($number:literal) $level:ident $({ $($field:ident),+ })? $text:literal
        $({ $($cause:ident $({ $($part:ident),+ })? $why:literal;)+ })?
    )+) => {
        $(
            messages!(@type $name { $($($field),+)? } $text);

            impl Message for messages!(@elided $name { $($($field),+)? }) {
                const ID: MessageId = MessageId($number);
                const LEVEL: Level = Level::$level;
            }

            $($(messages!(@type $cause { $($($part),+)? } $why);)+)?
        )+
    };
    (@elided $name:ident {}) => { $name };
    (@elided $name:ident { $($field:ident),+ }) => { $name<'_> };
    (@type $name:ident {} $text:literal) => {
        #[doc = $text]
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub struct $name;

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str($text)
            }
        }
    };
    (@type $name:ident { $($field:ident),+ } $text:literal) => {
        #[doc = $text]
        #[derive(Clone, Copy)]
        pub struct $name<'a> {
            $(#[doc = concat!("`", stringify!($field), "` in the text.")]
            pub $field: &'a dyn fmt::Display,)+
        }

        impl fmt::Display for $name<'_> {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                let Self { $($field),+ } = self;
                write!(f, $text)
            }
        }
    };
}

pub(crate) use messages;
