//! The queries of the runbooks at Google's logging, on the log as it is.
//!
//! Owns: each filter of seeds 000 to 002 as a condition on an entry, and the runbook's own `jq`
//! behind it, word for word. Refuses to know: how entries get there. Its agent takes a line apart
//! as <https://cloud.google.com/logging/docs/structured-logging> says: `severity`, `timestamp` and
//! `httpRequest` are the entry's, the rest is `jsonPayload`; a filter on the text looks at the
//! message. Seed 002:1218 looks for duplicates by counting lines, of which several may be about one
//! receipt: that is asked of the ledger.

use super::Room;

/// A line of the log as an entry.
const ENTRY: &str = "{severity, timestamp, httpRequest, message, textPayload: .message, \
                     jsonPayload: del(.severity, .timestamp, .httpRequest)}";

/// A query: where it stands, the filter, what the runbook does with what was found, and what that
/// says.
type Query = (&'static str, &'static str, &'static str, &'static [&'static str]);

const ERROR: &str = r#".severity == "ERROR""#;
const ANY: &str = "true";

const QUERIES: [Query; 23] = [
    ("000:295", ERROR, r#"jq '.[] | select(.severity=="ERROR")'"#, &["Hash verification failed"]),
    ("000:451", ANY, "jq .", &["request_completed"]),
    ("000:455", ERROR, "jq .", &["Hash verification failed"]),
    (
        "001:312",
        ERROR,
        "jq -r '.[] | [.jsonPayload.error_code, .textPayload] | @tsv'",
        &["hash_verification_failed\tHash verification failed"],
    ),
    ("001:325", r#".jsonPayload.reason // "" | test("invalid.*")"#, "jq .", &["invalid_tenant_id"]),
    ("001:334", r#".jsonPayload.type == "refusal""#, "jq .", &["entitlement_already_active"]),
    ("001:343", r#".jsonPayload.reason == "firestore_error""#, "jq .", &["\"status\": 503"]),
    ("001:352", ".httpRequest.status == 504", "jq .", &["\"reason\": \"timeout\""]),
    ("001:423", "(.jsonPayload.duration_ms // 0) > 1000", "jq .", &["/marketplace"]),
    ("002:102", r#".jsonPayload.level == "ERROR""#, "jq .", &["Hash verification failed"]),
    ("002:295", ERROR, r#"grep -o "GET /receipts/{id}\|POST /pubsub""#, &["GET /receipts/{id}"]),
    ("002:300", ERROR, "jq '.[] | .jsonPayload.error_message'", &["Hash verification failed"]),
    (
        "002:315",
        ERROR,
        "jq '.[] | .jsonPayload.path' | sort | uniq -c | sort -rn",
        &["/receipts/{id}"],
    ),
    (
        "002:323",
        ERROR,
        "jq '.[] | .jsonPayload.error_code' | sort | uniq -c | sort -rn",
        &["hash_verification_failed"],
    ),
    ("002:357", ANY, "jq '.[] | .jsonPayload.memory_used_mb' | grep -v null", &["."]),
    ("002:454", ANY, "jq '.[] | select(.jsonPayload.duration_ms > 1000)'", &["/marketplace"]),
    (
        "002:778",
        "(.httpRequest.status // 0) >= 500",
        "jq -c '.[] | { path: .httpRequest.requestUrl, method: .httpRequest.requestMethod, \
         status: .httpRequest.status, customer_id: .jsonPayload.customer_id, \
         error: .jsonPayload.error_message }'",
        &[
            r#"{"path":"/marketplace","method":"POST","status":504,"#,
            r#""error":"no durable answer before the deadline"#,
        ],
    ),
    (
        "002:815",
        ERROR,
        "jq '.[] | .jsonPayload.error_trace'",
        &["::reads: Hash verification failed"],
    ),
    ("002:931", r#".textPayload | test("Received.*signal")"#, "jq .", &["Received test signal"]),
    ("002:939", ANY, "jq '.[] | select(.jsonPayload.message_processing_ms > 100)'", &["slow"]),
    ("002:1039", ANY, "jq '.[] | select(.jsonPayload.ets_size_mb)'", &["memory_usage"]),
    (
        "002:1101",
        ".httpRequest.status == 200",
        "jq '.[] | .httpRequest.userAgent' | sort | uniq -c | sort -rn | head -20",
        &["curl/"],
    ),
    (
        "002:1143",
        ".httpRequest.status == 429",
        "jq '.[] | .httpRequest.clientIp' | sort | uniq -c | sort -rn",
        &["127.0.0.1"],
    ),
];

/// Every query finds what it is for in the log of a room in which things went wrong.
pub(super) fn assert_found(room: &Room) {
    room.type_one(r#"curl -s "$SERVICE_URL/health" > /dev/null"#);
    for (place, filter, then, expected) in QUERIES {
        let query = format!("jq -c '{ENTRY} | select({filter})' \"$LOG_FILE\" | jq -s . | {then}");
        let (_, said) = room.typed(&query, None);
        for text in expected {
            assert!(said.contains(text), "{place}: no {text} in\n{query}\n{said}");
        }
    }
}
