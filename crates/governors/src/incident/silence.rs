//! Silences: what nobody wants to hear of for a while.
//!
//! Owns: that each is a lease. Refuses to know: which alerts there are. A silence keeps alerts from
//! becoming incidents; it hides no alert, and an incident that is open goes on.

use ledger::Draft;
use types::{Reason, limits};

use super::state::{IncidentsState, Silence};
use super::{ABSENT, SILENCE, seal};
use crate::command::SilenceChange;
use crate::decision::{Context, Decision};
use crate::draft::{Secs, TIME, is_keepable, refusal, rule, transition};
use crate::invalid_field;

/// What may stand before the `=` of a matcher.
const MATCHERS: [&str; 3] = ["rule", "component", "alert"];

/// Decides a change to the silences.
pub(super) fn decide(state: &IncidentsState, change: &SilenceChange, cx: &Context<'_>) -> Decision {
    let (SilenceChange::Set { matcher, .. } | SilenceChange::Clear { matcher }) = change;
    if !is_matcher(matcher) {
        return invalid_field("matcher is none of rule=ID, component=NAME and alert=KEY");
    }
    let held = state.find_silence(matcher).ok().map(|at| &state.silences()[at]);
    let ended = held.filter(|held| held.is_over(cx.now));
    let from = if held.is_some() && ended.is_none() { "live" } else { ABSENT };
    let refused = |rule, detail: &str| {
        let draft = refusal(SILENCE, rule, cx.actor, Reason::StateError, detail.to_owned());
        Draft { state_from: Some(from.into()), ..draft }
    };
    let answer = match change {
        SilenceChange::Set { lease_s, .. } if !(1..=limits::LEASE_S_MAX).contains(lease_s) => {
            return invalid_field("lease_s is outside its range");
        }
        SilenceChange::Set { why, .. } if !is_keepable(why, limits::INCIDENT_TEXT_CHARS) => {
            return invalid_field("why is too long, or holds a control character");
        }
        SilenceChange::Set { .. }
            if held.is_none() && state.silences().len() >= limits::SILENCES =>
        {
            refused(rule::SILENCE_SET, "there are as many silences as may be")
        }
        SilenceChange::Set { lease_s, why, .. } => {
            let draft = transition(SILENCE, rule::SILENCE_SET, cx.actor).states(from, "live");
            let until = Secs::floor(cx.now.plus_secs(*lease_s)).instant();
            Draft { expires_at: Some(until), detail: Some(why.clone().into()), ..draft }
        }
        SilenceChange::Clear { .. } if from == ABSENT => {
            refused(rule::SILENCE_CLEAR, "there is no such silence")
        }
        SilenceChange::Clear { .. } => {
            transition(SILENCE, rule::SILENCE_CLEAR, cx.actor).states("live", ABSENT)
        }
    };
    let answer = Draft { subject: Some(matcher.clone().into()), ..answer };
    let drafts: Vec<Draft> = ended.map(end).into_iter().chain([answer]).collect();
    let primary = drafts.len() - 1;
    seal(drafts, primary)
}

/// The receipt to be of the end of a silence.
pub(super) fn end(silence: &Silence) -> Draft {
    let draft = transition(SILENCE, rule::SILENCE_LEASE_END, TIME).states("live", ABSENT);
    Draft {
        subject: Some(silence.matcher.clone().into()),
        expires_at: Some(Secs(silence.until_s).instant()),
        ..draft
    }
}

fn is_matcher(matcher: &str) -> bool {
    let named =
        matcher.split_once('=').filter(|(key, value)| MATCHERS.contains(key) && !value.is_empty());
    named.is_some() && is_keepable(matcher, limits::METADATA_VALUE_CHARS)
}
