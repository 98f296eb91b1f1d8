//! The alerts of all rules: one evaluation after another.
//!
//! Owns: which cases a rule has, and what becomes of those that are no longer seen. Refuses to
//! know: where phases are kept, silences, and who is told.

use std::collections::BTreeMap;

use crate::clause::Finding;
use crate::condition::Verdict;
use crate::history::History;
use crate::labels::Labels;
use crate::phase::{OnNoData, Phase, Tracker};
use crate::rules::{AlertKey, Rules};
use crate::series::Store;

/// Every alert that is not inactive, and every case that waits for data.
#[derive(Debug, Clone, Default)]
pub struct Alerts {
    trackers: BTreeMap<(String, Labels), Tracker>,
    history: History,
}

/// An alert that moved on.
#[derive(Debug, Clone, PartialEq)]
pub struct Change {
    /// The rule's id.
    pub rule: String,
    /// The case.
    pub labels: Labels,
    /// Where it stood.
    pub from: Phase,
    /// Where it stands.
    pub to: Phase,
    /// What was seen; `None` where the case is gone, or its rule.
    pub finding: Option<Finding>,
}

impl Alerts {
    /// Stands where the kept phases say; what is not among them is inactive. For how long there
    /// have been no data is known here alone.
    pub fn restore(&mut self, kept: impl IntoIterator<Item = (String, Labels, Phase)>) {
        self.trackers.values_mut().for_each(|tracker| tracker.restore(Phase::Inactive));
        for (rule, labels, phase) in kept {
            self.trackers.entry((rule, labels)).or_default().restore(phase);
        }
    }

    /// Evaluates every rule once; gives what changed, in the order of rules and labels.
    ///
    /// A case that is no longer seen has no data. Alerts of rules that are no longer in force end.
    pub fn step(&mut self, rules: &Rules, store: &Store, now_us: i64) -> Vec<Change> {
        let mut changes = Vec::new();
        self.history.begin();
        for rule in rules.iter() {
            let timing = rule.timing();
            let mut cases: BTreeMap<Labels, Option<Finding>> = BTreeMap::new();
            let kept = self.trackers.keys().filter(|(id, _)| *id == rule.id);
            cases.extend(kept.map(|(_, labels)| (labels.clone(), None)));
            let seen = rule.clause.evaluate(store, now_us).into_iter();
            cases.extend(seen.map(|finding| (finding.labels.clone(), Some(finding))));
            for (labels, finding) in cases {
                let verdict = match &finding {
                    Some(finding) => finding.verdict,
                    // It stood for "no case is known", and now some are.
                    None if labels.is_empty() => Verdict::Fails,
                    None => Verdict::NoData,
                };
                let key = (rule.id.clone(), labels);
                let mut tracker = self.trackers.get(&key).copied().unwrap_or_default();
                let from = tracker.phase();
                let to = tracker.step(&timing, verdict, now_us);
                self.history.note(&key, now_us, (verdict, finding.as_ref()), tracker.phase());
                // A case that nobody sees and that missing data cannot set off is forgotten.
                let is_over = tracker == Tracker::default()
                    || (finding.is_none()
                        && tracker.phase() == Phase::Inactive
                        && timing.nodata != OnNoData::Fire);
                let (rule, labels) = key.clone();
                changes.extend(to.map(|to| Change { rule, labels, from, to, finding }));
                if is_over {
                    self.trackers.remove(&key);
                } else {
                    self.trackers.insert(key, tracker);
                }
            }
        }
        self.trackers.retain(|(rule, labels), tracker| {
            let (rule, labels, from) = (rule.clone(), labels.clone(), tracker.phase());
            let is_in_force = rules.get(&rule).is_some();
            if !is_in_force && from != Phase::Inactive {
                let to = Phase::Inactive;
                changes.push(Change { rule, labels, from, to, finding: None });
            }
            is_in_force
        });
        self.note_inhibited(rules);
        changes
    }

    fn note_inhibited(&mut self, rules: &Rules) {
        let own = |(rule, labels): AlertKey<'_>| (rule.to_owned(), labels.clone());
        let firing = self.firing();
        let by: Vec<_> = firing
            .iter()
            .zip(rules.inhibited(&firing))
            .filter_map(|(held, by)| Some((own(*held), own(by?))))
            .collect();
        by.into_iter().for_each(|(held, by)| self.history.inhibit(&held, &by));
    }

    /// What was seen of each case.
    #[must_use]
    pub fn history(&self) -> &History {
        &self.history
    }

    /// Every alert that is not inactive, in the order of rules and labels.
    pub fn iter(&self) -> impl Iterator<Item = (AlertKey<'_>, Phase)> {
        let all = self
            .trackers
            .iter()
            .map(|((rule, labels), tracker)| ((rule.as_str(), labels), tracker.phase()));
        all.filter(|(_, phase)| *phase != Phase::Inactive)
    }

    /// The alerts that fire or recover.
    #[must_use]
    pub fn firing(&self) -> Vec<AlertKey<'_>> {
        self.iter().filter(|(_, phase)| phase.is_firing()).map(|(key, _)| key).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const S: i64 = 1_000_000;

    fn rules(nodata: &str) -> Rules {
        Rules::parse(&format!(
            "[[alert]]\nid = \"down\"\ntitle = \"t\"\nmessage = \"m\"\nseverity = \"sev1\"\n\
             category = \"system\"\ncomponent = \"host\"\nnodata = \"{nodata}\"\n\
             condition = \"subsystem.up{{subsystem=*}}[30s] == 0\"\n"
        ))
        .unwrap()
    }

    /// Evaluates every 15 s while subsystem `a` shows `value`, and nothing where there is none.
    fn run(rules: &Rules, values: &[Option<f64>]) -> Vec<(i64, Labels, Phase)> {
        let mut store = Store::new(rules.needs(), crate::series::Limits::default());
        let mut alerts = Alerts::default();
        let mut changes = Vec::new();
        for (at, value) in values.iter().enumerate() {
            let now = at as i64 * 15 * S;
            store.record(now, |put| {
                if let Some(value) = value {
                    put("tai_subsystem_up", &[("subsystem", "a")], *value);
                }
            });
            let changed = alerts.step(rules, &store, now).into_iter();
            changes.extend(changed.map(|change| (now / S, change.labels, change.to)));
        }
        changes
    }

    #[test]
    fn a_case_that_is_gone_ends_after_its_window() {
        let a: Labels = [("subsystem", "a")].into_iter().collect();
        let mut values = vec![Some(0.0); 4];
        values.extend([None; 10]);
        // The last sample is at 45 s, stale from 60 s + on, and gone from the window at 90 s.
        assert_eq!(
            run(&rules("ok"), &values),
            [
                (15, a.clone(), Phase::Firing { since_us: 15 * S }),
                (105, a.clone(), Phase::Inactive)
            ]
        );
        assert_eq!(run(&rules("keep"), &values), [(15, a, Phase::Firing { since_us: 15 * S })]);
    }

    #[test]
    fn after_a_restart_an_alert_goes_on_where_it_was_kept() {
        let rules = rules("ok");
        let a: Labels = [("subsystem", "a")].into_iter().collect();
        let firing = Phase::Firing { since_us: 7 };
        let step = |value: Option<f64>| {
            let mut store = Store::new(rules.needs(), crate::series::Limits::default());
            let mut alerts = Alerts::default();
            alerts.restore([("down".to_owned(), a.clone(), firing)]);
            let mut changes = Vec::new();
            for row in 0..3 {
                let now = row * 15 * S;
                store.record(now, |put| {
                    let labels = [("subsystem", "a")];
                    value.into_iter().for_each(|v| put("tai_subsystem_up", &labels, v));
                });
                let changed = alerts.step(&rules, &store, now);
                changes.extend(changed.into_iter().map(|change| (now / S, change.to)));
            }
            changes
        };
        assert_eq!(step(Some(0.0)), []);
        assert_eq!(step(Some(1.0)), [(15, Phase::Inactive)]);
        assert_eq!(step(None), [(30, Phase::Inactive)], "held for one window of 30 s");
    }

    #[test]
    fn a_case_for_want_of_cases_ends_when_one_is_known() {
        let values = [None, None, None, Some(1.0), Some(1.0), Some(1.0)];
        let none = Labels::default();
        assert_eq!(
            run(&rules("fire"), &values),
            [(30, none.clone(), Phase::Firing { since_us: 30 * S }), (45, none, Phase::Inactive)]
        );
    }

    #[test]
    fn an_alert_whose_rule_is_gone_ends() {
        let firing = Phase::Firing { since_us: 0 };
        let mut alerts = Alerts::default();
        alerts.restore([("x".to_owned(), Labels::default(), firing)]);
        assert_eq!(alerts.firing().len(), 1);
        let store = Store::new(crate::series::Needs::default(), crate::series::Limits::default());
        let changes = alerts.step(&Rules::default(), &store, 0);
        assert_eq!(changes.len(), 1);
        assert_eq!((changes[0].from, changes[0].to), (firing, Phase::Inactive));
        assert_eq!(alerts.iter().count(), 0);
    }
}
