//! What time alone does to a tenant.
//!
//! Owns: which due things are done, in which order and how many at once. Refuses to know: what
//! each of them means, and when anybody looks at the clock.

use ledger::Draft;

use crate::decision::{Context, Decision, Sealing};
use crate::draft::{REGISTERED, Secs, TIME, rule, transition};
use crate::entitlement::Entitlement;
use crate::state::TenantState;

/// Receipts of one tick. What is left over is due at once again.
pub(crate) const DRAFTS_MAX: usize = 64;

/// Does what is due, the oldest first.
pub(crate) fn decide(state: &TenantState, cx: &Context<'_>) -> Decision {
    let reached = |due: &Secs| due.reached(cx.now);
    let throttle_ends = state.throttle.as_ref().map(|throttle| throttle.until);
    let mut throttle_ends = throttle_ends.filter(reached);
    let mut held: Vec<Entitlement> = state
        .entitlements
        .iter()
        .filter(|held| held.next_due().as_ref().is_some_and(reached))
        .cloned()
        .collect();
    let mut drafts = Vec::new();
    while drafts.len() < DRAFTS_MAX {
        let oldest = held
            .iter_mut()
            .filter_map(|held| Some((held.next_due()?, held)))
            .min_by_key(|(due, _)| *due);
        let draft = match (throttle_ends, oldest) {
            (Some(end), oldest) if oldest.as_ref().is_none_or(|(due, _)| end <= *due) => {
                throttle_ends = None;
                Some(throttle_end(end))
            }
            (_, Some((_, held))) => held.take_due(cx.now),
            (_, None) => None,
        };
        let Some(draft) = draft else { break };
        drafts.push(draft);
    }
    if drafts.is_empty() {
        return Decision::Nothing;
    }
    Decision::Seal(Sealing { drafts, primary: 0, effect: None })
}

fn throttle_end(end: Secs) -> Draft {
    let mut draft =
        transition("throttle_end", rule::THROTTLE_END, TIME).states("throttled", REGISTERED);
    draft.expires_at = Some(end.instant());
    draft
}
