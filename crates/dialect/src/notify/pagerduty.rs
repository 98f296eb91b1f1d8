//! PagerDuty: Events API v2.
//!
//! Owns: events, their limits, and what the answer means. Refuses to know: services and schedules.
//!
//! The key by which PagerDuty recognises a repeat is the incident, so that every event of one
//! incident belongs to one alert there. An event after the resolve would open a new one: whoever
//! tells the notices tells them in order.

use std::time::Duration;

use serde_json::{Value, json};

use super::answer::{Delivery, failure};
use super::text::{fit, line};
use super::{Notice, NoticeKind, Outgoing, seconds};

/// Characters of a summary.
const SUMMARY_CHARS: usize = 1_024;
/// Characters of the key.
const KEY_CHARS: usize = 255;
/// Characters of source, component and class. PagerDuty gives no limit but 512 KB for the whole.
const NAME_CHARS: usize = 255;
/// Characters of the text in the details.
const TEXT_CHARS: usize = 8_000;
/// Alerts in the details.
const ALERTS_MAX: usize = 20;

/// The event. `source` is what is affected, such as the host or the service.
#[must_use]
pub fn request(notice: &Notice, routing_key: &str, source: &str) -> Outgoing {
    let action = match notice.kind {
        NoticeKind::Opened | NoticeKind::Escalated { .. } | NoticeKind::Update { .. } => "trigger",
        NoticeKind::Acknowledged => "acknowledge",
        NoticeKind::Resolved => "resolve",
    };
    let mut event = json!({
        "routing_key": routing_key,
        "event_action": action,
        "dedup_key": fit(&line(&notice.incident), KEY_CHARS),
    });
    if action == "trigger" {
        event["payload"] = payload(notice, source);
        event["client"] = json!("TAI Autonomics");
        if let Some(link) = notice.link() {
            let text = fit(&line(&notice.incident), NAME_CHARS);
            event["links"] = json!([{ "href": link, "text": text }]);
            event["client_url"] = json!(link);
        }
    }
    Outgoing::post("/v2/enqueue", &event)
}

fn payload(notice: &Notice, source: &str) -> Value {
    let (first, more) = notice.first_alerts(ALERTS_MAX);
    let alerts: Vec<Value> = first
        .iter()
        .map(|alert| {
            json!({
                "rule": fit(&line(&alert.rule_id), NAME_CHARS),
                "message": fit(&alert.message, SUMMARY_CHARS),
                "value": alert.value.as_deref().map(|value| fit(value, NAME_CHARS)),
                "starts_at": seconds(alert.starts_at_us),
            })
        })
        .collect();
    let class = first.first().map(|alert| fit(&line(&alert.rule_id), NAME_CHARS));
    json!({
        "summary": fit(&notice.headline(), SUMMARY_CHARS),
        "source": fit(&line(source), NAME_CHARS),
        "severity": severity(notice.severity),
        "timestamp": seconds(notice.at_us),
        "component": fit(&line(&notice.component), NAME_CHARS),
        "class": class,
        "custom_details": {
            "incident": fit(&line(&notice.incident), NAME_CHARS),
            "notice": fit(&line(&notice.id), NAME_CHARS),
            "text": fit(&notice.text, TEXT_CHARS),
            "alerts": alerts,
            "alerts_not_shown": more,
        },
    })
}

fn severity(severity: u8) -> &'static str {
    match severity {
        0 | 1 => "critical",
        2 => "error",
        3 => "warning",
        _ => "info",
    }
}

/// What the answer means.
#[must_use]
pub fn read(status: u16, retry_after: Option<Duration>, body: &[u8]) -> Delivery {
    if let Some(failure) = failure(status, retry_after) {
        return failure;
    }
    let said: Value = serde_json::from_slice(body).unwrap_or_default();
    match said.get("status").and_then(Value::as_str) {
        Some("success") => Delivery::delivered(said.get("dedup_key").and_then(Value::as_str)),
        _ => Delivery::Unknown,
    }
}
