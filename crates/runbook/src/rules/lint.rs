//! What is wrong between rules.
//!
//! Owns: ids, inhibition, and the promise that a severity makes. Refuses to know: the text.

use std::fmt;

use super::file::{Fault, Placed, RuleError};
use types::Severity;

use super::{Rule, inhibits};
use crate::sli::nearest;
use crate::unit::Span;

/// A rule that sees trouble only after somebody should have acknowledged it. A ladder is as fast
/// as its fastest rung of that severity.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Late {
    /// Counted from 1.
    pub line: usize,
    /// The rule.
    pub rule: String,
    /// Its severity.
    pub severity: Severity,
    /// Its longest window and its `for` together.
    pub detects_in: Span,
    /// Within which its severity is to be acknowledged.
    pub promise: Span,
}

impl fmt::Display for Late {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Late { line, rule, severity, detects_in, promise } = self;
        write!(
            f,
            "{line}: rule {rule}: sees trouble after {detects_in}, and {severity} is to be \
             acknowledged within {promise}"
        )
    }
}

/// Checks all rules against each other; gives those that are late.
pub(super) fn check(placed: &[Placed]) -> Result<Vec<Late>, Vec<RuleError>> {
    let mut errors = Vec::new();
    for (at, one) in placed.iter().enumerate() {
        let id = one.rule.id.as_str();
        if let Some(first) = placed[..at].iter().find(|other| other.rule.id == id) {
            errors.push(one.at.error(Some(id), Fault::DuplicateId { first: first.at.line }));
        }
        for (inhibited, place) in one.rule.inhibits.iter().zip(&one.inhibits_at) {
            if !placed.iter().any(|other| other.rule.id == *inhibited) {
                let known = placed.iter().map(|other| other.rule.id.as_str());
                let nearest = nearest(inhibited, known).map(str::to_owned);
                errors.push(place.error(Some(id), Fault::UnknownInhibits { nearest }));
            }
        }
    }
    errors.extend(cycles(placed));
    if !errors.is_empty() {
        errors.sort_by_key(|error| (error.line, error.column));
        return Err(errors);
    }
    Ok(placed.iter().filter_map(|one| late(one, placed)).collect())
}

/// Rules that inhibit themselves by way of others, each told once for each rule that is on it.
fn cycles(placed: &[Placed]) -> Vec<RuleError> {
    let rules = || placed.iter().map(|placed| &placed.rule).enumerate();
    let below = |upper: usize| {
        let all =
            rules().filter(move |(at, lower)| inhibits((upper, &placed[upper].rule), (*at, lower)));
        all.map(|(at, _)| at)
    };
    let mut errors = Vec::new();
    for (start, one) in placed.iter().enumerate() {
        // From each rule below, the one from which it was reached.
        let mut from: Vec<Option<usize>> = vec![None; placed.len()];
        let mut open = vec![start];
        while let Some(upper) = open.pop() {
            for lower in below(upper).filter(|lower| from[*lower].is_none()).collect::<Vec<_>>() {
                from[lower] = Some(upper);
                open.push(lower);
            }
        }
        if from[start].is_some() {
            let back = |at: &usize| from[*at].filter(|at| *at != start);
            let way = std::iter::successors(back(&start), back);
            let mut path: Vec<String> = way.map(|at| placed[at].rule.id.clone()).collect();
            path.reverse();
            let fault = Fault::Cycle { path };
            errors.push(one.at.error(Some(&one.rule.id), fault));
        }
    }
    errors
}

fn detects_in(rule: &Rule) -> Span {
    Span::from_secs(rule.clause.window().secs() + rule.for_.secs())
}

fn late(one: &Placed, placed: &[Placed]) -> Option<Late> {
    let rule = &one.rule;
    let promise = promise(rule.severity)?;
    let is_rung = |other: &&Placed| {
        rule.ladder.is_some()
            && other.rule.ladder == rule.ladder
            && other.rule.severity <= rule.severity
    };
    let others = placed.iter().filter(is_rung).map(|other| detects_in(&other.rule));
    let fastest = others.chain([detects_in(rule)]).min()?;
    (fastest > promise).then(|| Late {
        line: one.at.line,
        rule: rule.id.clone(),
        severity: rule.severity,
        detects_in: fastest,
        promise,
    })
}

/// Within which somebody has promised to acknowledge it.
fn promise(severity: Severity) -> Option<Span> {
    match severity {
        Severity::Sev1 => Some(Span::from_secs(300)),
        Severity::Sev2 => Some(Span::from_secs(900)),
        Severity::Sev3 => Some(Span::from_secs(3_600)),
        Severity::Sev4 => None,
    }
}
