//! How many second attempts a dependency is sent.
//!
//! Owns: the window in which calls and retries are counted, and the share. Refuses to know: clocks,
//! and why somebody wants to try again.
//!
//! Callers that each retry twice turn a dependency's bad minute into three times its load, at the
//! moment when it can bear least. So retries are a share of the calls, over everybody. A share of
//! nothing is nothing, and a quiet service could never try again; so there is a floor, which is too
//! small to hurt.

use std::time::{Duration, Instant};

use crate::Policy;

const SLICES: usize = 10;
const SLICE: Duration = Duration::from_secs(1);

/// Retries in a window that are let through however few calls there are, unless the share is 0.
pub(crate) const FLOOR: u64 = 10;

#[derive(Debug, Clone, Copy, Default)]
struct Slice {
    calls: u64,
    retries: u64,
}

/// What was sent in the last ten seconds, to a second.
#[derive(Debug)]
pub(crate) struct Budget {
    slices: [Slice; SLICES],
    /// The slice that is being filled, and when it began.
    newest: usize,
    began: Instant,
}

impl Budget {
    pub(crate) fn new(now: Instant) -> Budget {
        Budget { slices: Default::default(), newest: 0, began: now }
    }

    /// Whether one more retry is within the share.
    pub(crate) fn allows(&mut self, now: Instant, policy: &Policy) -> bool {
        self.roll(now);
        if policy.retry_share_pct == 0 {
            return false;
        }
        let sum = |count: fn(&Slice) -> u64| self.slices.iter().map(count).sum::<u64>();
        let share = sum(|slice| slice.calls) * u64::from(policy.retry_share_pct) / 100;
        sum(|slice| slice.retries) < share.max(FLOOR)
    }

    /// Counts an attempt that is sent.
    pub(crate) fn count(&mut self, now: Instant, is_retry: bool) {
        self.roll(now);
        if let Some(slice) = self.slices.get_mut(self.newest) {
            if is_retry {
                slice.retries += 1;
            } else {
                slice.calls += 1;
            }
        }
    }

    fn roll(&mut self, now: Instant) {
        for _ in 0..SLICES {
            if now.saturating_duration_since(self.began) < SLICE {
                return;
            }
            self.began += SLICE;
            self.newest = (self.newest + 1) % SLICES;
            if let Some(slice) = self.slices.get_mut(self.newest) {
                *slice = Slice::default();
            }
        }
        // Nothing of the window is left; what is empty is not walked through second by second.
        if now.saturating_duration_since(self.began) >= SLICE {
            self.began = now;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    fn policy(retry_share_pct: u32) -> Policy {
        Policy { retry_share_pct, ..Policy::default() }
    }

    /// Retries that go through until one does not.
    fn drain(budget: &mut Budget, now: Instant, policy: &Policy) -> u64 {
        let mut sent = 0;
        while budget.allows(now, policy) {
            budget.count(now, true);
            sent += 1;
            assert!(sent < 10_000, "there is no end to it");
        }
        sent
    }

    #[test]
    fn retries_are_a_share_of_calls_and_a_floor() {
        let now = Instant::now();
        for (calls, share, expected) in [
            (0, 10, 10),
            (50, 10, 10),
            (100, 10, 10),
            (110, 10, 11),
            (1000, 10, 100),
            (1000, 25, 250),
            (1000, 0, 0),
        ] {
            let mut budget = Budget::new(now);
            (0..calls).for_each(|_| budget.count(now, false));
            assert_eq!(drain(&mut budget, now, &policy(share)), expected, "{calls} {share}");
        }
    }

    #[test]
    fn what_is_older_than_the_window_counts_no_more() {
        let start = Instant::now();
        let mut budget = Budget::new(start);
        let policy = policy(10);
        (0..1000).for_each(|_| budget.count(start, false));
        assert_eq!(drain(&mut budget, start, &policy), 100);
        assert_eq!(drain(&mut budget, start + 9999 * MS, &policy), 0);
        assert_eq!(drain(&mut budget, start + 10_000 * MS, &policy), 10, "calls are gone too");
        assert_eq!(drain(&mut budget, start + 3_600_000 * MS, &policy), 10);
        let after = start + 3_600_500 * MS;
        (0..200).for_each(|_| budget.count(after, false));
        assert_eq!(drain(&mut budget, after, &policy), 10, "ten of twenty are spent");
    }

    #[test]
    fn another_share_is_in_force_at_once() {
        let now = Instant::now();
        let mut budget = Budget::new(now);
        (0..1000).for_each(|_| budget.count(now, false));
        assert_eq!(drain(&mut budget, now, &policy(10)), 100);
        assert_eq!(drain(&mut budget, now, &policy(20)), 100);
        assert!(!budget.allows(now, &policy(5)));
    }
}
