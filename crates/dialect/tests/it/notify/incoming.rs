//! The alerts of others.

use dialect::JsonLimits;
use dialect::notify::incoming::{ALERTS_MAX, ExternalAlert, posted, webhook};
use dialect::notify::{alertmanager, incoming};
use proptest::prelude::*;
use serde_json::{Value, json};
use types::{Micros, Reason};

use super::{AT, any_notice, body, notice};

const LIMITS: JsonLimits = JsonLimits { max_depth: 10, max_nodes: 100_000 };

fn group() -> Value {
    json!({
        "version": "4",
        "groupKey": "{}:{alertname=\"x\"}",
        "truncatedAlerts": 2,
        "status": "firing",
        "receiver": "tai",
        "groupLabels": {},
        "commonLabels": {},
        "commonAnnotations": {},
        "externalURL": "http://am:9093",
        "something_new": [1, { "a": null }],
        "alerts": [
            {
                "status": "firing",
                "labels": { "alertname": "DiskFull", "instance": "a:9100", "empty": "" },
                "annotations": { "description": "two\nlines\tand a tab" },
                "startsAt": "2026-11-18T12:06:40.5+01:00",
                "endsAt": "0001-01-01T00:00:00Z",
                "generatorURL": "http://prom:9090/graph?g0.expr=up",
                "fingerprint": "ffffffffffffffff",
            },
            {
                "status": "resolved",
                "labels": { "alertname": "DiskFull", "instance": "b:9100" },
                "startsAt": "2026-11-18T11:06:40.123456789Z",
                "endsAt": "2026-11-18T11:07:40Z",
            },
        ],
    })
}

fn faults(group: &Value) -> Option<(Reason, String)> {
    let fault = webhook(group.to_string().as_bytes(), LIMITS).err()?;
    Some((fault.reason, fault.detail.as_str().to_owned()))
}

fn alert(change: impl Fn(&mut Value)) -> Option<(Reason, String)> {
    let mut group = group();
    change(&mut group["alerts"][0]);
    faults(&group)
}

#[test]
fn a_webhook_of_alertmanager_is_read() {
    let group = webhook(group().to_string().as_bytes(), LIMITS).expect("a group");
    assert_eq!(group.truncated, 2);
    let [first, second] = group.alerts.as_slice() else { panic!("there are two") };
    assert_eq!(first.labels.len(), 2, "an empty label is none");
    assert_eq!(first.annotations["description"], "two\nlines\tand a tab");
    assert_eq!(first.starts_at, Some(Micros(AT + 500_000)));
    assert_eq!(first.ends_at, None);
    assert_eq!(first.said_resolved, Some(false));
    assert_eq!(first.generator_url.as_deref(), Some("http://prom:9090/graph?g0.expr=up"));
    assert_eq!(first.fingerprint, alertmanager::fingerprint(&first.labels));
    assert_ne!(first.fingerprint, "ffffffffffffffff");
    assert_eq!(second.said_resolved, Some(true));
    assert_eq!(second.starts_at, Some(Micros(AT + 123_456)));
    assert_ne!(first.fingerprint, second.fingerprint);
}

#[test]
fn posted_alerts_are_over_when_their_end_has_passed() {
    let alerts = json!([
        { "labels": { "alertname": "a" } },
        { "labels": { "alertname": "b" }, "endsAt": "2026-11-18T11:06:40Z", "startsAt": "" },
    ]);
    let alerts = posted(alerts.to_string().as_bytes(), LIMITS).expect("alerts");
    let over = |now| -> Vec<bool> { alerts.iter().map(|alert| alert.is_resolved(now)).collect() };
    assert_eq!(over(Micros(AT - 1)), [false, false]);
    assert_eq!(over(Micros(AT)), [false, true]);
    assert_eq!(posted(b"[]", LIMITS), Ok(Vec::new()));
    assert!(posted(b"{}", LIMITS).is_err() && webhook(b"[]", LIMITS).is_err());
}

#[test]
fn what_is_listed_has_to_be_of_its_type() {
    let set = |name: &'static str, value: Value| alert(move |alert| alert[name] = value.clone());
    for (fault, expected) in [
        (set("status", json!("pending")), "alerts[].status must be one of firing, resolved"),
        (set("status", json!(1)), "alerts[].status must be a string"),
        (set("status", Value::Null), "alerts[].status is required"),
        (set("labels", json!([])), "alerts[].labels must be an object"),
        (set("labels", json!({})), "alerts[].labels must hold at least one that is not empty"),
        (set("labels", json!({ "a": 1 })), "alerts[].labels must hold strings only"),
        (
            set("labels", json!({ "": "x" })),
            "alerts[].labels must have names of 1 to 128 characters",
        ),
        (set("annotations", json!("x")), "alerts[].annotations must be an object"),
        (set("annotations", json!({ "a": null })), "alerts[].annotations must hold strings only"),
        (
            set("startsAt", json!("yesterday")),
            "alerts[].startsAt must be an ISO 8601 time with an offset, in the years 1970 to 9999",
        ),
        (set("endsAt", json!(5)), "alerts[].endsAt must be a string"),
        (set("generatorURL", json!(true)), "alerts[].generatorURL must be a string"),
    ] {
        let (_, detail) = fault.expect("must be refused");
        assert_eq!(detail, expected);
    }
    for (name, value, reason) in [
        ("version", json!("3"), Reason::InvalidField),
        ("version", json!(4), Reason::InvalidField),
        ("version", Value::Null, Reason::MissingField),
        ("alerts", Value::Null, Reason::MissingField),
        ("alerts", json!({}), Reason::InvalidField),
        ("alerts", json!([1]), Reason::InvalidField),
        ("truncatedAlerts", json!(-1), Reason::InvalidField),
    ] {
        let mut group = group();
        group[name] = value;
        assert_eq!(faults(&group).map(|(reason, _)| reason), Some(reason), "{name}");
    }
}

#[test]
fn there_is_a_limit_to_everything() {
    let texts = |count: usize, value: usize| -> Value {
        (0..count).map(|at| (format!("l{at}"), json!("x".repeat(value)))).collect()
    };
    let labels = |value: Value| alert(move |alert| alert["labels"] = value.clone());
    assert_eq!(labels(texts(64, 1)), None);
    assert!(labels(texts(65, 1)).is_some());
    assert_eq!(labels(texts(1, 1_024)), None);
    assert!(labels(texts(1, 1_025)).is_some());
    assert_eq!(labels(json!({ "n".repeat(128): "x" })), None);
    assert!(labels(json!({ "n".repeat(129): "x" })).is_some());
    let annotations = |value: Value| alert(move |alert| alert["annotations"] = value.clone());
    assert_eq!(annotations(texts(1, 8_192)), None);
    assert!(annotations(texts(1, 8_193)).is_some());
    for (count, is_taken) in [(ALERTS_MAX, true), (ALERTS_MAX + 1, false)] {
        let alerts = Value::Array(vec![json!({ "labels": { "a": "b" } }); count]);
        let found = posted(alerts.to_string().as_bytes(), LIMITS);
        assert_eq!(found.is_ok(), is_taken, "{count}");
    }
    let limits = JsonLimits { max_nodes: 20, ..LIMITS };
    assert!(webhook(group().to_string().as_bytes(), limits).is_err());
}

#[test]
fn a_label_that_is_there_twice_is_no_label() {
    let twice = br#"[{"labels":{"a":"1","a":"2"}}]"#;
    let fault = posted(twice, LIMITS).expect_err("must be refused");
    assert_eq!(fault.reason, Reason::InvalidMessageFormat);
    let nul = br#"[{"labels":{"a":"\u0000"}}]"#;
    assert!(posted(nul, LIMITS).is_err());
}

fn ours(alerts: &[ExternalAlert]) -> Vec<&str> {
    alerts.iter().map(|alert| alert.fingerprint.as_str()).collect()
}

#[test]
fn what_we_send_we_understand() {
    let request = alertmanager::request(&notice(), "ops", None);
    let group = incoming::webhook(&request.body, LIMITS).expect("a group");
    assert_eq!(
        ours(&group.alerts),
        [body(&request)["alerts"][0]["fingerprint"].as_str().unwrap_or("")]
    );
    assert_eq!(group.alerts[0].starts_at, Some(Micros(AT)));
    assert_eq!(group.alerts[0].said_resolved, Some(false));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn no_body_does_any_harm(bytes in any::<Vec<u8>>(), text in "[\\[\\]{}\":,a-z0-9]{0,60}") {
        for bytes in [bytes.as_slice(), text.as_bytes()] {
            let _ = webhook(bytes, LIMITS);
            let _ = posted(bytes, LIMITS);
        }
    }

    #[test]
    fn a_refusal_does_not_repeat_the_body(name in "zqxj[a-z]{0,8}", at in 0_usize..4) {
        let mut alert = json!({ "labels": { "a": "b" } });
        match at {
            0 => alert["labels"][name.as_str()] = json!(1),
            1 => alert["annotations"] = json!({ name.as_str(): name.repeat(3_000) }),
            2 => alert["startsAt"] = json!(name),
            _ => alert["status"] = json!(name),
        }
        let bodies = [json!([alert]), json!({ "version": "4", "alerts": [alert] })];
        for body in bodies {
            let bytes = body.to_string();
            for fault in [posted(bytes.as_bytes(), LIMITS).err(), webhook(bytes.as_bytes(), LIMITS).err()] {
                let shown = format!("{fault:?}");
                prop_assert!(!shown.contains("zqxj"), "{shown}");
            }
        }
    }

    #[test]
    fn a_notice_that_is_sent_out_can_come_in(notice in any_notice()) {
        let request = alertmanager::request(&notice, "ops", None);
        // Other senders do not write what is no text.
        let body = String::from_utf8_lossy(&request.body);
        if !body.contains("\\u00") && !body.contains("\\b") && !body.contains("\\f") && !notice.incident.is_empty() {
            let group = incoming::webhook(&request.body, LIMITS);
            prop_assert!(group.is_ok(), "{group:?}");
        }
    }
}
