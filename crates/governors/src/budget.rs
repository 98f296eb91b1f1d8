//! The budget governor: which calls to models a tenant may make, and what they cost it.
//!
//! Owns: the gates before a call, what is reserved for it and charged for it, and INV-9: what is
//! settled, unknown and reserved never passes the spend limit in force, but by what calls used
//! beyond their own bounds, and calls never pass the call limit. Refuses to know: providers, and
//! how tokens are counted.
//!
//! A call reserves the most that it may cost before it is made, because calls at the same time
//! would pass any limit that is looked at afterwards. Where the longest answer is not affordable it
//! gets a shorter one, down to the floor that it names, so that a limit is used to its end and not
//! merely defended.

use ledger::{Draft, Kind, Meta};
use types::limits::{CALL_TARGETS, CALL_TOKENS, INTEGER_MAX, RESERVATIONS_PER_TENANT};
use types::{EntitlementId, Micros, Reason, ReceiptId};

use crate::ai::{
    AiState, CALLS_LIMIT, COST, OF_PLAN, OUTPUT_MAX, OUTPUT_PRICE, OWN, Own, PRICE, RESERVED,
    Reservation, SPEND_LIMIT, TOKENS, is_name,
};
use crate::command::{
    BudgetChange, Charge, EntitlementAction, EntitlementChange, Outcome, OutcomeStatus, Reserve,
};
use crate::decision::{Context, Decision, Rejection, Sealing};
use crate::draft::{TIME, refusal, rule, ruled, transition};
use crate::limits::{Limits, in_force};
use crate::plan::Plan;
use crate::prices::{MILLION, micros};
use crate::rules::Rules;
use crate::state::TenantState;
use crate::tally::Settled;
use crate::{account, entitlement, invalid_field, unknown_tenant};

/// What the rules of this governor begin with.
pub(crate) const RULES: &str = "budget.";

/// The field `action` of receipts about limits; those about calls bear the call's own.
const ACTION: &str = "budget";

type Refused = (Reason, &'static str);

/// Decides whether a call may be made: registered, entitled, held by the plan, within the quota,
/// within the budget; the first that fails answers.
pub(crate) fn reserve(
    rules: &Rules,
    state: &TenantState,
    asked: &Reserve,
    cx: &Context<'_>,
) -> Decision {
    if let Some(fault) = fault(asked) {
        return invalid_field(fault);
    }
    let Some((mut drafts, plan)) = admitted(rules, state, cx) else {
        return unknown_tenant();
    };
    let ai = state.ai.as_deref();
    let judged = permitted(plan, &asked.model).and_then(|plan| {
        if ai.is_some_and(|ai| ai.open().len() >= RESERVATIONS_PER_TENANT) {
            return Ok(None);
        }
        let limits = in_force(rules, plan, ai);
        grant(rules, ai, &limits, asked, cx.now).map(|grant| Some((limits, grant)))
    });
    let answer = match judged {
        Ok(Some((limits, grant))) => attempt(rules, &limits, &grant, asked, cx),
        Ok(None) => {
            return Decision::Reject(Rejection {
                reason: Reason::RateLimitExceeded,
                detail: "as many calls of the tenant are open as may be at the same time"
                    .to_owned(),
                retry_after_s: Some(1),
            });
        }
        Err((reason, detail)) => {
            let action = asked.operation.action();
            refusal(action, rule::BUDGET_RESERVE, cx.actor, reason, detail.to_owned())
        }
    };
    let primary = drafts.len();
    drafts.push(about(answer, &asked.model));
    Decision::Seal(Sealing { drafts, primary, effect: None })
}

/// What keeps a request from being decided at all.
fn fault(asked: &Reserve) -> Option<&'static str> {
    if !is_name(&asked.model) {
        return Some("model must be a name of 1 to 128 characters");
    }
    if !(1..=CALL_TARGETS).contains(&asked.prices.len()) {
        return Some("a call has 1 to 16 targets");
    }
    let most = asked.input_max.max(asked.output_wish);
    (most > CALL_TOKENS || asked.output_floor > asked.output_wish)
        .then_some("tokens are more than a call may have, or fewer than its floor")
}

/// What must stand before the answer, and the plan in force; no plan where nothing is entitled.
/// An unknown tenant holds the default plan from now on, by the same receipts as after a grant.
fn admitted<'r>(
    rules: &'r Rules,
    state: &TenantState,
    cx: &Context<'_>,
) -> Option<(Vec<Draft>, Option<&'r Plan>)> {
    if state.registered {
        let plan = state.any_active(cx.now).then(|| account::plan(rules, state, cx.now));
        return Some((Vec::new(), plan));
    }
    if !cx.may_register {
        return None;
    }
    let plan = rules.catalogue.default_plan();
    let grant = EntitlementChange {
        // The catalogue has seen to it that this is one.
        entitlement_id: EntitlementId::new(&plan.name).ok()?,
        action: EntitlementAction::Grant,
        effective_at: None,
        expires_at: None,
        plan: None,
        metadata: Vec::new(),
    };
    match entitlement::decide(rules, state, &grant, cx) {
        Decision::Seal(sealing) => Some((sealing.drafts, Some(plan))),
        Decision::Reject(_) | Decision::Nothing => None,
    }
}

/// Whether a tenant that is registered is entitled at `now`, and its plan holds the model: the
/// gates of a call that costs nothing.
pub(crate) fn is_held(rules: &Rules, state: &TenantState, model: &str, now: Micros) -> bool {
    let plan =
        (state.registered && state.any_active(now)).then(|| account::plan(rules, state, now));
    permitted(plan, model).is_ok()
}

fn permitted<'r>(plan: Option<&'r Plan>, model: &str) -> Result<&'r Plan, Refused> {
    let plan =
        plan.ok_or((Reason::EntitlementInactive, "the tenant holds no active entitlement"))?;
    if plan.holds_model(model) {
        Ok(plan)
    } else {
        Err((Reason::ModelNotFound, "the plan of the tenant does not hold the model"))
    }
}

/// What a call may use.
struct Grant {
    micros: i64,
    output: u64,
    worst: Worst,
}

/// The dearest that a call may come to, in micros per million tokens.
struct Worst {
    input: u64,
    output: u64,
}

impl Worst {
    /// Over all targets, and whether each of them has a price. Both sides are taken apart: tries on
    /// several targets may have been paid for.
    fn of(rules: &Rules, asked: &Reserve) -> (Worst, bool) {
        let known = asked.prices.iter().filter_map(|name| rules.price(name));
        let worst = known.clone().fold(Worst { input: 0, output: 0 }, |worst, price| Worst {
            input: worst.input.max(price.input_max()),
            output: worst.output.max(price.output_max()),
        });
        (worst, known.count() == asked.prices.len())
    }
}

fn grant(
    rules: &Rules,
    ai: Option<&AiState>,
    limits: &Limits,
    asked: &Reserve,
    now: Micros,
) -> Result<Grant, Refused> {
    let (settled, open, reserved) = match ai {
        Some(ai) => (ai.tally(limits.period, now), ai.open().len(), ai.reserved_micros()),
        None => Default::default(),
    };
    let calls = settled.all_calls() + open as u64 + 1;
    if limits.calls.is_some_and(|most| calls > most) {
        return Err((Reason::QuotaExceeded, "all calls of the period are made or under way"));
    }
    let (worst, all_known) = Worst::of(rules, asked);
    let used = settled.all_micros().saturating_add(reserved);
    let output = match limits.spend_micros {
        None => asked.output_wish,
        Some(_) if !all_known => {
            return Err((Reason::PriceUnknown, "a spend limit applies and a target has no price"));
        }
        Some(most) => affordable(most.saturating_sub(used), asked.input_max, &worst)
            .map(|output| output.min(asked.output_wish))
            .filter(|output| *output >= asked.output_floor)
            .ok_or((
                Reason::BudgetExceeded,
                "what is left of the period's spend limit does not cover the call",
            ))?,
    };
    let micros = micros(price_of(asked.input_max, worst.input) + price_of(output, worst.output));
    debug_assert!(
        micros == 0 || limits.spend_micros.is_none_or(|most| used.saturating_add(micros) <= most),
        "INV-9"
    );
    Ok(Grant { micros, output, worst })
}

fn price_of(tokens: u64, price: u64) -> u128 {
    u128::from(tokens) * u128::from(price)
}

/// Tokens of an answer that `left` micros pay for behind a prompt; `None` when they do not even pay
/// for that. What costs nothing is affordable whatever is left.
fn affordable(left: i64, input: u64, worst: &Worst) -> Option<u64> {
    let left = u128::from(u64::try_from(left).unwrap_or(0)) * MILLION;
    let left = left.checked_sub(price_of(input, worst.input))?;
    match u128::from(worst.output) {
        0 => Some(u64::MAX),
        price => Some(u64::try_from(left / price).unwrap_or(u64::MAX)),
    }
}

fn attempt(
    rules: &Rules,
    limits: &Limits,
    grant: &Grant,
    asked: &Reserve,
    cx: &Context<'_>,
) -> Draft {
    let action = asked.operation.action();
    let draft = ruled(Kind::ActionAttempt, action, rule::BUDGET_RESERVE, cx.actor)
        .with(RESERVED, Meta::Int(grant.micros))
        .with("input_max", integer(asked.input_max))
        .with("input_price", integer(grant.worst.input))
        .with(OUTPUT_MAX, integer(grant.output))
        .with(OUTPUT_PRICE, integer(grant.worst.output))
        .with("catalogue", Meta::Text(rules.catalogue.version.clone().into()));
    limited(draft, limits)
}

/// Repeats the limits that a grant was held against, so that the fold can do the same.
fn limited(mut draft: Draft, limits: &Limits) -> Draft {
    draft.metadata.extend(limits.calls.map(|most| (CALLS_LIMIT.into(), integer(most))));
    draft.metadata.extend(limits.spend_micros.map(|most| (SPEND_LIMIT.into(), Meta::Int(most))));
    draft
}

fn integer(value: u64) -> Meta {
    Meta::Int(i64::try_from(value).unwrap_or(INTEGER_MAX).min(INTEGER_MAX))
}

fn about(mut draft: Draft, model: &str) -> Draft {
    draft.subject = Some(model.to_owned().into());
    draft
}

/// Decides how much longer the answer of an open call may become.
pub(crate) fn top_up(
    rules: &Rules,
    state: &TenantState,
    attempt: ReceiptId,
    output: u64,
    cx: &Context<'_>,
) -> Decision {
    if !(1..=CALL_TOKENS).contains(&output) {
        return invalid_field("further tokens are none, or more than a call may have");
    }
    let Some((ai, held)) = open(state, attempt) else { return Decision::Nothing };
    let limits = in_force(rules, account::plan(rules, state, cx.now), Some(ai));
    let used = ai.tally(limits.period, cx.now).all_micros().saturating_add(ai.reserved_micros());
    let worst = Worst { input: 0, output: held.output_price };
    let affordable = match limits.spend_micros {
        None => Some(output),
        Some(most) => affordable(most.saturating_sub(used), 0, &worst),
    };
    let granted = output.min(affordable.unwrap_or(0)).min(CALL_TOKENS - held.output);
    let action = held.operation.action();
    let mut draft = if granted == 0 {
        let detail = "what is left of the period's spend limit pays for no further token";
        refusal(action, rule::BUDGET_TOP_UP, cx.actor, Reason::BudgetExceeded, detail.to_owned())
    } else {
        let added = micros(price_of(granted, held.output_price));
        debug_assert!(
            added == 0 || limits.spend_micros.is_none_or(|most| used.saturating_add(added) <= most),
            "INV-9"
        );
        let reserved = held.micros.saturating_add(added).min(INTEGER_MAX);
        let draft = transition(action, rule::BUDGET_TOP_UP, cx.actor)
            .with("added_micros", Meta::Int(added))
            .with("added_output", integer(granted))
            .with(RESERVED, Meta::Int(reserved))
            .with(OUTPUT_MAX, integer(held.output + granted));
        limited(draft, &Limits { calls: None, ..limits })
    };
    draft.intent = Some(attempt);
    seal(vec![about(draft, &held.model)])
}

fn open(state: &TenantState, attempt: ReceiptId) -> Option<(&AiState, &Reservation)> {
    let ai = state.ai.as_deref()?;
    Some((ai, ai.reservation(attempt)?))
}

/// Records what a call used, and what that costs.
pub(crate) fn charge(
    rules: &Rules,
    state: &TenantState,
    attempt: ReceiptId,
    charge: &Charge,
    cx: &Context<'_>,
) -> Decision {
    let Some((ai, held)) = open(state, attempt) else { return Decision::Nothing };
    let price = rules.price(&charge.price);
    let cost = price.map_or(0, |price| price.cost(&charge.usage));
    let mut draft =
        ruled(Kind::ActionResult, held.operation.action(), rule::BUDGET_CHARGE, cx.actor)
            .with(COST, Meta::Int(cost))
            .with("catalogue", Meta::Text(rules.catalogue.version.clone().into()));
    let used = TOKENS.into_iter().zip(charge.usage.counts()).filter(|(_, tokens)| *tokens > 0);
    draft.metadata.extend(used.map(|(name, tokens)| (name.into(), integer(tokens))));
    // Words of a provider are not ours to vouch for, and no reason not to record what it is owed.
    for (name, word) in [("provider", &charge.provider), ("model", &charge.model)] {
        if is_name(word) {
            draft = draft.with(name, Meta::Text(word.clone().into()));
        }
    }
    draft = match price {
        Some(_) => draft.with(PRICE, Meta::Text(charge.price.clone().into())),
        None => draft.with("unpriced", Meta::Bool(true)),
    };
    if charge.is_estimated {
        draft = draft.with("estimated", Meta::Bool(true));
    }
    if cost > held.micros {
        draft = draft.with("over_micros", Meta::Int(cost - held.micros));
    }
    let outcome =
        Outcome { status: charge.status, duration_ms: charge.duration_ms, tries: charge.tries };
    let draft = ended(draft, held, attempt, outcome);
    settled(rules, state, ai, (draft, Settled::Known { micros: cost }, held.micros), cx)
}

/// Records that a call ended of which nobody knows what it used.
pub(crate) fn settle(
    rules: &Rules,
    state: &TenantState,
    attempt: ReceiptId,
    outcome: Outcome,
    cx: &Context<'_>,
) -> Decision {
    let Some((ai, held)) = open(state, attempt) else { return Decision::Nothing };
    let became = match outcome.status {
        OutcomeStatus::Error => Settled::Released,
        // The provider may have done all that was asked of it, and will want to be paid.
        OutcomeStatus::Success | OutcomeStatus::Timeout | OutcomeStatus::Unknown => {
            Settled::Unknown { micros: held.micros }
        }
    };
    let draft = ruled(Kind::ActionResult, held.operation.action(), rule::BUDGET_SETTLE, cx.actor)
        .with(COST, Meta::Int(became.micros()));
    settled(rules, state, ai, (ended(draft, held, attempt, outcome), became, held.micros), cx)
}

/// What every result of a call says.
fn ended(draft: Draft, held: &Reservation, attempt: ReceiptId, outcome: Outcome) -> Draft {
    let mut draft = about(draft, &held.model)
        .with("duration_ms", Meta::Int(outcome.duration_ms.clamp(0, INTEGER_MAX)))
        .with("tries", Meta::Int(outcome.tries.into()));
    draft.intent = Some(attempt);
    draft.status = Some(outcome.status.as_str().into());
    draft
}

/// A result, and behind it the crossing of a threshold, if it led to one.
fn settled(
    rules: &Rules,
    state: &TenantState,
    ai: &AiState,
    (result, became, reserved): (Draft, Settled, i64),
    cx: &Context<'_>,
) -> Decision {
    let limits = in_force(rules, account::plan(rules, state, cx.now), Some(ai));
    let tally = ai.tally(limits.period, cx.now).and(became, reserved);
    let (from, to) = (ai.level(cx.now), limits.level(&tally));
    let mut drafts = vec![result];
    if from != to {
        let draft = transition(ACTION, rule::BUDGET_LEVEL, TIME)
            .states(from.as_str(), to.as_str())
            .with("calls", integer(tally.all_calls()))
            .with("spent_micros", Meta::Int(tally.all_micros().min(INTEGER_MAX)))
            .with("period", Meta::Text(limits.period.as_str().into()));
        drafts.push(limited(draft, &limits));
    }
    seal(drafts)
}

/// Decides a change to the tenant's own limits.
pub(crate) fn change(state: &TenantState, change: BudgetChange, cx: &Context<'_>) -> Decision {
    let from = state.ai.as_deref().map_or(OF_PLAN, AiState::own_word);
    match change {
        BudgetChange::Set { calls, spend_micros, period } => {
            if !(Own { calls, spend_micros, period }).is_permitted() {
                return invalid_field("a limit must be an integer from 0 to 9007199254740991");
            }
            if !state.registered {
                return unknown_tenant();
            }
            let mut draft = transition(ACTION, rule::BUDGET_SET, cx.actor)
                .states(from, OWN)
                .with("period", Meta::Text(period.as_str().into()));
            draft.metadata.extend(calls.map(|most| ("calls".into(), integer(most))));
            draft
                .metadata
                .extend(spend_micros.map(|most| ("spend_micros".into(), Meta::Int(most))));
            seal(vec![draft])
        }
        BudgetChange::Clear if !state.registered => unknown_tenant(),
        BudgetChange::Clear if from == OWN => {
            seal(vec![transition(ACTION, rule::BUDGET_CLEAR, cx.actor).states(OWN, OF_PLAN)])
        }
        BudgetChange::Clear => {
            let detail = "the tenant has no limits of its own".to_owned();
            let rule = rule::BUDGET_CLEAR;
            let mut draft = refusal(ACTION, rule, cx.actor, Reason::StateError, detail);
            draft.state_from = Some(from.into());
            seal(vec![draft])
        }
    }
}

fn seal(drafts: Vec<Draft>) -> Decision {
    Decision::Seal(Sealing { drafts, primary: 0, effect: None })
}
