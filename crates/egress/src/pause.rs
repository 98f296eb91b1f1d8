//! How long a dependency is left alone because it asked for it.
//!
//! Owns: how much of what it asks is believed. Refuses to know: clocks, and what the asking looked
//! like.
//!
//! One answer may pause a dependency for a minute at most, however much it asks: a far side that
//! says "an hour" by mistake, or to one of many callers, would take everybody's calls away with one
//! header. Where the first call after the pause is told the same again, it is meant, and the bound
//! doubles, up to an hour. Many calls that were under way together and are all turned away have
//! said it once.

use std::time::{Duration, Instant};

const FIRST_MAX: Duration = Duration::from_secs(60);
const MAX: Duration = Duration::from_secs(60 * 60);

/// The pause of one dependency.
#[derive(Debug, Default)]
pub(crate) struct Pause {
    until: Option<Instant>,
    /// Pauses, each asked for by an attempt that was made after the one before.
    in_a_row: u32,
}

impl Pause {
    /// What is left of it.
    pub(crate) fn left(&self, now: Instant) -> Option<Duration> {
        let left = self.until?.saturating_duration_since(now);
        (!left.is_zero()).then_some(left)
    }

    /// An attempt that was made at `made` was asked to leave the dependency alone.
    pub(crate) fn asked(&mut self, asked: Duration, made: Instant, now: Instant) {
        let is_repeated = self.until.is_none_or(|until| made >= until);
        if is_repeated {
            self.in_a_row = self.in_a_row.saturating_add(1);
        }
        let doublings = self.in_a_row.saturating_sub(1).min(8);
        let most = (FIRST_MAX * (1 << doublings)).min(MAX);
        let until = now + asked.min(most);
        self.until = Some(self.until.map_or(until, |known| known.max(until)));
    }

    /// An attempt that was made at `made` was served.
    pub(crate) fn served(&mut self, made: Instant) {
        if self.until.is_some_and(|until| made >= until) {
            *self = Pause::default();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const S: Duration = Duration::from_secs(1);

    #[test]
    fn a_pause_lasts_as_long_as_was_asked_for_and_a_shorter_one_does_not_end_it() {
        let start = Instant::now();
        let mut pause = Pause::default();
        assert_eq!(pause.left(start), None);
        pause.asked(5 * S, start, start);
        assert_eq!(pause.left(start), Some(5 * S));
        pause.asked(2 * S, start, start + S);
        assert_eq!(pause.left(start + S), Some(4 * S));
        assert_eq!(pause.left(start + 5 * S), None);
    }

    #[test]
    fn an_hour_is_believed_when_it_is_said_again_and_again() {
        let hour = Duration::from_secs(3600);
        let mut now = Instant::now();
        let mut pause = Pause::default();
        let mut found = Vec::new();
        for _ in 0..8 {
            pause.asked(hour, now, now);
            let left = pause.left(now).unwrap();
            found.push(left.as_secs());
            now += left;
        }
        assert_eq!(found, [60, 120, 240, 480, 960, 1920, 3600, 3600]);
    }

    #[test]
    fn calls_that_were_under_way_together_say_it_once() {
        let start = Instant::now();
        let mut pause = Pause::default();
        for _ in 0..50 {
            pause.asked(600 * S, start, start);
        }
        assert_eq!(pause.left(start), Some(60 * S));
        // One of them comes back after the pause; it was made before it.
        pause.asked(600 * S, start, start + 61 * S);
        assert_eq!(pause.left(start + 61 * S), Some(60 * S));
    }

    #[test]
    fn being_served_ends_the_row_unless_the_call_is_older_than_the_pause() {
        let start = Instant::now();
        let mut pause = Pause::default();
        pause.asked(600 * S, start, start);
        pause.served(start);
        assert_eq!(pause.left(start), Some(60 * S), "an old call says nothing");
        let after = start + 60 * S;
        pause.served(after);
        pause.asked(600 * S, after, after);
        assert_eq!(pause.left(after), Some(60 * S), "a new row begins");
    }
}
