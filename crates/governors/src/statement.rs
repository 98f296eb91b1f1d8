//! What a tenant is told of its calls to models: use, limits and the bill to come.
//!
//! Owns: the sums that somebody who looks is shown, at the instant that they look. Refuses to know:
//! how they are rendered, and what may be done about them.

use types::{Micros, Usage};

use crate::account;
use crate::ai::AiState;
use crate::limits::{Limits, in_force};
use crate::period::Period;
use crate::rules::Rules;
use crate::state::StreamState;
use crate::tally::Level;

/// The calls of one tenant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AiView {
    /// The plan in force.
    pub plan: String,
    /// ISO 4217 code; micros are millionths of its unit.
    pub currency: String,
    /// The limits in force.
    pub limits: Limits,
    /// The first instant of their period; none when it has no beginning.
    pub begins: Option<Micros>,
    /// The first instant behind it; none when it has no end.
    pub ends: Option<Micros>,
    /// Calls settled in the period.
    pub calls: u64,
    /// What those cost.
    pub spent_micros: i64,
    /// How much of that calls used beyond what was reserved for them.
    pub over_micros: i64,
    /// Calls of the period of which nobody knows what they used.
    pub unknown_calls: u64,
    /// What was reserved for those, and is charged.
    pub unknown_micros: i64,
    /// Calls that are open now, of whichever period.
    pub open_calls: u64,
    /// What is reserved for those.
    pub reserved_micros: i64,
    /// How much of the limits is used up.
    pub level: Level,
    /// The bill of the calendar month, whatever period the limits have.
    pub invoice: InvoiceView,
}

/// A bill as it would be now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InvoiceView {
    /// The first instant of the month.
    pub begins: Micros,
    /// The first instant behind it.
    pub ends: Micros,
    /// The plan's price, in minor units.
    pub plan_minor: i64,
    /// The same in micros.
    pub plan_micros: i64,
    /// The use of each model, in ascending order of names.
    pub models: Vec<ModelView>,
    /// The plan and all models: exactly the sum of the above.
    pub total_micros: i64,
}

/// The use of one model in the month.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ModelView {
    /// Its name in the price table; for calls without a price, and those whose use is unknown, the
    /// name that was asked for; `other` for all models behind the first
    /// [`types::limits::MODELS_PER_TENANT`].
    pub name: String,
    /// Calls, those whose use is unknown among them.
    pub calls: u64,
    /// Tokens of the calls whose use is known.
    pub usage: Usage,
    /// What all of them cost.
    pub micros: i64,
}

impl StreamState {
    /// The calls of a tenant to models, as they stand at `now`; `None` for a stream of the service
    /// and for a tenant that is not registered.
    #[must_use]
    pub fn ai(&self, now: Micros, rules: &Rules) -> Option<AiView> {
        let StreamState::Tenant(state) = self else { return None };
        if !state.registered {
            return None;
        }
        let plan = account::plan(rules, state, now);
        let nothing = AiState::default();
        let ai = state.ai.as_deref();
        let limits = in_force(rules, plan, ai);
        let ai = ai.unwrap_or(&nothing);
        let tally = ai.tally(limits.period, now);
        Some(AiView {
            plan: plan.name.clone(),
            currency: rules.catalogue.currency.clone(),
            limits,
            begins: limits.period.begins(now),
            ends: limits.period.ends(now),
            calls: tally.calls,
            spent_micros: tally.spent_micros,
            over_micros: tally.over_micros,
            unknown_calls: tally.unknown_calls,
            unknown_micros: tally.unknown_micros,
            open_calls: ai.open().len() as u64,
            reserved_micros: ai.reserved_micros(),
            level: limits.level(&tally),
            invoice: invoice(rules, plan.price_minor_per_month, ai, now),
        })
    }
}

fn invoice(rules: &Rules, plan_minor: i64, ai: &AiState, now: Micros) -> InvoiceView {
    let plan_micros = plan_minor.saturating_mul(rules.catalogue.micros_per_minor());
    let models: Vec<ModelView> = ai
        .models(now)
        .iter()
        .map(|model| ModelView {
            name: model.name.to_string(),
            calls: model.calls,
            usage: model.usage,
            micros: model.micros,
        })
        .collect();
    let total_micros =
        models.iter().fold(plan_micros, |total, model| total.saturating_add(model.micros));
    InvoiceView {
        begins: Period::Month.begins(now).unwrap_or(now),
        ends: Period::Month.ends(now).unwrap_or(now),
        plan_minor,
        plan_micros,
        models,
        total_micros,
    }
}
