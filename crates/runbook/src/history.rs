//! What was seen of each alert, evaluation by evaluation.
//!
//! Owns: how much of it is kept, and the sentence that says why an alert stands where it does.
//! Refuses to know: how a verdict comes about, and who asks.

use std::collections::{BTreeMap, VecDeque};

use crate::clause::Finding;
use crate::condition::Verdict;
use crate::labels::Labels;
use crate::phase::{OnNoData, Phase};
use crate::rules::Rule;
use crate::unit::Span;

/// Evaluations of one case that are kept: twenty minutes of them at one every 15 s.
pub const SAMPLES_MAX: usize = 80;
/// Cases of all rules together.
const CASES_MAX: usize = 512;

/// One evaluation of one case.
#[derive(Debug, Clone, PartialEq)]
pub struct Sample {
    /// When, in microseconds since the epoch.
    pub at_us: i64,
    /// What the conditions said together.
    pub verdict: Verdict,
    /// What each said, in the order of the rule; empty for a case that nobody saw.
    pub readings: Vec<(Verdict, Option<f64>)>,
    /// Where the alert stood afterwards.
    pub phase: Phase,
    /// The alert that said it better, where it fired.
    pub inhibited_by: Option<(String, Labels)>,
}

#[derive(Debug, Clone, Default)]
struct Case {
    samples: VecDeque<Sample>,
    /// Evaluations since it was seen last.
    unseen: usize,
}

/// The last evaluations of every case.
///
/// At most 512 cases of 80 samples; of more, those that were not seen for longest are forgotten.
#[derive(Debug, Clone, Default)]
pub struct History {
    cases: BTreeMap<(String, Labels), Case>,
}

impl History {
    /// Begins an evaluation of all rules.
    pub(crate) fn begin(&mut self) {
        self.cases.values_mut().for_each(|case| case.unseen += 1);
        self.cases.retain(|_, case| case.unseen < SAMPLES_MAX);
    }

    /// Takes down what one evaluation says of one case.
    pub(crate) fn note(
        &mut self,
        key: &(String, Labels),
        at_us: i64,
        seen: (Verdict, Option<&Finding>),
        phase: Phase,
    ) {
        if !self.cases.contains_key(key) {
            self.make_room();
        }
        let (verdict, finding) = seen;
        let readings = finding.map(|finding| &finding.readings).into_iter().flatten();
        let readings = readings.map(|reading| (reading.verdict, reading.value)).collect();
        let case = self.cases.entry(key.clone()).or_default();
        case.unseen = 0;
        if case.samples.len() >= SAMPLES_MAX {
            case.samples.pop_front();
        }
        let sample = Sample { at_us, verdict, readings, phase, inhibited_by: None };
        case.samples.push_back(sample);
    }

    /// Says of the newest sample of a case which alert holds it back.
    pub(crate) fn inhibit(&mut self, key: &(String, Labels), by: &(String, Labels)) {
        let newest = self.cases.get_mut(key).and_then(|case| case.samples.back_mut());
        newest.into_iter().for_each(|sample| sample.inhibited_by = Some(by.clone()));
    }

    fn make_room(&mut self) {
        if self.cases.len() < CASES_MAX {
            return;
        }
        let stalest = self.cases.iter().max_by_key(|(_, case)| case.unseen);
        if let Some(key) = stalest.map(|(key, _)| key.clone()) {
            self.cases.remove(&key);
        }
    }

    /// The cases of a rule in the order of their labels, each with its samples, the oldest first.
    pub fn of<'a>(
        &'a self,
        rule: &'a str,
    ) -> impl Iterator<Item = (&'a Labels, impl DoubleEndedIterator<Item = &'a Sample> + Clone)>
    {
        let its = self.cases.iter().filter(move |((id, _), _)| id == rule);
        its.map(|((_, labels), case)| (labels, case.samples.iter()))
    }
}

/// Why an alert stands where it does after an evaluation, in one sentence.
#[must_use]
pub fn why(rule: &Rule, sample: &Sample) -> String {
    let shown = || shown(rule, sample);
    let left = |since_us: i64, span: Span| {
        let lasted = sample.at_us.saturating_sub(since_us).div_euclid(1_000_000);
        (span.secs() - lasted).max(0)
    };
    let text = match (sample.phase, sample.verdict) {
        (Phase::Firing { .. }, Verdict::NoData) => {
            "it fires: there are no data, and for one window that changes nothing".to_owned()
        }
        (Phase::Firing { .. }, _) => format!("it fires: {}", shown()),
        (Phase::Pending { since_us }, _) => format!(
            "it holds, and not for {} yet: {}; it fires in {} s if that goes on",
            rule.for_,
            shown(),
            left(since_us, rule.for_)
        ),
        (Phase::Recovering { since_us, .. }, _) => format!(
            "it holds no longer, and not for {} yet: {}; it ends in {} s if that goes on",
            rule.hold,
            shown(),
            left(since_us, rule.hold)
        ),
        (Phase::Inactive, Verdict::NoData) => match rule.nodata {
            OnNoData::Fire => {
                format!("there are no data; without any for {} it holds", rule.clause.window())
            }
            OnNoData::Ok | OnNoData::Keep => {
                "there are no data, or they cover less than half of the window".to_owned()
            }
        },
        (Phase::Inactive, Verdict::TooLittle) => {
            format!("there is too little traffic to judge by: {}", shown())
        }
        (Phase::Inactive, _) => format!("it does not hold: {}", shown()),
    };
    match &sample.inhibited_by {
        Some((rule, labels)) => format!("{text}; held back by {rule}{labels}"),
        None => text,
    }
}

/// Each condition with its value, as `http.error_rate[5m] > 10% is 3%`.
fn shown(rule: &Rule, sample: &Sample) -> String {
    let conditions = rule.clause.conditions().iter().zip(&sample.readings);
    let each: Vec<String> = conditions
        .map(|(condition, (verdict, value))| {
            let value = match (value, verdict) {
                (Some(value), _) => condition.threshold().show(*value),
                (None, Verdict::TooLittle) => "too little traffic".to_owned(),
                (None, _) => "no data".to_owned(),
            };
            format!("{condition} is {value}")
        })
        .collect();
    if each.is_empty() { "nobody sees it any more".to_owned() } else { each.join(", ") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::alerts::Alerts;
    use crate::rules::Rules;
    use crate::series::{Limits, Store};

    const S: i64 = 1_000_000;

    /// Two rungs, of which the upper holds the lower back.
    fn rules() -> Rules {
        let rule = |id: &str, severity: &str, share: &str| {
            format!(
                "[[alert]]\nid = \"{id}\"\ntitle = \"t\"\nmessage = \"m\"\nladder = \"l\"\n\
                 severity = \"{severity}\"\ncategory = \"error\"\ncomponent = \"http\"\n\
                 condition = \"http.error_rate[1m] > {share}\"\nfor = \"30s\"\nhold = \"30s\"\n"
            )
        };
        Rules::parse(&[rule("low", "sev3", "1%"), rule("high", "sev1", "50%")].concat()).unwrap()
    }

    /// Evaluates every 15 s; each value is how many of 100 requests failed.
    fn run(failed: &[f64]) -> Alerts {
        let rules = rules();
        let mut store = Store::new(rules.needs(), Limits::default());
        let (mut alerts, mut bad, mut good) = (Alerts::default(), 0.0, 0.0);
        for (at, failed) in failed.iter().enumerate() {
            let now = at as i64 * 15 * S;
            (bad, good) = (bad + failed, good + 100.0 - failed);
            store.record(now, |put| {
                put("http_requests_total", &[("status", "500")], bad);
                put("http_requests_total", &[("status", "200")], good);
            });
            alerts.step(&rules, &store, now);
        }
        alerts
    }

    /// The last sentence about a rule.
    fn said(alerts: &Alerts, id: &str) -> String {
        let (rules, mut cases) = (rules(), alerts.history().of(id));
        let (_, mut samples) = cases.next().unwrap();
        why(rules.get(id).unwrap(), samples.next_back().unwrap())
    }

    #[test]
    fn a_sentence_says_why_an_alert_stands_where_it_does() {
        for (failed, sentence) in [
            (&[0.0][..], "there are no data, or they cover less than half of the window"),
            (&[0.0; 6], "it does not hold: http.error_rate[1m] > 1% is 0%"),
            (
                &[20.0; 4],
                "it holds, and not for 30s yet: http.error_rate[1m] > 1% is 20%; it fires in 15 s \
                 if that goes on",
            ),
            (&[20.0; 6], "it fires: http.error_rate[1m] > 1% is 20%"),
            (&[80.0; 6], "it fires: http.error_rate[1m] > 1% is 80%; held back by high"),
            (
                &[20.0, 20.0, 20.0, 20.0, 20.0, 20.0, 0.0, 0.0, 0.0, 0.0, 0.0],
                "it holds no longer, and not for 30s yet: http.error_rate[1m] > 1% is 0%; it ends \
                 in 15 s if that goes on",
            ),
        ] {
            assert_eq!(said(&run(failed), "low"), sentence, "{failed:?}");
        }
    }

    #[test]
    fn every_evaluation_is_there_up_to_the_limit_and_in_order() {
        let alerts = run(&[20.0; SAMPLES_MAX + 10]);
        let history = alerts.history();
        let (labels, samples) = history.of("low").next().unwrap();
        let samples: Vec<&Sample> = samples.collect();
        assert!(labels.is_empty());
        assert_eq!(samples.len(), SAMPLES_MAX);
        assert_eq!(samples[0].at_us, 10 * 15 * S);
        assert!(samples.windows(2).all(|pair| pair[1].at_us - pair[0].at_us == 15 * S));
        assert_eq!(history.of("no-such-rule").count(), 0);
    }

    #[test]
    fn of_too_many_cases_those_are_forgotten_that_were_not_seen_for_longest() {
        let mut history = History::default();
        let key = |nth: usize| {
            ("x".to_owned(), [("n", format!("{nth:04}"))].into_iter().collect::<Labels>())
        };
        for nth in 0..CASES_MAX + 3 {
            history.begin();
            let from = if nth == CASES_MAX + 2 { 400 } else { nth };
            for seen in from..=nth {
                history.note(&key(seen), nth as i64, (Verdict::Fails, None), Phase::Inactive);
            }
        }
        assert!(history.of("x").count() <= CASES_MAX);
        assert!(history.of("x").all(|(labels, _)| labels.get("n").unwrap() > "0100"));
    }
}
