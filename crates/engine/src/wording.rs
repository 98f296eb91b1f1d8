//! What a notice says.
//!
//! Owns: how a receipt of `_incidents` becomes a notice for people. Refuses to know: who is told,
//! over which channel, and whether it is taken.

use std::collections::BTreeMap;

use dialect::notify::templates::{AllClear, InitialAlert, StatusUpdate, all_clear};
use dialect::notify::templates::{initial_alert, status_update};
use dialect::notify::{Notice, NoticeAlert, NoticeKind, Phase};
use governors::IncidentStatus;
use governors::incident::{Story, said_at};
use ledger::{MetaView, View};
use types::Severity;

/// What is told of one receipt.
pub(crate) fn notice(
    view: &View<'_>,
    story: Option<&Story>,
    is_repeat: bool,
    is_public: bool,
) -> Notice {
    let meta = |key| view.meta_text(key).map(|text| text.into_owned());
    let detail = view.detail.map(|detail| detail.text().into_owned()).unwrap_or_default();
    let severity = meta("severity").and_then(|word| Severity::parse(&word));
    let severity = severity.map_or(4, Severity::number);
    let title = meta("title").unwrap_or_default();
    let component = components(view);
    let rule = view.rule.map(|rule| rule.text().into_owned()).unwrap_or_default();
    let status = view.state_to.and_then(|word| IncidentStatus::parse(&word.text()));
    let began = view.meta_int("began_us");
    let kind = kind(view, &rule, status);
    let text = match kind {
        NoticeKind::Opened => initial_alert(&InitialAlert {
            severity,
            // The figures of a message are for those who work on it.
            description: if detail.is_empty() || is_public { &title } else { &detail },
            url: None,
            started_at_us: began,
            updates_in: None,
        }),
        NoticeKind::Resolved => all_clear(&AllClear {
            root_cause: story.and_then(Story::cause),
            impact: Some(&component),
            started_at_us: began,
            ended_at_us: Some(said_at(view).0),
            affected_users_permille: None,
            actions: &[],
            post_mortem_at_us: None,
            preventive_measures: &[],
        }),
        NoticeKind::Escalated { .. } | NoticeKind::Update { .. } | NoticeKind::Acknowledged => {
            status_update(&StatusUpdate {
                at_us: said_at(view).0,
                done: Some(&done(&rule, view, &detail, is_public)),
                checked: &[],
                found: story.and_then(Story::cause),
                next: None,
                phase: status.and_then(phase),
                eta_us: None,
            })
        }
    };
    let is_shown = matches!(view.meta("public"), Some(MetaView::Bool(true)));
    let text = match is_shown && !detail.is_empty() {
        true => format!("{text}\n{detail}"),
        false => text,
    };
    let text =
        if is_repeat { format!("(You may have been told this before.)\n{text}") } else { text };
    Notice {
        id: view.id.to_string(),
        incident: view.subject.map(|subject| subject.text().into_owned()).unwrap_or_default(),
        kind,
        severity,
        title,
        text,
        component,
        at_us: said_at(view).0,
        opened_at_us: view.meta_int("opened_us").unwrap_or(said_at(view).0),
        url: None,
        alerts: alerts(view, kind, &detail, story),
    }
}

/// All components of the incident, with commas between them.
fn components(view: &View<'_>) -> String {
    let meta = |key| view.meta_text(key).map(|text| text.into_owned());
    match (meta("components"), meta("component")) {
        // One that joins is not among those of before.
        (Some(all), Some(one)) if !all.split(',').any(|held| held == one) => format!("{all},{one}"),
        (all, one) => all.or(one).unwrap_or_default(),
    }
}

fn kind(view: &View<'_>, rule: &str, status: Option<IncidentStatus>) -> NoticeKind {
    let step = view.meta_int("step");
    match rule {
        // Without the ladder of a worse one it is news and no more.
        "incident.join" if step.is_none() => update(status),
        "incident.open" => NoticeKind::Opened,
        "incident.escalate" | "incident.join" | "incident.grade" | "incident.reroute" => {
            let level = step.and_then(|step| u8::try_from(step).ok()).unwrap_or(1);
            NoticeKind::Escalated { level }
        }
        "incident.acknowledge" => NoticeKind::Acknowledged,
        "incident.resolve" => NoticeKind::Resolved,
        _ => update(status),
    }
}

fn update(status: Option<IncidentStatus>) -> NoticeKind {
    NoticeKind::Update { phase: status.and_then(phase).unwrap_or(Phase::Investigating) }
}

fn phase(status: IncidentStatus) -> Option<Phase> {
    match status {
        IncidentStatus::Investigating => Some(Phase::Investigating),
        IncidentStatus::Identified => Some(Phase::Fixing),
        IncidentStatus::Monitoring => Some(Phase::Testing),
        IncidentStatus::Resolved => None,
    }
}

/// What was done, in one sentence.
fn done(rule: &str, view: &View<'_>, detail: &str, is_public: bool) -> String {
    let meta = |key| view.meta_text(key).map(|text| text.into_owned()).unwrap_or_default();
    let actor = view.actor.map(|actor| actor.text().into_owned()).unwrap_or_default();
    match rule {
        "incident.acknowledge" => format!("acknowledged by {actor}"),
        "incident.escalate" if view.meta("stand_in").is_some() => {
            "escalated: the time to answer is over, and nobody else is on call".to_owned()
        }
        "incident.escalate" => "escalated: the time to answer is over".to_owned(),
        "incident.join" if view.meta("step").is_some() => {
            format!("became worse: {}", meta("alert"))
        }
        "incident.join" if is_public => format!("{} is affected", meta("component")),
        "incident.join" => format!("also fires: {detail}"),
        "incident.grade" => format!("graded {}", meta("severity")),
        "incident.reroute" => format!("{} cannot be reached", meta("unreachable")),
        "incident.recovered" if is_public || detail.is_empty() => {
            "no alert fires any more".to_owned()
        }
        "incident.recovered" => format!("no alert fires any more: {detail}"),
        _ => detail.to_owned(),
    }
}

/// The alerts behind a notice: the one that it is about, or all of them once they are over.
fn alerts(
    view: &View<'_>,
    kind: NoticeKind,
    detail: &str,
    story: Option<&Story>,
) -> Vec<NoticeAlert> {
    let title = view.meta_text("title").map(|text| text.into_owned()).unwrap_or_default();
    let starts_at_us = view.meta_int("began_us").unwrap_or(said_at(view).0);
    let one = |key: &str, ends_at_us| NoticeAlert {
        rule_id: key.split('{').next().unwrap_or(key).to_owned(),
        labels: BTreeMap::from([("alert".to_owned(), key.to_owned())]),
        title: title.clone(),
        message: detail.to_owned(),
        starts_at_us,
        ends_at_us,
        value: None,
    };
    if kind == NoticeKind::Resolved {
        let keys = story.map(Story::alerts).unwrap_or_default();
        return keys.iter().map(|key| one(key, Some(said_at(view).0))).collect();
    }
    view.meta_text("alert").map(|key| one(&key, None)).into_iter().collect()
}
