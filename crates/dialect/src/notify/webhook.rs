//! The generic webhook: a notice as JSON of our own.
//!
//! Owns: the members and their limits. Refuses to know: the signature, which is made over the
//! finished body by whoever has the key.

use std::time::Duration;

use serde_json::{Value, json};

use super::answer::{Delivery, by_status};
use super::text::{fit, line, token};
use super::{Notice, NoticeKind, Outgoing};

/// The form of the body.
const VERSION: &str = "1";
/// Characters of the title and of a message.
const LINE_CHARS: usize = 1_024;
/// Characters of the text.
const TEXT_CHARS: usize = 40_000;
/// Alerts in one body.
const ALERTS_MAX: usize = 100;

/// The notice, with its id as `Idempotency-Key`.
#[must_use]
pub fn request(notice: &Notice) -> Outgoing {
    let (first, more) = notice.first_alerts(ALERTS_MAX);
    let alerts: Vec<Value> = first
        .iter()
        .map(|alert| {
            json!({
                "rule_id": alert.rule_id,
                "labels": alert.labels,
                "title": fit(&alert.title, LINE_CHARS),
                "message": fit(&alert.message, LINE_CHARS),
                "starts_at_us": alert.starts_at_us,
                "ends_at_us": alert.ends_at_us,
                "value": alert.value,
            })
        })
        .collect();
    let (level, phase) = match notice.kind {
        NoticeKind::Escalated { level } => (Some(level), None),
        NoticeKind::Update { phase } => (None, Some(phase.as_str())),
        _ => (None, None),
    };
    let body = json!({
        "version": VERSION,
        "id": notice.id,
        "incident": notice.incident,
        "kind": notice.kind.as_str(),
        "level": level,
        "phase": phase,
        "severity": notice.severity,
        "title": fit(&line(&notice.title), LINE_CHARS),
        "text": fit(&notice.text, TEXT_CHARS),
        "component": notice.component,
        "at_us": notice.at_us,
        "opened_at_us": notice.opened_at_us,
        "url": notice.url,
        "alerts": alerts,
        "alerts_not_shown": more,
    });
    let mut request = Outgoing::post("", &body);
    request.headers.push(("idempotency-key", token(&notice.id)));
    request
}

/// What the answer means: any success is one. A conflict says that a request with the same key is
/// being worked on.
#[must_use]
pub fn read(status: u16, retry_after: Option<Duration>, _body: &[u8]) -> Delivery {
    if status == 409 {
        return Delivery::Retry { after: retry_after };
    }
    by_status(status, retry_after)
}
