//! Objectives of the service, and what is left of their error budgets.
//!
//! Owns: the objectives, and the counts of the last 30 days in steps of five minutes. Refuses to
//! know: where samples come from, and how long the process has been there. Counts are not kept
//! beyond the process: a budget is one of what was answered since its start, or of 30 days of it.

use std::collections::VecDeque;

use crate::sli::{Match, Select};
use crate::unit::SECOND_US;

/// What is promised of the requests of 30 days.
#[derive(Debug)]
pub struct Objective {
    /// Its name, as the label `slo`.
    pub name: &'static str,
    /// The share of requests that may be bad, as 0.0001 of 99.99 %.
    pub allowed: f64,
    /// What it promises, in one sentence.
    pub help: &'static str,
    all: Select,
    counts: Select,
    /// Whether what `counts` counts is good; it is bad otherwise.
    counts_good: bool,
}

/// Calls to models take as long as a model thinks: no objective of ours is about them.
const OWN: (&str, Match) = ("endpoint", Match::Outside("/v1/"));
const DURATIONS: &str = "tai_http_request_duration_seconds_bucket";

/// Every objective. The figures are those of seed 000.
pub static OBJECTIVES: [Objective; 3] = [
    Objective {
        name: "availability",
        allowed: 0.0001,
        help: "99.99 % of requests are not answered with 5xx.",
        all: Select { metric: "http_requests_total", with: &[] },
        counts: Select { metric: "http_requests_total", with: &[("status", Match::Class('5'))] },
        counts_good: false,
    },
    Objective {
        name: "latency.p95",
        allowed: 0.05,
        help: "95 % of requests, calls to models aside, are answered within 100 ms.",
        all: Select { metric: DURATIONS, with: &[OWN, ("le", Match::Is("+Inf"))] },
        counts: Select { metric: DURATIONS, with: &[OWN, ("le", Match::Is("0.1"))] },
        counts_good: true,
    },
    Objective {
        name: "latency.p99",
        allowed: 0.01,
        help: "99 % of requests, calls to models aside, are answered within 500 ms.",
        all: Select { metric: DURATIONS, with: &[OWN, ("le", Match::Is("+Inf"))] },
        counts: Select { metric: DURATIONS, with: &[OWN, ("le", Match::Is("0.5"))] },
        counts_good: true,
    },
];

/// The windows of burn rates beyond the hour for which samples are kept: word and seconds.
pub const BURN_WINDOWS: [(&str, i64); 3] = [("1h", 3_600), ("6h", 21_600), ("3d", 259_200)];

/// What a budget is for, in seconds.
const BUDGET_S: i64 = 30 * 86_400;
const STEP_US: i64 = 300 * SECOND_US;
/// The share of a burn rate's window that has to be behind the first look.
const COVERAGE_MIN: i64 = 2;

/// Requests, and the bad ones of them.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
struct Counts {
    bad: f64,
    all: f64,
}

/// What one step of five minutes counted.
#[derive(Debug, Clone, Copy)]
struct Step {
    from_us: i64,
    counts: Counts,
}

#[derive(Debug, Clone, Default)]
struct Kept {
    /// What the counters stood at; nothing before the first look.
    last: Counts,
    /// The oldest first; 30 days of them at most.
    steps: VecDeque<Step>,
}

/// The counts of all objectives.
#[derive(Debug, Clone)]
pub struct Budgets {
    began_us: i64,
    kept: [Kept; OBJECTIVES.len()],
    /// What the scrape at hand says so far: all, and what is counted.
    scraped: [(f64, f64); OBJECTIVES.len()],
}

impl Budgets {
    /// Nothing is counted yet. Counters that do not stand at zero by then are those of this
    /// process, whose requests count.
    #[must_use]
    pub fn new(now_us: i64) -> Budgets {
        Budgets {
            began_us: now_us,
            kept: Default::default(),
            scraped: [(0.0, 0.0); OBJECTIVES.len()],
        }
    }

    /// Takes one sample of a scrape.
    pub fn sample(&mut self, name: &str, labels: &[(&str, &str)], value: f64) {
        let label =
            |wanted: &str| labels.iter().find(|(name, _)| *name == wanted).map(|(_, value)| *value);
        let takes = |select: &Select| {
            select.metric == name && select.with.iter().all(|(name, want)| want.fits(label(name)))
        };
        for (objective, (all, counted)) in OBJECTIVES.iter().zip(&mut self.scraped) {
            *all += if takes(&objective.all) { value } else { 0.0 };
            *counted += if takes(&objective.counts) { value } else { 0.0 };
        }
    }

    /// Ends a scrape.
    pub fn end(&mut self, now_us: i64) {
        for ((objective, kept), scraped) in
            OBJECTIVES.iter().zip(&mut self.kept).zip(&mut self.scraped)
        {
            let (all, counted) = std::mem::take(scraped);
            let bad = if objective.counts_good { (all - counted).max(0.0) } else { counted };
            kept.add(Counts { bad, all }, now_us);
        }
    }

    /// The share of each objective's budget that is left, from what was answered within 30 days;
    /// below zero where more failed than may. `None` while not one failure would be permitted.
    pub fn left(&self, now_us: i64) -> impl Iterator<Item = (&'static str, Option<f64>)> {
        OBJECTIVES.iter().zip(&self.kept).map(move |(objective, kept)| {
            let Counts { bad, all } = kept.within(BUDGET_S, now_us);
            let permitted = all * objective.allowed;
            (objective.name, (permitted >= 1.0).then(|| 1.0 - bad / permitted))
        })
    }

    /// How many times faster than permitted each budget is used up over each of
    /// [`BURN_WINDOWS`]: objective, window, times. `None` until half of the window is behind the
    /// first look; 0 where not one failure would be permitted.
    pub fn burns(
        &self,
        now_us: i64,
    ) -> impl Iterator<Item = (&'static str, &'static str, Option<f64>)> {
        let seen_us = now_us.saturating_sub(self.began_us);
        OBJECTIVES.iter().zip(&self.kept).flat_map(move |(objective, kept)| {
            BURN_WINDOWS.iter().map(move |(word, secs)| {
                let is_covered = seen_us >= secs * SECOND_US / COVERAGE_MIN;
                let Counts { bad, all } = kept.within(*secs, now_us);
                let permitted = all * objective.allowed;
                let burn = if permitted >= 1.0 { bad / permitted } else { 0.0 };
                (objective.name, *word, is_covered.then_some(burn))
            })
        })
    }
}

impl Kept {
    fn add(&mut self, now: Counts, now_us: i64) {
        // A counter that falls was set back to zero, and has counted up since.
        let grown = |now: f64, last: f64| if now < last { now } else { now - last };
        let (bad, all) = (grown(now.bad, self.last.bad), grown(now.all, self.last.all));
        self.last = now;
        let from_us = now_us.div_euclid(STEP_US) * STEP_US;
        match self.steps.back_mut() {
            // A clock that was set back adds to the newest step.
            Some(step) if step.from_us >= from_us => {
                step.counts.bad += bad;
                step.counts.all += all;
            }
            _ => self.steps.push_back(Step { from_us, counts: Counts { bad, all } }),
        }
        let oldest_us = now_us.saturating_sub(BUDGET_S * SECOND_US);
        while self.steps.front().is_some_and(|step| step.from_us + STEP_US <= oldest_us) {
            self.steps.pop_front();
        }
    }

    /// Steps that reach into the window count whole.
    fn within(&self, secs: i64, now_us: i64) -> Counts {
        let from_us = now_us.saturating_sub(secs * SECOND_US);
        let counts = self.steps.iter().rev().take_while(|step| step.from_us + STEP_US > from_us);
        counts.fold(Counts::default(), |sum, Step { counts, .. }| Counts {
            bad: sum.bad + counts.bad,
            all: sum.all + counts.all,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR_S: i64 = 3_600;

    /// Looks every five minutes for so many hours; of `requests` in each step `failed` fail.
    struct Run {
        budgets: Budgets,
        now_us: i64,
        good: f64,
        bad: f64,
    }

    impl Run {
        fn new() -> Run {
            Run { budgets: Budgets::new(0), now_us: 0, good: 0.0, bad: 0.0 }
        }

        fn hours(mut self, hours: i64, requests: f64, failed: f64) -> Run {
            for _ in 0..hours * HOUR_S * SECOND_US / STEP_US {
                self.now_us += STEP_US;
                (self.good, self.bad) = (self.good + requests - failed, self.bad + failed);
                let Run { budgets, now_us, good, bad } = &mut self;
                budgets.sample("http_requests_total", &[("status", "200")], *good);
                budgets.sample("http_requests_total", &[("status", "503")], *bad);
                let bucket = |endpoint, le| [("endpoint", endpoint), ("le", le)];
                for (le, count) in [("0.1", *good), ("0.5", *good), ("+Inf", *good + *bad)] {
                    budgets.sample(DURATIONS, &bucket("/marketplace", le), count);
                }
                // A model that thinks for minutes is not what is promised.
                budgets.sample(DURATIONS, &bucket("/v1/messages", "+Inf"), 1e9);
                budgets.end(*now_us);
            }
            self
        }

        fn left(&self, slo: &str) -> Option<f64> {
            self.budgets.left(self.now_us).find(|(name, _)| *name == slo).unwrap().1
        }

        fn burn(&self, slo: &str, window: &str) -> Option<f64> {
            let mut all = self.budgets.burns(self.now_us);
            all.find(|(name, word, _)| (*name, *word) == (slo, window)).unwrap().2
        }
    }

    fn near(found: Option<f64>, wanted: f64) {
        assert!(found.is_some_and(|found| (found - wanted).abs() < 1e-9), "{found:?} {wanted}");
    }

    #[test]
    fn what_is_left_is_what_did_not_fail_of_what_may() {
        // 1 of 20000 failed, of which 2 may.
        let run = Run::new().hours(1, 20_000.0, 1.0);
        near(run.left("availability"), 0.5);
        near(run.left("latency.p95"), 0.999);
        near(run.left("latency.p99"), 0.995);
        let spent = Run::new().hours(1, 10_000.0, 3.0);
        near(spent.left("availability"), -2.0);
    }

    #[test]
    fn of_too_few_requests_nothing_is_said() {
        let run = Run::new().hours(1, 10.0, 1.0);
        assert_eq!(run.left("availability"), None, "120 requests, and 0.012 may fail");
        near(run.left("latency.p95"), -1.0);
        near(run.burn("availability", "1h"), 0.0);
    }

    #[test]
    fn a_burn_rate_is_said_once_half_of_its_window_was_seen() {
        let run = Run::new().hours(2, 10_000.0, 6.0);
        near(run.burn("availability", "1h"), 6.0);
        assert_eq!(run.burn("availability", "6h"), None);
        let run = run.hours(1, 10_000.0, 6.0);
        near(run.burn("availability", "6h"), 6.0);
        assert_eq!(run.burn("availability", "3d"), None);
        // What is over leaves the short window first.
        let run = run.hours(2, 10_000.0, 0.0);
        near(run.burn("availability", "1h"), 0.0);
        assert!(run.burn("availability", "6h").unwrap() > 3.0);
    }

    #[test]
    fn what_failed_30_days_ago_is_forgiven_and_no_more_than_30_days_are_kept() {
        let run = Run::new().hours(1, 10_000.0, 10.0).hours(24 * 30 + 1, 10_000.0, 0.0);
        near(run.left("availability"), 1.0);
        let steps = run.budgets.kept[0].steps.len() as i64;
        assert!(steps <= BUDGET_S * SECOND_US / STEP_US + 1, "{steps}");
    }

    #[test]
    fn a_counter_that_is_set_back_and_a_clock_that_is_take_nothing_away() {
        let mut run = Run::new().hours(1, 20_000.0, 1.0);
        (run.good, run.bad) = (0.0, 0.0);
        run.now_us -= STEP_US;
        let run = run.hours(1, 20_000.0, 0.0);
        assert!(run.left("availability").unwrap() > 0.5);
    }
}
