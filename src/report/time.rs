//! Moments and durations as text.

use std::fmt::{self, Display, Formatter};

const MICROS_PER_SECOND: u64 = 1_000_000;
const SECONDS_PER_DAY: u64 = 86_400;

/// A moment, in microseconds since the epoch, as RFC 3339 has it: UTC, to the millisecond,
/// or with `#` to the second.
///
/// A crate for calendars would be far more than this one function of it.
pub(crate) struct Moment(pub u64);

impl Display for Moment {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let (seconds, millis) = (self.0 / MICROS_PER_SECOND, self.0 % MICROS_PER_SECOND / 1000);
        let (year, month, day) = date(seconds / SECONDS_PER_DAY);
        let second = seconds % SECONDS_PER_DAY;
        let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
        write!(f, "{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}")?;
        if f.alternate() { f.write_str("Z") } else { write!(f, ".{millis:03}Z") }
    }
}

/// Year, month and day of a day since 1970-01-01, by the Gregorian calendar. Years begin in March
/// here, so that the day of a leap year is its last.
const fn date(days: u64) -> (u64, u64, u64) {
    /// From 0000-03-01 to 1970-01-01.
    const DAYS_BEFORE: u64 = 719_468;
    const DAYS_PER_ERA: u64 = 146_097;
    let days = days + DAYS_BEFORE;
    let (era, day_of_era) = (days / DAYS_PER_ERA, days % DAYS_PER_ERA);
    let year_of_era =
        (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    let year = era * 400 + year_of_era + (month <= 2) as u64;
    (year, month, day)
}

/// Microseconds as seconds, exactly, without zeros at the end.
pub(crate) struct Seconds(pub u64);

impl Display for Seconds {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let (whole, micros) = (self.0 / MICROS_PER_SECOND, self.0 % MICROS_PER_SECOND);
        if micros == 0 {
            return write!(f, "{whole}");
        }
        let micros = format!("{micros:06}");
        write!(f, "{whole}.{}", micros.trim_end_matches('0'))
    }
}

/// Seconds as people say them, to two units.
pub(crate) struct Duration(pub u64);

impl Display for Duration {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let seconds = self.0;
        match seconds {
            0..60 => write!(f, "{seconds} s"),
            60..3600 => write!(f, "{} min {} s", seconds / 60, seconds % 60),
            3600..SECONDS_PER_DAY => write!(f, "{} h {} min", seconds / 3600, seconds / 60 % 60),
            _ => write!(f, "{} d {} h", seconds / SECONDS_PER_DAY, seconds / 3600 % 24),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_are_as_in_rfc_3339() {
        for (seconds, expected) in [
            (0, "1970-01-01T00:00:00.000Z"),
            (951_782_399, "2000-02-28T23:59:59.000Z"),
            (951_782_400, "2000-02-29T00:00:00.000Z"),
            (951_868_800, "2000-03-01T00:00:00.000Z"),
            (1_709_164_800, "2024-02-29T00:00:00.000Z"),
            (1_735_689_599, "2024-12-31T23:59:59.000Z"),
            (4_107_542_400, "2100-03-01T00:00:00.000Z"),
            (253_402_300_799, "9999-12-31T23:59:59.000Z"),
        ] {
            assert_eq!(Moment(seconds * MICROS_PER_SECOND).to_string(), expected);
        }
        assert_eq!(format!("{:#}", Moment(1_001_999)), "1970-01-01T00:00:01Z");
        assert_eq!(Moment(1_001_999).to_string(), "1970-01-01T00:00:01.001Z");
        // Whatever stands in shared memory.
        assert_eq!(Moment(u64::MAX).to_string(), "586524-01-19T08:01:49.551Z");
    }

    #[test]
    fn seconds_are_exact() {
        for (micros, expected) in [
            (0, "0"),
            (1, "0.000001"),
            (5000, "0.005"),
            (2_500_000, "2.5"),
            (86_400_000_000, "86400"),
            (u64::MAX, "18446744073709.551615"),
        ] {
            assert_eq!(Seconds(micros).to_string(), expected);
        }
    }

    #[test]
    fn durations_are_short() {
        for (seconds, expected) in
            [(0, "0 s"), (59, "59 s"), (61, "1 min 1 s"), (3600, "1 h 0 min"), (90_061, "1 d 1 h")]
        {
            assert_eq!(Duration(seconds).to_string(), expected);
        }
    }
}
