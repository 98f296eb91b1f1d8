//! Alerts of others: what Alertmanager sends to a webhook (version 4), and what Prometheus and
//! everything like it sends to Alertmanager (`POST /api/v2/alerts`).
//!
//! Owns: which bodies are understood, their limits, and when an alert is over. Refuses to know:
//! which incident an alert belongs to.
//!
//! Members that are not listed are passed over, as both formats grow; those that are have to be of
//! their type.

use std::collections::BTreeMap;

use serde_json::{Map, Value};
use types::{Micros, Reason};

use super::alertmanager::fingerprint;
use crate::fields::{Fields, instant_from_text};
use crate::{Fault, JsonLimits, json};

/// Alerts in one body.
pub const ALERTS_MAX: usize = 500;
/// Labels, and annotations, of one alert.
const TEXTS_MAX: usize = 64;
/// Characters of a name.
const NAME_CHARS: usize = 128;
/// Characters of a label's value.
const LABEL_CHARS: usize = 1_024;
/// Characters of an annotation, and of an address.
const ANNOTATION_CHARS: usize = 8_192;

/// An alert of somebody else.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExternalAlert {
    /// What it is recognised by; made from the labels, not taken from the body.
    pub fingerprint: String,
    /// At least one; none is empty.
    pub labels: BTreeMap<String, String>,
    /// What there is to read.
    pub annotations: BTreeMap<String, String>,
    /// When it began; absent means now.
    pub starts_at: Option<Micros>,
    /// When it ended or, where that is in the future, when it ends unless it is sent again.
    pub ends_at: Option<Micros>,
    /// Where it comes from.
    pub generator_url: Option<String>,
    /// Whether the sender calls it resolved; absent where the format has no word for it.
    pub said_resolved: Option<bool>,
}

impl ExternalAlert {
    /// Whether it is over at `now`.
    #[must_use]
    pub fn is_resolved(&self, now: Micros) -> bool {
        self.said_resolved.unwrap_or_else(|| self.ends_at.is_some_and(|ends| ends <= now))
    }
}

/// The body of a webhook.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Group {
    /// The alerts, in the order of the body.
    pub alerts: Vec<ExternalAlert>,
    /// Alerts of the group that the sender left out.
    pub truncated: u32,
}

/// Reads the body of a webhook, version 4.
///
/// # Errors
/// [`Reason::InvalidMessageFormat`], [`Reason::MissingField`], [`Reason::InvalidField`].
pub fn webhook(bytes: &[u8], limits: JsonLimits) -> Result<Group, Fault> {
    let Value::Object(members) = json::parse_prose(bytes, limits)? else {
        return Err(Fault::new(Reason::InvalidMessageFormat, "body must be a JSON object"));
    };
    let fields = Fields::new(&members, "");
    let version = fields.required("version", fields.text("version")?)?;
    if version != "4" {
        return Err(fields.invalid("version", "must be 4"));
    }
    let truncated = fields.count("truncatedAlerts")?.unwrap_or(0);
    let alerts = match fields.get("alerts") {
        Some(Value::Array(alerts)) => alerts,
        Some(_) => return Err(fields.invalid("alerts", "must be an array")),
        None => return Err(fields.missing("alerts")),
    };
    let alerts = list(alerts, |fields| {
        let words = [("firing", false), ("resolved", true)];
        let is_resolved = fields.choice("status", Reason::InvalidField, &words)?;
        fields.required("status", is_resolved).map(Some)
    })?;
    Ok(Group { alerts, truncated })
}

/// Reads the body of `POST /api/v2/alerts`.
///
/// # Errors
/// As [`webhook`].
pub fn posted(bytes: &[u8], limits: JsonLimits) -> Result<Vec<ExternalAlert>, Fault> {
    let Value::Array(alerts) = json::parse_prose(bytes, limits)? else {
        return Err(Fault::new(Reason::InvalidMessageFormat, "body must be a JSON array"));
    };
    list(&alerts, |_| Ok(None))
}

fn list(
    alerts: &[Value],
    said_resolved: impl Fn(Fields<'_>) -> Result<Option<bool>, Fault>,
) -> Result<Vec<ExternalAlert>, Fault> {
    if alerts.len() > ALERTS_MAX {
        let detail = format!("body must not hold more than {ALERTS_MAX} alerts");
        return Err(Fault::new(Reason::InvalidField, detail));
    }
    alerts
        .iter()
        .map(|alert| {
            let Value::Object(members) = alert else {
                return Err(Fault::new(Reason::InvalidField, "alerts[] must be objects"));
            };
            let fields = Fields::new(members, "alerts[].");
            one(fields, said_resolved(fields)?)
        })
        .collect()
}

fn one(fields: Fields<'_>, said_resolved: Option<bool>) -> Result<ExternalAlert, Fault> {
    let labels = fields.required("labels", fields.object("labels")?)?;
    let labels = texts(fields, "labels", labels, LABEL_CHARS)?;
    if labels.is_empty() {
        return Err(fields.invalid("labels", "must hold at least one that is not empty"));
    }
    let annotations = match fields.object("annotations")? {
        Some(annotations) => texts(fields, "annotations", annotations, ANNOTATION_CHARS)?,
        None => BTreeMap::new(),
    };
    let generator_url = fields.text("generatorURL")?.filter(|url| !url.is_empty());
    if generator_url.is_some_and(|url| url.chars().count() > ANNOTATION_CHARS) {
        return Err(fields.invalid("generatorURL", "is too long"));
    }
    Ok(ExternalAlert {
        fingerprint: fingerprint(&labels),
        labels,
        annotations,
        starts_at: instant(fields, "startsAt")?,
        ends_at: instant(fields, "endsAt")?,
        generator_url: generator_url.map(str::to_owned),
        said_resolved,
    })
}

/// An empty value means that there is none.
fn texts(
    fields: Fields<'_>,
    name: &str,
    members: &Map<String, Value>,
    max_chars: usize,
) -> Result<BTreeMap<String, String>, Fault> {
    if members.len() > TEXTS_MAX {
        return Err(fields.invalid(name, &format!("must not hold more than {TEXTS_MAX}")));
    }
    let mut texts = BTreeMap::new();
    for (member, value) in members {
        let Value::String(value) = value else {
            return Err(fields.invalid(name, "must hold strings only"));
        };
        let is_name = (1..=NAME_CHARS).contains(&member.chars().count())
            && !member.contains(char::is_control);
        if !is_name {
            let expected = format!("must have names of 1 to {NAME_CHARS} characters");
            return Err(fields.invalid(name, &expected));
        }
        if value.chars().count() > max_chars {
            let expected = format!("must have values of at most {max_chars} characters");
            return Err(fields.invalid(name, &expected));
        }
        if !value.is_empty() {
            texts.insert(member.clone(), value.clone());
        }
    }
    Ok(texts)
}

/// A time with an offset. The year 1 is how a time that is not set is written.
fn instant(fields: Fields<'_>, name: &str) -> Result<Option<Micros>, Fault> {
    let text = fields.text(name)?.filter(|text| !text.is_empty());
    let Some(text) = text.filter(|text| !text.starts_with("0001-01-01T00:00:00")) else {
        return Ok(None);
    };
    let expected = "must be an ISO 8601 time with an offset, in the years 1970 to 9999";
    instant_from_text(text).map(Some).ok_or_else(|| fields.invalid(name, expected))
}
