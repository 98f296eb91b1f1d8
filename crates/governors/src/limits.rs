//! Which limits hold for a tenant's calls to models.
//!
//! Owns: that a tenant's own limits stand in place of its plan's, and how much of them is used up.
//! Refuses to know: who set them, and whether a call may be made.

use crate::ai::AiState;
use crate::period::Period;
use crate::plan::Plan;
use crate::rules::Rules;
use crate::tally::{Level, Tally};

/// The limits in force.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Calls in the period; absent means no limit.
    pub calls: Option<u64>,
    /// What calls may cost in the period, in micros of the catalogue's currency; absent means no
    /// limit.
    pub spend_micros: Option<i64>,
    /// How long is counted together.
    pub period: Period,
    /// Whose limits these are.
    pub source: LimitSource,
}

/// Where limits come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LimitSource {
    /// The plan of the tenant.
    Plan,
    /// An operator set them for this tenant.
    Own,
    /// The plan has none.
    None,
}

impl LimitSource {
    /// The word in answers.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            LimitSource::Plan => "plan",
            LimitSource::Own => "own",
            LimitSource::None => "none",
        }
    }
}

/// The limits of a tenant that is on `plan`.
pub(crate) fn in_force(rules: &Rules, plan: &Plan, ai: Option<&AiState>) -> Limits {
    if let Some(own) = ai.and_then(AiState::own) {
        return Limits {
            calls: own.calls,
            spend_micros: own.spend_micros,
            period: own.period,
            source: LimitSource::Own,
        };
    }
    let per_minor = rules.catalogue.micros_per_minor();
    let calls = plan.calls_per_month;
    let spend_micros = plan.spend_per_month_minor.map(|minor| minor.saturating_mul(per_minor));
    let unlimited = calls.is_none() && spend_micros.is_none();
    let source = if unlimited { LimitSource::None } else { LimitSource::Plan };
    Limits { calls, spend_micros, period: Period::Month, source }
}

impl Limits {
    /// The higher of the two levels. What is only reserved does not count: it comes and goes.
    pub(crate) fn level(&self, settled: &Tally) -> Level {
        let calls = self.calls.map(|most| Level::of(settled.all_calls(), most));
        let spend = self
            .spend_micros
            .map(|most| Level::of(settled.all_micros().unsigned_abs(), most.unsigned_abs()));
        calls.max(spend).unwrap_or_default()
    }
}
