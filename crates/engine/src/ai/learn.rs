//! How long a model's answers are, from those that it gave.
//!
//! Owns: the distribution of answers in memory. Refuses to know: what is reserved by it. It is lost
//! with the process: the first calls of the next one reserve more than they need.

use std::sync::atomic::{AtomicU32, Ordering};

/// Tokens that are taken for the longest answer until enough have been seen.
pub const OUTPUT_AT_FIRST: u64 = 1_024;

/// Answers that have to be seen.
const SEEN_MIN: u32 = 50;

/// Answers after which old ones count half, so that a change of habit is noticed.
const SEEN_MAX: u32 = 4_096;

/// Answers of one model, in buckets whose bounds double.
#[derive(Debug, Default)]
pub struct Observed {
    buckets: [AtomicU32; 32],
    seen: AtomicU32,
}

impl Observed {
    /// Counts an answer of so many tokens.
    pub fn saw(&self, output: u64) {
        let bucket = (u64::BITS - output.leading_zeros()) as usize;
        let Some(count) = self.buckets.get(bucket) else { return };
        count.fetch_add(1, Ordering::Relaxed);
        if self.seen.fetch_add(1, Ordering::Relaxed) + 1 < SEEN_MAX {
            return;
        }
        // Two that come here at once halve twice: the shape stays.
        self.seen.store(0, Ordering::Relaxed);
        for count in &self.buckets {
            let half = count.load(Ordering::Relaxed) / 2;
            count.store(half, Ordering::Relaxed);
            self.seen.fetch_add(half, Ordering::Relaxed);
        }
    }

    /// Tokens that 99 of 100 answers stay within.
    #[must_use]
    pub fn p99(&self) -> u64 {
        let counts = self.buckets.each_ref().map(|count| u64::from(count.load(Ordering::Relaxed)));
        let seen: u64 = counts.iter().sum();
        if seen < u64::from(SEEN_MIN) {
            return OUTPUT_AT_FIRST;
        }
        let mut below = 0;
        for (bucket, count) in counts.iter().enumerate() {
            below += count;
            if below * 100 >= seen * 99 {
                return (1 << bucket) - 1;
            }
        }
        OUTPUT_AT_FIRST
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_seen_bounds_what_is_expected() {
        let observed = Observed::default();
        assert_eq!(observed.p99(), OUTPUT_AT_FIRST);
        (0..99).for_each(|_| observed.saw(100));
        observed.saw(9_000);
        assert_eq!(observed.p99(), 127);
        (0..10).for_each(|_| observed.saw(9_000));
        assert_eq!(observed.p99(), 16_383);
        observed.saw(0);
        observed.saw(u64::MAX);
        (0..20_000).for_each(|_| observed.saw(10));
        assert_eq!(observed.p99(), 15, "old habits fade");
        assert!(observed.seen.load(Ordering::Relaxed) < SEEN_MAX);
    }
}
