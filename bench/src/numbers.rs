//! Medians, percentiles and how numbers are written.
//!
//! Owns: arithmetic on samples. Refuses to know: what was sampled.

use std::time::Duration;

/// The middle of the samples; 0 without any.
pub(crate) fn median(samples: &[f64]) -> f64 {
    let mut sorted = samples.to_vec();
    sorted.sort_by(f64::total_cmp);
    match sorted.len() {
        0 => 0.0,
        odd if odd % 2 == 1 => sorted[odd / 2],
        even => f64::midpoint(sorted[even / 2 - 1], sorted[even / 2]),
    }
}

/// Waits in microseconds, each as it was: no buckets, so that a percentile is a real sample.
#[derive(Debug, Clone, Default)]
pub(crate) struct Waits(Vec<u32>);

impl Waits {
    pub(crate) fn add(&mut self, wait: Duration) {
        self.0.push(u32::try_from(wait.as_micros()).unwrap_or(u32::MAX));
    }

    pub(crate) fn extend(&mut self, other: Waits) {
        self.0.extend(other.0);
    }

    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    /// The wait in milliseconds that `percent` of all did not pass.
    pub(crate) fn percentile_ms(&mut self, percent: f64) -> f64 {
        self.0.sort_unstable();
        let rank = (percent / 100.0 * self.0.len() as f64).ceil() as usize;
        let sample = self.0.get(rank.saturating_sub(1)).copied().unwrap_or_default();
        f64::from(sample) / 1e3
    }
}

/// Things per second.
pub(crate) fn rate(count: u64, took: Duration) -> f64 {
    count as f64 / took.as_secs_f64()
}

/// A whole number with its thousands apart.
pub(crate) fn whole(value: f64) -> String {
    let digits = format!("{value:.0}");
    let mut out = String::new();
    for (nth, digit) in digits.chars().enumerate() {
        if nth > 0 && (digits.len() - nth).is_multiple_of(3) {
            out.push('\u{202f}');
        }
        out.push(digit);
    }
    out
}

/// All rounds in one cell: what the median hides.
pub(crate) fn rounds(samples: &[f64]) -> String {
    let each: Vec<_> = samples.iter().map(|sample| whole(*sample)).collect();
    format!("rounds: {}", each.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_the_middle_and_not_the_mean() {
        assert_eq!(median(&[9.0, 1.0, 2.0]), 2.0);
        assert_eq!(median(&[1.0, 2.0, 4.0, 100.0]), 3.0);
        assert_eq!(median(&[]), 0.0);
    }

    #[test]
    fn a_percentile_is_a_sample_that_was_taken() {
        let mut waits = Waits::default();
        assert_eq!(waits.percentile_ms(99.0), 0.0);
        (1..=200).rev().for_each(|ms| waits.add(Duration::from_millis(ms)));
        assert_eq!(waits.percentile_ms(50.0), 100.0);
        assert_eq!(waits.percentile_ms(99.0), 198.0);
        assert_eq!(waits.percentile_ms(100.0), 200.0);
    }

    #[test]
    fn thousands_stand_apart() {
        for (value, text) in [(0.0, "0"), (999.4, "999"), (1234.0, "1 234"), (1e6, "1 000 000")] {
            assert_eq!(whole(value), text.replace(' ', "\u{202f}"));
        }
    }
}
