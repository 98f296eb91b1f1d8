//! Owns: notices in every channel's form, and the alerts of others, with texts that want to break
//! out.

#![expect(clippy::expect_used, reason = "a test fails by panicking")]

mod incoming;
mod pages;
mod requests;

use std::collections::BTreeMap;

use dialect::notify::{Notice, NoticeAlert, NoticeKind, Outgoing, Phase};
use proptest::collection::{btree_map, vec};
use proptest::option;
use proptest::prelude::*;
use serde_json::Value;

const AT: i64 = 1_795_000_000_000_000;
const MINUTE: i64 = 60_000_000;

fn alert() -> NoticeAlert {
    NoticeAlert {
        rule_id: "high-error-rate".to_owned(),
        labels: BTreeMap::from([("route".to_owned(), "/v1/chat".to_owned())]),
        title: "High error rate".to_owned(),
        message: "5xx above 10 %".to_owned(),
        starts_at_us: AT,
        ends_at_us: None,
        value: Some("12.5 %".to_owned()),
    }
}

fn notice() -> Notice {
    Notice {
        id: "INC-7.opened".to_owned(),
        incident: "INC-7".to_owned(),
        kind: NoticeKind::Opened,
        severity: 1,
        title: "Errors above 10 %".to_owned(),
        text: "INCIDENT DECLARED: SEV-1\n\nStatus: Investigating\n".to_owned(),
        component: "api".to_owned(),
        at_us: AT + MINUTE,
        opened_at_us: AT,
        url: Some("https://tai.example/incidents/INC-7".to_owned()),
        alerts: vec![alert()],
    }
}

fn of(kind: NoticeKind) -> Notice {
    Notice { kind, ..notice() }
}

const KINDS: [NoticeKind; 7] = [
    NoticeKind::Opened,
    NoticeKind::Escalated { level: 2 },
    NoticeKind::Update { phase: Phase::Investigating },
    NoticeKind::Update { phase: Phase::Fixing },
    NoticeKind::Update { phase: Phase::Testing },
    NoticeKind::Acknowledged,
    NoticeKind::Resolved,
];

fn body(request: &Outgoing) -> Value {
    serde_json::from_slice(&request.body).expect("a body is JSON")
}

/// Every string in it.
fn strings(value: &Value) -> Vec<&str> {
    match value {
        Value::String(text) => vec![text],
        Value::Array(values) => values.iter().flat_map(strings).collect(),
        Value::Object(members) => members.values().flat_map(strings).collect(),
        _ => Vec::new(),
    }
}

/// Texts that are long, hostile, or both.
fn any_text() -> impl Strategy<Value = String> {
    prop_oneof![
        any::<String>(),
        "[<>&\"'*_`|!@#\\\\]{0,40}",
        "(<!channel>|<script>|\r\nBcc: a@b|\u{2028}|😀|&amp;){0,6}",
        (0_usize..60_000, prop_oneof![Just('x'), Just('&'), Just('😀'), Just('\n')])
            .prop_map(|(count, c)| c.to_string().repeat(count)),
    ]
}

fn any_alert() -> impl Strategy<Value = NoticeAlert> {
    (any_text(), btree_map("[a-z]{1,5}", "\\PC{0,8}", 0..4), any_text(), option::of(any_text()))
        .prop_map(|(rule_id, labels, message, value)| NoticeAlert {
            rule_id,
            labels,
            title: message.clone(),
            message,
            starts_at_us: AT,
            ends_at_us: value.as_ref().map(|_| AT + 1),
            value,
        })
}

fn any_notice() -> impl Strategy<Value = Notice> {
    let texts = (any_text(), any_text(), any_text(), option::of(any_text()));
    let times = (any::<i64>(), any::<i64>());
    let alerts = vec(any_alert(), 0..4);
    ("\\PC{0,20}", 0_usize..KINDS.len(), any::<u8>(), texts, times, alerts, 1_usize..60).prop_map(
        |(incident, kind, severity, (title, text, component, url), (at, opened), alerts, times)| {
            let count = alerts.len() * times;
            Notice {
                id: format!("{incident}/{kind}"),
                incident,
                kind: KINDS[kind],
                severity,
                title,
                text,
                component,
                at_us: at,
                opened_at_us: opened,
                url,
                alerts: alerts.into_iter().cycle().take(count).collect(),
            }
        },
    )
}
