//! Whether new tunnels are taken, for whoever sends them here.

use std::fmt;

/// Why the server is not ready for more tunnels.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NotReady {
    /// So many are open that the limit is near.
    Full {
        /// That are open.
        open: u64,
        /// That may be open.
        possible: u64,
        /// Of these it is ready below that many: WSForwardReadyBelow.
        percent: u64,
    },
    /// The file of WSForwardReadyFile is not there.
    FileAbsent {
        /// Its name.
        file: String,
    },
}

impl fmt::Display for NotReady {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Full { open, possible, percent } => write!(
                f,
                "{open} of {possible} possible tunnels are open, WSForwardReadyBelow is {percent} %"
            ),
            Self::FileAbsent { file } => {
                write!(f, "WSForwardReadyFile {} is absent", file.escape_debug())
            }
        }
    }
}

/// Whether there is room below `percent` of the possible tunnels. Where none are possible at all,
/// nothing is relayed, and there is no limit of ours.
///
/// # Errors
/// If there is not.
pub fn room(open: u64, possible: u64, percent: u64) -> Result<(), NotReady> {
    let is_full = u128::from(open) * 100 >= u128::from(possible) * u128::from(percent);
    if possible > 0 && is_full {
        return Err(NotReady::Full { open, possible, percent });
    }
    Ok(())
}

/// Status and text of the answer to `?ready`.
#[must_use]
pub fn render(ready: &Result<(), NotReady>) -> (u16, String) {
    match ready {
        Ok(()) => (200, "ready\n".to_owned()),
        Err(why) => (503, format!("{why}\n")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_is_room_below_the_limit() {
        for (open, possible, percent, expected) in [
            (0, 0, 95, true),
            (5, 0, 95, true),
            (0, 1, 95, true),
            (1, 1, 95, false),
            (94, 100, 95, true),
            (95, 100, 95, false),
            (99, 100, 100, true),
            (100, 100, 100, false),
            (u64::MAX, u64::MAX, 100, false),
        ] {
            assert_eq!(room(open, possible, percent).is_ok(), expected, "{open} of {possible}");
        }
    }

    #[test]
    fn answers_are_one_line() {
        assert_eq!(render(&Ok(())), (200, "ready\n".to_owned()));
        let text = "95 of 100 possible tunnels are open, WSForwardReadyBelow is 95 %\n";
        assert_eq!(render(&room(95, 100, 95)), (503, text.to_owned()));
        let absent = NotReady::FileAbsent { file: "/run/a\nb".to_owned() };
        assert_eq!(render(&Err(absent)), (503, "WSForwardReadyFile /run/a\\nb is absent\n".into()));
    }
}
