//! Wall time of the running service. Everything else takes a [`types::Clock`].
//!
//! Owns: that decisions see time pass. The newest receipt may be later than the wall clock, because
//! somebody set the clock back or it was wrong when the receipt was sealed. Time then goes on from
//! that receipt at its natural pace, so that leases end and rate limits let go; it meets wall time
//! again when that has caught up.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use types::{Clock, Micros};

/// How far the wall clock may lag before somebody should know.
const LAG_TOLERATED: Duration = Duration::from_secs(2);

/// The machine's clock, never running backwards.
#[derive(Debug)]
pub struct SystemClock {
    last: Mutex<(Micros, Instant)>,
    lagging: AtomicBool,
}

impl SystemClock {
    /// A clock that shows no instant before `floor`: that of the newest receipt.
    #[must_use]
    pub fn not_before(floor: Micros) -> SystemClock {
        SystemClock { last: Mutex::new((floor, Instant::now())), lagging: AtomicBool::new(false) }
    }

    fn at(&self, wall: Micros, monotonic: Instant) -> Micros {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        let passed = monotonic.saturating_duration_since(last.1);
        let steady = Micros(last.0.0.saturating_add(micros(passed)));
        let lag = steady.0.saturating_sub(wall.0);
        *last = (wall.max(steady), monotonic.max(last.1));
        say_lag(&self.lagging, lag);
        wall.max(steady)
    }
}

impl Default for SystemClock {
    fn default() -> SystemClock {
        SystemClock::not_before(Micros(0))
    }
}

impl Clock for SystemClock {
    #[expect(clippy::disallowed_methods, reason = "the one place that reads wall time")]
    fn now(&self) -> Micros {
        let since_epoch =
            std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
        self.at(Micros(micros(since_epoch)), Instant::now())
    }
}

fn micros(duration: Duration) -> i64 {
    i64::try_from(duration.as_micros()).unwrap_or(i64::MAX)
}

/// Says once that the wall clock is behind, and once that it has caught up.
fn say_lag(lagging: &AtomicBool, lag_us: i64) {
    let behind = lag_us > micros(LAG_TOLERATED);
    if behind != lagging.swap(behind, Ordering::Relaxed) {
        let lag_s = lag_us / 1_000_000;
        if behind {
            tracing::warn!(event = "clock_behind", lag_s, "the clock is behind the newest receipt");
        } else {
            tracing::info!(event = "clock_caught_up", "the clock has caught up");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_goes_on_from_the_floor_at_its_own_pace_until_wall_time_is_later() {
        let start = Instant::now();
        let clock = SystemClock::not_before(Micros(9_000_000));
        let at = |wall_s: i64, passed_s: u64| {
            clock.at(Micros(wall_s * 1_000_000), start + Duration::from_secs(passed_s)).0
        };
        let first = at(1, 1);
        assert!((9_990_000..=10_000_000).contains(&first), "behind: {first}");
        assert_eq!(at(2, 3), first + 2_000_000, "a lease of two seconds has ended");
        assert_eq!(at(2, 2), first + 2_000_000, "never backwards");
        assert_eq!(at(60, 4), 60_000_000, "wall time is later");
        assert_eq!(at(30, 5), 61_000_000, "set back by half a minute");
    }
}
