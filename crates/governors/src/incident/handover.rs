//! The alert of an instance that is gone, which another instance goes on with.
//!
//! Owns: what the one takes over from the other, and that nobody is told: nothing has begun, and
//! nothing has ended. Refuses to know: who is gone, and who may go on; whoever measures says so.

use ledger::{Draft, Meta};

use super::alert::recover;
use super::state::{Alert, Incident, IncidentsState};
use super::{ALERT, about, seal};
use crate::command::AlertPhase;
use crate::decision::{Context, Decision};
use crate::draft::{rule, transition};
use crate::oncall::Policy;

/// Decides that the alert of the second key goes on with that of the first, which ends.
pub(super) fn decide(
    policy: &Policy,
    state: &IncidentsState,
    (from, to): (&str, &str),
    cx: &Context<'_>,
) -> Decision {
    // Of several who would go on only the first one is needed.
    let Some((gone, heir)) = state.alert(from).zip(state.alert(to)) else {
        return Decision::Nothing;
    };
    if from == to {
        return Decision::Nothing;
    }
    let name = |alert: &Alert| alert.instance.clone().unwrap_or_default();
    let why =
        format!("instance {} is gone, and instance {} goes on with this", name(gone), name(heir));
    let taken = taken_over(gone, heir, cx.actor, &why);
    // Also where it is silenced: an incident that is open goes on.
    let fires = heir.is_firing() || gone.is_firing();
    let incident = gone.incident.and_then(|number| state.incident(number));
    let joined = incident.filter(|_| fires && heir.incident.is_none());
    let consequence = match joined {
        Some(incident) => Some(join(incident, heir, cx.actor)),
        None if heir.incident == gone.incident => None,
        None => recover(policy, state, gone, Some(why.clone()), cx),
    };
    let end = change(gone, AlertPhase::Inactive, cx.actor, &why)
        .with("ended", Meta::Text("handed_over".into()));
    let primary = usize::from(taken.is_some());
    let drafts = taken.into_iter().chain([end]).chain(consequence).collect();
    seal(drafts, primary)
}

/// What becomes of the heir: what has held for long enough need not do so again. `None` where it
/// stands as well or better by itself.
fn taken_over(gone: &Alert, heir: &Alert, actor: &str, why: &str) -> Option<Draft> {
    let (to, since_us) = match gone.firing_since_us {
        Some(fired_us) => (AlertPhase::Firing, fired_us),
        None => (AlertPhase::Pending, gone.since_us),
    };
    let is_behind = to == AlertPhase::Firing || since_us < heir.since_us;
    if heir.phase != AlertPhase::Pending || !is_behind {
        return None;
    }
    let began_us = gone.began_us.min(heir.began_us);
    let draft = change(heir, to, actor, why);
    Some(draft.with("since_us", Meta::Int(since_us)).with("began_us", Meta::Int(began_us)))
}

fn change(alert: &Alert, to: AlertPhase, actor: &str, why: &str) -> Draft {
    let text = |text: &str| Meta::Text(text.to_owned().into());
    let draft = transition(ALERT, rule::ALERT_CHANGE, actor)
        .states(alert.phase.as_str(), to.as_str())
        .with("rule", text(&alert.rule))
        .with("severity", text(alert.severity.as_str()))
        .with("component", text(&alert.component))
        .with("title", text(&alert.title));
    let draft = match &alert.instance {
        Some(instance) => draft.with("instance", text(instance)),
        None => draft,
    };
    Draft { subject: Some(alert.key.clone().into()), detail: Some(why.to_owned().into()), ..draft }
}

/// Joins it as it stands: whoever looks after it knows.
fn join(incident: &Incident, heir: &Alert, actor: &str) -> Draft {
    about(incident, rule::INCIDENT_JOIN, actor)
        .with("alert", Meta::Text(heir.key.clone().into()))
        .with("component", Meta::Text(heir.component.clone().into()))
}
