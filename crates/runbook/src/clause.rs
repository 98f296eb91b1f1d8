//! Conditions together: `all = […]` or `any = […]`.
//!
//! Owns: how verdicts combine, and which case of one condition belongs to which of another.
//! Refuses to know: rules and runbook steps, which both have clauses.

use std::collections::BTreeSet;

use crate::condition::{Condition, Reading, Verdict};
use crate::labels::Labels;
use crate::series::Store;
use crate::unit::Span;

/// A list of conditions.
#[derive(Debug, Clone, PartialEq)]
pub enum Clause {
    /// Holds where every condition does.
    All(Vec<Condition>),
    /// Holds where one condition does.
    Any(Vec<Condition>),
}

/// What a clause says about one case.
#[derive(Debug, Clone, PartialEq)]
pub struct Finding {
    /// The values of the labels that were asked for one by one.
    pub labels: Labels,
    /// What the conditions say together.
    pub verdict: Verdict,
    /// What each says, in their order; a condition without such labels says the same of all cases.
    pub readings: Vec<Reading>,
    /// The reading that decided, or else the first: the one to show.
    pub shown: usize,
}

impl Clause {
    /// The conditions.
    #[must_use]
    pub fn conditions(&self) -> &[Condition] {
        match self {
            Clause::All(conditions) | Clause::Any(conditions) => conditions,
        }
    }

    /// The longest window.
    #[must_use]
    pub fn window(&self) -> Span {
        self.conditions().iter().map(Condition::window).max().unwrap_or_default()
    }

    /// Says for every case what the conditions say together. At least one finding, unless there
    /// are no conditions.
    #[must_use]
    pub fn evaluate(&self, store: &Store, now_us: i64) -> Vec<Finding> {
        let conditions = self.conditions();
        let readings: Vec<Vec<Reading>> =
            conditions.iter().map(|condition| condition.evaluate(store, now_us)).collect();
        let mut cases: BTreeSet<&Labels> =
            readings.iter().flatten().map(|reading| &reading.labels).collect();
        // Where a condition has cases, the one without labels is only what the others say of all.
        if cases.len() > 1 {
            cases.remove(&Labels::default());
        }
        let find = |labels: &Labels| {
            let of_case = readings.iter().filter_map(|readings| {
                let own = readings.iter().find(|reading| reading.labels == *labels);
                own.cloned().or_else(|| other(readings, labels))
            });
            let readings: Vec<Reading> = of_case.collect();
            let (verdict, shown) = self.combine(&readings);
            Finding { labels: labels.clone(), verdict, readings, shown }
        };
        if conditions.is_empty() { Vec::new() } else { cases.into_iter().map(find).collect() }
    }

    /// What is certain whatever the others say comes first, then what is unknown.
    pub(crate) fn combine(&self, readings: &[Reading]) -> (Verdict, usize) {
        let (decides, else_) = match self {
            Clause::All(_) => (Verdict::Fails, Verdict::Holds),
            Clause::Any(_) => (Verdict::Holds, Verdict::Fails),
        };
        for verdict in [decides, Verdict::NoData, Verdict::TooLittle] {
            if let Some(at) = readings.iter().position(|reading| reading.verdict == verdict) {
                return (verdict, at);
            }
        }
        (else_, 0)
    }
}

/// What a condition says about a case that is not one of its own: what it says of all, or nothing.
fn other(readings: &[Reading], labels: &Labels) -> Option<Reading> {
    let first = readings.first()?;
    if first.labels.is_empty() {
        return Some(Reading { labels: labels.clone(), ..first.clone() });
    }
    Some(Reading {
        labels: labels.clone(),
        verdict: Verdict::NoData,
        value: None,
        threshold: first.threshold,
        evidence: crate::condition::Evidence::default(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::series::Limits;

    const S: i64 = 1_000_000;

    fn findings(clause: &Clause, free: &[(&str, f64)], dropped: Option<f64>) -> Vec<Finding> {
        let mut store = Store::new(clause.conditions().iter().collect(), Limits::default());
        for row in 0..3 {
            store.record(row * 15 * S, |put| {
                free.iter().for_each(|(mount, v)| put("disk_free_ratio", &[("mount", mount)], *v));
                if let Some(dropped) = dropped {
                    put("tai_log_lines_dropped_total", &[], dropped * row as f64);
                }
            });
        }
        clause.evaluate(&store, 30 * S)
    }

    fn shown(findings: &[Finding]) -> Vec<(String, Verdict)> {
        findings.iter().map(|found| (found.labels.to_string(), found.verdict)).collect()
    }

    #[test]
    fn what_a_condition_says_of_all_it_says_of_each_case() {
        let conditions = ["disk.free_ratio{mount=*}[30s] < 10%", "log.dropped[30s] > 0"];
        let all = Clause::All(conditions.map(|text| Condition::parse(text).unwrap()).into());
        let mounts = [("ledger", 0.5), ("logs", 0.01)];
        let case = |mount: &str| format!("{{mount=\"{mount}\"}}");
        let found = findings(&all, &mounts, Some(1.0));
        assert_eq!(
            shown(&found),
            [(case("ledger"), Verdict::Fails), (case("logs"), Verdict::Holds)]
        );
        assert_eq!(found[1].readings[1].value, Some(2.0));
        assert_eq!(found[1].readings[1].labels, found[1].labels);
        assert_eq!(
            shown(&findings(&all, &mounts, Some(0.0))),
            [(case("ledger"), Verdict::Fails), (case("logs"), Verdict::Fails)]
        );
        assert_eq!(
            shown(&findings(&all, &mounts, None)),
            [(case("ledger"), Verdict::Fails), (case("logs"), Verdict::NoData)]
        );
        assert_eq!(shown(&findings(&all, &[], Some(1.0))), [(String::new(), Verdict::NoData)]);
    }

    #[test]
    fn a_case_that_only_one_condition_knows_is_unknown_to_the_other() {
        let conditions =
            ["ai.error_rate{provider=*}[30s] > 10%", "ai.first_token.p95{provider=*}[30s] > 1s"];
        let all = Clause::All(conditions.map(|text| Condition::parse(text).unwrap()).into());
        let mut store = Store::new(all.conditions().iter().collect(), Limits::default());
        for row in 0..3 {
            store.record(row * 15 * S, |put| {
                let labels = [("provider", "a"), ("error_type", "reset")];
                put("ai_request_errors_total", &labels, row as f64 * 5.0);
            });
        }
        let found = all.evaluate(&store, 30 * S);
        assert_eq!(shown(&found), [("{provider=\"a\"}".to_owned(), Verdict::NoData)]);
        assert_eq!(found[0].readings[0].verdict, Verdict::Holds);
    }

    #[test]
    fn a_clause_without_conditions_finds_nothing() {
        assert!(findings(&Clause::All(Vec::new()), &[], None).is_empty());
    }
}
