//! The account governor: what a tenant pays, and how often it may ask.
//!
//! Owns: quotes, refused charges and the throttle's effect on both. Refuses to know: payment
//! providers.

use ledger::Meta;
use types::{Micros, Reason};

use crate::decision::{Context, Decision, Rejection, Sealing};
use crate::draft::{REGISTERED, refusal, registration, rule, transition};
use crate::plan::Plan;
use crate::rules::Rules;
use crate::state::TenantState;
use crate::unknown_tenant;

/// Decides a customer call.
pub(crate) fn decide(
    rules: &Rules,
    state: &TenantState,
    charge: bool,
    cx: &Context<'_>,
) -> Decision {
    let Some(mut drafts) = registration(state, cx) else {
        return unknown_tenant();
    };
    if let Some(wait_us) = throttled_for_us(state, cx.now) {
        return Decision::Reject(Rejection {
            reason: Reason::RateLimitExceeded,
            detail: "calls of this tenant are throttled".to_owned(),
            retry_after_s: Some(wait_us.div_ceil(1_000_000) as i64),
        });
    }
    let plan = plan(rules, state, cx.now);
    let answer = if charge {
        let detail = "no payment provider is configured".to_owned();
        let reason = Reason::PaymentNotConfigured;
        let mut draft = refusal("charge", rule::CHARGE, cx.actor, reason, detail);
        draft.state_from = Some(REGISTERED.into());
        draft
    } else {
        let mut draft = transition("quote", rule::QUOTE, cx.actor).states(REGISTERED, REGISTERED);
        draft.amount = Some(plan.price_minor_per_month);
        draft.currency = Some(rules.catalogue.currency.clone().into());
        draft.status = Some("quoted".into());
        draft
            .with("plan", Meta::Text(plan.name.clone().into()))
            .with("catalogue", Meta::Text(rules.catalogue.version.clone().into()))
    };
    let primary = drafts.len();
    drafts.push(answer);
    Decision::Seal(Sealing { drafts, primary, effect: None })
}

/// The highest-priced plan among the entitlements that are active at `now`, else the default.
pub(crate) fn plan<'r>(rules: &'r Rules, state: &TenantState, now: Micros) -> &'r Plan {
    let held = state.entitlements.iter().map(|held| held.at(now));
    held.filter(|held| held.is_entitled())
        .filter_map(|held| rules.catalogue.plan(held.plan()?))
        .max_by_key(|plan| plan.price_minor_per_month)
        .unwrap_or_else(|| rules.catalogue.default_plan())
}

/// Microseconds until the next call is permitted; `None` when it is now. Refused charges count
/// as calls: they cost a receipt too.
fn throttled_for_us(state: &TenantState, now: Micros) -> Option<u64> {
    let throttle = state.throttle.as_ref().filter(|throttle| !throttle.until.reached(now))?;
    let free_at = state.last_call_at_us?.saturating_add(throttle.min_interval_ms * 1000);
    u64::try_from(free_at - now.0).ok().filter(|wait_us| *wait_us > 0)
}
