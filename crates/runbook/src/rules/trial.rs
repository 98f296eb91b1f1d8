//! Rules on synthetic series.
//!
//! Owns: promtool's notation for series, and what is expected of rules over time. Refuses to know:
//! which rules there are.

use std::collections::{BTreeMap, BTreeSet};

use serde::Deserialize;

use super::file::{RuleError, from_toml};
use super::{AlertKey, Rules};
use crate::alerts::Alerts;
use crate::condition::Verdict;
use crate::phase::Phase;
use crate::series::{Limits, Store};
use crate::unit::Span;

/// Samples of one series.
const SAMPLES_MAX: usize = 10_000;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    #[serde(default)]
    test: Vec<Test>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Test {
    name: String,
    interval: String,
    series: Vec<SeriesOf>,
    #[serde(default)]
    expect: Vec<Expect>,
    /// Rules that see data and are never breached.
    #[serde(default)]
    quiet: Vec<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct SeriesOf {
    metric: String,
    #[serde(default)]
    labels: BTreeMap<String, String>,
    values: String,
}

/// Alerts at one instant, by rule and labels, such as `ai-errors{provider="a"}`. All that fire or
/// recover must be named; those that are pending or inhibited only where the list is there.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Expect {
    at: String,
    #[serde(default)]
    firing: BTreeSet<String>,
    pending: Option<BTreeSet<String>>,
    inhibited: Option<BTreeSet<String>>,
}

/// What came of one test.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Outcome {
    /// Its name.
    pub name: String,
    /// What was expected and not so, one line each.
    pub failures: Vec<String>,
    /// Rules that fired at some time, by their ids.
    pub fired: BTreeSet<String>,
    /// Rules that were said to be quiet, and were.
    pub quiet: BTreeSet<String>,
}

/// What came of all tests of a file.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Report {
    /// One for each test, in the order of the file.
    pub outcomes: Vec<Outcome>,
}

impl Report {
    /// Every failure, behind the name of its test.
    pub fn failures(&self) -> impl Iterator<Item = String> {
        self.outcomes.iter().flat_map(|outcome| {
            outcome.failures.iter().map(|failure| format!("{}: {failure}", outcome.name))
        })
    }
}

/// Runs every test of a text against the rules. The first sample is at 0 s, and rules are
/// evaluated with every sample, up to the last instant that is asked for and the last sample.
pub fn run(rules: &Rules, text: &str) -> Result<Report, RuleError> {
    let file: File = from_toml(text)?;
    Ok(Report { outcomes: file.test.iter().map(|test| run_one(rules, test)).collect() })
}

fn run_one(rules: &Rules, test: &Test) -> Outcome {
    let mut outcome = Outcome { name: test.name.clone(), ..Outcome::default() };
    let read = || -> Result<_, String> {
        let interval = Span::parse(&test.interval).filter(|interval| interval.secs() > 0);
        let interval = interval.ok_or("interval is no span of time")?.micros();
        let series = test.series.iter().map(|series| {
            values(&series.values).ok_or_else(|| format!("values of {} do not read", series.metric))
        });
        let series: Vec<Vec<Option<f64>>> = series.collect::<Result<_, _>>()?;
        let expect = test.expect.iter().map(|expect| match Span::parse(&expect.at) {
            Some(at) if at.micros() % interval == 0 => Ok((at.micros(), expect)),
            _ => Err("at is no multiple of the interval".to_owned()),
        });
        Ok((interval, series, expect.collect::<Result<Vec<_>, _>>()?))
    };
    match read() {
        Ok((interval, series, expect)) => {
            Trial { rules, test, interval, series, expect }.run(&mut outcome);
        }
        Err(failure) => outcome.failures.push(failure),
    }
    outcome
}

struct Trial<'a> {
    rules: &'a Rules,
    test: &'a Test,
    interval: i64,
    series: Vec<Vec<Option<f64>>>,
    expect: Vec<(i64, &'a Expect)>,
}

impl Trial<'_> {
    fn run(&self, outcome: &mut Outcome) {
        let limits = Limits { interval_us: self.interval, ..Limits::default() };
        let mut store = Store::new(self.rules.needs(), limits);
        let mut alerts = Alerts::default();
        let mut breached: BTreeSet<String> = BTreeSet::new();
        let mut judged: BTreeSet<String> = BTreeSet::new();
        let samples = self.series.iter().map(Vec::len).max().unwrap_or(0) as i64;
        let last = self.expect.iter().map(|(at, _)| at / self.interval).max().unwrap_or(0);
        for tick in 0..=last.max(samples - 1) {
            let now = tick * self.interval;
            self.record(&mut store, tick);
            for id in &self.test.quiet {
                let clause = self.rules.get(id).map(|rule| &rule.clause);
                let findings = clause.map(|clause| clause.evaluate(&store, now));
                if findings.iter().flatten().any(|finding| finding.verdict == Verdict::Fails) {
                    judged.insert(id.clone());
                }
            }
            alerts.step(self.rules, &store, now);
            breached.extend(alerts.iter().map(|((id, _), _)| id.to_owned()));
            outcome.fired.extend(alerts.firing().into_iter().map(|(id, _)| id.to_owned()));
            for (_, expect) in self.expect.iter().filter(|(at, _)| *at == now) {
                self.compare(&alerts, expect, outcome);
            }
        }
        for id in &self.test.quiet {
            match (breached.contains(id), judged.contains(id)) {
                (true, _) => outcome.failures.push(format!("{id} was breached")),
                (false, false) => outcome.failures.push(format!("{id} never saw data")),
                (false, true) => {
                    outcome.quiet.insert(id.clone());
                }
            }
        }
    }

    fn record(&self, store: &mut Store, tick: i64) {
        let at = usize::try_from(tick).unwrap_or(usize::MAX);
        store.record(tick * self.interval, |put| {
            for (series, values) in self.test.series.iter().zip(&self.series) {
                if let Some(value) = values.get(at).copied().flatten() {
                    let labels =
                        series.labels.iter().map(|(name, of)| (name.as_str(), of.as_str()));
                    put(&series.metric, &labels.collect::<Vec<_>>(), value);
                }
            }
        });
    }

    fn compare(&self, alerts: &Alerts, expect: &Expect, outcome: &mut Outcome) {
        let name = |(id, labels): &AlertKey<'_>| format!("{id}{labels}");
        let firing = alerts.firing();
        let inhibitors = self.rules.inhibited(&firing);
        let (mut loud, mut inhibited) = (BTreeSet::new(), BTreeSet::new());
        for (key, inhibitor) in firing.iter().zip(inhibitors) {
            if inhibitor.is_some() { &mut inhibited } else { &mut loud }.insert(name(key));
        }
        let pending = alerts.iter().filter(|(_, phase)| matches!(phase, Phase::Pending { .. }));
        let pending: BTreeSet<String> = pending.map(|(key, _)| name(&key)).collect();
        let pairs = [
            ("firing", Some(&expect.firing), loud),
            ("pending", expect.pending.as_ref(), pending),
            ("inhibited", expect.inhibited.as_ref(), inhibited),
        ];
        for (what, wanted, found) in pairs {
            if let Some(wanted) = wanted.filter(|wanted| **wanted != found) {
                let at = &expect.at;
                outcome
                    .failures
                    .push(format!("{what} at {at}: expected {wanted:?}, got {found:?}"));
            }
        }
    }
}

/// Reads promtool's notation: `1` a value, `_` none, `a+bxn` and `a-bxn` a value and `n` steps
/// after it, `axn` the value and `n` more, `_xn` none for `n` samples.
fn values(text: &str) -> Option<Vec<Option<f64>>> {
    let mut values = Vec::new();
    for part in text.split_whitespace() {
        let (course, times) = match part.split_once('x') {
            Some((course, times)) => (course, times.parse().ok()?),
            None => (part, 0),
        };
        if values.len() + times > SAMPLES_MAX {
            return None;
        }
        if course == "_" {
            values.resize(values.len() + if part == "_" { 1 } else { times }, None);
            continue;
        }
        // The sign of a step is not the sign that the value begins with.
        let sign = course.char_indices().skip(1).find(|(_, c)| *c == '+' || *c == '-');
        let (start, step) = course.split_at(sign.map_or(course.len(), |(at, _)| at));
        let start: f64 = start.parse().ok()?;
        let step: f64 = if step.is_empty() { 0.0 } else { step.parse().ok()? };
        values.extend((0..=times).map(|at| Some(start + step * at as f64)));
    }
    Some(values)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_notation_is_promtools() {
        let some = |values: &[f64]| values.iter().copied().map(Some).collect::<Vec<_>>();
        assert_eq!(values("0+10x3"), Some(some(&[0.0, 10.0, 20.0, 30.0])));
        assert_eq!(values("-2+4x2 10-1x1"), Some(some(&[-2.0, 2.0, 6.0, 10.0, 9.0])));
        assert_eq!(values("3x2"), Some(some(&[3.0, 3.0, 3.0])));
        assert_eq!(values("1 _ _x2 2"), Some(vec![Some(1.0), None, None, None, Some(2.0)]));
        assert_eq!(values("0.5 1"), Some(some(&[0.5, 1.0])));
        for bad in ["x", "1x", "1+x2", "_x", "a", "0x99999", "1x-1"] {
            assert_eq!(values(bad), None, "{bad}");
        }
    }
}
