//! What holds for every body and every parser of the crate: no panic, only the caller's faults,
//! and no word of the request in a refusal.

mod ai;
mod notify;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use dialect::{Fault, JsonLimits, json, marketplace, pubsub, request_id};
use proptest::collection::vec;
use proptest::prelude::*;
use serde_json::{Map, Value};
use types::Blame;

const MARKER: &str = "zqxj";

/// Runs every parser, also on the bytes wrapped as the data of a good envelope.
fn faults(bytes: &[u8]) -> Vec<Fault> {
    let limits = JsonLimits::default();
    let data = STANDARD.encode(bytes);
    let envelope = format!("{{\"message\":{{\"messageId\":\"m-1\",\"data\":\"{data}\"}}}}");
    [
        json::parse(bytes, limits).err(),
        marketplace::parse(bytes, &limits).err(),
        pubsub::parse_push(bytes, &limits).err(),
        pubsub::parse_signal(bytes, &limits).err(),
        pubsub::parse_push(envelope.as_bytes(), &limits).err(),
        request_id::check_key(&String::from_utf8_lossy(bytes)).err(),
    ]
    .into_iter()
    .flatten()
    .collect()
}

fn hides_the_request(fault: &Fault) -> bool {
    let shown = format!("{fault} {fault:?}");
    let detail = fault.detail.as_str();
    fault.reason.status() == 400
        && fault.reason.blame() == Blame::Caller
        && !shown.contains(MARKER)
        && detail.len() <= 200
        && !detail.ends_with('.')
}

/// Every member name that any shape reads, and one that none does.
const NAMES: [&str; 24] = [
    "tenant_id",
    "entitlement_id",
    "action",
    "effective_at",
    "expires_at",
    "metadata",
    "signature",
    "customer_id",
    "stripe_token",
    "metric",
    "value",
    "timestamp_ms",
    "timestamp",
    "event",
    "signal_type",
    "severity",
    "signal",
    "message",
    "messageId",
    "message_id",
    "data",
    "subscription",
    "deliveryAttempt",
    "plan",
];

/// Values that are good for some member, and values that carry the marker and are good for none.
fn leaf() -> impl Strategy<Value = Value> {
    prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::Bool),
        any::<i64>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        (0..2_000_000_000_i64).prop_map(Value::from),
        prop::sample::select(vec![
            "grant",
            "revoke",
            "t-1",
            "autonomic_signal",
            "quota_approaching",
            "info",
            "2024-01-01T00:00:00Z",
            "9999-12-31T23:59:59Z",
            "-9999-01-01T00:00:00Z",
            "e30=",
            "eyJzaWduYWwiOiJ0ZXN0In0",
            "",
        ])
        .prop_map(Value::from),
        ".{0,12}".prop_map(|tail| Value::from(format!("{MARKER} {tail}"))),
        (100..600_usize).prop_map(|length| Value::from(MARKER.repeat(length / MARKER.len()))),
    ]
}

fn body() -> impl Strategy<Value = Value> {
    let object = |value: BoxedStrategy<Value>| {
        vec((prop::sample::select(NAMES.to_vec()), value), 0..8).prop_map(|members| {
            Value::Object(
                members.into_iter().map(|(k, v)| (k.to_owned(), v)).collect::<Map<_, _>>(),
            )
        })
    };
    leaf().boxed().prop_recursive(4, 32, 8, move |inner| {
        prop_oneof![vec(inner.clone(), 0..4).prop_map(Value::Array), object(inner)]
    })
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(256) })]

    #[test]
    fn arbitrary_bytes_are_answered(bytes in vec(any::<u8>(), 0..256)) {
        for fault in faults(&bytes) {
            prop_assert!(hides_the_request(&fault), "{fault}");
        }
    }

    #[test]
    fn json_like_text_is_answered(text in r#"[\{\}\[\]",:0-9eE.+\\u a-f\x00-\x1f😀-]{0,64}"#) {
        for fault in faults(text.as_bytes()) {
            prop_assert!(hides_the_request(&fault), "{fault}");
        }
    }

    #[test]
    fn no_refusal_repeats_a_value(body in body()) {
        for fault in faults(body.to_string().as_bytes()) {
            prop_assert!(hides_the_request(&fault), "{fault}");
        }
    }

    #[test]
    fn a_cut_or_changed_body_is_answered(place in 0..200_usize, byte in any::<u8>()) {
        let good = format!(
            "{{\"tenant_id\":\"t\",\"entitlement_id\":\"e\",\"action\":\"grant\",\
             \"expires_at\":\"2024-01-01T00:00:00+01:00\",\"metadata\":{{\"note\":\"{MARKER}\"}}}}"
        );
        let place = place % good.len();
        for fault in faults(&good.as_bytes()[..place]) {
            prop_assert!(hides_the_request(&fault), "{fault}");
        }
        let mut changed = good.into_bytes();
        changed[place] = byte;
        for fault in faults(&changed) {
            prop_assert!(hides_the_request(&fault), "{fault}");
        }
    }

    #[test]
    fn accepted_json_means_what_a_plain_reader_sees(body in body()) {
        let text = body.to_string();
        if let Ok(value) = json::parse(text.as_bytes(), JsonLimits::default()) {
            prop_assert_eq!(value, serde_json::from_str::<Value>(&text).expect("valid JSON"));
        }
    }

    #[test]
    fn thousandths_never_leave_half_a_thousandth(units in 0..1_000_000_000_i64, fraction in 0..1_000_000_i64) {
        let text = format!(
            "{{\"tenant_id\":\"t\",\"metric\":\"m\",\"value\":{units}.{fraction:06},\"timestamp_ms\":1}}"
        );
        match pubsub::parse_signal(text.as_bytes(), &JsonLimits::default()) {
            Ok(pubsub::Signal::Measurement { value, .. }) => {
                prop_assert_eq!(value.0, units * 1_000 + (fraction + 500) / 1_000);
            }
            other => prop_assert!(false, "{other:?}"),
        }
    }
}

#[test]
fn a_body_of_a_mebibyte_made_to_hurt_is_answered() {
    let mebibyte = 1 << 20;
    let members: Vec<String> = (0..80_000).map(|i| format!("\"member{i:06}\":1")).collect();
    let bodies = [
        "[".repeat(mebibyte),
        "{\"a\":".repeat(mebibyte / 5),
        "\"".repeat(mebibyte),
        "9".repeat(mebibyte),
        format!("0.{}", "9".repeat(mebibyte)),
        format!("[{}]", "0,".repeat(mebibyte / 2)),
        format!("{{\"tenant_id\":\"{}\"}}", "x".repeat(mebibyte)),
        format!("{{{}}}", members.join(",")),
        format!("{{{},\"member000000\":1}}", members.join(",")),
    ];
    for body in bodies {
        let found = faults(body.as_bytes());
        assert!(!found.is_empty() && found.iter().all(hides_the_request));
    }
}
