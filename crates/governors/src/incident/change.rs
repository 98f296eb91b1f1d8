//! What people do to incidents.
//!
//! Owns: which of it is lawful when, and who hears of it. Refuses to know: who they are.

use ledger::{Draft, Meta};
use types::{Micros, Reason, limits};

use super::alert::update;
use super::state::{Incident, IncidentsState};
use super::{
    ABSENT, Clocks, INCIDENT, about, begin, called, first_called, incident_name, moved,
    next_number, seal, told,
};
use crate::command::{Declared, IncidentChange, IncidentDeed as Deed, IncidentStatus};
use crate::decision::{Context, Decision, Rejection};
use crate::draft::{is_keepable, refusal, rule, transition};
use crate::invalid_field;
use crate::oncall::Policy;

/// Decides one change.
pub(super) fn decide(
    policy: &Policy,
    state: &IncidentsState,
    change: &IncidentChange,
    cx: &Context<'_>,
) -> Decision {
    if let Some(fault) = fault(change) {
        return invalid_field(fault);
    }
    match change {
        IncidentChange::Declare(declared) => declare(policy, state, declared, cx),
        IncidentChange::On { incident, deed } => match state.incident(*incident) {
            Some(incident) => on_open(policy, state, incident, deed, cx),
            None => on_closed(state, *incident, deed, cx),
        },
    }
}

fn declare(
    policy: &Policy,
    state: &IncidentsState,
    declared: &Declared,
    cx: &Context<'_>,
) -> Decision {
    let Declared { title, severity, component, text } = declared;
    if state.open().len() >= limits::INCIDENTS_OPEN {
        let detail = "as many incidents are open as may be".to_owned();
        let draft = refusal(INCIDENT, rule::INCIDENT_OPEN, cx.actor, Reason::StateError, detail);
        return seal(vec![draft], 0);
    }
    let (tell, clocks) = begin(policy, state.overrides(), *severity, false, cx.now);
    let draft = transition(INCIDENT, rule::INCIDENT_OPEN, cx.actor)
        .states(ABSENT, IncidentStatus::Investigating.as_str())
        .with("title", Meta::Text(title.clone().into()))
        .with("severity", Meta::Text(severity.as_str().into()))
        .with("component", Meta::Text(component.clone().into()));
    let draft = Draft {
        subject: Some(incident_name(next_number(state, cx)).into()),
        detail: Some(text.clone().into()),
        ..draft
    };
    seal(vec![first_called(clocks.write(draft), &tell)], 0)
}

fn on_open(
    policy: &Policy,
    state: &IncidentsState,
    incident: &Incident,
    deed: &Deed,
    cx: &Context<'_>,
) -> Decision {
    let is_acknowledged = incident.acknowledged_us.is_some();
    let step = usize::try_from(incident.step).unwrap_or(usize::MAX);
    let said = |draft: Draft, text: &str| Draft { detail: Some(text.to_owned().into()), ..draft };
    let draft = match deed {
        // Whoever says so again is told the same: there is nothing to record.
        Deed::Acknowledge if is_acknowledged => return Decision::Nothing,
        Deed::Acknowledge => {
            let base = Micros(incident.base_us);
            let clocks = Clocks {
                update_at: incident.update_at_us.map(Micros),
                ..Clocks::after(policy, incident.severity, step, true, base, cx.now)
            };
            let draft = about(incident, rule::INCIDENT_ACKNOWLEDGE, cx.actor);
            told(clocks.write(draft), incident, &incident.told)
        }
        Deed::Assign { role, who } => about(incident, rule::INCIDENT_ASSIGN, cx.actor)
            .with("role", Meta::Text(role.as_str().into()))
            .with("who", Meta::Text(who.clone().into())),
        Deed::Grade { severity } if *severity == incident.severity => return Decision::Nothing,
        Deed::Grade { severity } => {
            let (tell, clocks) =
                begin(policy, state.overrides(), *severity, is_acknowledged, cx.now);
            let draft = about(incident, rule::INCIDENT_GRADE, cx.actor)
                .with("severity", Meta::Text(severity.as_str().into()));
            called(clocks.write(draft), incident, &tell)
        }
        Deed::Status { status: IncidentStatus::Resolved, text, is_public } => {
            if let Some(alert) = state.alerts_of(incident.number).next() {
                let detail = format!("{} still fires", alert.rule);
                let draft =
                    refusal(INCIDENT, rule::INCIDENT_RESOLVE, cx.actor, Reason::StateError, detail);
                let subject = Some(incident.name().into());
                return seal(vec![Draft { subject, ..draft }], 0);
            }
            let draft = said(resolve(incident, cx.actor, cx.now), text);
            if *is_public { draft.with("public", Meta::Bool(true)) } else { draft }
        }
        Deed::Status { status, text, .. } => {
            let draft = moved(incident, rule::INCIDENT_STATUS, cx.actor, *status);
            told(said(draft, text), incident, &incident.told)
        }
        Deed::Update { text } => {
            update(policy, state.overrides(), incident, cx.actor, text.clone(), cx)
        }
        Deed::Unreachable { channel } => {
            let told_before = incident.unreachable.contains(channel);
            let mut rest = policy.call(policy.fallback(), state.overrides(), cx.now);
            rest.channels.retain(|other| other != channel);
            if rest.channels.is_empty() {
                rest.add(policy.everybody());
                rest.channels.retain(|other| other != channel);
            }
            if told_before || rest.channels.is_empty() {
                return Decision::Nothing;
            }
            let draft = about(incident, rule::INCIDENT_REROUTE, cx.actor)
                .with("unreachable", Meta::Text(channel.clone().into()));
            called(draft, incident, &rest)
        }
        Deed::Note { text } => said(about(incident, rule::INCIDENT_NOTE, cx.actor), text),
    };
    seal(vec![draft], 0)
}

/// An incident that is resolved takes corrections and nothing else; they are appended.
fn on_closed(state: &IncidentsState, number: u64, deed: &Deed, cx: &Context<'_>) -> Decision {
    if !state.was_there(number) {
        let detail = "there is no such incident".to_owned();
        return Decision::Reject(Rejection {
            reason: Reason::NotFound,
            detail,
            retry_after_s: None,
        });
    }
    let resolved = IncidentStatus::Resolved.as_str();
    let draft = match deed {
        // Whoever could not be reached is told no more of it.
        Deed::Unreachable { .. } => return Decision::Nothing,
        Deed::Note { text } => {
            let draft =
                transition(INCIDENT, rule::INCIDENT_CORRECT, cx.actor).states(resolved, resolved);
            Draft { detail: Some(text.clone().into()), ..draft }
        }
        _ => {
            let detail = "the incident is resolved".to_owned();
            refusal(INCIDENT, rule::INCIDENT_STATUS, cx.actor, Reason::StateError, detail)
        }
    };
    seal(vec![Draft { subject: Some(incident_name(number).into()), ..draft }], 0)
}

/// The receipt to be of an incident's end.
pub(super) fn resolve(incident: &Incident, actor: &str, now: Micros) -> Draft {
    let duration_s = now.secs() - Micros(incident.began_us).secs();
    let draft = moved(incident, rule::INCIDENT_RESOLVE, actor, IncidentStatus::Resolved)
        .with("duration_s", Meta::Int(duration_s.max(0)));
    told(draft, incident, &incident.told)
}

/// Why the form of a change is wrong, whatever stands.
fn fault(change: &IncidentChange) -> Option<&'static str> {
    let is_word = |word: &str| !word.is_empty() && is_keepable(word, limits::METADATA_VALUE_CHARS);
    let is_text = |text: &str| is_keepable(text, limits::INCIDENT_TEXT_CHARS);
    let fits = match change {
        IncidentChange::Declare(Declared { title, component, text, .. }) => {
            is_word(title) && is_word(component) && is_text(text)
        }
        IncidentChange::On { deed, .. } => match deed {
            Deed::Acknowledge | Deed::Grade { .. } => true,
            Deed::Assign { who, .. } => is_word(who),
            Deed::Unreachable { channel } => is_word(channel),
            Deed::Status { text, .. } => is_text(text),
            Deed::Update { text } | Deed::Note { text } => !text.is_empty() && is_text(text),
        },
    };
    (!fits).then_some("a text is missing, too long, or holds a control character or a credential")
}
