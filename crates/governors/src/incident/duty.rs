//! Overrides: who is on call in the place of whoever's turn it is.
//!
//! Owns: which override is lawful, and that each ends by itself. Refuses to know: whose turn it is.

use ledger::{Draft, Meta, View};
use serde::{Deserialize, Serialize};
use types::{Micros, Reason, limits};

use super::state::{IncidentsState, text};
use super::{ABSENT, seal, span};
use crate::command::OverrideChange;
use crate::decision::{Context, Decision};
use crate::draft::{Secs, TIME, is_keepable, refusal, rule, transition};
use crate::invalid_field;
use crate::rota::Rota;
use crate::state::FoldError;

/// The field `action` of the receipts.
const OVERRIDE: &str = "override";
const LIVE: &str = "live";

/// Somebody in the place of a rotation. Of several in force the newest counts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Override {
    /// `OVR-` and this.
    pub number: u64,
    /// The rotation.
    pub rotation: String,
    /// The person.
    pub person: String,
    /// From when, in unix seconds.
    pub from_s: i64,
    /// Until when, in unix seconds.
    pub until_s: i64,
    /// Who set it.
    pub by: String,
}

impl Override {
    /// `OVR-3`.
    #[must_use]
    pub fn name(&self) -> String {
        override_name(self.number)
    }

    /// True while it counts.
    #[must_use]
    pub fn is_in_force(&self, now: Micros) -> bool {
        Secs(self.from_s).reached(now) && !self.is_over(now)
    }

    pub(super) fn is_over(&self, now: Micros) -> bool {
        Secs(self.until_s).reached(now)
    }
}

fn override_name(number: u64) -> String {
    format!("OVR-{number}")
}

/// The number in `OVR-3`.
#[must_use]
pub fn override_number(name: &str) -> Option<u64> {
    let number = name.strip_prefix("OVR-")?.parse().ok()?;
    (override_name(number) == name).then_some(number)
}

/// Decides a change to the overrides.
pub(super) fn decide(
    rota: &Rota,
    state: &IncidentsState,
    change: &OverrideChange,
    cx: &Context<'_>,
) -> Decision {
    match change {
        OverrideChange::Add { rotation, person, from, until, why } => {
            if !rota.rotations().any(|name| name == rotation) {
                return invalid_field("rotation is none of the catalogue");
            }
            match rota.person(person) {
                None => return invalid_field("who is nobody of the catalogue"),
                Some(found) if found.channels.is_empty() => {
                    return invalid_field("who is reached by no channel that is set up");
                }
                Some(_) => {}
            }
            if !is_keepable(why, limits::INCIDENT_TEXT_CHARS) {
                return invalid_field("why is too long, or holds a control character");
            }
            let Some((from_s, until_s)) = span(*from, *until, limits::AHEAD_S_MAX, cx.now) else {
                return invalid_field("until is over, not after from, or more than a year away");
            };
            if state.overrides().len() >= limits::OVERRIDES {
                return refused(rule::OVERRIDE_ADD, "there are as many overrides as may be", cx);
            }
            let draft = transition(OVERRIDE, rule::OVERRIDE_ADD, cx.actor)
                .states(ABSENT, LIVE)
                .with("rotation", Meta::Text(rotation.clone().into()))
                .with("who", Meta::Text(person.clone().into()));
            let draft = Draft {
                subject: Some(override_name(state.overrides_count() + 1).into()),
                detail: Some(why.clone().into()),
                effective_at: Some(Micros::from_secs(from_s)),
                expires_at: Some(Micros::from_secs(until_s)),
                ..draft
            };
            seal(vec![draft], 0)
        }
        OverrideChange::End { number } => {
            let held = state.overrides().iter().find(|held| held.number == *number);
            match held.filter(|held| !held.is_over(cx.now)) {
                Some(held) => seal(vec![ended(held, rule::OVERRIDE_END, cx.actor)], 0),
                None => refused(rule::OVERRIDE_END, "there is no such override", cx),
            }
        }
    }
}

fn refused(rule: &'static str, detail: &str, cx: &Context<'_>) -> Decision {
    seal(vec![refusal(OVERRIDE, rule, cx.actor, Reason::StateError, detail.to_owned())], 0)
}

/// The receipt to be of an override whose time is over.
pub(super) fn end(held: &Override) -> Draft {
    ended(held, rule::OVERRIDE_OVER, TIME)
}

fn ended(held: &Override, rule: &'static str, actor: &str) -> Draft {
    let draft = transition(OVERRIDE, rule, actor)
        .states(LIVE, ABSENT)
        .with("rotation", Meta::Text(held.rotation.clone().into()))
        .with("who", Meta::Text(held.person.clone().into()));
    let expires_at = Some(Micros::from_secs(held.until_s));
    Draft { subject: Some(held.name().into()), expires_at, ..draft }
}

/// Folds one receipt about overrides.
pub(super) fn apply(
    count: &mut u64,
    held: &mut Vec<Override>,
    rule: &str,
    name: &str,
    receipt: &View<'_>,
) -> Result<(), FoldError> {
    let number = override_number(name).ok_or(FoldError::Field { field: "subject" })?;
    let found = held.binary_search_by_key(&number, |held| held.number);
    match (rule, found) {
        (rule::OVERRIDE_ADD, Err(at)) if number == *count + 1 => {
            let from_s = receipt.effective_at.ok_or(FoldError::Field { field: "effective_at" })?;
            let until_s = receipt.expires_at.ok_or(FoldError::Field { field: "expires_at" })?;
            let by = receipt.actor.map(|actor| actor.text().into_owned()).unwrap_or_default();
            let (rotation, person) = (text(receipt, "rotation")?, text(receipt, "who")?);
            held.insert(at, Override { number, rotation, person, from_s, until_s, by });
            *count = number;
        }
        (rule::OVERRIDE_OVER, Ok(at)) if !held[at].is_over(receipt.at) => {
            return Err(FoldError::StateFrom);
        }
        (rule::OVERRIDE_END | rule::OVERRIDE_OVER, Ok(at)) => {
            held.remove(at);
        }
        _ => return Err(FoldError::StateFrom),
    }
    Ok(())
}
