//! Our own figures as they stand, and why a rule fires or does not.
//!
//! Owns: how each is shown, and which words ask for it. Refuses to know: how a figure is measured,
//! and when a rule is evaluated.

use engine::{CaseView, ConditionView, SliView};
use governors::incident::{IncidentsState, Silence, incident_name};
use runbook::sli::Measured;
use runbook::{Labels, Phase, Reading, Rule, Sample, Verdict};
use serde_json::{Value, json};
use types::{Micros, Reason};

use super::{Asked, ok};
use crate::Gateway;
use crate::answer::{Fault, Handled, fault};

fn unwatched() -> Fault {
    fault(Reason::ServiceUnavailable, "this instance has not looked at its figures yet")
}

/// `GET /admin/sli`: all, those that `name` fits, or what `condition` says.
pub(super) async fn slis(gateway: &Gateway, asked: &Asked<'_>) -> Handled {
    let name = match asked.query.as_slice() {
        [] => None,
        [(given, name)] if given == "name" => Some(name.as_str()),
        [(given, text)] if given == "condition" => return condition(gateway, text),
        _ => {
            let detail = "the query may hold name or condition only";
            return Err(fault(Reason::InvalidField, detail));
        }
    };
    let slis = gateway.engine.slis(name).ok_or_else(unwatched)?;
    if slis.is_empty() {
        return Err(fault(Reason::NotFound, "there is no such SLI"));
    }
    let rows: Vec<Value> = slis.iter().flat_map(shown_sli).collect();
    ok(&json!({ "at": gateway.engine.clock().now().secs(), "slis": rows }))
}

/// One row for each case.
fn shown_sli(view: &SliView) -> impl Iterator<Item = Value> {
    let SliView { sli, window, promql, values } = view;
    values.iter().map(move |Measured { labels, value, missing, evidence }| {
        json!({
            "name": sli.name,
            "labels": shown_labels(labels),
            "by": sli.labels,
            "value": value,
            "missing": missing,
            "unit": sli.unit.as_str(),
            "window": window.to_string(),
            "samples": evidence.samples,
            "help": sli.help,
            "promql": promql,
        })
    })
}

fn condition(gateway: &Gateway, text: &str) -> Handled {
    let read = gateway.engine.condition(text).ok_or_else(unwatched)?;
    let view = read.map_err(|error| fault(Reason::InvalidField, error.to_string()))?;
    let ConditionView { condition, readings, is_kept } = &view;
    if !is_kept {
        let detail = "samples are kept for five minutes, or for as long as a rule looks back";
        return Err(fault(Reason::InvalidField, detail));
    }
    let now = gateway.engine.clock().now();
    let shown = |reading: &Reading| {
        json!({
            "labels": shown_labels(&reading.labels),
            "verdict": word(reading.verdict),
            "value": reading.value,
            "explanation": reading.explain(now.0),
        })
    };
    ok(&json!({
        "at": now.secs(),
        "condition": condition.to_string(),
        "sli": condition.sli().name,
        "unit": condition.sli().unit.as_str(),
        "threshold": condition.threshold().value(),
        "promql": condition.sli().promql(condition.window()),
        "readings": readings.iter().map(shown).collect::<Vec<_>>(),
    }))
}

const fn word(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Holds => "holds",
        Verdict::Fails => "fails",
        Verdict::NoData => "no_data",
        Verdict::TooLittle => "too_little",
    }
}

/// The words of verdicts, for the document.
pub(crate) const VERDICTS: [&str; 4] = ["holds", "fails", "no_data", "too_little"];

/// The words of phases, for the document.
pub(crate) const PHASES: [&str; 4] = ["inactive", "pending", "firing", "recovering"];

fn shown_labels(labels: &Labels) -> Value {
    labels.iter().map(|(name, value)| (name.to_owned(), Value::from(value))).collect()
}

/// `GET /admin/alerts/{rule}/explain`: sample by sample what was seen of a rule.
pub(super) async fn explain(gateway: &Gateway, asked: &Asked<'_>) -> Handled {
    let labels = asked.parameter("labels")?.map(|text| {
        let expected = "labels must be written as alerts show them, such as {provider=\"openai\"}";
        Labels::parse(text).ok_or_else(|| fault(Reason::InvalidField, expected))
    });
    let labels = labels.transpose()?;
    let unknown = || fault(Reason::NotFound, "there is no such rule, or nothing is watched here");
    let view = gateway.engine.rule(asked.segment()?).ok_or_else(unknown)?;
    let state = gateway.engine.incidents().await?;
    let empty = IncidentsState::default();
    let state = state.incidents().unwrap_or(&empty);
    let now = gateway.engine.clock().now();
    let cases: Vec<Value> = view
        .cases
        .iter()
        .filter(|case| labels.as_ref().is_none_or(|labels| *labels == case.labels))
        .map(|case| shown_case(&view.rule, case, state, now))
        .collect();
    if cases.is_empty() && labels.is_some() {
        return Err(fault(Reason::NotFound, "no case with these labels was seen lately"));
    }
    let rule = &view.rule;
    let conditions = rule.clause.conditions().iter().map(ToString::to_string);
    ok(&json!({
        "rule": rule.id,
        "title": rule.title,
        "severity": rule.severity.as_str(),
        "component": rule.component,
        "combine": if matches!(rule.clause, runbook::Clause::All(_)) { "all" } else { "any" },
        "conditions": conditions.collect::<Vec<_>>(),
        "for_s": rule.for_.secs(),
        "hold_s": rule.hold.secs(),
        "cases": cases,
    }))
}

fn shown_case(rule: &Rule, case: &CaseView, state: &IncidentsState, now: Micros) -> Value {
    let held = state.alert(&case.key);
    let silences = |held: &&Silence| {
        now < Micros::from_secs(held.until_s) && held.matches(&case.key, &rule.id, &rule.component)
    };
    let silenced_by: Vec<&str> =
        state.silences().iter().filter(silences).map(|held| &*held.matcher).collect();
    json!({
        "labels": shown_labels(&case.labels),
        "alert": case.key,
        "phase": phase(case.phase).0,
        "why": case.why,
        "silenced_by": silenced_by,
        "incident": held.and_then(|held| held.incident).map(incident_name),
        "samples": case.samples.iter().map(|sample| shown_sample(rule, sample)).collect::<Vec<_>>(),
    })
}

/// The word of a phase, and since when it lasts.
const fn phase(phase: Phase) -> (&'static str, Option<i64>) {
    match phase {
        Phase::Inactive => ("inactive", None),
        Phase::Pending { since_us } => ("pending", Some(since_us)),
        Phase::Firing { since_us } => ("firing", Some(since_us)),
        Phase::Recovering { since_us, .. } => ("recovering", Some(since_us)),
    }
}

fn shown_sample(rule: &Rule, sample: &Sample) -> Value {
    let (word_of, since_us) = phase(sample.phase);
    let conditions = rule.clause.conditions().iter().zip(&sample.readings);
    let readings: Vec<Value> = conditions
        .map(|(condition, (verdict, value))| {
            json!({
                "value": value,
                "shown": value.map(|value| condition.threshold().show(value)),
                "op": condition.op().as_str(),
                "threshold": condition.threshold().to_string(),
                "verdict": word(*verdict),
            })
        })
        .collect();
    let lasted = |since_us: i64| sample.at_us.saturating_sub(since_us).div_euclid(1_000_000);
    json!({
        "at": Micros(sample.at_us).to_string(),
        "verdict": word(sample.verdict),
        "readings": readings,
        "phase": word_of,
        "for_s": since_us.map(lasted),
        "inhibited_by": sample.inhibited_by.as_ref().map(|(rule, labels)| format!("{rule}{labels}")),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_verdict_and_phase_has_a_word_of_the_document() {
        use Verdict::{Fails, Holds, NoData, TooLittle};
        assert_eq!([Holds, Fails, NoData, TooLittle].map(word), VERDICTS);
        let phases = [
            Phase::Inactive,
            Phase::Pending { since_us: 1 },
            Phase::Firing { since_us: 2 },
            Phase::Recovering { since_us: 3, fired_us: 2 },
        ];
        assert_eq!(phases.map(|one| phase(one).0), PHASES);
        assert_eq!(phases.map(|one| phase(one).1), [None, Some(1), Some(2), Some(3)]);
    }
}
