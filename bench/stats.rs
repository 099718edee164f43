//! Times, and the figures that are told of them.

use std::time::Duration;

/// Times of single events, in nanoseconds.
#[derive(Default)]
pub(crate) struct Times(Vec<u32>);

impl Times {
    /// Takes note of one; above four seconds it counts as four.
    pub(crate) fn add(&mut self, time: Duration) {
        self.0.push(u32::try_from(time.as_nanos()).unwrap_or(u32::MAX));
    }

    /// Takes note of all that another took note of.
    pub(crate) fn append(&mut self, other: &mut Times) {
        self.0.append(&mut other.0);
    }

    /// How many.
    pub(crate) fn count(&self) -> usize {
        self.0.len()
    }

    /// Members of a JSON object: `"p50_us": ...` and others; null if there are no times.
    pub(crate) fn json(&mut self) -> String {
        self.0.sort_unstable();
        let at = |share: f64| {
            let index = (self.0.len() as f64 * share) as usize;
            let time = self.0.get(index.min(self.0.len().saturating_sub(1)));
            time.map_or("null".into(), |time| format!("{:.1}", f64::from(*time) / 1000.0))
        };
        format!(
            r#""p50_us": {}, "p99_us": {}, "p999_us": {}, "max_us": {}"#,
            at(0.5),
            at(0.99),
            at(0.999),
            at(1.0)
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_of_the_sorted_times() {
        let mut times = Times::default();
        for micros in (0..1000).rev() {
            times.add(Duration::from_micros(micros));
        }
        let json = r#""p50_us": 500.0, "p99_us": 990.0, "p999_us": 999.0, "max_us": 999.0"#;
        assert_eq!(times.json(), json);
        assert!(Times::default().json().starts_with(r#""p50_us": null"#));
    }
}
