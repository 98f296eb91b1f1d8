//! SLIs, conditions and alert rules.
//!
//! Owns: the table of SLIs and how each is computed from samples, the grammar of conditions, alert
//! rules with their lints and tests, the phases of an alert, and the same rules for Prometheus.
//! Refuses to know: where samples come from, what time it is, where phases are kept, who is told,
//! and what is done about it.

pub mod alerts;
pub mod clause;
pub mod condition;
pub mod history;
pub mod labels;
pub mod phase;
pub mod prometheus;
pub mod rules;
pub mod series;
pub mod sli;
pub mod slo;
pub mod unit;

pub use alerts::{Alerts, Change};
pub use clause::{Clause, Finding};
pub use condition::{Condition, Evidence, Op, ParseError, Reading, Verdict};
pub use history::{History, Sample};
pub use labels::Labels;
pub use phase::{OnNoData, Phase, Seen, Timing, Tracker};
pub use rules::{Category, Rule, RuleError, Rules};
pub use series::{Limits, Needs, Refused, Store};
pub use sli::{Measured, SLIS, Sli};
pub use slo::Budgets;
pub use unit::{Quantity, Span, Unit};
