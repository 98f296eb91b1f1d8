//! What a line says once more, under the names that Google's logging and the runbooks query.
//!
//! Owns: those names, and which of our own they stand for. Refuses to know: how a value came about;
//! all of them were redacted before.
//!
//! `httpRequest` is the one of <https://cloud.google.com/logging/docs/structured-logging>, with
//! `clientIp` of seed 002 beside `remoteIp`. `customer_id` of seed 002 is our tenant.

use std::fmt::Write as _;

use serde_json::Value;

use super::line::{Members, push_json};
use crate::trace::Context;

/// A member of the line that stands in `httpRequest` and nowhere else.
pub(super) const USER_AGENT: &str = "user_agent";

/// Whether the line is about a request that was answered.
pub(super) fn is_request(members: &Members) -> bool {
    ["method", "path", "status"].iter().all(|name| members.contains(name))
}

/// A request that was answered.
pub(super) fn request(text: &mut String, members: &Members) {
    text.push_str(",\"httpRequest\":{");
    let from = text.len();
    for (name, own) in [
        ("requestMethod", "method"),
        ("requestUrl", "path"),
        ("status", "status"),
        ("userAgent", USER_AGENT),
        ("remoteIp", "client_ip"),
        ("clientIp", "client_ip"),
    ] {
        if let Some(value) = members.get(own) {
            let comma = if text.len() == from { "" } else { "," };
            for part in [comma, "\"", name, "\":"] {
                text.push_str(part);
            }
            push_json(text, value);
        }
    }
    if let Some(took) = members.get("duration_ms").and_then(Value::as_f64) {
        let _infallible = write!(text, ",\"latency\":\"{:.6}s\"", took / 1e3);
    }
    text.push('}');
    if let Some(tenant) = members.get("tenant_id")
        && !members.contains("customer_id")
    {
        text.push_str(",\"customer_id\":");
        push_json(text, tenant);
    }
}

/// What a line of level ERROR is about.
#[derive(Debug)]
pub(super) struct Failure {
    /// Where in the program it was logged.
    pub(super) logger: String,
    /// What it is counted by.
    pub(super) code: Value,
    /// What it says.
    pub(super) message: String,
}

/// An error: what it is counted by, its text, where it comes from with its causes, and the request
/// during which it happened.
pub(super) fn failure(
    text: &mut String,
    members: &Members,
    failure: &Failure,
    context: Option<&Context>,
) {
    let mut say = |name: &str, value: &Value| {
        if !members.contains(name) {
            let _infallible = write!(text, ",\"{name}\":");
            push_json(text, value);
        }
    };
    let Failure { logger, code, message } = failure;
    let cause = members.get("error").and_then(|error| error.get("message"));
    let cause = cause.and_then(Value::as_str);
    say("error_code", code);
    say("error_message", &Value::from(cause.unwrap_or(message)));
    let trace = [Some(logger.as_str()), Some(message), cause];
    let trace: Vec<&str> = trace.into_iter().flatten().collect();
    say("error_trace", &Value::from(trace.join(": ")));
    if let Some((method, path)) = context.and_then(Context::asked) {
        say("path", &Value::from(path));
        say("request", &Value::from([method, " ", path].concat()));
    }
}
