//! The table: what is sent, and the status and reason that must come back.
//!
//! Owns: the wrong values, door by door. Refuses to know: how they are sent and checked.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::MARKER;
use crate::support::*;

/// All rows, in the order in which they are sent.
pub(super) fn all() -> Vec<Row> {
    let mut rows = market_rows();
    rows.extend(pubsub_rows());
    for (name, text) in broken_texts() {
        rows.push(Row::new(name, MARKET, text.clone(), FORMAT));
        rows.push(Row::new(name, PUBSUB, text, FORMAT));
    }
    rows.extend(transport_rows());
    rows.extend(route_rows());
    rows
}

pub(super) struct Row {
    pub(super) name: String,
    pub(super) method: &'static str,
    pub(super) path: String,
    pub(super) headers: Vec<(String, String)>,
    pub(super) body: Vec<u8>,
    pub(super) status: u16,
    pub(super) reason: &'static str,
}

impl Row {
    fn new(name: &str, path: &str, body: impl Into<Vec<u8>>, reason: &'static str) -> Row {
        let status = match reason {
            "" => 200,
            "forbidden" => 403,
            "not_found" => 404,
            "method_not_allowed" => 405,
            "payload_too_large" => 413,
            "unsupported_media_type" => 415,
            "duplicate_message" | "entitlement_inactive" => 422,
            _ => 400,
        };
        Row {
            name: format!("{path} {name}"),
            method: "POST",
            path: path.to_owned(),
            headers: vec![(JSON.0.to_owned(), JSON.1.to_owned())],
            body: body.into(),
            status,
            reason,
        }
    }

    fn get(path: &str, reason: &'static str) -> Row {
        let mut row = Row::new("", path, "", reason);
        (row.method, row.headers) = ("GET", Vec::new());
        row
    }

    fn method(mut self, method: &'static str) -> Row {
        self.method = method;
        self
    }

    /// Instead of the JSON content type.
    fn typed(mut self, content_type: &str) -> Row {
        self.headers = vec![("Content-Type".to_owned(), content_type.to_owned())];
        self
    }

    fn header(mut self, name: &str, value: &str) -> Row {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }
}

pub(super) const MARKET: &str = "/marketplace";
const PUBSUB: &str = "/pubsub";
pub(super) const FORMAT: &str = "invalid_message_format";

/// A good event with one member changed; `Null` stays as null, [`ABSENT`] takes it out.
fn changed(good: &Value, member: &str, value: &Value) -> Value {
    let mut body = good.clone();
    body[member] = value.clone();
    if *value == ABSENT {
        body.as_object_mut().unwrap().remove(member);
    }
    body
}

const ABSENT: Value = Value::Bool(false);

fn nested(depth: usize) -> String {
    // The object itself is the first level.
    let (open, close) = ("[".repeat(depth - 1), "]".repeat(depth - 1));
    format!(r#"{{"customer_id":"nest","x":{open}{close}}}"#)
}

/// Texts that are not the JSON of any body, for both doors.
fn broken_texts() -> Vec<(&'static str, Vec<u8>)> {
    let text = |text: &str| text.replace('M', MARKER).into_bytes();
    vec![
        ("empty", Vec::new()),
        ("white space", text(" \r\n\t")),
        ("no JSON", text("M")),
        ("cut", text(r#"{"customer_id":"M"#)),
        ("trailing comma", text(r#"{"customer_id":"M",}"#)),
        ("two values", text(r#"{"customer_id":"M"}{}"#)),
        ("single quotes", text("{'customer_id':'M'}")),
        ("array", text(r#"["M"]"#)),
        ("string", text(r#""M""#)),
        ("number", text("42")),
        ("null", text("null")),
        ("NaN", text(r#"{"customer_id":"a","x":NaN,"y":"M"}"#)),
        ("infinity", text(r#"{"customer_id":"a","x":-Infinity,"y":"M"}"#)),
        ("number beyond a double", text(r#"{"customer_id":"a","x":1e999,"y":"M"}"#)),
        ("leading zero", text(r#"{"customer_id":"a","x":007,"y":"M"}"#)),
        ("byte order mark", [b"\xef\xbb\xbf".as_slice(), b"{}"].concat()),
        (
            "not UTF-8",
            [b"{\"customer_id\":\"".as_slice(), MARKER.as_bytes(), b"\xff\xfe\"}"].concat(),
        ),
        ("overlong UTF-8", b"{\"customer_id\":\"a\xc0\xafb\"}".to_vec()),
        ("UTF-16", "{\"customer_id\":\"a\"}".encode_utf16().flat_map(u16::to_le_bytes).collect()),
        ("NUL byte", text("{\"customer_id\":\"M\0\"}")),
        ("escaped NUL", text(r#"{"customer_id":"M\u0000"}"#)),
        ("escaped control", text(r#"{"customer_id":"a","x":"M\u001f"}"#)),
        ("raw line break in a string", text("{\"customer_id\":\"M\n\"}")),
        ("lone high surrogate", text(r#"{"customer_id":"M\ud800"}"#)),
        ("lone low surrogate", text(r#"{"customer_id":"M\udc00"}"#)),
        ("swapped surrogates", text(r#"{"customer_id":"M\udc00\ud800"}"#)),
        ("duplicate key", text(r#"{"customer_id":"M","customer_id":"b"}"#)),
        ("duplicate key, escaped", text(r#"{"customer_id":"M","customer\u005fid":"b"}"#)),
        ("duplicate key inside", text(r#"{"customer_id":"a","x":{"M":1,"M":2}}"#)),
        ("11 levels", nested(11).into()),
        ("64 levels", nested(64).into()),
        ("100000 levels", nested(100_000).into()),
        ("100000 open brackets", "[".repeat(100_000).into()),
        ("100000 open objects", "{\"a\":".repeat(100_000).into()),
    ]
}

fn market_rows() -> Vec<Row> {
    let mut rows = Vec::new();
    let mut add = |name: &str, body: Value, reason| {
        rows.push(Row::new(name, MARKET, body.to_string(), reason));
    };
    let (long, emoji) = (MARKER.repeat(42), format!("{MARKER}\u{1f600}"));
    let quoted = format!("{MARKER}\"'\\");
    let customer = |value: Value| json!({"customer_id": value});
    for (name, id) in [
        ("500 characters", json!(&long[..500])),
        ("257 characters", json!(&long[..257])),
        ("emoji", json!(emoji)),
        ("quotes", json!(quoted)),
        ("space", json!(format!("a {MARKER}"))),
        ("path", json!(format!("../{MARKER}"))),
        ("leading underscore", json!(format!("_{MARKER}"))),
        ("delete", json!(format!("{MARKER}\u{7f}"))),
        ("empty", json!("")),
    ] {
        add(&format!("customer_id {name}"), customer(id), "invalid_tenant_id");
    }
    for (name, id) in [
        ("number", json!(-1)),
        ("float", json!(1.5)),
        ("huge number", json!(u64::MAX)),
        ("array", json!([MARKER])),
        ("object", json!({"id": MARKER})),
        ("true", json!(true)),
    ] {
        add(&format!("customer_id {name}"), customer(id), "invalid_field");
    }
    add("customer_id null", customer(Value::Null), "missing_field");
    add("nothing", json!({}), "missing_field");
    add("other members only", json!({"name": MARKER}), "missing_field");
    let both = json!({"customer_id": "a", "tenant_id": MARKER});
    add("customer_id and tenant_id", both, "invalid_field");
    for token in [
        json!(""),
        json!("t k"),
        json!(format!("{MARKER}\u{e9}")),
        json!("t".repeat(256)),
        json!(5),
    ] {
        let body = json!({"customer_id": "a", "stripe_token": token});
        add("stripe_token", body, "invalid_field");
    }

    let good = json!({"tenant_id": "tenant-1", "entitlement_id": "starter", "action": "grant"});
    let word = || json!(format!("{MARKER}!"));
    let metadata = |value: Value| json!({"key": value});
    let seventeen: BTreeMap<String, i64> = (0..17).map(|n| (format!("k{n}"), n)).collect();
    let cases: Vec<(&str, Value, &'static str)> = vec![
        ("tenant_id", ABSENT, "missing_field"),
        ("tenant_id", Value::Null, "missing_field"),
        ("tenant_id", json!(""), "invalid_tenant_id"),
        ("tenant_id", json!(&long[..129]), "invalid_tenant_id"),
        ("tenant_id", json!(&long[..500]), "invalid_tenant_id"),
        ("tenant_id", json!(emoji), "invalid_tenant_id"),
        ("tenant_id", json!(quoted), "invalid_tenant_id"),
        ("tenant_id", json!(-7), "invalid_field"),
        ("entitlement_id", ABSENT, "missing_field"),
        ("entitlement_id", Value::Null, "missing_field"),
        ("entitlement_id", json!(&long[..500]), "invalid_entitlement_id"),
        ("entitlement_id", json!(emoji), "invalid_entitlement_id"),
        ("entitlement_id", json!({}), "invalid_field"),
        ("action", ABSENT, "missing_field"),
        ("action", Value::Null, "missing_field"),
        ("action", word(), "unknown_action"),
        ("action", json!("GRANT"), "unknown_action"),
        ("action", json!(1), "invalid_field"),
        ("effective_at", json!(-1), "invalid_field"),
        ("effective_at", json!(1.5), "invalid_field"),
        ("effective_at", json!(u64::MAX), "invalid_field"),
        ("effective_at", json!(1e300), "invalid_field"),
        ("effective_at", word(), "invalid_field"),
        ("effective_at", json!("2024-01-01T00:00:00"), "invalid_field"),
        ("effective_at", json!("2024-02-30T00:00:00Z"), "invalid_field"),
        ("effective_at", json!([1]), "invalid_field"),
        ("expires_at", json!(-1), "invalid_field"),
        ("expires_at", json!(253_402_300_800_i64), "invalid_field"),
        ("expires_at", json!("tomorrow"), "invalid_field"),
        ("signature", json!(5), "invalid_field"),
        ("metadata", json!(MARKER), "invalid_field"),
        ("metadata", json!([MARKER]), "invalid_field"),
        ("metadata", json!({format!("{MARKER} key"): "v"}), "invalid_field"),
        ("metadata", json!({"": "v"}), "invalid_field"),
        ("metadata", metadata(json!(1.5)), "invalid_field"),
        ("metadata", metadata(json!({"deep": MARKER})), "invalid_field"),
        ("metadata", metadata(json!(&long[..257])), "invalid_field"),
        ("metadata", metadata(json!(format!("{MARKER}\u{85}"))), "invalid_field"),
        ("metadata", json!(seventeen), "invalid_field"),
        ("metadata", json!({"plan": "no such plan"}), "invalid_field"),
        ("metadata", json!({"plan": 7}), "invalid_field"),
    ];
    for (member, value, reason) in cases {
        let name = format!("{member} {}", value.to_string().chars().take(24).collect::<String>());
        rows.push(Row::new(&name, MARKET, changed(&good, member, &value).to_string(), reason));
    }
    let mut order = good;
    (order["effective_at"], order["expires_at"]) = (json!(2_000_000_000), json!(1_999_999_999));
    rows.push(Row::new("expires before it begins", MARKET, order.to_string(), "invalid_field"));
    rows
}

fn pubsub_rows() -> Vec<Row> {
    let mut rows = Vec::new();
    let now = unix_secs() * 1000;
    let good = json!({"tenant_id": "t", "metric": "cpu", "value": 50, "timestamp_ms": now});
    let long = MARKER.repeat(42);
    let cases: Vec<(&str, Value, &'static str)> = vec![
        ("tenant_id", Value::Null, "missing_field"),
        ("tenant_id", json!(&long[..500]), "invalid_tenant_id"),
        ("tenant_id", json!(format!("{MARKER}\u{1f600}")), "invalid_tenant_id"),
        ("tenant_id", json!(3), "invalid_field"),
        ("metric", Value::Null, "missing_field"),
        ("metric", json!(format!("{MARKER} x")), "invalid_field"),
        ("metric", json!(&long[..65]), "invalid_field"),
        ("value", Value::Null, "missing_field"),
        ("value", json!(-1), "invalid_field"),
        ("value", json!(-0.001), "invalid_field"),
        ("value", json!(1e18), "invalid_field"),
        ("value", json!(u64::MAX), "invalid_field"),
        ("value", json!(MARKER), "invalid_field"),
        ("timestamp_ms", Value::Null, "missing_field"),
        ("timestamp_ms", json!(-5), "invalid_field"),
        ("timestamp_ms", json!(1.5), "invalid_field"),
        ("timestamp_ms", json!(u64::MAX), "invalid_field"),
        ("timestamp_ms", json!(MARKER), "invalid_field"),
        ("action", json!(MARKER), "missing_field"),
        ("entitlement_id", json!("e"), "missing_field"),
        ("event", json!(MARKER), "invalid_field"),
        ("signal_type", json!("quota_approaching"), "missing_field"),
    ];
    for (at, (member, value, reason)) in cases.into_iter().enumerate() {
        let body = push(&format!("bad-{at}"), &changed(&good, member, &value));
        let name = format!("data.{member} {value}").chars().take(40).collect::<String>();
        rows.push(Row::new(&name, PUBSUB, body.to_string(), reason));
    }
    for (name, data) in broken_texts() {
        let body = push_raw("broken", &data).to_string();
        rows.push(Row::new(&format!("data {name}"), PUBSUB, body, FORMAT));
    }
    let event = json!({"event": "autonomic_signal", "tenant_id": "t", "signal_type": MARKER});
    rows.push(Row::new("signal_type", PUBSUB, push("e1", &event).to_string(), "invalid_field"));
    let event = json!({"tenant_id": "t", "entitlement_id": "e", "action": MARKER});
    rows.push(Row::new("action", PUBSUB, push("e2", &event).to_string(), "unknown_action"));
    let bare = json!({"tenant_id": "t"});
    rows.push(Row::new("no shape", PUBSUB, push("e3", &bare).to_string(), "missing_field"));
    let signal = json!({"signal": format!("{MARKER}\u{1f600}")});
    rows.push(Row::new("signal", PUBSUB, push("e4", &signal).to_string(), "invalid_field"));

    let envelope = push("good", &json!({"signal": "test"}));
    let message = |member: &str, value: Value| {
        let mut body = envelope.clone();
        body["message"] = changed(&body["message"], member, &value);
        body.to_string()
    };
    let id = "invalid_request_id";
    for (name, body, reason) in [
        ("message absent", changed(&envelope, "message", &ABSENT).to_string(), "missing_field"),
        ("message null", changed(&envelope, "message", &Value::Null).to_string(), "missing_field"),
        (
            "message text",
            changed(&envelope, "message", &json!(MARKER)).to_string(),
            "invalid_field",
        ),
        ("messageId absent", message("messageId", ABSENT), "missing_field"),
        ("messageId empty", message("messageId", json!("")), id),
        ("messageId long", message("messageId", json!(&long[..129])), id),
        ("messageId space", message("messageId", json!(format!("{MARKER} 1"))), id),
        ("messageId emoji", message("messageId", json!(format!("{MARKER}\u{1f600}"))), id),
        ("messageId number", message("messageId", json!(5)), "invalid_field"),
        ("two message ids", message("message_id", json!(MARKER)), FORMAT),
        ("data absent", message("data", ABSENT), "missing_field"),
        ("data empty", message("data", json!("")), FORMAT),
        ("data no base64", message("data", json!(format!("{MARKER}!!!"))), FORMAT),
        ("data one letter", message("data", json!("A")), FORMAT),
        ("data number", message("data", json!(1)), "invalid_field"),
        (
            "deliveryAttempt",
            changed(&envelope, "deliveryAttempt", &json!(-1)).to_string(),
            "invalid_field",
        ),
        (
            "deliveryAttempt",
            changed(&envelope, "deliveryAttempt", &json!(1.5)).to_string(),
            "invalid_field",
        ),
        (
            "subscription",
            changed(&envelope, "subscription", &json!(format!("{MARKER}\u{e9}"))).to_string(),
            "invalid_field",
        ),
        (
            "subscription",
            changed(&envelope, "subscription", &json!(7)).to_string(),
            "invalid_field",
        ),
    ] {
        rows.push(Row::new(name, PUBSUB, body, reason));
    }
    rows
}

fn transport_rows() -> Vec<Row> {
    let quote = || format!(r#"{{"customer_id":"type","note":"{MARKER}"}}"#);
    let media = "unsupported_media_type";
    let mut rows = vec![
        Row::new("2 MiB", MARKET, MARKER.repeat((2 << 20) / MARKER.len()), "payload_too_large"),
        Row::new("2 MiB", PUBSUB, vec![b' '; 2 << 20], "payload_too_large"),
        Row::new("one byte too many", MARKET, vec![b' '; (1 << 20) + 1], "payload_too_large"),
        Row::new("text", MARKET, quote(), media).typed("text/plain"),
        Row::new("text", PUBSUB, quote(), media).typed("text/plain"),
        Row::new("multipart", MARKET, quote(), media).typed("multipart/form-data; boundary=x"),
        Row::new("empty type", MARKET, quote(), media).typed(""),
        Row::new("planted type", MARKET, quote(), media).typed(MARKER),
        Row::new("xml", MARKET, quote(), media).typed("application/xml"),
        Row::new("form from a page", MARKET, quote(), "forbidden")
            .typed("application/x-www-form-urlencoded")
            .header("Origin", "https://evil.example"),
        Row::new("form from curl", MARKET, quote(), "").typed("application/x-www-form-urlencoded"),
        Row::new("with charset", MARKET, quote(), "").typed("application/json; charset=utf-8"),
        Row::new("in capitals", MARKET, quote(), "").typed("Application/JSON"),
        Row::new("a JSON dialect", MARKET, quote(), "").typed("application/cloudevents+json"),
        Row::new("10 levels", MARKET, nested(10), ""),
        Row::new("first use", MARKET, r#"{"customer_id":"dup"}"#, "").header("X-Request-ID", "dup"),
        Row::new(
            "same id, other body",
            MARKET,
            r#"{"customer_id":"dup","x":1}"#,
            "duplicate_message",
        )
        .header("X-Request-ID", "dup"),
    ];
    let mut untyped = Row::new("no type", MARKET, quote(), media);
    untyped.headers.clear();
    rows.push(untyped);
    let long = MARKER.repeat(20);
    for (name, key) in [
        ("space", format!("{MARKER} x")),
        ("long", long[..129].to_owned()),
        ("not ASCII", format!("{MARKER}\u{e9}")),
    ] {
        for header in ["X-Request-ID", "Idempotency-Key"] {
            let row = Row::new(&format!("{header} {name}"), MARKET, quote(), "invalid_request_id");
            rows.push(row.header(header, &key));
        }
        // Where it only correlates, a bad one is replaced.
        let body =
            push(&format!("id-{name}").replace(' ', "-"), &json!({"signal": "test"})).to_string();
        rows.push(
            Row::new(&format!("X-Request-ID {name}"), PUBSUB, body, "")
                .header("X-Request-ID", &key),
        );
    }
    rows
}

fn route_rows() -> Vec<Row> {
    let mut rows = Vec::new();
    for path in [
        "/",
        "/nope",
        "/health/",
        "/v1/nope",
        "/marketplace/",
        "//marketplace",
        "/%2e%2e/etc/passwd",
        "/receipts/a/b",
    ] {
        rows.push(Row::get(&format!("{path}?x={MARKER}"), "not_found"));
        rows.push(Row::new("", &format!("{path}?x={MARKER}"), "{}", "not_found"));
    }
    rows.push(Row::get(&format!("/{MARKER}"), "not_found"));
    for id in [
        MARKER,
        "rcpt_",
        "rcpt_zz",
        "",
        "%00",
        "rcpt_00000000000000000000000000000000",
        "RCPT_00000000000000000000000000000000",
    ] {
        rows.push(Row::get(&format!("/receipts/{id}"), "not_found"));
    }
    rows.push(Row::get(&format!("/receipts/rcpt_{}", MARKER.repeat(42)), "not_found"));
    for query in [
        "limit=0",
        "limit=101",
        "limit=-1",
        "limit=ten",
        "limit=1.5",
        "limit=99999999999999999999",
        "limit=",
        "cursor=xyz",
        "cursor=-1",
        "cursor=",
        "cursor=11111111111111111",
        "since=now",
        "until=1e9",
        "since=9223372036854775808",
        "type=M",
        "type=",
        "tenant_id=",
        "tenant_id=a%20b",
        "tenant_id=%F0%9F%98%80",
        "stream=__x",
        "M=1",
        "offset=5",
        "%FF=1",
    ] {
        let query = query.replace('M', MARKER);
        rows.push(Row::get(&format!("/receipts?{query}"), "invalid_field"));
    }
    rows.push(Row::get(&format!("/receipts?tenant_id={}", "x".repeat(500)), "invalid_field"));
    for (method, path) in [
        ("GET", MARKET),
        ("PUT", MARKET),
        ("DELETE", MARKET),
        ("GET", PUBSUB),
        ("PATCH", PUBSUB),
        ("POST", "/health"),
        ("DELETE", "/receipts"),
        ("POST", "/metrics"),
        ("ZQ7MARKER9XK", MARKET),
        ("OPTIONS", MARKET),
        ("TRACE", PUBSUB),
    ] {
        rows.push(Row::new(method, path, "{}", "method_not_allowed").method(method));
    }
    rows
}
