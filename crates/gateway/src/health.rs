//! `/health` and its aliases, `/metrics`.
//!
//! Owns: the words green, yellow and red. Reads only memory, so that it answers while everything
//! else is busy.

use axum::body::Body;
use axum::response::Response;
use http::header::CONTENT_TYPE;
use http::{HeaderValue, StatusCode};
use serde_json::{Value, json};

use crate::answer::json_response;
use crate::process::PullState;
use crate::{Gateway, Options};

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
pub(crate) fn probe(gateway: &Gateway, options: &Options, probe: Probe) -> Response {
    let timestamp = gateway.engine.clock().now().secs();
    let down = gateway.engine.supervisor().first_not_running();
    let draining = gateway.engine.is_draining();
    let tampered = gateway.engine.is_tampered();
    let relaxed = &options.relaxed;
    let pull = gateway.process.pull().map_or(Pulled::NONE, |pull| Pulled::of(pull.state()));
    let words =
        Words::of(gateway.engine.store_answers(), tampered, relaxed.is_empty() && pull.is_ok);
    if let Some(name) = down.filter(|_| probe != Probe::Live) {
        return unavailable(timestamp, words, pull, &format!("supervisor {name} not running"));
    }
    if draining && probe == Probe::Ready {
        return unavailable(timestamp, words, pull, "the service is shutting down");
    }
    let store = gateway.engine.store();
    // `firestore` and `pubsub` are the seeds' names for the receipt store, whichever backend it
    // is, and for the intake of signals.
    let body = json!({
        "status": words.status,
        "health": words.health,
        "timestamp": timestamp,
        "started_at": gateway.started.secs(),
        "instance": gateway.instance,
        "version": env!("CARGO_PKG_VERSION"),
        "db": words.db,
        "pubsub": pull.word,
        "backend": store.backend(),
        "durability": store.durability().as_str(),
        "relaxed": relaxed,
        "tampered": tampered,
        "dependencies": dependencies("ok", words, pull),
    });
    json_response(StatusCode::OK, &body)
}

/// How a service that serves is spoken of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Words {
    status: &'static str,
    health: &'static str,
    db: &'static str,
    firestore: &'static str,
}

impl Words {
    /// `answers`: the store did, when last asked. `tampered`: it answered with something altered.
    /// `strict`: no setting gives up a guarantee.
    fn of(answers: bool, tampered: bool, strict: bool) -> Words {
        let (status, health) = match (answers && !tampered, strict) {
            (false, _) => ("degraded", "red"),
            (true, false) => ("degraded", "yellow"),
            (true, true) => ("ok", "green"),
        };
        let (db, firestore) = if answers { ("connected", "ok") } else { ("disconnected", "error") };
        Words { status, health, db, firestore }
    }
}

/// How the intake of signals is spoken of. Where nothing is pulled, pushes are all there is, and
/// those come in as long as the door is open.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Pulled {
    word: &'static str,
    is_ok: bool,
}

impl Pulled {
    const NONE: Pulled = Pulled { word: "connected", is_ok: true };

    fn of(state: PullState) -> Pulled {
        let (word, is_ok) = match state {
            PullState::Active => ("connected", true),
            PullState::Paused => ("paused", false),
            PullState::Connecting => ("connecting", true),
            PullState::Disconnected => ("disconnected", false),
        };
        Pulled { word, is_ok }
    }
}

fn unavailable(timestamp: i64, words: Words, pull: Pulled, reason: &str) -> Response {
    let body = json!({
        "status": "unavailable",
        "health": "red",
        "timestamp": timestamp,
        "reason": reason,
        "dependencies": dependencies("error", words, pull),
    });
    json_response(StatusCode::SERVICE_UNAVAILABLE, &body)
}

fn dependencies(supervisors: &str, words: Words, pull: Pulled) -> Value {
    let pubsub = if pull.is_ok { "ok" } else { "error" };
    json!({ "supervisors": supervisors, "firestore": words.firestore, "pubsub": pubsub })
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_words_follow_the_store_before_the_settings() {
        let up = ("connected", "ok");
        let gone = ("disconnected", "error");
        for (answers, tampered, strict, status, health, (db, firestore)) in [
            (true, false, true, "ok", "green", up),
            (true, false, false, "degraded", "yellow", up),
            (true, true, true, "degraded", "red", up),
            (true, true, false, "degraded", "red", up),
            (false, false, true, "degraded", "red", gone),
            (false, false, false, "degraded", "red", gone),
            (false, true, true, "degraded", "red", gone),
        ] {
            let words = Words::of(answers, tampered, strict);
            assert_eq!(words, Words { status, health, db, firestore });
            let shown = json!({"supervisors": "ok", "firestore": firestore, "pubsub": "ok"});
            assert_eq!(dependencies("ok", words, Pulled::NONE), shown);
        }
    }
}
