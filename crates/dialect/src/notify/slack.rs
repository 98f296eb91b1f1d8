//! Slack, and what speaks like it: an incoming webhook.
//!
//! Owns: the message as blocks, Slack's limits and its escapes. Refuses to know: the webhook's
//! address, which is the whole of its key.
//!
//! Sources: Slack's references of `chat.postMessage` (text, 40 000 characters), of the section
//! block (text 3 000, ten fields of 2 000) and of formatting (`&`, `<` and `>` are escaped, and
//! nothing else; with them a text cannot hold a mention or a link).

use std::time::Duration;

use serde_json::{Value, json};

use super::answer::{Delivery, failure};
use super::text::{Unit, fit_escaped, line};
use super::{Notice, Outgoing, seconds};

/// Characters of the text that notifications show.
const TEXT_CHARS: usize = 40_000;
/// Characters of a section.
const SECTION_CHARS: usize = 3_000;
/// Characters of a field of a section.
const FIELD_CHARS: usize = 2_000;
/// Alerts that are listed.
const ALERTS_MAX: usize = 10;

/// The message.
#[must_use]
pub fn request(notice: &Notice) -> Outgoing {
    let headline = notice.headline();
    let mut blocks = vec![
        // Two characters for the asterisks that make it bold.
        section(&format!("*{}*", escaped(&headline, SECTION_CHARS - 2))),
        json!({
            "type": "section",
            "fields": [
                field("Severity", notice.severity_name()),
                field("Component", &notice.component),
                field("Incident", &notice.incident),
                field("Started", &seconds(notice.opened_at_us)),
            ],
        }),
    ];
    if !notice.text.trim().is_empty() {
        blocks.push(section(&escaped(&notice.text, SECTION_CHARS)));
    }
    let alerts = alerts(notice);
    if !alerts.is_empty() {
        blocks.push(section(&escaped(&alerts, SECTION_CHARS)));
    }
    if let Some(link) = notice.link() {
        blocks.push(section(&escaped(&link, SECTION_CHARS)));
    }
    let text = escaped(&format!("{headline}\n{}", notice.text), TEXT_CHARS);
    Outgoing::post("", &json!({ "text": text, "blocks": blocks }))
}

/// What the answer means. A webhook says `ok` in plain text; servers that only speak like Slack's
/// say it as JSON or not at all.
#[must_use]
pub fn read(status: u16, retry_after: Option<Duration>, body: &[u8]) -> Delivery {
    if let Some(failure) = failure(status, retry_after) {
        return failure;
    }
    let said: Option<Value> = serde_json::from_slice(body).ok();
    let is = |name| said.as_ref().and_then(|said| said.get(name)?.as_bool());
    match (is("ok").or(is("success")), body.trim_ascii()) {
        (Some(true), _) | (None, b"ok" | b"") => Delivery::delivered(None),
        (Some(false), _) => Delivery::Refused { why: "it refuses the message" },
        _ => Delivery::Unknown,
    }
}

fn section(text: &str) -> Value {
    json!({ "type": "section", "text": mrkdwn(text) })
}

fn field(name: &str, value: &str) -> Value {
    let value = escaped(&line(value), FIELD_CHARS - name.len() - 3);
    mrkdwn(&format!("*{name}*\n{value}"))
}

fn mrkdwn(text: &str) -> Value {
    // Verbatim: what looks like a channel or a link in a text is none.
    json!({ "type": "mrkdwn", "text": text, "verbatim": true })
}

fn alerts(notice: &Notice) -> String {
    let (first, more) = notice.first_alerts(ALERTS_MAX);
    let mut lines: Vec<String> = first
        .iter()
        .map(|alert| {
            let value = alert.value.as_deref().map(|value| format!(" = {}", line(value)));
            let value = value.unwrap_or_default();
            format!("• {}{value}: {}", line(&alert.rule_id), line(&alert.message))
        })
        .collect();
    if more > 0 {
        lines.push(format!("• and {more} more"));
    }
    lines.join("\n")
}

fn escaped(text: &str, max: usize) -> String {
    fit_escaped(text, max, Unit::Chars, |c| match c {
        '&' => Some("&amp;"),
        '<' => Some("&lt;"),
        '>' => Some("&gt;"),
        _ => None,
    })
}
