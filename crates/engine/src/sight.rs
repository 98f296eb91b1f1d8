//! What the process sees of itself: samples, alerts and error budgets, for who looks.
//!
//! Owns: the one copy of them, and how a look at it is answered. Refuses to know: when a scrape is
//! taken, and how an answer is shown.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use runbook::alerts::{Alerts, Change};
use runbook::history::why;
use runbook::sli::Measured;
use runbook::{
    Budgets, Condition, Labels, Limits, ParseError, Phase, Reading, Rule, Rules, SLIS, Sample, Sli,
    Span, Store, Verdict,
};
use telemetry::metrics::Metrics;

use crate::act::Engine;
use crate::alerts::key_of;

/// Series at the same time; further ones are dropped.
const SERIES_MAX: usize = 8_192;
/// The window of an SLI that is shown without a condition; shorter in a process that is younger.
const WINDOW: Span = Span::from_secs(300);

/// Samples and what was made of them.
pub(crate) struct Sight {
    /// What this instance is called, where there may be others.
    instance: Option<String>,
    inside: Mutex<Inside>,
}

struct Inside {
    /// When it began to look.
    began_us: i64,
    rules: Arc<Rules>,
    samples: Store,
    alerts: Alerts,
    budgets: Budgets,
}

/// One SLI as it stands.
#[derive(Debug, Clone)]
pub struct SliView {
    /// Its definition.
    pub sli: &'static Sli,
    /// The window of values and PromQL.
    pub window: Span,
    /// The same as PromQL.
    pub promql: String,
    /// Its cases.
    pub values: Vec<Measured>,
}

/// A condition as it stands.
#[derive(Debug, Clone)]
pub struct ConditionView {
    /// What was asked.
    pub condition: Condition,
    /// What it says of each case.
    pub readings: Vec<Reading>,
    /// Whether samples are kept for as long as it looks back.
    pub is_kept: bool,
}

/// A rule, and what was seen of it.
#[derive(Debug, Clone)]
pub struct RuleView {
    /// The rule.
    pub rule: Rule,
    /// Its cases in the order of their labels; none before the first look.
    pub cases: Vec<CaseView>,
}

/// One case of a rule.
#[derive(Debug, Clone)]
pub struct CaseView {
    /// The case.
    pub labels: Labels,
    /// As receipts and silences name it.
    pub key: String,
    /// Where it stands.
    pub phase: Phase,
    /// Why, in one sentence.
    pub why: String,
    /// The last evaluations, the oldest first; at least one.
    pub samples: Vec<Sample>,
}

impl Sight {
    pub(crate) fn new(
        rules: Arc<Rules>,
        interval_us: i64,
        instance: Option<String>,
        now_us: i64,
    ) -> Sight {
        let mut needs = rules.needs();
        SLIS.iter().for_each(|sli| needs.add_sli(sli, WINDOW));
        let inside = Inside {
            began_us: now_us,
            rules,
            samples: Store::new(needs, Limits { interval_us, series: SERIES_MAX }),
            alerts: Alerts::default(),
            budgets: Budgets::new(now_us),
        };
        Sight { instance, inside: Mutex::new(inside) }
    }

    /// Takes a scrape, and shows what it makes of the budgets to the next one.
    pub(crate) fn scrape(&self, metrics: &Metrics, now_us: i64) {
        let mut inside = self.lock();
        let Inside { samples, budgets, .. } = &mut *inside;
        samples.record(now_us, |put| {
            metrics.for_each_sample(&mut |name, labels, value| {
                budgets.sample(name, labels, value);
                put(name, labels, value);
            });
        });
        budgets.end(now_us);
        for (slo, left) in budgets.left(now_us) {
            match left {
                Some(left) => metrics.slo_budget_left_ratio.with([slo]).set(left),
                None => metrics.slo_budget_left_ratio.forget([slo]),
            }
        }
        for (slo, window, burn) in budgets.burns(now_us) {
            match burn {
                Some(burn) => metrics.slo_burn_rate.with([slo, window]).set(burn),
                None => metrics.slo_burn_rate.forget([slo, window]),
            }
        }
    }

    /// Evaluates every rule once, from where its alerts are said to stand; gives what changed, and
    /// for each alert that fires the one that holds it back.
    pub(crate) fn step(
        &self,
        kept: impl IntoIterator<Item = (String, Labels, Phase)>,
        now_us: i64,
    ) -> (Vec<Change>, Vec<Held>) {
        let mut inside = self.lock();
        let Inside { rules, samples, alerts, .. } = &mut *inside;
        alerts.restore(kept);
        let moved = alerts.step(rules, samples, now_us);
        let own = |(rule, labels): (&str, &Labels)| (rule.to_owned(), labels.clone());
        let firing = alerts.firing();
        let by = rules.inhibited(&firing).into_iter();
        let held = firing.iter().zip(by).map(|(held, by)| (own(*held), by.map(own))).collect();
        (moved, held)
    }

    /// Every case of every rule that there is now.
    pub(crate) fn cases(&self, now_us: i64) -> Vec<(String, Labels)> {
        let inside = self.lock();
        let of = |rule: &Rule| {
            let found = rule.clause.evaluate(&inside.samples, now_us);
            let id = rule.id.clone();
            found.into_iter().map(move |finding| (id.clone(), finding.labels))
        };
        inside.rules.iter().flat_map(of).collect()
    }

    /// What the samples say of a case of a rule; no data where there is no such case.
    pub(crate) fn verdict(
        &self,
        rule: &str,
        is_it: impl Fn(&Labels) -> bool,
        now_us: i64,
    ) -> Verdict {
        let inside = self.lock();
        let rule = inside.rules.get(rule);
        let found = rule.map(|rule| rule.clause.evaluate(&inside.samples, now_us));
        let found = found.into_iter().flatten().find(|finding| is_it(&finding.labels));
        found.map_or(Verdict::NoData, |finding| finding.verdict)
    }

    fn lock(&self) -> MutexGuard<'_, Inside> {
        // Every change leaves it whole.
        self.inside.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// An alert that fires, and the one that holds it back.
pub(crate) type Held = ((String, Labels), Option<(String, Labels)>);

impl Engine {
    /// SLIs as they stand: all of them over all series; or, for a name or a beginning with `*`
    /// behind it, those case by case. `None` where this instance watches nothing.
    #[must_use]
    pub fn slis(&self, name: Option<&str>) -> Option<Vec<SliView>> {
        let sight = self.sight()?;
        let (inside, now) = (sight.lock(), self.clock().now());
        let fits = |sli: &&Sli| match name.map(|name| (name, name.strip_suffix('*'))) {
            None => true,
            Some((_, Some(beginning))) => sli.name.starts_with(beginning),
            Some((name, None)) => sli.name == name,
        };
        let age = Span::from_secs(now.0.saturating_sub(inside.began_us).div_euclid(1_000_000));
        let window = age.clamp(Span::from_secs(1), WINDOW);
        let view = |sli: &'static Sli| SliView {
            sli,
            window,
            promql: sli.promql(window),
            values: sli.measure(&inside.samples, window, name.is_some(), now.0),
        };
        Some(SLIS.iter().filter(fits).map(view).collect())
    }

    /// What a condition, given as text, says now. `None` as for [`Engine::slis`].
    #[must_use]
    pub fn condition(&self, text: &str) -> Option<Result<ConditionView, ParseError>> {
        let sight = self.sight()?;
        let inside = sight.lock();
        let condition = Condition::parse_for(text, inside.samples.interval_us());
        Some(condition.map(|condition| {
            let readings = condition.evaluate(&inside.samples, self.clock().now().0);
            let is_kept = inside.samples.keeps(&condition);
            ConditionView { condition, readings, is_kept }
        }))
    }

    /// The components that rules are about; none where this instance watches nothing.
    #[must_use]
    pub fn watched_components(&self) -> Vec<String> {
        let Some(sight) = self.sight() else { return Vec::new() };
        let inside = sight.lock();
        inside.rules.iter().map(|rule| rule.component.clone()).collect()
    }

    /// What was seen of a rule. `None` where there is none of that id, or nothing is watched.
    #[must_use]
    pub fn rule(&self, id: &str) -> Option<RuleView> {
        let sight = self.sight()?;
        let inside = sight.lock();
        let rule = inside.rules.get(id)?.clone();
        let cases = inside.alerts.history().of(id).filter_map(|(labels, samples)| {
            let samples: Vec<Sample> = samples.cloned().collect();
            let newest = samples.last()?;
            Some(CaseView {
                labels: labels.clone(),
                key: key_of(id, labels, sight.instance.as_deref()),
                phase: newest.phase,
                why: why(&rule, newest),
                samples,
            })
        });
        let cases = cases.collect();
        Some(RuleView { rule, cases })
    }
}
