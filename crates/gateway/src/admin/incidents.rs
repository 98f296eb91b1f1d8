//! Alerts, silences and incidents.
//!
//! Owns: how each is shown, and which words a person may use of them. Refuses to know: which change
//! is lawful, and how anybody is reached.

use axum::body::Body;
use axum::response::Response;
use dialect::admin::incidents::{self, DeedOrder, IncidentOrder, SilenceOrder};
use engine::incidents::stream;
use governors::incident::{
    Alert, Incident, IncidentsState, Maintenance, Mark, Moment, Silence, Story, incident_name,
    incident_number,
};
use governors::notices::NoticesState;
use governors::oncall::Policy;
use governors::{
    Command, Declared, IncidentChange, IncidentDeed, IncidentRole, IncidentStatus, SilenceChange,
};
use http::header::{CACHE_CONTROL, CONTENT_TYPE};
use http::{HeaderValue, StatusCode};
use serde_json::{Map, Value, json};
use types::{Micros, Reason};

use super::{Asked, channels, decide, known, ok, receipt, try_decide};
use crate::Gateway;
use crate::answer::{Answer, Facts, Fault, Handled, fault};

pub(super) async fn alerts(gateway: &Gateway) -> Handled {
    let (state, now) = (gateway.engine.incidents().await?, gateway.engine.clock().now());
    let alerts: Vec<Value> = state
        .incidents()
        .into_iter()
        .flat_map(|held| held.alerts().iter().map(|alert| shown_alert(alert, held, now)))
        .collect();
    ok(&json!({ "alerts": alerts }))
}

fn shown_alert(alert: &Alert, state: &IncidentsState, now: Micros) -> Value {
    let silences = |held: &Silence| {
        now < until(held) && held.matches(&alert.key, &alert.rule, &alert.component)
    };
    json!({
        "key": alert.key,
        "rule": alert.rule,
        "phase": alert.phase.as_str(),
        "since": Micros(alert.since_us).secs(),
        "severity": alert.severity.as_str(),
        "component": alert.component,
        "title": alert.title,
        "incident": alert.incident.map(incident_name),
        "silenced": state.silences().iter().any(silences),
        "maintenance": state.maintenance_of(&alert.component, now).map(Maintenance::name),
    })
}

fn until(silence: &Silence) -> Micros {
    Micros::from_secs(silence.until_s)
}

pub(super) async fn silences(gateway: &Gateway) -> Handled {
    let (state, now) = (gateway.engine.incidents().await?, gateway.engine.clock().now());
    let silences: Vec<Value> = state
        .incidents()
        .into_iter()
        .flat_map(IncidentsState::silences)
        .filter(|held| now < until(held))
        .map(|held| json!({ "matcher": held.matcher, "until": held.until_s, "by": held.by }))
        .collect();
    ok(&json!({ "silences": silences }))
}

pub(super) async fn silence_set(gateway: &Gateway, asked: &Asked<'_>) -> Handled {
    let SilenceOrder { matcher, lease_s, why } = incidents::silence(&asked.body, &gateway.json)?;
    if let Some(component) = matcher.strip_prefix("component=") {
        known::check(gateway, "the component of matcher", &[component]).await?;
    }
    let change = SilenceChange::Set { matcher, lease_s: i64::from(lease_s), why };
    receipt(&decide(gateway, asked, stream(), Command::Silence(change)).await?)
}

pub(super) async fn silence_clear(gateway: &Gateway, asked: &Asked<'_>) -> Handled {
    let matcher = asked.parameter("matcher")?;
    let matcher = matcher.ok_or_else(|| fault(Reason::MissingField, "matcher is required"))?;
    let change = SilenceChange::Clear { matcher: matcher.to_owned() };
    receipt(&decide(gateway, asked, stream(), Command::Silence(change)).await?)
}

pub(super) async fn list(gateway: &Gateway) -> Handled {
    let (state, notices) = (gateway.engine.incidents().await?, gateway.engine.notices().await?);
    let policy = gateway.engine.rules().oncall();
    let all: Vec<Value> = state
        .incidents()
        .into_iter()
        .flat_map(|held| held.open().iter().map(|incident| shown(incident, held, policy, &notices)))
        .collect();
    ok(&json!({ "incidents": all }))
}

/// An incident as it stands.
fn shown(
    incident: &Incident,
    state: &IncidentsState,
    policy: &Policy,
    notices: &NoticesState,
) -> Value {
    let secs = |at_us: Option<i64>| at_us.map(|at_us| Micros(at_us).secs());
    let roles: Vec<Value> = incident
        .roles
        .iter()
        .map(|(role, who)| json!({ "role": role.as_str(), "who": who }))
        .collect();
    let firing: Vec<&str> = state.alerts_of(incident.number).map(|alert| &*alert.key).collect();
    json!({
        "id": incident.name(),
        "title": incident.title,
        "severity": incident.severity.as_str(),
        "status": incident.status.as_str(),
        "components": incident.components,
        "cause": cause(policy, &incident.components),
        "began": Micros(incident.began_us).secs(),
        "opened": Micros(incident.opened_us).secs(),
        "opened_by": incident.opened_by.to_string(),
        "acknowledged": secs(incident.acknowledged_us),
        "acknowledged_by": incident.acknowledged_by,
        "roles": roles,
        "told": incident.told,
        "taken": channels::takers(notices, &incident.name()),
        "unreachable": incident.unreachable,
        "next_page": secs(incident.page_at_us),
        "next_update": secs(incident.update_at_us),
        "resolves": secs(incident.resolve_at_us),
        "alerts": firing,
    })
}

fn cause<'a>(policy: &Policy, components: &'a [String]) -> Option<&'a str> {
    policy.cause(&components.iter().map(String::as_str).collect::<Vec<_>>())
}

pub(super) async fn declare(gateway: &Gateway, asked: &Asked<'_>) -> Handled {
    let IncidentOrder { title, severity, component, text } =
        incidents::incident(&asked.body, &gateway.json)?;
    known::check(gateway, "component", &[&*component]).await?;
    let change = IncidentChange::Declare(Declared { title, severity, component, text });
    receipt(&decide(gateway, asked, stream(), Command::Incident(change)).await?)
}

fn unknown() -> Fault {
    fault(Reason::NotFound, "there is no such incident")
}

fn number(asked: &Asked<'_>) -> Result<u64, Fault> {
    incident_number(asked.segment()?).ok_or_else(unknown)
}

/// Does something about an incident. Where it was done before, the incident is shown as it stands:
/// whoever says it again is told the same.
pub(super) async fn act(gateway: &Gateway, asked: &Asked<'_>) -> Handled {
    let deed = deed(incidents::deed(&asked.body, &gateway.json)?)?;
    let incident = number(asked)?;
    let command = Command::Incident(IncidentChange::On { incident, deed });
    if let Some(decided) = try_decide(gateway, asked, stream(), command).await? {
        return receipt(&decided);
    }
    let (state, notices) = (gateway.engine.incidents().await?, gateway.engine.notices().await?);
    let held = state.incidents().and_then(|held| Some((held.incident(incident)?, held)));
    let (found, held) =
        held.ok_or_else(|| fault(Reason::StateError, "the incident is resolved"))?;
    ok(&shown(found, held, gateway.engine.rules().oncall(), &notices))
}

fn deed(order: DeedOrder) -> Result<IncidentDeed, Fault> {
    let bad = |member: &str, words: Vec<&str>| {
        fault(Reason::InvalidField, format!("{member} must be one of {}", words.join(", ")))
    };
    let roles = || IncidentRole::ALL.iter().map(|role| role.as_str()).collect();
    let statuses = || IncidentStatus::ALL.iter().map(|status| status.as_str()).collect();
    Ok(match order {
        DeedOrder::Acknowledge => IncidentDeed::Acknowledge,
        DeedOrder::Assign { role, who } => {
            let role = IncidentRole::parse(&role).ok_or_else(|| bad("role", roles()))?;
            IncidentDeed::Assign { role, who }
        }
        DeedOrder::Grade { severity } => IncidentDeed::Grade { severity },
        DeedOrder::Status { status, text, public } => {
            let status = IncidentStatus::parse(&status);
            let status = status.ok_or_else(|| bad("status", statuses()))?;
            // What is said of any other status is public whatever anybody wants.
            if public.is_some() && status != IncidentStatus::Resolved {
                return Err(fault(Reason::InvalidField, "public is for the status resolved alone"));
            }
            IncidentDeed::Status { status, text, is_public: public.unwrap_or(false) }
        }
        DeedOrder::Update { text } => IncidentDeed::Update { text },
        DeedOrder::Note { text } => IncidentDeed::Note { text },
    })
}

async fn story(gateway: &Gateway, asked: &Asked<'_>) -> Result<Story, Fault> {
    gateway.engine.incident_story(number(asked)?).await?.ok_or_else(unknown)
}

pub(super) async fn one(gateway: &Gateway, asked: &Asked<'_>) -> Handled {
    let number = number(asked)?;
    let told = story(gateway, asked).await?;
    let (state, notices) = (gateway.engine.incidents().await?, gateway.engine.notices().await?);
    let policy = gateway.engine.rules().oncall();
    let held = state.incidents();
    let stands = held.and_then(|held| Some(shown(held.incident(number)?, held, policy, &notices)));
    ok(&whole(number, &told, policy, stands.as_ref()))
}

/// Everything that the receipts say of an incident; `stands` unless it is resolved.
fn whole(number: u64, told: &Story, policy: &Policy, stands: Option<&Value>) -> Value {
    let marks = told.marks();
    let moments = |moments: &[Moment]| moments.iter().map(shown_moment).collect::<Vec<Value>>();
    let durations: Map<String, Value> = told
        .durations()
        .into_iter()
        .map(|(name, from, to)| {
            let length = from.zip(to).map(|((from, _), (to, _))| (to.0 - from.0).div_euclid(1_000));
            (name.to_ascii_lowercase(), json!(length))
        })
        .collect();
    json!({
        "id": incident_name(number),
        "title": told.title(),
        "severity": told.severity().map(types::Severity::as_str),
        "status": told.status().map(IncidentStatus::as_str),
        "components": told.components(),
        "cause": cause(policy, told.components()),
        "instants": {
            "began": shown_mark(marks.began),
            "detected": shown_mark(marks.detected),
            "acknowledged": shown_mark(marks.acknowledged),
            "identified": shown_mark(marks.identified),
            "recovered": shown_mark(marks.recovered),
            "resolved": shown_mark(marks.resolved),
        },
        "durations_ms": durations,
        "timeline": moments(told.moments()),
        "corrections": moments(told.corrections()),
        "stands": stands,
    })
}

fn shown_mark(mark: Mark) -> Value {
    let shown = |(at, id): (Micros, types::ReceiptId)| json!({ "at": at.to_string(), "receipt": id.to_string() });
    mark.map(shown).unwrap_or_default()
}

fn shown_moment(moment: &Moment) -> Value {
    json!({
        "at": moment.at.to_string(),
        "receipt": moment.receipt.to_string(),
        "rule": moment.rule,
        "actor": moment.actor,
        "text": moment.text,
    })
}

/// The draft of a post-mortem, as Markdown.
pub(super) async fn post_mortem(gateway: &Gateway, asked: &Asked<'_>) -> Handled {
    let mut response = Response::new(Body::from(story(gateway, asked).await?.post_mortem()));
    *response.status_mut() = StatusCode::OK;
    let kind = HeaderValue::from_static("text/markdown; charset=utf-8");
    response.headers_mut().insert(CONTENT_TYPE, kind);
    response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    Ok(Answer { response, facts: Facts::default() })
}
