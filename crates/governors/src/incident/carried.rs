//! What was said of alerts and incidents in a lane, said again in the chain itself.
//!
//! Owns: what of it still holds when it comes to the chain, and that nobody is told again what was
//! told from the lane. Refuses to know: how a lane is kept, and when it is carried over.
//!
//! A receipt of the lane keeps its words, its instants and its clocks; `said_us` says when it was
//! said and `intent` where. Only the state before it is the chain's own: others may have moved it
//! on meanwhile.
//!
//! An alert belongs to the incident that people were told of in the lane. One that the chain had
//! opened for it, by a write whose answer was lost or by another instance, is left without it, and
//! recovers as with any last alert. An end that was told stands, though an alert of another
//! instance fires: whoever measures that finds it without an incident, and everybody hears of a new
//! one.

use ledger::draft::Text;
use ledger::scan::MetaView;
use ledger::{Draft, Kind, Meta, View};
use types::{Micros, limits};

use super::alert::recover;
use super::state::IncidentsState;
use super::{ABSENT, incident_number, is_of_a_lane, seal};
use crate::command::{AlertPhase, Carried, Command, IncidentStatus};
use crate::decision::{Context, Decision};
use crate::draft::rule;
use crate::oncall::Policy;

/// The command that says again what a receipt of a lane says; `None` for one that changed nothing.
/// `is_told` is whether a channel has taken the receipt, or never will: the others are told.
#[must_use]
pub fn carried(receipt: &View<'_>, is_told: &dyn Fn(&str) -> bool) -> Option<Command> {
    if receipt.kind != Kind::Transition {
        return None;
    }
    let owned = |raw: ledger::scan::Raw<'_>| Text::from(raw.text().into_owned());
    let mut draft = Draft::new(Kind::Transition, owned(receipt.action));
    draft.rule = receipt.rule.map(owned);
    draft.actor = receipt.actor.map(owned);
    draft.subject = receipt.subject.map(owned);
    draft.detail = receipt.detail.map(owned);
    draft.expires_at = receipt.expires_at.map(Micros::from_secs);
    draft.intent = Some(receipt.id);
    // What left the state as it was leaves it as it will be found.
    let (from, to) = (receipt.state_from.map(owned), receipt.state_to.map(owned));
    draft.state_to = to.filter(|to| from.as_ref() != Some(to));
    for (key, value) in receipt.metadata() {
        let value = match value {
            MetaView::Int(value) => Meta::Int(value),
            MetaView::Bool(value) => Meta::Bool(value),
            MetaView::Text(raw) => Meta::Text(owned(raw)),
        };
        match value {
            Meta::Text(channels) if key == "tell" => {
                let (told, left): (Vec<&str>, Vec<&str>) =
                    channels.split(',').partition(|channel| is_told(channel));
                for (key, channels) in [("told", told), ("tell", left)] {
                    if !channels.is_empty() {
                        draft = draft.with(key, Meta::Text(channels.join(",").into()));
                    }
                }
            }
            value => draft = draft.with(key.to_owned(), value),
        }
    }
    Some(Command::Carried(Box::new(Carried { draft, at: receipt.at })))
}

/// Decides what was said, on the chain as it stands.
pub(super) fn decide(
    policy: &Policy,
    state: &IncidentsState,
    carried: &Carried,
    cx: &Context<'_>,
) -> Decision {
    let mut draft = carried.draft.clone();
    let rule = draft.rule.clone().unwrap_or_default();
    let subject = draft.subject.clone().unwrap_or_default();
    let from = match &*rule {
        rule::ALERT_CHANGE => alert(state, &subject, &draft),
        rule::SILENCE_SET | rule::SILENCE_CLEAR | rule::SILENCE_LEASE_END => {
            silence(state, &rule, &subject, cx.now)
        }
        rule::INCIDENT_CORRECT => incident_number(&subject)
            .filter(|number| state.was_there(*number))
            .map(|_| IncidentStatus::Resolved.as_str()),
        _ => {
            incident_number(&subject).and_then(|number| incident(state, &rule, number, &mut draft))
        }
    };
    let Some(from) = from else { return Decision::Nothing };
    draft.state_from = Some(from.into());
    draft.state_to.get_or_insert(from.into());
    let left = leave(policy, state, &draft, &subject, cx);
    let draft = draft.with("said_us", Meta::Int(carried.at.0));
    seal([draft].into_iter().chain(left).collect(), 0)
}

/// The receipt to be of an incident whose last alert belongs to that of the lane from now on.
fn leave(
    policy: &Policy,
    state: &IncidentsState,
    draft: &Draft,
    to: &str,
    cx: &Context<'_>,
) -> Option<Draft> {
    let key = draft.metadata.iter().find_map(|(key, value)| match value {
        Meta::Text(alert) if key == "alert" => Some(alert),
        _ => None,
    })?;
    let alert = state.alert(key).filter(|held| held.incident != incident_number(to))?;
    let why = format!("{to} has its alert, and was told while the store was away");
    recover(policy, state, alert, Some(why), cx)
}

/// The phase before, unless the alert stands there already.
fn alert(state: &IncidentsState, key: &str, draft: &Draft) -> Option<&'static str> {
    let to = draft.state_to.as_deref().and_then(AlertPhase::parse)?;
    let held = state.alert(key);
    let from = held.map_or(AlertPhase::Inactive, |held| held.phase);
    let has_room = held.is_some() || state.alerts().len() < limits::ALERTS;
    (from != to && has_room).then_some(from.as_str())
}

fn silence(state: &IncidentsState, rule: &str, matcher: &str, now: Micros) -> Option<&'static str> {
    let held = state.find_silence(matcher).ok().map(|at| &state.silences()[at]);
    match (rule, held) {
        (rule::SILENCE_SET, Some(_)) => Some("live"),
        (rule::SILENCE_SET, None) => (state.silences().len() < limits::SILENCES).then_some(ABSENT),
        // Set again by somebody else meanwhile.
        (rule::SILENCE_LEASE_END, Some(held)) if !held.is_over(now) => None,
        (_, held) => held.map(|_| "live"),
    }
}

/// The status before, unless it is over or nobody's any more.
fn incident(
    state: &IncidentsState,
    rule: &str,
    number: u64,
    draft: &mut Draft,
) -> Option<&'static str> {
    // Where the alert could not be kept, the incident is told without it.
    let is_held = |value: &Meta| matches!(value, Meta::Text(key) if state.alert(key).is_some());
    draft.metadata.retain(|(key, value)| key != "alert" || is_held(value));
    let held = state.incident(number);
    if rule == rule::INCIDENT_OPEN {
        let is_new = is_of_a_lane(number) && held.is_none() && !state.was_there(number);
        return is_new.then_some(ABSENT);
    }
    let held = held?;
    if rule == rule::INCIDENT_RECOVERED && state.alerts_of(number).next().is_some() {
        // Of another instance: it goes on.
        return None;
    }
    Some(held.status.as_str())
}
