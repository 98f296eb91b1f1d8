//! What callers send: parameters, headers and bodies.
//!
//! Owns: the limits of every member, as the parsers in `dialect` hold them. Refuses to know: what
//! is answered.

use dialect::JsonLimits;
use dialect::marketplace::Action;
use dialect::pubsub::{Severity, SignalType};
use ledger::Kind;
use serde_json::{Map, Value, json};
use types::{Scope, limits};

use super::forms::{
    READABLE, defaulting, described, flag, id, integer, line, list, matching, may, must, nothing,
    or_null, readable, schema, sent, text, words,
};

/// 1 to 64 letters, digits, dots, hyphens and underscores.
const WORD: &str = "^[A-Za-z0-9._-]{1,64}$";
/// An idempotency key.
const KEY: &str = "^[!-~]{1,128}$";
/// The text form of a stream's name.
pub(super) const STREAM: &str = "^_?[A-Za-z0-9][A-Za-z0-9._:@+-]{0,255}(~[0-9a-f]{16})?$";
/// A position as it is shown: hexadecimal without leading zeros, 63 bits.
const CURSOR: &str = "^(0|[1-9a-f][0-9a-f]{0,14}|[1-7][0-9a-f]{15})$";
const SOURCE: &str = "an address, or a network of at least one bit";
/// The last second, and the last millisecond, of the year 9999.
const SECONDS_MAX: i64 = 253_402_300_799;
const MILLIS_MAX: i64 = 253_402_300_799_999;
const COUNT_MAX: i64 = u32::MAX as i64;

/// One parameter.
pub(super) fn parameter(place: &str, name: &str, description: &str, schema: Value) -> Value {
    let mut parameter = json!({ "in": place, "name": name, "description": description });
    parameter["required"] = (place == "path").into();
    parameter["schema"] = schema;
    parameter
}

/// One parameter of the query, which may be left out.
pub(super) fn query(name: &str, description: &str, schema: Value) -> Value {
    parameter("query", name, description, schema)
}

/// Whose keys are meant.
pub(super) fn owner() -> Value {
    query("tenant_id", "a tenant; the service without it", id(limits::CUSTOMER_ID_CHARS))
}

/// Which block is to end.
pub(super) fn blocked_source() -> Value {
    let mut source = parameter("query", "source", SOURCE, source_text());
    source["required"] = true.into();
    source
}

/// What `POST /marketplace` reads of the headers: under which key it decides once, however often
/// the request comes, and who sends it.
pub(super) fn marketplace_headers() -> [Value; 3] {
    let header = |name, description, schema| parameter("header", name, description, schema);
    [
        header(
            "Idempotency-Key",
            "same key and same body: the receipt of the first time; same key and another body: 422",
            matching(KEY),
        ),
        header(
            "X-Request-ID",
            "the same, where there is no Idempotency-Key; sent back with the answer",
            matching(KEY),
        ),
        header(
            "X-Signature",
            "HMAC-SHA-256 of the body in hex, where entitlement events have to be signed",
            matching("^(sha256=)?[0-9A-Fa-f]{64}$"),
        ),
    ]
}

/// How a request says which trace it belongs to. What is of another form is passed over and never
/// refused, so that any value is a valid one.
pub(super) fn trace_headers() -> [Value; 2] {
    let header = |name, description| parameter("header", name, description, json!({}));
    [
        header(
            "traceparent",
            "W3C Trace Context: the trace that the request belongs to, and whether its spans are kept",
        ),
        header(
            "X-Trace-Id",
            "what lines of the log carry as traceId; with 32 hex digits, such as a UUID, the trace itself",
        ),
    ]
}

/// The filters of a search over receipts.
pub(super) fn search() -> Vec<Value> {
    let word = |name| query(name, "equal to the field of the receipt", text());
    let instant = json!({ "type": "integer", "format": "int64" });
    vec![
        query("tenant_id", "receipts of this tenant; not beside stream", matching(STREAM)),
        query("stream", "receipts of this stream; not beside tenant_id", matching(STREAM)),
        query("type", "the kind of receipt", words(Kind::ALL.map(Kind::as_str))),
        word("action"),
        word("reason"),
        word("entitlement_id"),
        word("state_from"),
        word("state_to"),
        query("since", "unix seconds, included", instant.clone()),
        query("until", "unix seconds, included", instant),
        query("limit", "receipts on the page", defaulting(integer(1, 100), 100)),
        query("cursor", "where a page before ended: its next", matching(CURSOR)),
    ]
}

/// A body of this schema, with examples. Some requests do without one.
pub(super) fn body(name: &str, is_required: bool, examples: &[(&str, Value)]) -> Value {
    let JsonLimits { max_depth, max_nodes } = JsonLimits::default();
    let description = format!(
        "One JSON object in UTF-8: at most {max_depth} levels and {max_nodes} values and names, no \
         name twice in an object, no control characters in strings, no integer written with a \
         fraction or an exponent. Unknown members are ignored, and null counts as absent."
    );
    let examples: Map<String, Value> =
        examples.iter().map(|(name, value)| ((*name).into(), json!({ "value": value }))).collect();
    let mut media = json!({ "schema": schema(name) });
    if !examples.is_empty() {
        media["examples"] = examples.into();
    }
    json!({
        "description": description,
        "required": is_required,
        "content": { "application/json": media },
    })
}

/// Examples of `POST /marketplace`.
pub(super) fn marketplace_examples() -> [(&'static str, Value); 3] {
    [
        (
            "grant",
            json!({
                "tenant_id": "tenant-123",
                "entitlement_id": "professional",
                "action": "grant",
                "metadata": { "plan": "professional", "order_id": 42 },
            }),
        ),
        (
            "suspend",
            json!({
                "tenant_id": "tenant-123",
                "entitlement_id": "professional",
                "action": "suspend",
            }),
        ),
        ("price", json!({ "customer_id": "tenant-123" })),
    ]
}

/// Examples of `POST /pubsub`: `data` is the base64 of a JSON text.
pub(super) fn push_examples() -> [(&'static str, Value); 3] {
    let push = |id: &str, data: &str| json!({ "message": { "messageId": id, "data": data } });
    [
        // {"tenant_id":"tenant-123","metric":"cpu_percent","value":97.5,"timestamp_ms":1704067200000}
        (
            "measurement",
            push(
                "1",
                "eyJ0ZW5hbnRfaWQiOiJ0ZW5hbnQtMTIzIiwibWV0cmljIjoiY3B1X3BlcmNlbnQiLCJ2YWx1ZSI6OTcuNSw\
                 idGltZXN0YW1wX21zIjoxNzA0MDY3MjAwMDAwfQ==",
            ),
        ),
        // {"tenant_id":"tenant-123","event":"autonomic_signal","signal_type":"quota_approaching"}
        (
            "autonomic",
            push(
                "2",
                "eyJ0ZW5hbnRfaWQiOiJ0ZW5hbnQtMTIzIiwiZXZlbnQiOiJhdXRvbm9taWNfc2lnbmFsIiwic2lnbmFsX3R5\
                 cGUiOiJxdW90YV9hcHByb2FjaGluZyJ9",
            ),
        ),
        // {"signal":"test"}
        ("test", push("3", "eyJzaWduYWwiOiJ0ZXN0In0=")),
    ]
}

/// The schemas of all bodies, by name.
pub(super) fn schemas() -> [(&'static str, Value); 15] {
    [
        (READABLE, readable()),
        ("MarketplaceCall", marketplace_call()),
        ("EntitlementEvent", entitlement_event()),
        ("CustomerCall", customer_call()),
        ("Push", push()),
        ("Signal", signal()),
        ("Measurement", measurement()),
        ("AutonomicSignal", autonomic()),
        ("UntenantedSignal", untenanted()),
        ("SettingOrder", setting()),
        ("SourceOrder", source()),
        ("TenantOrder", sent([must("tenant_id", id(limits::CUSTOMER_ID_CHARS))])),
        ("KeyOrder", key()),
        ("RotateOrder", rotate()),
        ("ReplayOrder", replay()),
    ]
}

fn marketplace_call() -> Value {
    json!({ "oneOf": [schema("EntitlementEvent"), schema("CustomerCall")] })
}

pub(super) fn instant() -> Value {
    let description = "ISO 8601 with an offset, or unix seconds; the years 1970 to 9999";
    let iso = json!({ "type": "string", "format": "date-time", "maxLength": 35 });
    described(json!({ "anyOf": [iso, integer(0, SECONDS_MAX)] }), description)
}

fn entitlement_event() -> Value {
    let after = "later than effective_at; a grant may have it";
    sent([
        must("tenant_id", id(limits::TENANT_ID_CHARS)),
        must("entitlement_id", id(limits::ENTITLEMENT_ID_CHARS)),
        must("action", words(Action::ALL.map(Action::as_str))),
        may("effective_at", instant()),
        may("expires_at", described(instant(), after)),
        may("signature", text()),
        may("metadata", metadata()),
        may("customer_id", nothing()),
    ])
}

fn metadata() -> Value {
    let whole = json!({ "type": "integer", "minimum": i64::MIN, "maximum": u64::MAX });
    let value =
        json!({ "anyOf": [line(0, limits::METADATA_VALUE_CHARS), whole, flag(), nothing()] });
    let plan = described(matching(WORD), "a plan of the catalogue");
    json!({
        "type": "object",
        "description": "kept with the receipt; nulls are left out and do not count",
        "maxProperties": limits::METADATA_ENTRIES,
        "propertyNames": matching(WORD),
        "properties": { "plan": or_null(plan) },
        "additionalProperties": value,
    })
}

fn customer_call() -> Value {
    sent([
        must("customer_id", id(limits::CUSTOMER_ID_CHARS)),
        may("stripe_token", described(matching("^[!-~]{1,255}$"), "asks for a charge")),
        may("tenant_id", nothing()),
        may("entitlement_id", nothing()),
        may("action", nothing()),
    ])
}

fn push() -> Value {
    let data = json!({
        "type": "string",
        "description": "base64 of the signal: standard or URL-safe, padded or not",
        "pattern": "^([A-Za-z0-9+/]+|[A-Za-z0-9_-]+)={0,2}$",
        "contentEncoding": "base64",
        "contentMediaType": "application/json",
        "contentSchema": schema("Signal"),
    });
    let mut message = sent([
        may("messageId", described(matching(KEY), "the idempotency key")),
        may("message_id", described(matching(KEY), "the same as messageId")),
        must("data", data),
    ]);
    let named = |name: &str| json!({ "required": [name], "properties": { name: text() } });
    message["anyOf"] = json!([named("messageId"), named("message_id")]);
    sent([
        must("message", message),
        may("deliveryAttempt", integer(0, COUNT_MAX)),
        may("subscription", matching("^[ -~]{1,512}$")),
    ])
}

fn signal() -> Value {
    let shapes = ["EntitlementEvent", "AutonomicSignal", "Measurement", "UntenantedSignal"];
    described(
        json!({ "anyOf": shapes.map(schema) }),
        "the first of these shapes that has one of its own members: action or entitlement_id, event \
         or signal_type, metric or value",
    )
}

fn millis() -> Value {
    described(integer(0, MILLIS_MAX), "unix milliseconds; the years 1970 to 9999")
}

fn measurement() -> Value {
    let value = json!({ "type": "number", "minimum": 0, "maximum": 1_000_000_000 });
    sent([
        must("tenant_id", id(limits::TENANT_ID_CHARS)),
        must("metric", matching(WORD)),
        must("value", described(value, "rounded to thousandths")),
        must("timestamp_ms", millis()),
    ])
}

fn autonomic() -> Value {
    sent([
        must("tenant_id", id(limits::TENANT_ID_CHARS)),
        must("event", words(["autonomic_signal"])),
        must("signal_type", words(SignalType::ALL.map(SignalType::as_str))),
        may("severity", words(Severity::ALL.map(Severity::as_str))),
        may("timestamp_ms", millis()),
        may("timestamp", instant()),
    ])
}

fn untenanted() -> Value {
    sent([
        may("tenant_id", nothing()),
        must("signal", matching("^[ -~]{1,64}$")),
        may("timestamp", instant()),
    ])
}

fn setting() -> Value {
    let description = "as in the environment; numbers and flags may be given as such";
    let value = json!({ "anyOf": [line(1, 256), { "type": "number" }, flag()] });
    sent([must("value", described(value, description)), may("lease_s", lease())])
}

fn lease() -> Value {
    described(integer(1, limits::LEASE_S_MAX), "seconds after which the change undoes itself")
}

fn source_text() -> Value {
    let octet = "([0-9]|[1-9][0-9]|1[0-9]{2}|2[0-4][0-9]|25[0-5])";
    let prefix = "([1-9]|[12][0-9]|3[0-2])";
    let v4 = matching(&format!(r"^{octet}(\.{octet}){{3}}(/{prefix})?$"));
    let v6 = json!({ "type": "string", "format": "ipv6" });
    // As close as an expression comes that can still be read.
    let v6_net =
        matching("^[0-9A-Fa-f]*:[0-9A-Fa-f:.]{1,44}/([1-9]|[1-9][0-9]|1[01][0-9]|12[0-8])$");
    json!({ "anyOf": [v4, v6, v6_net] })
}

fn source() -> Value {
    sent([must("source", described(source_text(), SOURCE)), must("lease_s", lease())])
}

fn key() -> Value {
    let mut scopes = list(words(Scope::ALL.iter().map(|scope| scope.as_str())));
    scopes["minItems"] = 1.into();
    sent([
        may("tenant_id", described(id(limits::CUSTOMER_ID_CHARS), "the service without it")),
        may("scopes", described(scopes, "what its owner usually may, without them")),
        may("label", described(line(0, limits::KEY_LABEL_CHARS), "no credential")),
        may("expires_in_s", described(integer(1, COUNT_MAX), "never without it")),
    ])
}

fn rotate() -> Value {
    let overlap = defaulting(integer(0, limits::LEASE_S_MAX), 86_400);
    sent([
        may("tenant_id", described(id(limits::CUSTOMER_ID_CHARS), "the service without it")),
        may("overlap_s", described(overlap, "seconds that both keys are valid")),
    ])
}

fn replay() -> Value {
    let limit = defaulting(integer(1, 10_000), 100);
    sent([may("limit", described(limit, "dead letters that are taken at most"))])
}
