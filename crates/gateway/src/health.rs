//! `/health` and its aliases, `/metrics`.
//!
//! Owns: the words green, yellow and red. Reads only memory, so that it answers while everything
//! else is busy.

use axum::body::Body;
use axum::response::Response;
use http::header::CONTENT_TYPE;
use http::{HeaderValue, StatusCode};
use serde_json::{Value, json};

use crate::Gateway;
use crate::answer::json_response;

/// What a probe asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Probe {
    /// Everything: the seeds' probe for all purposes.
    Health,
    /// Is the process alive? It is, if it answers.
    Live,
    /// May it be sent traffic?
    Ready,
}

/// Answers a probe: 200 while the service serves, 503 with a reason when it does not.
pub(crate) fn probe(gateway: &Gateway, probe: Probe) -> Response {
    let timestamp = gateway.engine.clock().now().secs();
    let down = gateway.engine.supervisor().first_not_running();
    let draining = gateway.engine.is_draining();
    if let Some(name) = down.filter(|_| probe != Probe::Live) {
        return unavailable(timestamp, &format!("supervisor {name} not running"));
    }
    if draining && probe == Probe::Ready {
        return unavailable(timestamp, "the service is shutting down");
    }
    let relaxed = &gateway.options.relaxed;
    let tampered = gateway.engine.is_tampered();
    let (status, health) = match (tampered, relaxed.is_empty()) {
        (true, _) => ("degraded", "red"),
        (false, false) => ("degraded", "yellow"),
        (false, true) => ("ok", "green"),
    };
    let store = gateway.engine.store();
    // `firestore` and `pubsub` are the seeds' names for the receipt store, whichever backend it
    // is, and for the intake of signals.
    let body = json!({
        "status": status,
        "health": health,
        "timestamp": timestamp,
        "version": env!("CARGO_PKG_VERSION"),
        "db": "connected",
        "pubsub": "connected",
        "backend": store.backend(),
        "durability": store.durability().as_str(),
        "relaxed": relaxed,
        "tampered": tampered,
        "dependencies": dependencies("ok"),
    });
    json_response(StatusCode::OK, &body)
}

fn unavailable(timestamp: i64, reason: &str) -> Response {
    let body = json!({
        "status": "unavailable",
        "health": "red",
        "timestamp": timestamp,
        "reason": reason,
        "dependencies": dependencies("error"),
    });
    json_response(StatusCode::SERVICE_UNAVAILABLE, &body)
}

fn dependencies(supervisors: &str) -> Value {
    json!({ "supervisors": supervisors, "firestore": "ok", "pubsub": "ok" })
}

/// The Prometheus scrape.
pub(crate) fn metrics(gateway: &Gateway) -> Response {
    if let Some(bytes) = telemetry::process::resident_bytes() {
        let gauge = &gateway.metrics.process_resident_memory_bytes;
        gauge.set(i64::try_from(bytes).unwrap_or(i64::MAX));
    }
    if let Some(fds) = telemetry::process::open_fds() {
        gateway.metrics.process_open_fds.set(i64::try_from(fds).unwrap_or(i64::MAX));
    }
    let mut response = Response::new(Body::from(gateway.metrics.render()));
    let kind = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");
    response.headers_mut().insert(CONTENT_TYPE, kind);
    response
}
