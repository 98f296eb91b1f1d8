//! Tables of envelopes and signals, good and bad.

use super::*;
use crate::marketplace::Action;
use base64::engine::general_purpose::{STANDARD as PADDED, URL_SAFE_NO_PAD};
use serde_json::{Value, json};
use types::Reason::{
    InvalidField, InvalidMessageFormat, InvalidRequestId, InvalidTenantId, MissingField,
    UnknownAction,
};

const TIME: &str =
    "must be an ISO 8601 time with an offset or integer unix seconds, in the years 1970 to 9999";

fn signal(data: &Value) -> Result<Signal, Fault> {
    parse_signal(data.to_string().as_bytes(), &JsonLimits::default())
}

fn push(body: &Value) -> Result<Push, Fault> {
    parse_push(body.to_string().as_bytes(), &JsonLimits::default())
}

/// `good` with `changes` laid over it; a change to null takes the member's meaning away.
fn changed(good: &Value, changes: &Value) -> Value {
    let mut body = good.clone();
    for (name, value) in changes.as_object().expect("an object") {
        body[name] = value.clone();
    }
    body
}

fn assert_refused<T: std::fmt::Debug>(found: Result<T, Fault>, reason: Reason, detail: &str) {
    let fault = found.expect_err("must be refused");
    assert_eq!((fault.reason, fault.detail.as_str()), (reason, detail));
}

fn tenant_id(text: &str) -> TenantId {
    TenantId::new(text).expect("a tenant id")
}

#[test]
fn the_four_shapes_are_told_apart() {
    let event = signal(
        &json!({"tenant_id": "t", "entitlement_id": "e", "action": "resume", "metric": "m", "value": 1, "metadata": {"source": "billing"}}),
    );
    match event {
        Ok(Signal::Entitlement(event)) => assert_eq!(event.action, Action::Resume),
        other => panic!("{other:?}"),
    }
    let measurement = Signal::Measurement {
        tenant_id: tenant_id("t"),
        metric: "cpu.load-1_m".to_owned(),
        value: Milli(80_001),
        timestamp: Millis(1_704_067_200_123),
    };
    let body = json!({"tenant_id": "t", "metric": "cpu.load-1_m", "value": 80.0005, "timestamp_ms": 1_704_067_200_123_i64, "signal": "x", "action": null});
    assert_eq!(signal(&body), Ok(measurement));
    let autonomic = |severity, timestamp| Signal::Autonomic {
        tenant_id: tenant_id("t"),
        signal_type: SignalType::CapacityAlert,
        severity,
        timestamp,
    };
    let base =
        json!({"event": "autonomic_signal", "signal_type": "capacity_alert", "tenant_id": "t"});
    assert_eq!(signal(&base), Ok(autonomic(Severity::Warning, None)));
    for (name, value, millis) in [
        ("timestamp", json!("2024-01-01T00:00:00.1239Z"), 1_704_067_200_123),
        ("timestamp", json!(1_704_067_200), 1_704_067_200_000),
        ("timestamp_ms", json!(7), 7),
    ] {
        let mut body = base.clone();
        body["severity"] = json!("critical");
        body[name] = value;
        assert_eq!(signal(&body), Ok(autonomic(Severity::Critical, Some(Millis(millis)))));
    }
    let test = |timestamp| Signal::Untenanted { signal: "test".to_owned(), timestamp };
    assert_eq!(signal(&json!({"signal": "test", "tenant_id": null})), Ok(test(None)));
    let body = json!({"signal": "test", "timestamp": "2024-01-01T00:00:00Z"});
    assert_eq!(signal(&body), Ok(test(Some(Micros::from_secs(1_704_067_200)))));
}

#[test]
fn kinds_and_words_are_fixed() {
    let kind = |data: Value| signal(&data).map(|signal| signal.kind());
    let event = json!({"tenant_id": "t", "entitlement_id": "e", "action": "grant"});
    assert_eq!(kind(event), Ok("entitlement"));
    let reading = json!({"tenant_id": "t", "metric": "m", "value": 0, "timestamp_ms": 0});
    assert_eq!(kind(reading), Ok("measurement"));
    assert_eq!(kind(json!({"signal": "test"})), Ok("untenanted"));
    let words = ["quota_approaching", "capacity_alert", "failure_detected"];
    for (word, signal_type) in words.into_iter().zip(SignalType::ALL) {
        let body = json!({"event": "autonomic_signal", "signal_type": word, "tenant_id": "t"});
        assert_eq!(kind(body), Ok("autonomic"));
        assert_eq!(signal_type.as_str(), word);
    }
    for (word, severity) in ["info", "warning", "critical"].into_iter().zip(Severity::ALL) {
        assert_eq!(severity.as_str(), word);
    }
}

#[test]
fn a_message_without_a_shape_is_refused_by_what_the_nearest_lacks() {
    let nothing = "action, event or metric is required";
    for (body, detail) in [
        (json!({}), "tenant_id is required"),
        (json!({"timestamp_ms": 1}), "tenant_id is required"),
        (json!({"tenant_id": "t"}), nothing),
        (json!({"tenant_id": "t", "signal": "test"}), nothing),
        (json!({"entitlement_id": "e"}), "tenant_id is required"),
        (json!({"customer_id": "c", "action": "grant"}), "tenant_id is required"),
        (json!({"tenant_id": "t", "action": "grant"}), "entitlement_id is required"),
        (json!({"tenant_id": "t", "entitlement_id": "e", "metric": "m"}), "action is required"),
    ] {
        assert_refused(signal(&body), MissingField, detail);
    }
    let event = json!({"tenant_id": "t", "entitlement_id": "e", "action": "explode"});
    let actions = "action must be one of grant, revoke, suspend, resume";
    assert_refused(signal(&event), UnknownAction, actions);
    let both = json!({"customer_id": "c", "tenant_id": "t", "action": "grant"});
    let detail = "customer_id and tenant_id must not both be given";
    assert_refused(signal(&both), InvalidField, detail);
    for other in [json!([1]), json!("test"), json!(null), json!(80)] {
        let detail = "message.data must be a JSON object";
        assert_refused(signal(&other), InvalidMessageFormat, detail);
    }
}

#[test]
fn a_bad_measurement_is_refused() {
    let good = json!({"tenant_id": "t", "metric": "m", "value": 1, "timestamp_ms": 1});
    let number = "value must be a number from 0 to 1000000000";
    let millis = "timestamp_ms must be integer unix milliseconds in the years 1970 to 9999";
    let word = "metric must be 1 to 64 letters, digits, dots, hyphens or underscores";
    let long = "tenant_id must be at most 128 characters";
    for (changes, reason, detail) in [
        (json!({"tenant_id": null}), MissingField, "tenant_id is required"),
        (json!({"metric": null}), MissingField, "metric is required"),
        (json!({"value": null}), MissingField, "value is required"),
        (json!({"timestamp_ms": null}), MissingField, "timestamp_ms is required"),
        (json!({"tenant_id": "x".repeat(129)}), InvalidTenantId, long),
        (json!({"metric": ""}), InvalidField, word),
        (json!({"metric": "m".repeat(65)}), InvalidField, word),
        (json!({"metric": "cpu load"}), InvalidField, word),
        (json!({"metric": 7}), InvalidField, "metric must be a string"),
        (json!({"value": "80"}), InvalidField, number),
        (json!({"value": "NaN"}), InvalidField, number),
        (json!({"value": true}), InvalidField, number),
        (json!({"value": -1}), InvalidField, number),
        (json!({"value": 1e308}), InvalidField, number),
        (json!({"timestamp_ms": -1}), InvalidField, millis),
        (json!({"timestamp_ms": 1.5}), InvalidField, millis),
        (json!({"timestamp_ms": "1"}), InvalidField, millis),
        (json!({"timestamp_ms": 253_402_300_800_000_i64}), InvalidField, millis),
        (json!({"timestamp_ms": u64::MAX}), InvalidField, millis),
    ] {
        assert_refused(signal(&changed(&good, &changes)), reason, detail);
    }
    let huge = br#"{"tenant_id":"t","metric":"m","value":1e400,"timestamp_ms":1}"#;
    let found = parse_signal(huge, &JsonLimits::default());
    assert_eq!(found.map_err(|fault| fault.reason), Err(InvalidMessageFormat));
}

#[test]
fn a_bad_autonomic_or_untenanted_signal_is_refused() {
    let good =
        json!({"event": "autonomic_signal", "signal_type": "capacity_alert", "tenant_id": "t"});
    let types = "signal_type must be one of quota_approaching, capacity_alert, failure_detected";
    let severities = "severity must be one of info, warning, critical";
    let time = format!("timestamp {TIME}");
    for (changes, reason, detail) in [
        (json!({"event": "other"}), InvalidField, "event must be one of autonomic_signal"),
        (json!({"event": null}), MissingField, "event is required"),
        (json!({"signal_type": null}), MissingField, "signal_type is required"),
        (json!({"signal_type": "x"}), InvalidField, types),
        (json!({"tenant_id": null}), MissingField, "tenant_id is required"),
        (json!({"severity": "fatal"}), InvalidField, severities),
        (json!({"severity": 1}), InvalidField, "severity must be a string"),
        (json!({"timestamp": 1_704_067_200_000_i64}), InvalidField, &time),
    ] {
        assert_refused(signal(&changed(&good, &changes)), reason, detail);
    }
    let name = "signal must be 1 to 64 printable ASCII characters";
    for (body, detail) in [
        (json!({"signal": ""}), name),
        (json!({"signal": "s".repeat(65)}), name),
        (json!({"signal": "\u{1f600}"}), name),
        (json!({"signal": 1}), "signal must be a string"),
        (json!({"signal": "test", "timestamp": "yesterday"}), &time),
    ] {
        assert_refused(signal(&body), InvalidField, detail);
    }
}

#[test]
fn late_early_and_boundary_times_are_all_taken() {
    for timestamp_ms in [0, 1, 1_704_067_200_000, 253_402_300_799_999_i64] {
        let body =
            json!({"tenant_id": "t", "metric": "m", "value": 1, "timestamp_ms": timestamp_ms});
        match signal(&body) {
            Ok(Signal::Measurement { timestamp, .. }) => assert_eq!(timestamp.0, timestamp_ms),
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn every_spelling_of_an_envelope_gives_the_same_push() {
    // Bytes that need `+` or `/` and padding, so that the three spellings differ.
    let data = br#"{"signal":"test","note":"~~?>>?."}"#;
    let (padded, url) = (PADDED.encode(data), URL_SAFE_NO_PAD.encode(data));
    assert!(padded.ends_with('=') && padded.contains(['+', '/']) && url.contains(['-', '_']));
    for text in [&padded, padded.trim_end_matches('='), &url] {
        for body in [
            json!({"message": {"messageId": "m-1", "data": text}}),
            json!({"message": {"message_id": "m-1", "messageId": null, "data": text}, "subscription": null, "deliveryAttempt": null}),
            json!({"message": {"messageId": "m-1", "message_id": "m-1", "publishTime": "x", "attributes": {"a": "b"}, "orderingKey": "k", "data": text}, "extra": []}),
        ] {
            let found = push(&body).expect("a push");
            assert_eq!((found.message_id.as_str(), found.delivery_attempt), ("m-1", None));
            assert_eq!((found.payload.kind(), found.subscription), ("untenanted", None));
            assert_eq!(found.data, data);
        }
    }
    let body = json!({"message": {"messageId": "m-1", "data": padded}, "subscription": "projects/p/subscriptions/s", "deliveryAttempt": 5});
    let found = push(&body).expect("a push");
    assert_eq!(found.delivery_attempt, Some(5));
    assert_eq!(found.subscription.as_deref(), Some("projects/p/subscriptions/s"));
}

#[test]
fn a_bad_envelope_is_refused_by_the_path_of_its_member() {
    let good = PADDED.encode(br#"{"signal":"test"}"#);
    let good = json!({"messageId": "m-1", "data": good});
    let message = |changes: Value| json!({"message": changed(&good, &changes)});
    let key = "message.messageId must be 1 to 128 printable ASCII characters without spaces";
    let base64 = "message.data must be base64";
    let table = [
        (json!({}), MissingField, "message is required"),
        (json!({"message": null}), MissingField, "message is required"),
        (json!({"message": []}), InvalidField, "message must be an object"),
        (json!([]), InvalidMessageFormat, "body must be a JSON object"),
        (message(json!({"messageId": null})), MissingField, "message.messageId is required"),
        (message(json!({"messageId": 5})), InvalidField, "message.messageId must be a string"),
        (message(json!({"messageId": ""})), InvalidRequestId, key),
        (message(json!({"messageId": "a b"})), InvalidRequestId, key),
        (message(json!({"messageId": "x".repeat(500)})), InvalidRequestId, key),
        (message(json!({"messageId": "\u{1f600}"})), InvalidRequestId, key),
        (
            message(json!({"message_id": "m-2"})),
            InvalidMessageFormat,
            "message.messageId and message.message_id must agree",
        ),
        (message(json!({"data": null})), MissingField, "message.data is required"),
        (
            message(json!({"data": {"signal": "test"}})),
            InvalidField,
            "message.data must be a string",
        ),
        (message(json!({"data": ""})), InvalidMessageFormat, "message.data is empty"),
        (message(json!({"data": "!!!!"})), InvalidMessageFormat, base64),
        (message(json!({"data": "a"})), InvalidMessageFormat, base64),
        (message(json!({"data": "+_+_"})), InvalidMessageFormat, base64),
        (message(json!({"data": format!("{good} ")})), InvalidMessageFormat, base64),
        (message(json!({"data": format!("{good}====")})), InvalidMessageFormat, base64),
        (
            message(json!({"data": PADDED.encode([0xff, 0xfe])})),
            InvalidMessageFormat,
            "message.data is not UTF-8",
        ),
        (
            message(json!({"data": PADDED.encode("{\"a\":")})),
            InvalidMessageFormat,
            "message.data ends before its JSON does at line 1 column 5",
        ),
    ];
    for (body, reason, detail) in table {
        assert_refused(push(&body), reason, detail);
    }
}

#[test]
fn a_bad_delivery_attempt_or_subscription_is_refused() {
    let data = PADDED.encode(br#"{"signal":"test"}"#);
    let good = json!({"message": {"messageId": "m-1", "data": data}});
    for attempt in [json!(-1), json!(1.5), json!("1"), json!(u64::MAX)] {
        let mut body = good.clone();
        body["deliveryAttempt"] = attempt;
        assert_refused(
            push(&body),
            InvalidField,
            "deliveryAttempt must be an integer from 0 to 4294967295",
        );
    }
    for name in ["".to_owned(), "s".repeat(513), "caf\u{e9}".to_owned()] {
        let mut body = good.clone();
        body["subscription"] = json!(name);
        assert_refused(
            push(&body),
            InvalidField,
            "subscription must be 1 to 512 printable ASCII characters",
        );
    }
}
