//! Changes of alerts, and how they become incidents.
//!
//! Owns: which change is lawful, and which incident an alert belongs to. Refuses to know: samples
//! and conditions; whoever measures says what an alert has become.

use ledger::{Draft, Meta};
use types::{Micros, Reason, limits};

use super::state::{Alert, Incident, IncidentsState};
use super::{
    ABSENT, ALERT, INCIDENT, Maintenance, Override, about, begin, called, first_called, handover,
    incident_name, moved, next_number, seal, told,
};
use crate::command::{AlertChange, AlertPhase, Gone, IncidentStatus};
use crate::decision::{Context, Decision, Rejection};
use crate::draft::{TIME, is_keepable, rule, transition};
use crate::invalid_field;
use crate::oncall::Policy;

/// Decides one change of an alert.
pub(super) fn decide(
    policy: &Policy,
    state: &IncidentsState,
    change: &AlertChange,
    cx: &Context<'_>,
) -> Decision {
    if !is_well_formed(change) {
        return invalid_field("the alert has a text that a receipt does not keep");
    }
    if let Some(Gone::Handed { to }) = &change.gone {
        return handover::decide(policy, state, (&change.key, to), cx);
    }
    let held = state.alert(&change.key);
    let from = held.map_or(AlertPhase::Inactive, |held| held.phase);
    let is_new = held.is_none() && change.to != AlertPhase::Inactive;
    if is_new && state.alerts().len() >= limits::ALERTS {
        return refused("as many alerts are active as may be");
    }
    if from == AlertPhase::Inactive && change.to == from {
        // Of several who say that it is over only the first one is needed.
        return Decision::Nothing;
    }
    if !from.leads_to(change.to) {
        return refused("the alert is not in a phase that leads there");
    }
    let (title, message) = (title_of(change), message_of(change));
    let alert = transition(ALERT, rule::ALERT_CHANGE, cx.actor)
        .states(from.as_str(), change.to.as_str())
        .with("rule", Meta::Text(change.rule.clone().into()))
        .with("severity", Meta::Text(change.severity.as_str().into()))
        .with("component", Meta::Text(change.component.clone().into()))
        .with("title", Meta::Text(title.to_owned().into()));
    let wants_one =
        change.to == AlertPhase::Firing && held.is_none_or(|held| held.incident.is_none());
    let window = state.maintenance_of(&change.component, cx.now).filter(|_| wants_one);
    let inhibited_by = window.map(Maintenance::name).or_else(|| change.inhibited_by.clone());
    let texts = [("inhibited_by", inhibited_by), ("instance", change.instance.clone())];
    let texts = texts.into_iter().filter_map(|(key, text)| Some((key, text?)));
    let (ended, why) = gone(change).unzip();
    let ended = ended.map(|word: &str| ("ended", word.to_owned()));
    let alert = texts
        .chain(ended)
        .fold(alert, |alert, (key, text)| alert.with(key, Meta::Text(text.into())));
    let alert = Draft {
        subject: Some(change.key.clone().into()),
        detail: Some(why.clone().unwrap_or_else(|| message.to_owned()).into()),
        ..alert
    };
    let consequence = match change.to {
        // What is worked on is expected to fail: it is on record, and wakes nobody.
        AlertPhase::Firing if window.is_some() => None,
        AlertPhase::Firing if wants_one => {
            let began = held.map_or(cx.now, |held| Micros(held.began_us));
            raise(policy, state, change, began, cx)
        }
        AlertPhase::Inactive => held.and_then(|held| recover(policy, state, held, why, cx)),
        _ => None,
    };
    if from == change.to && consequence.is_none() {
        return Decision::Nothing;
    }
    seal([alert].into_iter().chain(consequence).collect(), 0)
}

fn is_well_formed(change: &AlertChange) -> bool {
    let AlertChange { key, rule, component, inhibited_by, instance, gone, .. } = change;
    let other = gone.as_ref().and_then(|gone| match gone {
        Gone::Unmeasured => None,
        Gone::Over { by: other } | Gone::Handed { to: other } => Some(other),
    });
    let fits = |text: &String| is_keepable(text, limits::METADATA_VALUE_CHARS);
    [key, rule, component].iter().all(|word| !word.is_empty() && fits(word))
        && [inhibited_by.as_ref(), instance.as_ref(), other].into_iter().flatten().all(fits)
}

/// Why an alert ends whose instance does not say so itself: the word in `ended`, and the sentence.
fn gone(change: &AlertChange) -> Option<(&'static str, String)> {
    let instance = change.instance.as_ref()?;
    let (word, why) = match change.gone.as_ref()? {
        Gone::Over { by } => ("over", format!("on instance {by} this does not hold")),
        Gone::Unmeasured | Gone::Handed { .. } => {
            ("gone", "nobody measures this any more".to_owned())
        }
    };
    Some((word, format!("instance {instance} is gone, and {why}")))
}

/// A text that no receipt keeps must not keep an alert from being told: its rule stands for it.
fn title_of(change: &AlertChange) -> &str {
    let fits = is_keepable(&change.title, limits::METADATA_VALUE_CHARS);
    if fits && !change.title.is_empty() { &change.title } else { &change.rule }
}

fn message_of(change: &AlertChange) -> &str {
    let fits = is_keepable(&change.message, limits::INCIDENT_TEXT_CHARS);
    if fits { &change.message } else { "" }
}

fn refused(detail: &str) -> Decision {
    Decision::Reject(Rejection {
        reason: Reason::StateError,
        detail: detail.to_owned(),
        retry_after_s: None,
    })
}

/// What an alert that begins to fire does to incidents; `None` while it is silenced, or held back
/// by one that has no incident either.
fn raise(
    policy: &Policy,
    state: &IncidentsState,
    change: &AlertChange,
    began: Micros,
    cx: &Context<'_>,
) -> Option<Draft> {
    let AlertChange { key, rule, component, .. } = change;
    if state.is_silenced(key, rule, component, cx.now) {
        return None;
    }
    if let Some(by) = &change.inhibited_by {
        let number = state.alert(by).and_then(|by| by.incident);
        let incident = number.and_then(|number| state.incident(number))?;
        return Some(joined(incident, key, component, cx.actor));
    }
    Some(attach(policy, state, change, began, cx))
}

/// Joins the incident that the alert belongs to, or opens one.
fn attach(
    policy: &Policy,
    state: &IncidentsState,
    change: &AlertChange,
    began: Micros,
    cx: &Context<'_>,
) -> Draft {
    let is_related = |incident: &&Incident| {
        let mut components = incident.components.iter();
        components.any(|held| policy.are_related(held, &change.component))
    };
    let mut newest = state.open().iter().rev();
    let full = state.open().len() >= limits::INCIDENTS_OPEN;
    let own = newest.clone().find(is_related).or(newest.next().filter(|_| full));
    let Some(incident) = own else { return open(policy, state, change, began, cx) };
    let draft = joined(incident, &change.key, &change.component, cx.actor);
    // Everybody was told that it is over, and it is not.
    let is_relapse = incident.resolve_at_us.is_some();
    let is_worse = change.severity < incident.severity;
    if !is_worse && !is_relapse {
        return match is_news(state, incident, change) {
            // Whoever was told of the incident hears of it; nobody is called.
            true => told(said(draft, change), incident, &incident.told),
            false => draft,
        };
    }
    // Other than anybody was told: the ladder of what it is now begins here.
    let severity = change.severity.min(incident.severity);
    let is_acknowledged = incident.acknowledged_us.is_some();
    let (tell, clocks) = begin(policy, state.overrides(), severity, is_acknowledged, cx.now);
    let draft = draft.with("severity", Meta::Text(severity.as_str().into()));
    called(clocks.write(draft), incident, &tell)
}

/// False where another instance has said the same.
fn is_news(state: &IncidentsState, incident: &Incident, change: &AlertChange) -> bool {
    let case = case_of(&change.key, change.instance.as_deref());
    let is_same = |held: &Alert| {
        held.instance.is_some()
            && held.instance != change.instance
            && case_of(&held.key, held.instance.as_deref()) == case
    };
    !state.alerts_of(incident.number).any(is_same)
}

/// The key without the instance. Of two that were cut it is never the same, and both are told.
fn case_of(key: &str, instance: Option<&str>) -> String {
    let label = format!("instance=\"{}\"", instance.unwrap_or_default());
    key.replacen(&label, "", 1).replacen("{,", "{", 1).replacen(",,", ",", 1).replacen(",}", "}", 1)
}

/// With what the alert says.
fn said(draft: Draft, change: &AlertChange) -> Draft {
    let (title, message) = (title_of(change), message_of(change));
    let text = if message.is_empty() { title.to_owned() } else { format!("{title}: {message}") };
    let text: String = text.chars().take(limits::INCIDENT_TEXT_CHARS).collect();
    Draft { detail: Some(text.into()), ..draft }
}

fn joined(incident: &Incident, key: &str, component: &str, actor: &str) -> Draft {
    let status = match incident.status {
        IncidentStatus::Monitoring => IncidentStatus::Investigating,
        status => status,
    };
    moved(incident, rule::INCIDENT_JOIN, actor, status)
        .with("alert", Meta::Text(key.to_owned().into()))
        .with("component", Meta::Text(component.to_owned().into()))
}

fn open(
    policy: &Policy,
    state: &IncidentsState,
    change: &AlertChange,
    began: Micros,
    cx: &Context<'_>,
) -> Draft {
    let (tell, clocks) = begin(policy, state.overrides(), change.severity, false, cx.now);
    let draft = transition(INCIDENT, rule::INCIDENT_OPEN, cx.actor)
        .states(ABSENT, IncidentStatus::Investigating.as_str())
        .with("title", Meta::Text(title_of(change).to_owned().into()))
        .with("severity", Meta::Text(change.severity.as_str().into()))
        .with("component", Meta::Text(change.component.clone().into()))
        .with("alert", Meta::Text(change.key.clone().into()))
        .with("began_us", Meta::Int(began.0));
    let draft = Draft {
        subject: Some(incident_name(next_number(state, cx)).into()),
        detail: Some(message_of(change).to_owned().into()),
        ..draft
    };
    first_called(clocks.write(draft), &tell)
}

/// The last alert of an incident is over: it is watched for a while, and resolves by itself. What a
/// person has declared is a person's to end: that is noted and nothing else.
pub(super) fn recover(
    policy: &Policy,
    state: &IncidentsState,
    over: &Alert,
    why: Option<String>,
    cx: &Context<'_>,
) -> Option<Draft> {
    let incident = state.incident(over.incident?)?;
    let is_last = state.alerts_of(incident.number).all(|held| held.key == over.key);
    if !is_last || incident.resolve_at_us.is_some() {
        return None;
    }
    if incident.is_declared {
        let why = why.map(|why| format!(" ({why})")).unwrap_or_default();
        let text =
            format!("no alert fires any more{why}; a person declared it, and a person ends it");
        let draft = about(incident, rule::INCIDENT_NOTE, TIME);
        return Some(Draft { detail: Some(text.into()), ..draft });
    }
    let resolve_at = cx.now.plus_secs(policy.stable_s());
    // Nobody is woken for what is over.
    let clocks = super::Clocks {
        base: Micros(incident.base_us),
        step: usize::try_from(incident.step).unwrap_or(usize::MAX),
        page_at: None,
        update_at: None,
    };
    let draft = moved(incident, rule::INCIDENT_RECOVERED, TIME, IncidentStatus::Monitoring)
        .with("resolve_at_us", Meta::Int(resolve_at.0));
    let draft = Draft { detail: why.map(Into::into), ..draft };
    Some(told(clocks.write(draft), incident, &incident.told))
}

/// An incident without anything new: the same receipt for a person and for time.
pub(super) fn update(
    policy: &Policy,
    overrides: &[Override],
    incident: &Incident,
    actor: &str,
    detail: String,
    cx: &Context<'_>,
) -> Draft {
    let mut tell = policy.call(policy.update_tell(), overrides, cx.now);
    if actor != TIME {
        // What a person says reaches whoever was told of it.
        tell.reach(&incident.told);
    }
    let every_s = policy.update_every_s(incident.severity);
    let clocks = super::Clocks {
        base: Micros(incident.base_us),
        step: usize::try_from(incident.step).unwrap_or(usize::MAX),
        page_at: incident.page_at_us.map(Micros),
        update_at: every_s.map(|every_s| cx.now.plus_secs(every_s)),
    };
    let draft = clocks.write(about(incident, rule::INCIDENT_UPDATE, actor));
    let draft = Draft { detail: Some(detail.into()), ..draft };
    called(draft, incident, &tell)
}
