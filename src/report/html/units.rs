//! Figures as people read them.

use std::fmt::{self, Display, Write};

use crate::time::Seconds;

/// With a thin space between thousands, which a browser does not break.
pub(crate) struct Count(pub u64);

impl Display for Count {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let digits = self.0.to_string();
        for (at, digit) in digits.chars().enumerate() {
            if at > 0 && (digits.len() - at).is_multiple_of(3) {
                f.write_char('\u{202f}')?;
            }
            f.write_char(digit)?;
        }
        Ok(())
    }
}

/// To the next unit.
pub(crate) struct Bytes(pub u64);

impl Display for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const UNITS: [&str; 6] = ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
        if self.0 < 1024 {
            return write!(f, "{} B", self.0);
        }
        let mut value = self.0 as f64 / 1024.0;
        let mut units = UNITS.into_iter();
        let mut unit = units.next();
        while value >= 1023.95 {
            value /= 1024.0;
            unit = units.next();
        }
        write!(f, "{value:.1} {}", unit.unwrap_or_default())
    }
}

/// Processor time, to a hundredth of a second.
pub(crate) struct Cpu(pub u64);

impl Display for Cpu {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const MICROS_PER_HUNDREDTH: u64 = 10_000;
        write!(f, "{} s", Seconds(self.0 / MICROS_PER_HUNDREDTH * MICROS_PER_HUNDREDTH))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_short() {
        for (bytes, expected) in [
            (0, "0 B"),
            (1023, "1023 B"),
            (1024, "1.0 KiB"),
            (1_048_524, "1023.9 KiB"),
            (1_048_575, "1.0 MiB"),
            (u64::MAX, "16.0 EiB"),
        ] {
            assert_eq!(Bytes(bytes).to_string(), expected);
        }
        for (count, expected) in
            [(0, "0"), (999, "999"), (1000, "1 000"), (12_345, "12 345"), (1_234_567, "1 234 567")]
        {
            assert_eq!(Count(count).to_string().replace('\u{202f}', " "), expected);
        }
    }
}
