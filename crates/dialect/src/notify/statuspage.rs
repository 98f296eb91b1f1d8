//! Statuspage: incidents on a public page.
//!
//! Owns: what the public is shown of an incident, how a repeat is recognised by looking first, and
//! what the answers mean. Refuses to know: which notices are for the public, and how the key is
//! kept.
//!
//! A page does not recognise repeats, but keeps what we put into an incident's metadata: ours name
//! the incident and the notice that was told last. So each notice begins with a look at what is
//! open there, and what is done follows from that alone: nothing that was told before is told
//! again, however often it is tried. Each component is shown as bad as the worst open incident of
//! ours that affects it.
//!
//! Source: Statuspage's REST interface v1: names of 255 characters, bodies of 25 000.

use std::time::Duration;

use serde_json::{Map, Value, json};

use super::answer::{Delivery, failure};
use super::text::{fit, line};
use super::{Method, Notice, NoticeKind, Outgoing};

/// Characters of an incident's name.
const NAME_CHARS: usize = 255;
/// Characters of an update.
const BODY_CHARS: usize = 25_000;
/// Open incidents that are looked at.
const OPEN_MAX: usize = 100;
/// Our part of the metadata.
const OURS: &str = "tai";

/// A page.
#[derive(Debug, Clone, Copy)]
pub struct Page<'a> {
    /// Its id; has to be one ([`is_id`]).
    pub id: &'a str,
    /// Its key.
    pub key: &'a str,
    /// What the page calls the components of the notice, as far as it shows them.
    pub components: &'a [&'a str],
}

/// The worst severity that other open incidents give each component of the page, in its order.
pub type Others = Vec<Option<u8>>;

/// What there is to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Plan {
    /// The page has no open incident of this name.
    Create {
        /// How bad others make its components.
        others: Others,
    },
    /// It has.
    Update {
        /// What the page calls it.
        id: String,
        /// How bad others make its components.
        others: Others,
    },
    /// Nothing: told before, or nothing that the public is told.
    Done {
        /// What the page calls it, where it is still open.
        id: Option<String>,
    },
}

/// Whether it may be part of a path.
#[must_use]
pub fn is_id(text: &str) -> bool {
    (1..=64).contains(&text.len())
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_-".contains(&byte))
}

/// Whether the public is told of it: that somebody has been woken up or has answered is not its
/// concern.
#[must_use]
pub fn is_public(kind: NoticeKind) -> bool {
    match kind {
        NoticeKind::Opened | NoticeKind::Update { .. } | NoticeKind::Resolved => true,
        NoticeKind::Escalated { .. } | NoticeKind::Acknowledged => false,
    }
}

/// The look at what is open.
#[must_use]
pub fn look(page: &Page<'_>) -> Outgoing {
    let path = format!("/v1/pages/{}/incidents/unresolved?per_page={OPEN_MAX}", page.id);
    Outgoing { method: Method::Get, path, headers: headers(page), body: Vec::new() }
}

/// What follows from what was seen.
///
/// # Errors
/// The answer says nothing about what is open: what it means for the notice. Nothing has been
/// changed, so it is never [`Delivery::Unknown`].
pub fn plan(
    notice: &Notice,
    page: &Page<'_>,
    status: u16,
    retry_after: Option<Duration>,
    body: &[u8],
) -> Result<Plan, Delivery> {
    let later = Delivery::Retry { after: retry_after };
    match failed(status, retry_after) {
        None => {}
        Some(Delivery::Unknown) => return Err(later),
        Some(answer) => return Err(answer),
    }
    let open: Vec<Value> = serde_json::from_slice(body).map_err(|_| later)?;
    let mut own = None;
    let mut others: Others = vec![None; page.components.len()];
    for seen in &open {
        if ours(seen, "incident") == Some(notice.incident.as_str()) {
            own = own.or(Some(seen));
        } else {
            let severity: Option<u8> = ours(seen, "severity").and_then(|text| text.parse().ok());
            for (worst, component) in others.iter_mut().zip(page.components) {
                let affected = severity.filter(|_| affects(seen, component));
                *worst = worst.iter().copied().chain(affected).min();
            }
        }
    }
    let Some(own) = own else {
        return Ok(match notice.kind {
            // Resolved there, by us before or by somebody else, or never opened: the page says so.
            NoticeKind::Resolved => Plan::Done { id: None },
            _ => Plan::Create { others },
        });
    };
    let id = own.get("id").and_then(Value::as_str).filter(|id| is_id(id));
    match id {
        Some(id) if ours(own, "notice") == Some(notice.id.as_str()) => {
            Ok(Plan::Done { id: Some(id.to_owned()) })
        }
        Some(id) => Ok(Plan::Update { id: id.to_owned(), others }),
        None => Err(Delivery::Retry { after: retry_after }),
    }
}

/// The request of a plan; `None` where nothing is to be done.
#[must_use]
pub fn request(notice: &Notice, page: &Page<'_>, plan: &Plan) -> Option<Outgoing> {
    let (method, path, others) = match plan {
        Plan::Create { others } => {
            (Method::Post, format!("/v1/pages/{}/incidents", page.id), others)
        }
        Plan::Update { id, others } => {
            (Method::Patch, format!("/v1/pages/{}/incidents/{id}", page.id), others)
        }
        Plan::Done { .. } => return None,
    };
    let mut incident = json!({
        "name": fit(&line(&notice.title), NAME_CHARS),
        "status": status(notice.kind),
        "impact_override": impact(notice.severity),
        "body": fit(&notice.text, BODY_CHARS),
        "metadata": { OURS: {
            "incident": notice.incident,
            "notice": notice.id,
            "severity": notice.severity.to_string(),
        }},
    });
    if !page.components.is_empty() {
        let own = (notice.kind != NoticeKind::Resolved).then_some(notice.severity);
        let shown = |(component, others): (&&str, &Option<u8>)| {
            let worst = own.into_iter().chain(*others).min();
            ((*component).to_owned(), json!(worst.map_or("operational", state)))
        };
        let components: Map<String, Value> =
            page.components.iter().zip(others).map(shown).collect();
        incident["components"] = Value::Object(components);
        incident["component_ids"] = json!(page.components);
    }
    let body = json!({ "incident": incident }).to_string().into_bytes();
    Some(Outgoing { method, path, headers: headers(page), body })
}

/// What the answer to [`request`] means.
#[must_use]
pub fn read(status: u16, retry_after: Option<Duration>, body: &[u8]) -> Delivery {
    match failed(status, retry_after) {
        Some(answer) => answer,
        None => {
            let said: Value = serde_json::from_slice(body).unwrap_or_default();
            match said.get("id").and_then(Value::as_str) {
                Some(id) => Delivery::delivered(Some(id)),
                None => Delivery::Unknown,
            }
        }
    }
}

fn failed(status: u16, retry_after: Option<Duration>) -> Option<Delivery> {
    // 420 is its word for too many requests from one key.
    failure(if status == 420 { 429 } else { status }, retry_after)
}

fn headers(page: &Page<'_>) -> Vec<(&'static str, String)> {
    vec![("authorization", format!("OAuth {}", page.key))]
}

fn ours<'a>(incident: &'a Value, name: &str) -> Option<&'a str> {
    incident.get("metadata")?.get(OURS)?.get(name)?.as_str()
}

fn affects(incident: &Value, component: &str) -> bool {
    let components = incident.get("components").and_then(Value::as_array);
    let is_it = |seen: &Value| seen.get("id").and_then(Value::as_str) == Some(component);
    components.is_some_and(|components| components.iter().any(is_it))
}

fn status(kind: NoticeKind) -> &'static str {
    match kind {
        NoticeKind::Update { phase } => phase.as_str(),
        NoticeKind::Resolved => "resolved",
        NoticeKind::Opened | NoticeKind::Escalated { .. } | NoticeKind::Acknowledged => {
            "investigating"
        }
    }
}

fn impact(severity: u8) -> &'static str {
    match severity {
        0 | 1 => "critical",
        2 => "major",
        3 => "minor",
        _ => "none",
    }
}

fn state(severity: u8) -> &'static str {
    match severity {
        0 | 1 => "major_outage",
        2 => "partial_outage",
        3 => "degraded_performance",
        _ => "operational",
    }
}
