//! The alert rules as a rule file for Prometheus.
//!
//! Owns: the YAML, written by hand since it is six keys deep and nothing else of it is needed.
//! Refuses to know: how a formula is said in PromQL.

use std::fmt::Write as _;

use crate::clause::Clause;
use crate::condition::Condition;
use crate::labels::Quoted;
use crate::rules::{Piece, Rule, Rules};
use crate::unit::{SECOND_US, Span, Unit};

/// A rule file that says what the rules say, evaluated every so many microseconds. Ladders and
/// `inhibits` are not in it: inhibition is Alertmanager's, by the labels that are given here. Nor
/// is `nodata`.
#[must_use]
pub fn rules_yaml(rules: &Rules, interval_us: i64) -> String {
    let interval = match interval_us % SECOND_US {
        0 => Span::from_secs(interval_us / SECOND_US).to_string(),
        _ => format!("{}ms", interval_us / 1_000),
    };
    let mut yaml = format!("groups:\n  - name: tai\n    interval: {interval}\n    rules:\n");
    for rule in rules.iter() {
        write_rule(&mut yaml, rule);
    }
    yaml
}

fn write_rule(yaml: &mut String, rule: &Rule) {
    let _ = writeln!(yaml, "      - alert: {}", rule.id);
    let _ = writeln!(yaml, "        expr: {}", Quoted(&expression(&rule.clause)));
    for (key, span) in [("for", rule.for_), ("keep_firing_for", rule.hold)] {
        if span.secs() > 0 {
            let _ = writeln!(yaml, "        {key}: {span}");
        }
    }
    let _ = writeln!(yaml, "        labels:");
    let mut label = |name: &str, value: &str| {
        let _ = writeln!(yaml, "          {name}: {value}");
    };
    label("severity", rule.severity.as_str());
    label("category", rule.category.as_str());
    label("component", &rule.component);
    if let Some(ladder) = &rule.ladder {
        label("ladder", ladder);
    }
    let _ = writeln!(yaml, "        annotations:");
    let _ = writeln!(yaml, "          title: {}", Quoted(&escaped(&rule.title)));
    let _ = writeln!(yaml, "          message: {}", Quoted(&message(rule)));
}

fn expression(clause: &Clause) -> String {
    let all: Vec<&str> = clause.conditions().iter().flat_map(Condition::each).collect();
    let mut conditions: Vec<&Condition> = clause.conditions().iter().collect();
    // The first gives the labels and the value, so it must be one that has the labels.
    conditions.sort_by_key(|condition| condition.each().next().is_none() && !all.is_empty());
    let mut expression = String::new();
    for (at, condition) in conditions.iter().enumerate() {
        let has_cases = condition.each().next().is_some();
        let word = match clause {
            _ if at == 0 => "",
            Clause::Any(_) => " or ",
            Clause::All(_) if has_cases || all.is_empty() => " and ",
            Clause::All(_) => " and on () ",
        };
        let one = comparison(condition);
        let _ = match conditions.len() {
            1 => write!(expression, "{one}"),
            _ => write!(expression, "{word}({one})"),
        };
    }
    expression
}

fn comparison(condition: &Condition) -> String {
    let promql = condition.scoped(|scope| condition.sli().promql_of(scope, condition.window()));
    let threshold = condition.threshold().value();
    let text = format!("{} {} {threshold}", promql.value, condition.op().as_str());
    match promql.guard {
        Some(guard) => format!("{text} and {guard}"),
        None => text,
    }
}

fn message(rule: &Rule) -> String {
    let shown = rule.clause.conditions().first();
    let value = match shown.map(|condition| condition.threshold().unit()) {
        Some(Unit::Ratio) => "{{ $value | humanizePercentage }}",
        Some(Unit::Seconds) => "{{ $value | humanizeDuration }}",
        Some(Unit::Bytes) => "{{ $value | humanize1024 }}B",
        Some(Unit::BytesPerSecond) => "{{ $value | humanize1024 }}B/s",
        Some(Unit::PerSecond) => "{{ $value | humanize }}/s",
        Some(Unit::Count | Unit::Flag) | None => "{{ $value | humanize }}",
    };
    let piece = |piece: &Piece| match piece {
        Piece::Text(text) => escaped(text),
        Piece::Value => value.to_owned(),
        Piece::Threshold => {
            shown.map(|condition| condition.threshold().to_string()).unwrap_or_default()
        }
        Piece::Label(name) => {
            let fixed = rule.clause.conditions().iter().find_map(|one| one.fixed(name));
            fixed.map_or_else(|| format!("{{{{ $labels.{name} }}}}"), escaped)
        }
    };
    rule.message.pieces().iter().map(piece).collect()
}

/// A text of ours in a template of Prometheus.
fn escaped(text: &str) -> String {
    text.replace("{{", "{{ \"{{\" }}")
}
