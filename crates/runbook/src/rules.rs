//! Alert rules as data.
//!
//! Owns: what a rule is, which rules ship, and which alert inhibits which. Refuses to know: when a
//! rule is evaluated, and who is told.

mod file;
mod lint;
mod message;
#[cfg(test)]
mod tests;
pub mod trial;

pub use file::{Fault, RuleError};
pub use lint::Late;
pub(crate) use message::{Message, Piece};

use types::Severity;

use crate::clause::{Clause, Finding};
use crate::labels::Labels;
use crate::phase::{OnNoData, Timing};
use crate::series::Needs;
use crate::sli::INTERVAL;
use crate::unit::Span;

/// What kind of trouble it is, in the words of seed 003.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Category {
    /// Answers are wrong or missing.
    #[serde(alias = "ERROR")]
    Error,
    /// Answers are late.
    #[serde(alias = "PERFORMANCE")]
    Performance,
    /// Something is about to go wrong, or may have been tampered with.
    #[serde(alias = "RISK")]
    Risk,
    /// The machine or a part of the process is in trouble.
    #[serde(alias = "SYSTEM")]
    System,
}

impl Category {
    /// The word in files, metrics and receipts.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Category::Error => "error",
            Category::Performance => "performance",
            Category::Risk => "risk",
            Category::System => "system",
        }
    }
}

/// One alert rule.
#[derive(Debug, Clone, PartialEq)]
pub struct Rule {
    /// Lower-case letters, digits and `-`.
    pub id: String,
    /// One line for a person.
    pub title: String,
    pub(crate) message: Message,
    /// How bad it is.
    pub severity: Severity,
    /// What kind of trouble it is.
    pub category: Category,
    /// When it is breached.
    pub clause: Clause,
    /// How long it must be breached before it fires.
    pub for_: Span,
    /// How long it must not be breached before it is resolved.
    pub hold: Span,
    /// The part that is concerned, such as `http` or `ledger`.
    pub component: String,
    /// Rules that say nothing new while this one fires.
    pub inhibits: Vec<String>,
    /// What missing data mean.
    pub nodata: OnNoData,
    /// Rules of one ladder are rungs: the highest that fires inhibits the rest.
    pub ladder: Option<String>,
}

impl Rule {
    /// The times by which its phases move on.
    #[must_use]
    pub fn timing(&self) -> Timing {
        Timing {
            for_: self.for_,
            hold: self.hold,
            window: self.clause.window(),
            nodata: self.nodata,
        }
    }

    /// The message about one case.
    #[must_use]
    pub fn message(&self, finding: &Finding) -> String {
        self.message.render(&self.clause, finding)
    }
}

/// An alert that fires: its rule and its labels.
pub type AlertKey<'a> = (&'a str, &'a Labels);

/// The rules in force.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Rules {
    rules: Vec<Rule>,
    late: Vec<Late>,
}

impl Rules {
    /// Reads a file of rules. All that is wrong with it is told at once, in the order of the file;
    /// a text that is not TOML or has an unknown key is refused at the first.
    pub fn parse(text: &str) -> Result<Rules, Vec<RuleError>> {
        Rules::parse_for(text, INTERVAL.micros())
    }

    /// [`Rules::parse`] where samples are taken every so many microseconds: windows must span two
    /// of them, and what has to last at least one.
    pub fn parse_for(text: &str, interval_us: i64) -> Result<Rules, Vec<RuleError>> {
        let placed = file::read(text, interval_us)?;
        let late = lint::check(&placed)?;
        Ok(Rules { rules: placed.into_iter().map(|placed| placed.rule).collect(), late })
    }

    /// The rules that ship inside the program. Fails only when the shipped file is broken, which
    /// a test rules out.
    ///
    /// Of the triggers of the seeds these have no rule, since no metric can answer them yet:
    /// payments (C3c, C4, C4b, C4c, C10's sums), tools (E2), websockets (E4), duplicates in the
    /// ledger and broken links (C10, C10b's chain), acknowledgement timeouts and dead letters of
    /// Pub/Sub (C7, A5d), the size of a backlog (C7b's slope), connections and locks of a database
    /// (E6, E7), failures of a probe from outside (C1v), requests by source (C9b), leaks of secrets
    /// (D10) and the log's HTTP sink (D11). C11 is a fold over alerts, not a rule over samples.
    pub fn shipped() -> Result<Rules, Vec<RuleError>> {
        Rules::parse(include_str!("../rules/alerts.toml"))
    }

    /// Every rule, in the order of the file.
    pub fn iter(&self) -> impl Iterator<Item = &Rule> {
        self.rules.iter()
    }

    /// The rule of that id.
    #[must_use]
    pub fn get(&self, id: &str) -> Option<&Rule> {
        self.rules.iter().find(|rule| rule.id == id)
    }

    /// Rules that cannot see trouble before it should have been acknowledged. They are in force.
    #[must_use]
    pub fn late(&self) -> &[Late] {
        &self.late
    }

    /// What a store must keep for all of them.
    #[must_use]
    pub fn needs(&self) -> Needs {
        self.rules.iter().flat_map(|rule| rule.clause.conditions()).collect()
    }

    /// For each alert that fires, the one that inhibits it: by `inhibits`, or as a higher rung of
    /// the same ladder. Alerts concern each other where no label that both have differs. An alert
    /// that is inhibited still inhibits others.
    #[must_use]
    pub fn inhibited<'a>(&self, firing: &[AlertKey<'a>]) -> Vec<Option<AlertKey<'a>>> {
        let inhibitor = |(id, labels): &AlertKey<'a>| {
            firing.iter().copied().find(|(other, other_labels)| {
                labels.agree(other_labels) && self.inhibits(other, id)
            })
        };
        firing.iter().map(inhibitor).collect()
    }

    fn inhibits(&self, upper: &str, lower: &str) -> bool {
        let place = |id: &str| self.rules.iter().position(|rule| rule.id == id);
        let (Some(upper), Some(lower)) = (place(upper), place(lower)) else { return false };
        inhibits((upper, &self.rules[upper]), (lower, &self.rules[lower]))
    }
}

/// Whether the first rule inhibits the second, each with its place in the file.
fn inhibits((upper_at, upper): (usize, &Rule), (lower_at, lower): (usize, &Rule)) -> bool {
    let is_rung_above = upper.ladder.is_some()
        && upper.ladder == lower.ladder
        && (upper.severity, upper_at) < (lower.severity, lower_at);
    is_rung_above || upper.inhibits.contains(&lower.id)
}
