//! Spans in the JSON of OTLP, the OpenTelemetry Protocol.
//!
//! Owns: the members of a span, of what is around the spans of one request to a collector, and of
//! its answer, as <https://opentelemetry.io/docs/specs/otlp/#json-protobuf-encoding> has them.
//! Refuses to know: what a span is about, and how it is sent.
//!
//! Ids are in hexadecimal and not in base64, names of members in lower camel case, whole numbers of
//! 64 bits in quotes, and members of enumerations by number.

use std::fmt::Write as _;
use std::time::Duration;

use serde_json::Value as Json;

use super::span::{Kind, Open, Value};
use super::{Text, hex};
use crate::log::push_json;

/// Says that the trace is sampled, and that the next bit is about the parent.
const FLAGS: u16 = 0x101;
/// Says that the parent is in another process.
const REMOTE: u16 = 0x200;
/// The status of a span that came to nothing.
const STATUS_ERROR: u8 = 2;

/// What stands before the spans of one request and what stands behind them. `instance` names this
/// life of the process.
#[must_use]
pub fn envelope(service: &str, version: &str, instance: &str) -> (String, &'static str) {
    let mut resource = String::new();
    let facts = [
        ("service.name", service),
        ("service.version", version),
        ("service.instance.id", instance),
    ];
    for (name, value) in facts {
        attribute(&mut resource, name, Value::Text(value));
    }
    let mut before = String::from("{\"resourceSpans\":[{\"resource\":{\"attributes\":[");
    before.push_str(&resource);
    before.push_str("]},\"scopeSpans\":[{\"scope\":{\"name\":\"tai\",\"version\":");
    push_json(&mut before, &Json::from(version));
    before.push_str("},\"spans\":[");
    (before, "]}]}]}")
}

/// Spans that a collector says it did not keep, though it took the request.
#[must_use]
pub fn refused(answer: &[u8]) -> u64 {
    let answer: Json = serde_json::from_slice(answer).unwrap_or_default();
    let count = &answer["partialSuccess"]["rejectedSpans"];
    let quoted = || count.as_str()?.parse().ok();
    count.as_u64().or_else(quoted).unwrap_or(0)
}

/// Puts an attribute behind others.
pub(super) fn attribute(out: &mut String, name: &str, value: Value<'_>) {
    if !out.is_empty() {
        out.push(',');
    }
    out.push_str("{\"key\":");
    push_json(out, &Json::from(name));
    out.push_str(",\"value\":{");
    // Writing to a string cannot fail.
    let _infallible = match value {
        Value::Text(text) => write!(out, "\"stringValue\":{}", Json::from(text)),
        Value::Number(number) => write!(out, "\"intValue\":\"{number}\""),
        Value::Flag(flag) => write!(out, "\"boolValue\":{flag}"),
    };
    out.push_str("}}");
}

/// A span that has ended.
pub(super) fn span(open: &Open, took: Duration, has_failed: bool) -> String {
    let mut out = String::with_capacity(512 + open.attributes.len());
    out.push('{');
    let mut id = |name: &str, id: Text| {
        let _infallible = write!(out, "\"{name}\":\"{}\",", id.as_str());
    };
    id("traceId", hex(open.context.trace, 32));
    id("spanId", open.context.span_id());
    if let Some(parent) = open.parent {
        id("parentSpanId", hex(parent.into(), 16));
    }
    let flags = if open.is_parent_remote { FLAGS | REMOTE } else { FLAGS };
    let kind = match open.kind {
        Kind::Internal => 1,
        Kind::Server => 2,
        Kind::Client => 3,
    };
    let began = u128::try_from(open.began.0).unwrap_or(0) * 1000;
    let ended = began + took.as_nanos();
    let _infallible = write!(
        out,
        "\"flags\":{flags},\"name\":{},\"kind\":{kind},\"startTimeUnixNano\":\"{began}\",\
         \"endTimeUnixNano\":\"{ended}\",\"attributes\":[{}],\"status\":{{",
        Json::from(open.name.as_str()),
        open.attributes,
    );
    if has_failed {
        let _infallible = write!(out, "\"code\":{STATUS_ERROR}");
    }
    out.push_str("}}");
    out
}
