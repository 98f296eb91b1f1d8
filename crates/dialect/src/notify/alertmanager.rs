//! Alertmanager's webhook, version 4, as its receivers know it; and the same alerts as Alertmanager
//! itself takes them.
//!
//! Owns: the bodies, the labels that an alert leaves with, and the fingerprint made of them.
//! Refuses to know: routes and receivers.
//!
//! A receiver recognises a repeat by the fingerprint of the labels. They name the incident, so that
//! an alert which comes again with another incident is another alert.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::{Value, json};

use super::answer::{Delivery, by_status};
use super::text::{fit, line};
use super::{Notice, NoticeAlert, NoticeKind, Outgoing, seconds};

/// Alerts in one body.
const ALERTS_MAX: usize = 100;
/// Characters of a label's value.
const LABEL_CHARS: usize = 1_024;
/// Characters of an annotation.
const ANNOTATION_CHARS: usize = 4_096;
/// How long Alertmanager itself is to hold an alert that nobody sends again: as long as a notice is
/// tried.
const HELD_US: i64 = 24 * 3_600 * 1_000_000;
/// The path under which Alertmanager itself takes alerts.
const API: &str = "/api/v2/alerts";
/// How the receivers write that an alert has not ended.
const NEVER: &str = "0001-01-01T00:00:00Z";

type Texts = BTreeMap<String, String>;

/// The notice as a group of alerts. `receiver` is what the far side is called here, `token` its
/// bearer token, where it wants one.
#[must_use]
pub fn request(notice: &Notice, receiver: &str, token: Option<&str>) -> Outgoing {
    let (first, more) = notice.first_alerts(ALERTS_MAX);
    let mut alerts: Vec<Alert> = first.iter().map(|alert| Alert::of(notice, alert)).collect();
    if alerts.is_empty() {
        alerts.push(Alert::of_incident(notice));
    }
    let is_firing = alerts.iter().any(|alert| !alert.is_resolved);
    let incident = notice.incident.as_str();
    let body = json!({
        "version": "4",
        "groupKey": format!("{{}}:{{incident={incident:?}}}"),
        "truncatedAlerts": more,
        "status": status(!is_firing),
        "receiver": receiver,
        "groupLabels": { "incident": fit(incident, LABEL_CHARS) },
        "commonLabels": common(alerts.iter().map(|alert| &alert.labels)),
        "commonAnnotations": common(alerts.iter().map(|alert| &alert.annotations)),
        "externalURL": notice.url.as_deref().unwrap_or_default(),
        "alerts": alerts.iter().map(Alert::to_json).collect::<Vec<_>>(),
    });
    let mut request = Outgoing::post("", &body);
    if let Some(token) = token {
        request.headers.push(("authorization", format!("Bearer {token}")));
    }
    request
}

/// Whether an address is that of Alertmanager's own API, and not of a receiver of its webhooks.
#[must_use]
pub fn is_api(url: &str) -> bool {
    url.split(['?', '#']).next().is_some_and(|url| url.ends_with(API))
}

/// The same alerts for `POST /api/v2/alerts` of Alertmanager itself, and one of the incident with
/// every notice: there is always the same to be told of, and to end. What fires ends by itself a
/// day later, since nobody sends it again.
#[must_use]
pub fn api_request(notice: &Notice, token: Option<&str>) -> Outgoing {
    let (first, _) = notice.first_alerts(ALERTS_MAX);
    let mut alerts: Vec<Alert> = first.iter().map(|alert| Alert::of(notice, alert)).collect();
    alerts.push(Alert::of_incident(notice));
    let posted = |alert: &Alert| {
        let ends_at_us = alert.ends_at_us.unwrap_or(notice.at_us.saturating_add(HELD_US));
        json!({
            "labels": alert.labels,
            "annotations": alert.annotations,
            "startsAt": seconds(alert.starts_at_us),
            "endsAt": seconds(ends_at_us),
            "generatorURL": notice.url.as_deref().unwrap_or_default(),
        })
    };
    let mut request = Outgoing::post("", &alerts.iter().map(posted).collect::<Value>());
    if let Some(token) = token {
        request.headers.push(("authorization", format!("Bearer {token}")));
    }
    request
}

/// What the answer means: any success is one.
#[must_use]
pub fn read(status: u16, retry_after: Option<Duration>, _body: &[u8]) -> Delivery {
    by_status(status, retry_after)
}

struct Alert {
    labels: Texts,
    annotations: Texts,
    starts_at_us: i64,
    ends_at_us: Option<i64>,
    is_resolved: bool,
}

impl Alert {
    fn of(notice: &Notice, alert: &NoticeAlert) -> Alert {
        let mut labels: Texts = alert
            .labels
            .iter()
            .map(|(name, value)| (fit(name, LABEL_CHARS), fit(value, LABEL_CHARS)))
            .collect();
        labels.insert("alertname".to_owned(), fit(&alert.rule_id, LABEL_CHARS));
        let mut annotations = Texts::new();
        annotations.insert("summary".to_owned(), fit(&alert.title, ANNOTATION_CHARS));
        annotations.insert("description".to_owned(), fit(&alert.message, ANNOTATION_CHARS));
        if let Some(value) = &alert.value {
            annotations.insert("value".to_owned(), fit(value, ANNOTATION_CHARS));
        }
        let ends_at_us = alert.ends_at_us;
        Alert::finish(notice, labels, annotations, alert.starts_at_us, ends_at_us)
    }

    /// An incident that no alert is behind.
    fn of_incident(notice: &Notice) -> Alert {
        let labels = Texts::from([("alertname".to_owned(), "Incident".to_owned())]);
        let annotations =
            Texts::from([("summary".to_owned(), fit(&line(&notice.title), ANNOTATION_CHARS))]);
        Alert::finish(notice, labels, annotations, notice.opened_at_us, None)
    }

    fn finish(
        notice: &Notice,
        mut labels: Texts,
        mut annotations: Texts,
        starts_at_us: i64,
        ends_at_us: Option<i64>,
    ) -> Alert {
        // Not the severity: it may change, and with it the fingerprint would.
        labels.insert("incident".to_owned(), fit(&notice.incident, LABEL_CHARS));
        // The first that is affected, whatever came to it later: another one would be another
        // alert.
        let component = notice.component.split(',').next().unwrap_or_default();
        labels.insert("component".to_owned(), fit(component, LABEL_CHARS));
        // As everywhere in that world, an empty label is none.
        labels.retain(|_, value| !value.is_empty());
        annotations.insert("severity".to_owned(), notice.severity_name().to_owned());
        annotations.insert("notice".to_owned(), fit(&notice.text, ANNOTATION_CHARS));
        // By which whoever sent it knows it when it comes back.
        annotations.insert("receipt".to_owned(), fit(&notice.id, ANNOTATION_CHARS));
        let is_over = notice.kind == NoticeKind::Resolved;
        let ends_at_us = ends_at_us.filter(|ends| *ends <= notice.at_us).or(if is_over {
            Some(notice.at_us)
        } else {
            None
        });
        let is_resolved = ends_at_us.is_some();
        Alert { labels, annotations, starts_at_us, ends_at_us, is_resolved }
    }

    fn to_json(&self) -> Value {
        json!({
            "status": status(self.is_resolved),
            "labels": self.labels,
            "annotations": self.annotations,
            "startsAt": seconds(self.starts_at_us),
            "endsAt": self.ends_at_us.map_or_else(|| NEVER.to_owned(), seconds),
            "generatorURL": "",
            "fingerprint": fingerprint(&self.labels),
        })
    }
}

fn status(is_resolved: bool) -> &'static str {
    if is_resolved { "resolved" } else { "firing" }
}

/// What all of them have with the same value.
fn common<'a>(mut all: impl Iterator<Item = &'a Texts>) -> Texts {
    let mut common = all.next().cloned().unwrap_or_default();
    for texts in all {
        common.retain(|name, value| texts.get(name) == Some(value));
    }
    common
}

/// The fingerprint of labels, as Prometheus and Alertmanager make it: FNV-1a of 64 bits over the
/// names and values in the order of the names, each followed by the byte 255.
#[must_use]
pub fn fingerprint(labels: &Texts) -> String {
    const OFFSET: u64 = 14_695_981_039_346_656_037;
    const PRIME: u64 = 1_099_511_628_211;
    let bytes = labels
        .iter()
        .flat_map(|(name, value)| [name.as_bytes(), &[255], value.as_bytes(), &[255]])
        .flatten();
    let hash = bytes.fold(OFFSET, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(PRIME));
    format!("{hash:016x}")
}
