//! An SLI as it stands, without a threshold.
//!
//! Owns: which cases are shown, and how many. Refuses to know: who looks.

use super::{Outcome, Scope, Sli};
use crate::condition::Evidence;
use crate::labels::Labels;
use crate::series::Store;
use crate::unit::Span;

/// Cases of one SLI that are shown.
const CASES_MAX: usize = 200;

/// What a window says about one case.
#[derive(Debug, Clone, PartialEq)]
pub struct Measured {
    /// The case; without labels it is of all series.
    pub labels: Labels,
    /// In the base unit; `None` where the samples make none.
    pub value: Option<f64>,
    /// Why there is no value; empty where there is one.
    pub missing: &'static str,
    /// What it was made from.
    pub evidence: Evidence,
}

impl Sli {
    /// The value over all series or, for `each`, of each combination of labels that has samples; of
    /// those the first 200.
    #[must_use]
    pub fn measure(&self, store: &Store, window: Span, each: bool, now_us: i64) -> Vec<Measured> {
        let each = if each { self.labels } else { &[] };
        let taken = self.take(store, &Scope { fixed: &[], each }, window.micros(), now_us);
        taken
            .into_iter()
            .take(CASES_MAX)
            .map(|taken| {
                let (value, missing) = match taken.outcome {
                    Outcome::Value(value) => (Some(value), ""),
                    Outcome::TooLittle => (None, "too little traffic"),
                    Outcome::NoData => (None, "no data"),
                };
                Measured { labels: taken.labels, value, missing, evidence: taken.evidence }
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::series::{Limits, Needs};

    const S: i64 = 1_000_000;

    #[test]
    fn an_sli_is_measured_over_all_series_or_case_by_case() {
        let sli = Sli::find("ai.error_rate").unwrap();
        let mut needs = Needs::default();
        needs.add_sli(sli, Span::from_secs(60));
        let mut store = Store::new(needs, Limits::default());
        for row in 0..5 {
            let counted = f64::from(row) * 10.0;
            store.record(i64::from(row) * 15 * S, |put| {
                let failed = [("error_type", "timeout"), ("provider", "a")];
                put("ai_request_errors_total", &failed, counted);
                for provider in ["a", "b"] {
                    let good = [("provider", provider), ("status", "success")];
                    put("ai_requests_total", &good, counted);
                }
            });
        }
        let shown = |each| {
            let all = sli.measure(&store, Span::from_secs(60), each, 60 * S);
            all.into_iter().map(|one| (one.labels.to_string(), one.value)).collect::<Vec<_>>()
        };
        assert_eq!(shown(false), [(String::new(), Some(1.0 / 3.0))]);
        assert_eq!(
            shown(true),
            [
                ("{provider=\"a\"}".to_owned(), Some(0.5)),
                ("{provider=\"b\"}".to_owned(), Some(0.0))
            ]
        );
        let silent = Sli::find("log.dropped").unwrap();
        let found = silent.measure(&store, Span::from_secs(60), false, 60 * S);
        assert_eq!((found[0].value, found[0].missing), (None, "no data"));
    }

    #[test]
    fn a_store_says_whether_it_keeps_what_a_condition_looks_at() {
        let mut needs = Needs::default();
        needs.add_sli(Sli::find("http.rate").unwrap(), Span::from_secs(300));
        let store = Store::new(needs, Limits::default());
        for (text, kept) in [
            ("http.rate[5m] > 1/s", true),
            ("http.rate[1m] > 1/s", true),
            ("http.rate[10m] > 1/s", false),
            ("log.dropped[1m] > 1", false),
        ] {
            let condition = crate::Condition::parse(text).unwrap();
            assert_eq!(store.keeps(&condition), kept, "{text}");
        }
    }
}
