//! The calendar that limits are counted by.
//!
//! Owns: where a day and a month begin and end, in UTC. Refuses to know: clocks, time zones, and
//! what is counted.

use serde::{Deserialize, Serialize};
use types::Micros;
use types::time::{civil_from_days, days_from_civil};

use crate::snapshot::word::Word;

/// How long calls and spend are counted together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Period {
    /// From midnight to midnight, UTC.
    Day,
    /// A calendar month, UTC. What plans are counted by.
    Month,
    /// Without end: a budget that is not renewed.
    Ever,
}

impl Period {
    /// Every period.
    pub const ALL: [Period; 3] = [Period::Day, Period::Month, Period::Ever];

    /// The word in receipts and answers.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Period::Day => "day",
            Period::Month => "month",
            Period::Ever => "ever",
        }
    }

    /// The first instant of the period that holds `at`; none where it has no beginning.
    #[must_use]
    pub fn begins(self, at: Micros) -> Option<Micros> {
        self.first_day(Day::of(at)).map(Day::begins)
    }

    /// The first instant behind the period that holds `at`; none where it has no end.
    #[must_use]
    pub fn ends(self, at: Micros) -> Option<Micros> {
        let first = self.first_day(Day::of(at))?;
        let next = match self {
            Period::Ever => return None,
            Period::Day => first.0 + 1,
            Period::Month => {
                let (year, month, _) = civil_from_days(first.0);
                days_from_civil(year + month / 12, month % 12 + 1, 1)
            }
        };
        Some(Day(next).begins())
    }

    /// True when `later` is behind the period that holds `day`.
    pub(crate) fn is_over(self, day: Day, later: Day) -> bool {
        // Most calls follow another of the same day: no calendar for those.
        later > day && self.first_day(later) > self.first_day(day)
    }

    fn first_day(self, day: Day) -> Option<Day> {
        match self {
            Period::Ever => None,
            Period::Day => Some(day),
            Period::Month => {
                let (_, _, of_month) = civil_from_days(day.0);
                Some(Day(day.0 - of_month + 1))
            }
        }
    }
}

impl Word for Period {
    fn to_word(&self) -> String {
        self.as_str().to_owned()
    }

    fn from_word(word: &str) -> Option<Period> {
        Period::ALL.into_iter().find(|period| period.as_str() == word)
    }
}

/// A day, counted from 1970-01-01 UTC.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub(crate) struct Day(i64);

const DAY_S: i64 = 86_400;

impl Day {
    pub(crate) fn of(at: Micros) -> Day {
        Day(at.secs().div_euclid(DAY_S))
    }

    fn begins(self) -> Micros {
        Micros::from_secs(self.0 * DAY_S)
    }

    /// True for a day that the text form of an instant can show.
    pub(crate) fn is_shown(self) -> bool {
        (Day::default()..=Day::of(types::time::MICROS_MAX)).contains(&self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> Micros {
        Micros::from_text(format!("{text}.000000Z").as_bytes()).unwrap()
    }

    #[test]
    fn periods_begin_and_end_at_midnight_utc() {
        for (period, asked, begins, ends) in [
            (Period::Day, "2026-11-26T23:59:59", "2026-11-26T00:00:00", "2026-11-27T00:00:00"),
            (Period::Day, "2026-11-26T00:00:00", "2026-11-26T00:00:00", "2026-11-27T00:00:00"),
            (Period::Month, "2026-11-01T00:00:00", "2026-11-01T00:00:00", "2026-12-01T00:00:00"),
            (Period::Month, "2026-12-31T23:59:59", "2026-12-01T00:00:00", "2027-01-01T00:00:00"),
            (Period::Month, "2028-02-29T12:00:00", "2028-02-01T00:00:00", "2028-03-01T00:00:00"),
        ] {
            assert_eq!(period.begins(at(asked)), Some(at(begins)), "{asked}");
            assert_eq!(period.ends(at(asked)), Some(at(ends)), "{asked}");
        }
        let now = at("2026-11-26T00:00:00");
        assert_eq!((Period::Ever.begins(now), Period::Ever.ends(now)), (None, None));
    }

    #[test]
    fn a_period_is_over_with_its_last_microsecond() {
        let last = Day::of(Micros(at("2027-01-01T00:00:00").0 - 1));
        let next = Day::of(at("2027-01-01T00:00:00"));
        let earlier = Day::of(at("2026-12-30T00:00:00"));
        for (period, within, over) in
            [(Period::Day, false, true), (Period::Month, false, true), (Period::Ever, false, false)]
        {
            assert_eq!(period.is_over(last, last), within, "{period:?}");
            assert_eq!(period.is_over(last, next), over, "{period:?}");
            assert!(!period.is_over(next, last), "time does not run back");
        }
        assert!(Period::Day.is_over(earlier, last) && !Period::Month.is_over(earlier, last));
    }
}
