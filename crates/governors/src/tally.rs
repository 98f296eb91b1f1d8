//! What calls to models add up to, and how much of a limit that is.
//!
//! Owns: the sums of a period and the thresholds of a limit. Refuses to know: which period, and
//! whose limit.

use serde::{Deserialize, Serialize};
use types::limits::INTEGER_MAX;

/// What settled calls come to.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Tally {
    /// Calls whose use is known.
    pub(crate) calls: u64,
    /// What they cost.
    pub(crate) spent_micros: i64,
    /// What they cost beyond what had been reserved for them; part of the above.
    pub(crate) over_micros: i64,
    /// Calls of which nobody knows what they used.
    pub(crate) unknown_calls: u64,
    /// What had been reserved for those, and is charged.
    pub(crate) unknown_micros: i64,
}

impl Tally {
    pub(crate) fn all_calls(&self) -> u64 {
        self.calls.saturating_add(self.unknown_calls)
    }

    pub(crate) fn all_micros(&self) -> i64 {
        self.spent_micros.saturating_add(self.unknown_micros)
    }

    /// This and one more call.
    pub(crate) fn and(&self, settled: Settled, reserved: i64) -> Tally {
        let mut tally = *self;
        match settled {
            Settled::Known { micros } => {
                tally.calls = count(tally.calls, 1);
                tally.spent_micros = sum(tally.spent_micros, micros);
                tally.over_micros = sum(tally.over_micros, (micros - reserved).max(0));
            }
            Settled::Unknown { micros } => {
                tally.unknown_calls = count(tally.unknown_calls, 1);
                tally.unknown_micros = sum(tally.unknown_micros, micros);
            }
            Settled::Released => {}
        }
        tally
    }

    fn fields(&self) -> [i64; 5] {
        let calls = |calls: u64| i64::try_from(calls).unwrap_or(i64::MAX);
        [
            calls(self.calls),
            self.spent_micros,
            self.over_micros,
            calls(self.unknown_calls),
            self.unknown_micros,
        ]
    }

    /// True when a fold can lead to this beside the tally of a longer period.
    pub(crate) fn is_folded(&self, longer: Option<&Tally>) -> bool {
        let longer = longer.map_or([INTEGER_MAX; 5], Tally::fields);
        self.over_micros <= self.spent_micros
            && self.fields().into_iter().zip(longer).all(|(of, most)| (0..=most).contains(&of))
    }
}

/// What became of a call, as far as it counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Settled {
    Known { micros: i64 },
    Unknown { micros: i64 },
    Released,
}

impl Settled {
    pub(crate) const fn micros(self) -> i64 {
        match self {
            Settled::Known { micros } | Settled::Unknown { micros } => micros,
            Settled::Released => 0,
        }
    }
}

/// How much of a limit is used up.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    /// Less than three quarters.
    #[default]
    Ok,
    /// From 75 % on.
    Warning,
    /// From 90 % on.
    Critical,
    /// All of it.
    Exceeded,
}

impl Level {
    /// Every level.
    pub const ALL: [Level; 4] = [Level::Ok, Level::Warning, Level::Critical, Level::Exceeded];

    /// The word in receipts and answers.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Level::Ok => "ok",
            Level::Warning => "warning",
            Level::Critical => "critical",
            Level::Exceeded => "exceeded",
        }
    }

    pub(crate) fn of(used: u64, limit: u64) -> Level {
        let used = u128::from(used) * 100;
        match u128::from(limit) {
            limit if used >= limit * 100 => Level::Exceeded,
            limit if used >= limit * 90 => Level::Critical,
            limit if used >= limit * 75 => Level::Warning,
            _ => Level::Ok,
        }
    }
}

/// Sums never leave the integers of a receipt.
pub(crate) fn sum(a: i64, b: i64) -> i64 {
    a.saturating_add(b).min(INTEGER_MAX)
}

pub(crate) fn count(a: u64, b: u64) -> u64 {
    a.saturating_add(b).min(INTEGER_MAX.unsigned_abs())
}
