//! From readings over time to alerts: pending, firing, recovering, resolved.
//!
//! Owns: the closed table of phase × what is seen, and how long missing data hold a phase. Refuses
//! to know: where phases are kept, and who is told.
//!
//! All times are microseconds since the epoch. A clock that is set back makes spans shorter, and
//! never negative: nothing fires or resolves early.

use crate::condition::Verdict;
use crate::unit::Span;

/// Where one alert stands. Plain data, kept by rule and labels.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Phase {
    /// Nothing is wrong.
    #[default]
    Inactive,
    /// Breached, and not for long enough.
    Pending {
        /// When it was first seen.
        since_us: i64,
    },
    /// Breached for long enough.
    Firing {
        /// When it began to fire.
        since_us: i64,
    },
    /// No longer breached, and not for long enough to be resolved.
    Recovering {
        /// When it was first seen not to be breached.
        since_us: i64,
        /// When it had begun to fire.
        fired_us: i64,
    },
}

impl Phase {
    /// True while people have been told and not yet that it is over.
    #[must_use]
    pub const fn is_firing(self) -> bool {
        matches!(self, Phase::Firing { .. } | Phase::Recovering { .. })
    }
}

/// What decides when no data do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OnNoData {
    /// Nothing is wrong as far as is known.
    #[default]
    Ok,
    /// Whatever was, is.
    Keep,
    /// Not to know is what is wrong.
    Fire,
}

/// The times of a rule.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timing {
    /// How long it must be breached before it fires.
    pub for_: Span,
    /// How long it must not be breached before it is resolved.
    pub hold: Span,
    /// For how long missing data change nothing: the rule's longest window.
    pub window: Span,
    /// What decides after that.
    pub nodata: OnNoData,
}

/// What is seen of an alert's clause.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Seen {
    /// It holds.
    Breached,
    /// It does not hold, or there is too little traffic to say so.
    Fine,
    /// There are no data.
    Blind {
        /// Since when there are none, or since the start if it is later.
        since_us: i64,
    },
}

/// The next phase; `None` where it stays as it is.
#[must_use]
pub fn step(timing: &Timing, phase: &Phase, seen: Seen, now_us: i64) -> Option<Phase> {
    let lasted = |since_us: i64, span: Span| now_us.saturating_sub(since_us) >= span.micros();
    let is_breached = match seen {
        Seen::Breached => true,
        Seen::Fine => false,
        Seen::Blind { since_us } if !lasted(since_us, timing.window) => return None,
        Seen::Blind { .. } => match timing.nodata {
            OnNoData::Ok => false,
            OnNoData::Keep => return None,
            OnNoData::Fire => true,
        },
    };
    match (*phase, is_breached) {
        (Phase::Inactive, true) if timing.for_.secs() == 0 => {
            Some(Phase::Firing { since_us: now_us })
        }
        (Phase::Inactive, true) => Some(Phase::Pending { since_us: now_us }),
        (Phase::Pending { since_us }, true) if lasted(since_us, timing.for_) => {
            Some(Phase::Firing { since_us: now_us })
        }
        (Phase::Pending { .. }, false) => Some(Phase::Inactive),
        (Phase::Firing { .. }, false) if timing.hold.secs() == 0 => Some(Phase::Inactive),
        (Phase::Firing { since_us }, false) => {
            Some(Phase::Recovering { since_us: now_us, fired_us: since_us })
        }
        (Phase::Recovering { fired_us, .. }, true) => Some(Phase::Firing { since_us: fired_us }),
        (Phase::Recovering { since_us, .. }, false) if lasted(since_us, timing.hold) => {
            Some(Phase::Inactive)
        }
        (Phase::Inactive, false)
        | (Phase::Pending { .. } | Phase::Firing { .. }, true)
        | (Phase::Recovering { .. }, false) => None,
    }
}

/// One alert in memory: its phase, and since when there are no data. Only the phase is worth
/// keeping; after a restart the time without data begins anew.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Tracker {
    phase: Phase,
    blind_since_us: Option<i64>,
}

impl Tracker {
    /// An alert whose phase was kept.
    #[must_use]
    pub fn new(phase: Phase) -> Tracker {
        Tracker { phase, blind_since_us: None }
    }

    /// The same alert where its phase was kept; for how long there are no data is known here alone.
    pub fn restore(&mut self, phase: Phase) {
        self.phase = phase;
    }

    /// Where it stands.
    #[must_use]
    pub fn phase(&self) -> Phase {
        self.phase
    }

    /// Moves on by one evaluation; gives the new phase where it changed.
    pub fn step(&mut self, timing: &Timing, verdict: Verdict, now_us: i64) -> Option<Phase> {
        let seen = match verdict {
            Verdict::Holds => Seen::Breached,
            Verdict::Fails | Verdict::TooLittle => Seen::Fine,
            Verdict::NoData => Seen::Blind { since_us: *self.blind_since_us.get_or_insert(now_us) },
        };
        if verdict != Verdict::NoData {
            self.blind_since_us = None;
        }
        let next = step(timing, &self.phase, seen, now_us)?;
        self.phase = next;
        Some(next)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const S: i64 = 1_000_000;
    const TIMING: Timing = Timing {
        for_: Span::from_secs(60),
        hold: Span::from_secs(120),
        window: Span::from_secs(300),
        nodata: OnNoData::Ok,
    };

    /// Every change, with the second at which it was seen.
    fn changes(timing: &Timing, from: Phase, seen: &[(i64, Verdict)]) -> Vec<(i64, Phase)> {
        let mut tracker = Tracker::new(from);
        let step =
            |(at, verdict): &(i64, Verdict)| Some((*at, tracker.step(timing, *verdict, at * S)?));
        seen.iter().filter_map(step).collect()
    }

    use Verdict::{Fails, Holds, NoData, TooLittle};

    #[test]
    fn what_is_breached_long_enough_fires_and_what_is_not_does_not() {
        let at = |secs: i64| secs * S;
        assert_eq!(
            changes(&TIMING, Phase::Inactive, &[(0, Holds), (59, Holds), (60, Holds), (90, Holds)]),
            [(0, Phase::Pending { since_us: 0 }), (60, Phase::Firing { since_us: at(60) })]
        );
        assert_eq!(
            changes(&TIMING, Phase::Inactive, &[(0, Holds), (59, Fails), (60, Holds)]),
            [
                (0, Phase::Pending { since_us: 0 }),
                (59, Phase::Inactive),
                (60, Phase::Pending { since_us: at(60) })
            ]
        );
    }

    #[test]
    fn without_for_and_hold_it_fires_and_resolves_at_once() {
        let timing = Timing { for_: Span::default(), hold: Span::default(), ..TIMING };
        assert_eq!(
            changes(&timing, Phase::Inactive, &[(1, Holds), (2, Fails)]),
            [(1, Phase::Firing { since_us: S }), (2, Phase::Inactive)]
        );
    }

    #[test]
    fn a_relapse_while_it_recovers_is_no_new_alert() {
        let firing = Phase::Firing { since_us: 7 };
        assert_eq!(
            changes(
                &TIMING,
                firing,
                &[(100, Fails), (219, Fails), (219, Holds), (300, TooLittle), (420, Fails)]
            ),
            [
                (100, Phase::Recovering { since_us: 100 * S, fired_us: 7 }),
                (219, firing),
                (300, Phase::Recovering { since_us: 300 * S, fired_us: 7 }),
                (420, Phase::Inactive)
            ]
        );
    }

    #[test]
    fn missing_data_hold_every_phase_for_one_window() {
        let pending = Phase::Pending { since_us: 0 };
        let firing = Phase::Firing { since_us: 0 };
        for phase in [Phase::Inactive, pending, firing] {
            assert_eq!(changes(&TIMING, phase, &[(10, NoData), (309, NoData)]), []);
        }
        assert_eq!(
            changes(&TIMING, pending, &[(10, NoData), (310, NoData)]),
            [(310, Phase::Inactive)]
        );
        assert_eq!(
            changes(&TIMING, firing, &[(10, NoData), (310, NoData), (430, NoData)]),
            [(310, Phase::Recovering { since_us: 310 * S, fired_us: 0 }), (430, Phase::Inactive)]
        );
        // Data in between begin the time anew, and the pending time goes on meanwhile.
        assert_eq!(changes(&TIMING, pending, &[(10, NoData), (59, Holds), (311, NoData)]), []);
        assert_eq!(
            changes(&TIMING, pending, &[(10, NoData), (70, Holds)]),
            [(70, Phase::Firing { since_us: 70 * S })]
        );
    }

    #[test]
    fn after_one_window_the_rule_says_what_missing_data_mean() {
        let keep = Timing { nodata: OnNoData::Keep, ..TIMING };
        let fire = Timing { nodata: OnNoData::Fire, ..TIMING };
        let firing = Phase::Firing { since_us: 0 };
        assert_eq!(changes(&keep, firing, &[(0, NoData), (9999, NoData)]), []);
        assert_eq!(
            changes(&fire, Phase::Inactive, &[(0, NoData), (300, NoData), (360, NoData)]),
            [
                (300, Phase::Pending { since_us: 300 * S }),
                (360, Phase::Firing { since_us: 360 * S })
            ]
        );
    }

    #[test]
    fn a_clock_that_is_set_back_fires_and_resolves_nothing() {
        let pending = Phase::Pending { since_us: 3600 * S };
        assert_eq!(changes(&TIMING, pending, &[(0, Holds), (3659, Holds)]), []);
        let recovering = Phase::Recovering { since_us: 3600 * S, fired_us: 0 };
        assert_eq!(changes(&TIMING, recovering, &[(0, Fails)]), []);
    }
}
